/** The memory of this machine, as workers may use it: its devices, the budget, and what others leave of it. */
import { log } from "../log.ts";
import { findBudgetWarnings, heldNow, parseBudget, toBudget, toWholeBudget } from "./budget.ts";
import type { BudgetRule, Holder } from "./budget.ts";
import type { Demand } from "./demand.ts";
import { type Device, readDevices } from "./hardware/devices.ts";
import { measureGpu, measureProcess, type ProcessMemory } from "./measure.ts";

export interface MachineOptions {
  /** `memory_budget`, as written. */
  readonly budget: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Of the engine that is installed: it decides which devices count. */
  variant(): Promise<string>;
  /** Workers that run now. */
  workers(): Iterable<Holder>;
}

export class Machine {
  readonly #options: MachineOptions;
  readonly #rule: BudgetRule;
  #devices: readonly Device[] = [];
  #hasWarned = false;

  /** @throws usage (the budget cannot be understood) */
  constructor(options: MachineOptions) {
    this.#options = options;
    this.#rule = parseBudget(options.budget);
  }

  async readDevices(variant: string): Promise<readonly Device[]> {
    const { env } = this.#options;
    const machine = { platform: process.platform, arch: process.arch };
    this.#devices = await readDevices({ machine, env, variant });
    if (!this.#hasWarned) {
      this.#hasWarned = true;
      for (const text of findBudgetWarnings(this.#devices, this.#rule)) {
        log.warn(`runtime: memory budget ${text}`);
      }
    }
    return this.#devices;
  }

  /** Whatever other programs hold. */
  toWholeBudget(devices: readonly Device[]): Demand {
    return toWholeBudget(devices, this.#rule);
  }

  /** What all workers together may hold now. */
  async readBudget(): Promise<Demand> {
    const devices = await this.readDevices(await this.#options.variant());
    return toBudget(devices, this.#rule, heldNow(this.#options.workers()));
  }

  measure(pid: number): ProcessMemory | undefined {
    return measureProcess(pid);
  }

  measureGpu(pid: number): Promise<Demand | undefined> {
    return measureGpu(pid, { env: this.#options.env, devices: this.#devices });
  }
}
