/** What the world may see of a worker. */
import type { Mode, RunnableModel } from "./backend.ts";
import { leaseCount, type SchedulerWorker, unloadAtMs } from "./scheduler-worker.ts";

export interface WorkerSnapshot {
  readonly id: number;
  readonly backend: string;
  /** The name it was first asked for by. */
  readonly modelName: string;
  readonly modelId: string;
  readonly mode: Mode;
  readonly state: "starting" | "ready" | "draining";
  /** Leases held. */
  readonly inUse: number;
  /** Null while it was never used. */
  readonly lastUsed: Date | null;
  /** -1 never unloads it. */
  readonly keepAliveMs: number;
  /** When it will be unloaded; null while in use or pinned. */
  readonly expiresAt: Date | null;
  readonly pid: number | null;
}

/** What the scheduler does not know. */
export interface SnapshotFacts {
  readonly backend: string;
  readonly model: RunnableModel;
  readonly mode: Mode;
  readonly pid: number | null;
  readonly wasUsed: boolean;
}

export function toSnapshot(worker: SchedulerWorker, facts: SnapshotFacts): WorkerSnapshot {
  const expiresMs = unloadAtMs(worker);
  const lastUsedMs = "lastUsedMs" in worker && facts.wasUsed ? worker.lastUsedMs : undefined;
  return {
    id: worker.id,
    backend: facts.backend,
    modelName: facts.model.name,
    modelId: facts.model.id,
    mode: facts.mode,
    state: worker.kind === "stopping" ? "draining" : worker.kind,
    inUse: leaseCount(worker),
    lastUsed: lastUsedMs === undefined ? null : new Date(lastUsedMs),
    keepAliveMs: worker.keepAliveMs,
    expiresAt: expiresMs === undefined ? null : new Date(expiresMs),
    pid: facts.pid,
  };
}
