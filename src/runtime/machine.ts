/** The memory of this machine, as workers may use it: its devices, the budget, and what others leave of it. */
import { log } from "../log.ts";
import { findBudgetWarnings, heldNow, parseBudget, toBudget, toWholeBudget } from "./budget.ts";
import type { BudgetRule, Holder } from "./budget.ts";
import type { Demand, DeviceId } from "./demand.ts";
import { type Device, readDevices } from "./hardware/devices.ts";
import { measureGpu, measureProcess, type ProcessMemory } from "./measure.ts";
import type { RemoteDevices } from "./remote-devices.ts";

export interface MachineOptions {
  /** `memory_budget`, as written. */
  readonly budget: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Of the engines that are installed: they decide which devices count. */
  variants(): Promise<readonly string[]>;
  /** Workers that run now. */
  workers(): Iterable<Holder>;
  /** Other machines that compute for this one. */
  readonly remotes?: Pick<RemoteDevices, "read"> | undefined;
}

export class Machine {
  readonly #options: MachineOptions;
  readonly #rule: BudgetRule;
  /** All that were seen so far. */
  readonly #devices = new Map<DeviceId, Device>();
  #hasWarned = false;

  /** @throws usage (the budget cannot be understood) */
  constructor(options: MachineOptions) {
    this.#options = options;
    this.#rule = parseBudget(options.budget);
  }

  async readDevices(variant: string): Promise<readonly Device[]> {
    const { env, remotes } = this.#options;
    const machine = { platform: process.platform, arch: process.arch };
    const held = new Set([...this.#options.workers()].flatMap(({ demand }) => Object.keys(demand)));
    const [own, others] = await Promise.all([
      readDevices({ machine, env, variant }),
      remotes?.read(held) ?? [],
    ]);
    const devices = [...own, ...others];
    for (const device of devices) this.#devices.set(device.id, device);
    if (!this.#hasWarned) {
      this.#hasWarned = true;
      for (const text of findBudgetWarnings(devices, this.#rule)) {
        log.warn(`runtime: memory budget ${text}`);
      }
    }
    return devices;
  }

  /** Whatever other programs hold. */
  toWholeBudget(devices: readonly Device[]): Demand {
    return toWholeBudget(devices, this.#rule);
  }

  /** What all workers together may hold now. */
  async readBudget(): Promise<Demand> {
    const variants = await this.#options.variants();
    const read = await Promise.all(variants.map((variant) => this.readDevices(variant)));
    const devices = mergeDevices(read.flat());
    return toBudget(devices, this.#rule, heldNow(this.#options.workers()));
  }

  measure(pid: number): ProcessMemory | undefined {
    return measureProcess(pid);
  }

  measureGpu(pid: number): Promise<Demand | undefined> {
    return measureGpu(pid, { env: this.#options.env, devices: [...this.#devices.values()] });
  }
}

// --- internal ---

/** Each once, by all its names; of memory that a GPU shares, what that one may use. */
export function mergeDevices(all: readonly Device[]): readonly Device[] {
  const merged = new Map<DeviceId, Device>();
  for (const device of all) {
    const before = merged.get(device.id);
    const isTighter = (device.gpuLimitBytes ?? Infinity) < (before?.gpuLimitBytes ?? Infinity);
    const alias = device.alias ?? before?.alias;
    const best = before === undefined || isTighter ? device : before;
    merged.set(device.id, alias === undefined ? best : { ...best, alias });
  }
  return [...merged.values()];
}
