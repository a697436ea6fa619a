/** What workers really hold, measured when something happens to them. */
import { log } from "../log.ts";
import { type Demand, maxDemand } from "./demand.ts";
import type { WorkerPlan } from "./planner.ts";

/** Of a process and all that it started. */
export interface ProcessBytes {
  readonly residentBytes: number;
  readonly peakBytes: number;
}

export interface MemoryRecordDeps {
  /** Undefined if the process is gone or the platform does not tell. Synchronous: a fraction of a millisecond. */
  measure?(pid: number): ProcessBytes | undefined;
  /** What it holds on GPUs, by device; undefined if nobody tells. Bounded in time: it asks a tool. */
  measureDevices?(pid: number): Promise<Demand | undefined>;
  /** Keeps the largest it is told. */
  readonly ledger?: { record(key: string, demand: Demand): void } | undefined;
}

export interface MeasuredWorker {
  /** Of the process whose memory counts; null where there is none, or nobody can tell. */
  readonly measuredPid: number | null;
  readonly plan: WorkerPlan;
  /** It has served: one that has only been loaded has not used all that it will. */
  readonly wasUsed: boolean;
}

/** A peak that grew by less is not worth a write to the disk. Of the peak. */
const WORTH_RECORDING = 0.01;

export class MemoryRecord {
  readonly #deps: MemoryRecordDeps;
  /** What each worker holds on GPUs, once that is known. */
  readonly #devices = new WeakMap<MeasuredWorker, Demand>();
  /** What of each worker is in the ledger. Bytes. */
  readonly #recorded = new WeakMap<MeasuredWorker, number>();

  constructor(deps: MemoryRecordDeps) {
    this.#deps = deps;
  }

  residentBytes(pid: number | null): number | undefined {
    return pid === null ? undefined : this.#deps.measure?.(pid)?.residentBytes;
  }

  /**
   * Measures a worker, and remembers its peak for the next time. The same worker is the same object each time.
   *
   * @returns what it has to be counted for: the plan's demand, which it may still grow to, or its peak if that is more;
   *   undefined where nobody measures
   */
  sample(worker: MeasuredWorker): Demand | undefined {
    const { measuredPid: pid, plan } = worker;
    const peakBytes = pid === null ? undefined : this.#deps.measure?.(pid)?.peakBytes;
    if (peakBytes === undefined) return undefined;
    if (worker.wasUsed) this.#record(worker, peakBytes);
    return maxDemand(plan.demand, { ...this.#devices.get(worker), ram: peakBytes });
  }

  /**
   * Finds out what a worker that has just been loaded holds on GPUs, for the samples from then on: engines take all of
   * it when they load. Never rejects.
   *
   * @returns whether there is something new
   */
  async measureDevices(worker: MeasuredWorker): Promise<boolean> {
    const { measuredPid: pid, plan } = worker;
    const usesGpu = Object.keys(plan.demand).some((device) => device !== "ram");
    if (pid === null || !usesGpu) return false;
    try {
      const held = await this.#deps.measureDevices?.(pid);
      if (held === undefined) return false;
      this.#devices.set(worker, held);
      return true;
    } catch (thrown) {
      log.debug(`runtime: GPU memory not measured reason=${(thrown as Error).message}`);
      return false;
    }
  }

  // --- internal ---

  /** Of devices that cannot be measured the ledger gets what the plan says. */
  #record(worker: MeasuredWorker, peakBytes: number): void {
    const { demand, ledgerKey } = worker.plan;
    const before = this.#recorded.get(worker) ?? 0;
    if (ledgerKey === undefined || peakBytes <= before * (1 + WORTH_RECORDING)) return;
    this.#recorded.set(worker, peakBytes);
    try {
      this.#deps.ledger?.record(ledgerKey, {
        ...demand,
        ...this.#devices.get(worker),
        ram: peakBytes,
      });
    } catch (thrown) {
      log.warn(`runtime: measured memory not recorded reason=${(thrown as Error).message}`);
    }
  }
}
