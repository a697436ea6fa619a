/** How much memory workers may hold on each device: a safe share, or what the user says. Pure. */
import { AppError } from "../errors.ts";
import { type Demand, type DeviceId, sumDemands } from "./demand.ts";
import type { Device } from "./hardware/devices.ts";

/** Bytes, or a share (0 to 1) of what the device has. */
export type BudgetAmount = { readonly bytes: number } | { readonly share: number };

export interface BudgetRule {
  /** For devices that are not named; undefined: a safe share. */
  readonly each: BudgetAmount | undefined;
  /** By device (`cuda:0`) or kind (`ram`, `cuda`); a device wins over its kind. */
  readonly named: Readonly<Record<string, BudgetAmount>>;
}

/** What nobody set: a safe share of each device. */
export const SAFE_SHARE: BudgetRule = { each: undefined, named: {} };

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** Of main memory, for the system and other programs: the larger of both, but never more than half. */
const RAM_RESERVE_BYTES = 2 * GIB;
const RAM_RESERVE_SHARE = 0.15;
const MAX_RESERVE_SHARE = 0.5;

/** Of a GPU, for its driver, the screen and what an engine's libraries take that no estimate knows. */
const GPU_SHARE = 0.9;
const GPU_RESERVE_BYTES = 512 * MIB;

/** No model fits into less: it is a unit that was forgotten. */
const SMALLEST_BUDGET_BYTES = MIB;
/** Room for every GPU of a large server by name. */
const MAX_TEXT_CHARS = 2000;

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  K: 1e3,
  KB: 1e3,
  KIB: KIB,
  M: 1e6,
  MB: 1e6,
  MIB: MIB,
  G: 1e9,
  GB: 1e9,
  GIB: GIB,
  T: 1e12,
  TB: 1e12,
  TIB: 1024 * GIB,
};

const EXAMPLES = "Write a size, a share or one by device: `8GB`, `60%`, `ram=8GB,cuda:0=90%`.";

/**
 * `8GB`, `512MiB`, `60%`: of each device; `ram=8GB,cuda:0=90%,cuda=0`: of those devices, the rest gets a safe share.
 * Empty or `auto`: a safe share of all.
 *
 * @throws usage, naming the part that is wrong
 */
export function parseBudget(text: string): BudgetRule {
  const trimmed = text.trim();
  if (trimmed === "" || /^auto$/i.test(trimmed)) return SAFE_SHARE;
  if (trimmed.length > MAX_TEXT_CHARS) {
    throw refuse(trimmed, `it is longer than ${MAX_TEXT_CHARS} characters`);
  }
  if (!trimmed.includes("="))
    return { each: parseAmount(trimmed, { mayBeNothing: false }), named: {} };
  const named: Record<string, BudgetAmount> = {};
  for (const part of trimmed.split(",")) {
    const [device, amount] = parsePart(part.trim());
    if (Object.hasOwn(named, device)) throw refuse(part, `\`${device}\` is there twice`);
    named[device] = amount;
  }
  return { each: undefined, named };
}

/**
 * What workers may hold on each device.
 *
 * What the user named holds whatever other programs do, up to what the device has. A safe share also leaves alone what
 * others hold now, so it changes with them.
 *
 * @param held what workers hold now (`heldNow`): it is not free, and nobody else's. What a worker is yet to take must not
 *        be in it, for that is still free
 */
export function toBudget(devices: readonly Device[], rule: BudgetRule, held: Demand): Demand {
  return budgetOf(devices, rule, ({ id, freeBytes }, reserveBytes) =>
    freeBytes === null ? Infinity : freeBytes + (held[id] ?? 0) - reserveBytes,
  );
}

/** A worker as the supervisor lists it. */
export interface Holder {
  readonly state: "starting" | "ready" | "asleep" | "draining";
  /** What it is expected to hold. */
  readonly demand: Demand;
  /** What it was measured to hold; null where nobody measures. */
  readonly measured: Demand | null;
}

/**
 * What workers hold now, for `toBudget`: as measured, else as expected once they are loaded. While one loads, what nobody
 * measures counts as nothing: a budget that is too small for a moment does no harm, one that is too large does.
 */
export function heldNow(workers: Iterable<Holder>): Demand {
  return sumDemands(
    [...workers].map(({ state, demand, measured }) => ({
      ...(state === "starting" ? {} : demand),
      ...measured,
    })),
  );
}

/** As `toBudget`, if no other program held anything: it depends on the machine and the settings only. */
export function toWholeBudget(devices: readonly Device[], rule: BudgetRule): Demand {
  return budgetOf(devices, rule, () => Infinity);
}

/** What of a rule cannot hold on these devices, each in a sentence without its full stop; empty if all of it can. */
export function findBudgetWarnings(
  devices: readonly Device[],
  rule: BudgetRule,
): readonly string[] {
  const warnings = Object.keys(rule.named)
    .filter((name) => !devices.some((device) => namesOf(device).includes(name)))
    .map(
      (name) =>
        `the memory budget names \`${name}\`, which this machine or its engine does not have`,
    );
  for (const device of devices) {
    const amount = findAmount(device, rule);
    if (amount === undefined) continue;
    const wanted = toBytes(amount, device);
    const most = device.gpuLimitBytes ?? device.totalBytes;
    if (wanted <= most) continue;
    const has = wanted > device.totalBytes ? "which has" : "of which its GPU may use";
    const figure = formatSize(wanted > device.totalBytes ? device.totalBytes : most);
    warnings.push(
      `the memory budget is ${formatSize(wanted)} of ${nameOf(device.id)}, ${has} ${figure}`,
    );
  }
  return warnings;
}

/** For messages: `20.4GB of memory and 11.2GB of cuda:0`. */
export function describeBudget(budget: Demand): string {
  const parts = Object.entries(budget).map(
    ([id, bytes]) => `${formatSize(bytes)} of ${nameOf(id)}`,
  );
  if (parts.length === 0) return "nothing";
  if (parts.length === 1) return parts.join();
  return `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}

// --- internal ---

function budgetOf(
  devices: readonly Device[],
  rule: BudgetRule,
  leftByOthers: (device: Device, reserveBytes: number) => number,
): Demand {
  const budget: Record<DeviceId, number> = {};
  for (const device of devices) {
    const amount = findAmount(device, rule);
    const bytes =
      amount === undefined
        ? Math.min(safeShare(device), leftByOthers(device, reserveOf(device)))
        : Math.min(device.totalBytes, toBytes(amount, device));
    budget[device.id] = Math.max(0, Math.floor(bytes));
  }
  return budget;
}

function findAmount(device: Device, { each, named }: BudgetRule): BudgetAmount | undefined {
  const name = namesOf(device).find((one) => Object.hasOwn(named, one));
  return name === undefined ? each : named[name];
}

/** What a rule may call it, the narrowest first: one that several kinds of builds use has several names. */
function namesOf({ id, alias = id, kind }: Device): readonly string[] {
  return [id, alias, kind, kindOf(id), kindOf(alias)];
}

function kindOf(id: DeviceId): string {
  return id.replace(/:.*/, "");
}

function toBytes(amount: BudgetAmount, { totalBytes }: Device): number {
  return "bytes" in amount ? amount.bytes : Math.floor(amount.share * totalBytes);
}

function reserveOf({ kind, totalBytes }: Device): number {
  if (kind !== "ram") return GPU_RESERVE_BYTES;
  return Math.min(
    totalBytes * MAX_RESERVE_SHARE,
    Math.max(RAM_RESERVE_BYTES, totalBytes * RAM_RESERVE_SHARE),
  );
}

function safeShare(device: Device): number {
  const { kind, totalBytes, gpuLimitBytes = Infinity } = device;
  const share = kind === "ram" ? totalBytes : totalBytes * GPU_SHARE;
  return Math.min(gpuLimitBytes, share - reserveOf(device));
}

function parsePart(part: string): readonly [string, BudgetAmount] {
  const found = /^(ram|(?:cuda|rocm|vulkan|metal|sycl|musa|cann)(?::\d{1,3})?)\s*=\s*(.*)$/i.exec(
    part,
  );
  if (found !== null) {
    const [, device = "", amount = ""] = found;
    return [device.toLowerCase(), parseAmount(amount, { mayBeNothing: true })];
  }
  const [name = "", amount] = part.split("=");
  if (part === "") throw refuse(part, "there is a comma too many");
  if (amount === undefined) throw refuse(part, "it does not say of which device");
  throw refuse(part, `\`${printable(name)}\` is no device`, DEVICES_HINT);
}

const DEVICES_HINT = "Devices are `ram`, and GPUs such as `cuda:0`, `rocm:0` or `vulkan:0`.";

/** @param options.mayBeNothing whether 0 has a meaning: a device that is not to be used */
function parseAmount(text: string, { mayBeNothing }: { mayBeNothing: boolean }): BudgetAmount {
  const found = /^(\d{1,16}(?:\.\d{1,6})?)\s*(%|[KMGT]?(?:i?B)?)$/i.exec(text);
  if (found === null) throw refuse(text, "it is neither a size nor a share");
  const [, digits, unit = ""] = found;
  const number = Number(digits);
  if (number === 0 && mayBeNothing) return { bytes: 0 };
  if (unit === "%") {
    if (number > 0 && number <= 100) return { share: number / 100 };
    throw refuse(text, "a share is more than 0 % and at most 100 %");
  }
  const bytes = Math.floor(number * (UNITS[unit.toUpperCase()] ?? Number.NaN));
  if (!Number.isSafeInteger(bytes)) throw refuse(text, "it is no size of a memory");
  if (bytes >= SMALLEST_BUDGET_BYTES) return { bytes };
  throw refuse(text, `no model fits into ${formatSize(bytes)}`, "Give a unit: `8GB`, `512MiB`.");
}

function refuse(text: string, reason: string, hint: string = EXAMPLES): AppError {
  return new AppError("usage", `cannot read the memory budget \`${printable(text)}\`: ${reason}`, {
    hint,
  });
}

function printable(text: string): string {
  // eslint-disable-next-line no-control-regex -- those are what must not reach a terminal
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?").slice(0, 80);
}

function nameOf(id: DeviceId): string {
  return id === "ram" ? "memory" : id;
}

/** Decimal, as all sizes that Tug shows: `512B`, `1.5MB`, `20.4GB`. */
function formatSize(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = Math.max(0, bytes);
  let unit = 0;
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toFixed(1).replace(/\.0$/, "")}${units[unit]}`;
}
