/** What the tools and files of other vendors than NVIDIA say, read. Pure: what is no answer gives nothing. */

const MIB = 1024 * 1024;
/** More is no machine but garbage. */
const MAX_GPUS = 64;
const MAX_NAME_LENGTH = 200;
/** Rows of these tables have some hundred characters. */
const MAX_ROW_LENGTH = 1000;

/** A GPU or another accelerator, by the name that its vendor gave it. */
export interface NamedGpu {
  readonly name: string;
  /** Null where nobody tells, or the memory is the machine's. */
  readonly totalBytes: number | null;
}

export interface AmdFact {
  readonly name: string;
  /** AMD's name of the chip, such as `gfx1100`; null where nobody tells. */
  readonly target: string | null;
}

/**
 * `rocminfo`: the agents that are GPUs. The processor is an agent, too.
 *
 * @see https://github.com/ROCm/rocminfo
 */
export function parseRocminfo(output: string): readonly AmdFact[] {
  const agents = output.split(/^Agent \d{1,3}\s*$/m).slice(1);
  return agents.slice(0, MAX_GPUS).flatMap((agent) => {
    if (!/^ {2}Device Type:\s+GPU\b/m.test(agent)) return [];
    const target = /^ {2}Name:\s+(gfx[0-9a-f]{3,5})\b/m.exec(agent)?.[1] ?? null;
    const name = /^ {2}Marketing Name:[ \t]+(\S.*)$/m.exec(agent)?.[1];
    return [{ name: clean(name) ?? target ?? "AMD GPU", target }];
  });
}

/**
 * `rocm-smi --showproductname --json`: a member `card0` a device; warnings may stand before the JSON. Names of members
 * changed their case between versions, and only newer ones tell the chip.
 */
export function parseRocmSmi(output: string): readonly AmdFact[] {
  const cards = parseObject(output.slice(Math.max(0, output.indexOf("{"))));
  return Object.entries(cards)
    .filter(([key]) => /^card\d{1,3}$/.test(key))
    .slice(0, MAX_GPUS)
    .map(([, card]) => {
      const of = (name: string): string | undefined => memberOf(card, name);
      const target = /^gfx[0-9a-f]{3,5}$/.exec(of("gfx version") ?? "")?.[0] ?? null;
      const name = [of("card series"), of("device name")].find(
        (text) => !/^(?:0x|N\/A)/.test(text ?? "0x"),
      );
      return { name: clean(name) ?? target ?? "AMD GPU", target };
    });
}

/**
 * `/sys/class/kfd/kfd/topology/nodes/<n>/properties`: the chip, from `gfx_target_version`, which is major, minor and
 * stepping in two decimal digits each; the name writes the stepping in hexadecimal.
 *
 * @returns undefined for a processor
 */
export function parseKfdTarget(properties: string): string | undefined {
  const version = Number(/^gfx_target_version (\d{5,6})$/m.exec(properties)?.[1] ?? 0);
  if (version === 0) return undefined;
  const [major, minor] = [Math.floor(version / 10_000), Math.floor(version / 100) % 100];
  return `gfx${major}${minor.toString(16)}${(version % 100).toString(16)}`;
}

/**
 * `mthreads-gmi`: a row `0    MTT S80   |00000000:01:00.0    |0%    10MiB(16384MiB)` a GPU.
 *
 * @see https://github.com/vllm-project/vllm-omni/pull/2337
 */
export function parseMthreads(output: string): readonly NamedGpu[] {
  const rows = output.matchAll(
    /^\d{1,3} +(MTT \S[^|\n]{0,60}?) *\|[^|\n]{1,60}\|[^|\n]{0,40}?\d{1,7}MiB\((\d{1,7})MiB\)/gm,
  );
  return [...rows].slice(0, MAX_GPUS).map(([, name = "", total]) => ({
    name: `Moore Threads ${name}`,
    totalBytes: Number(total) * MIB,
  }));
}

/**
 * `npu-smi info`: two rows a chip; the first has its name, the second ends with the HBM in use and in all, in MB. Chips
 * without HBM (310P) have their memory in the column before.
 */
export function parseAscend(output: string): readonly NamedGpu[] {
  const chips: NamedGpu[] = [];
  let name: string | undefined;
  // What follows are processes.
  for (const line of (output.split(/Process id/i)[0] ?? "").split("\n")) {
    if (line.length > MAX_ROW_LENGTH) continue;
    const [, first = "", second = "", third = ""] = line.split("|").map((cell) => cell.trim());
    const chip = /^\d{1,3}\s+(?:Ascend\s?)?(\d{3}\w{0,10}(?:-\d{1,3})?)$/.exec(first)?.[1];
    if (chip !== undefined) name = `Ascend ${chip}`;
    if (name === undefined || !/^[0-9a-z]{4}:[0-9a-z]{2}:/i.test(second)) continue;
    chips.push({ name, totalBytes: lastSize(third) });
    name = undefined;
  }
  return chips.slice(0, MAX_GPUS);
}

/**
 * `sycl-ls`: GPUs that oneAPI reaches through Level Zero:
 * `[level_zero:gpu][level_zero:0] Intel(R) oneAPI Unified Runtime over Level-Zero, Intel(R) Arc(TM) A770 Graphics 12.55.8 [1.6]`.
 */
export function parseSyclLs(output: string): readonly NamedGpu[] {
  const rows = output.matchAll(
    /^\[(?:ext_oneapi_)?level_zero:gpu[^\n,]{0,150}, {0,4}([^\n,]{1,150}?) [\d.]{1,20}(?: \[[^\]\n]*\])?\s*$/gm,
  );
  return [...rows]
    .slice(0, MAX_GPUS)
    .map(([, name = ""]) => ({ name: name.trim(), totalBytes: null }));
}

/** `clinfo`: devices whose type is GPU, in its long form. */
export function parseClinfo(output: string): readonly NamedGpu[] {
  const sections = output.split(/^ {2}Device Name +/m).slice(1, MAX_GPUS + 1);
  return sections.flatMap((section) => {
    const name = clean(section.split("\n")[0]);
    const size = /^ {2}Global memory size +(\d{1,15})\b/m.exec(section)?.[1];
    if (name === undefined || !/^ {2}Device Type +GPU\b/m.test(section)) return [];
    return [{ name, totalBytes: Number(size ?? 0) || null }];
  });
}

/** `vulkaninfo --summary`: devices that are no processor in disguise (llvmpipe, SwiftShader), each once. */
export function parseVulkanSummary(output: string): readonly NamedGpu[] {
  const names = new Map<string, string>();
  for (const section of output.split(/^GPU\d{1,3}:/m).slice(1, MAX_GPUS + 1)) {
    const type = /deviceType\s*=\s*PHYSICAL_DEVICE_TYPE_(\w+)/.exec(section)?.[1] ?? "";
    if (!/^(?:DISCRETE|INTEGRATED|VIRTUAL)_GPU$/.test(type)) continue;
    const name = clean(/deviceName\s*=\s*(\S.*)/.exec(section)?.[1]) ?? "a GPU";
    const uuid = /deviceUUID\s*=\s*([\w-]{1,80})/.exec(section)?.[1];
    // A card with two drivers is listed twice.
    names.set(uuid ?? `${names.size}`, name);
  }
  return [...names.values()].map((name) => ({ name, totalBytes: null }));
}

/**
 * `reg query <class of display adapters> /s /v DriverDesc`: `    DriverDesc    REG_SZ    NVIDIA GeForce RTX 4090`. It fails
 * at a key that only the system may read, after it has printed the others.
 */
export function parseDisplayDrivers(output: string): readonly string[] {
  const rows = output.matchAll(/^ {4}DriverDesc {4}REG_SZ {4}(\S.*)$/gm);
  return [...new Set([...rows].slice(0, MAX_GPUS).flatMap(([, name]) => clean(name) ?? []))];
}

// --- internal ---

function clean(name: string | undefined): string | undefined {
  // Control characters would reach a terminal.
  const text = name
    ?.replace(/\p{Cc}/gu, " ")
    .trim()
    .slice(0, MAX_NAME_LENGTH);
  return text === "" ? undefined : text;
}

/** Of `0 / 0   3416 / 65536`, in MB: the last that is not nothing. */
function lastSize(text: string): number | null {
  const sizes = [...text.matchAll(/\/\s*(\d{1,7})/g)].map(([, size]) => Number(size));
  return (sizes.findLast((size) => size > 0) ?? 0) * MIB || null;
}

function parseObject(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}

function memberOf(card: unknown, name: string): string | undefined {
  if (typeof card !== "object" || card === null) return undefined;
  const found = Object.entries(card).find(([key]) => key.toLowerCase() === name)?.[1] as unknown;
  return typeof found === "string" ? found : undefined;
}
