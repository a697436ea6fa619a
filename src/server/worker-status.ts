/** Workers in the words of the wire. Pure. */
import type { WorkerStatus } from "../api/engines.ts";
import { toGoDuration } from "./go-duration.ts";
import type { WorkerSnapshot } from "../runtime/snapshot.ts";

export function toWorkerStatus(worker: WorkerSnapshot): WorkerStatus {
  const { progress } = worker;
  return {
    backend_name: worker.backend,
    model_name: worker.modelName,
    model_id: worker.modelId,
    mode: worker.mode,
    state: worker.state,
    loading: worker.state === "starting",
    progress:
      progress === null
        ? null
        : {
            phase: progress.phase,
            done_bytes: progress.doneBytes,
            total_bytes: progress.totalBytes,
          },
    in_use: worker.inUse > 0,
    requests: worker.inUse,
    slots: worker.slots,
    context_size: worker.contextTokens,
    devices: worker.devices,
    memory_estimate: worker.demand,
    memory_actual: worker.measured,
    sandbox: worker.sandbox,
    shares_network: worker.sharesNetwork === true,
    pinned: worker.pinned,
    mismatches: worker.mismatches,
    last_used: worker.lastUsed?.toISOString() ?? null,
    keep_alive: toGoDuration(worker.keepAliveMs),
    keep_alive_ms: worker.keepAliveMs,
    expires_at: worker.expiresAt?.toISOString() ?? null,
    pid: worker.pid,
  };
}
