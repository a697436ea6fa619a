/** What the supervisor is given and asked. Interfaces only. */
import type { Backend } from "./backend.ts";
import type { Clock } from "./clock.ts";
import type { Demand } from "./demand.ts";
import type { LoadReason, RuntimeEvents } from "./events.ts";
import type { MemoryRecordDeps } from "./memory-record.ts";
import type { WorkerPlan } from "./planner.ts";
import type { Spawn } from "./process.ts";
import type { Sandbox } from "./sandbox/sandbox.ts";
import type { EngineInstaller, PidStore, ProgressListener } from "./worker.ts";

export interface AcquireRequest {
  readonly plan: WorkerPlan;
  /** Gives up waiting. The load goes on: it belongs to nobody. */
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener | undefined;
  /** Why a worker is started, if one has to be; default `request`. */
  readonly reason?: LoadReason | undefined;
}

export interface UnloadFilter {
  readonly all?: boolean | undefined;
  readonly backend?: string | undefined;
  /** Model ids. */
  readonly models?: readonly string[] | undefined;
}

export interface UnloadRequest extends UnloadFilter {
  /** Busy workers, too: they take nothing new, and it resolves when they have finished and gone. */
  readonly wait?: boolean | undefined;
  /** Busy workers, too: what they serve is cut off. */
  readonly force?: boolean | undefined;
  /** Ends the waiting; workers that were told to leave go on leaving. */
  readonly signal?: AbortSignal | undefined;
}

export interface UnloadOutcome {
  /** Workers that were told to leave. */
  readonly unloaded: number;
  readonly skipped: readonly SkippedWorker[];
}

export interface SkippedWorker {
  readonly modelName: string;
  readonly modelId: string;
  /** In plain words, such as `it serves 2 requests`. */
  readonly reason: string;
}

export interface SupervisorLimits {
  readonly maxWorkers: number;
  /** Requests that may wait. */
  readonly queueLimit: number;
  /** Default keep-alive; -1 keeps workers for ever. */
  readonly keepAliveMs: number;
  /** How long requests for loaded models may overtake one that waits for room. */
  readonly ageCapMs?: number | undefined;
  /** Loading without a sign of progress; default 5 minutes. */
  readonly stallMs?: number | undefined;
  /** From SIGTERM to SIGKILL; default 10 s. */
  readonly stopGraceMs?: number | undefined;
  /** An engine that owes an answer and sends nothing for this long is asked after its health; default 60 s. */
  readonly silenceMs?: number | undefined;
  /** For the answer to that; default 10 s. */
  readonly healthMs?: number | undefined;
  /** For an engine to fall asleep, or to wake; default two minutes. */
  readonly sleepMs?: number | undefined;
  /** For that answer after the machine slept; default 2 s. */
  readonly wakeHealthMs?: number | undefined;
}

export interface SupervisorDeps extends MemoryRecordDeps {
  readonly backends: readonly Backend[];
  readonly installer: EngineInstaller;
  /** For sockets; private (0700). */
  readonly runDirectory: string;
  readonly logDirectory: string;
  readonly pidStore: PidStore;
  readonly limits: SupervisorLimits;
  /** Logical processors that a worker may use. */
  readonly cores: number;
  /** What all workers together may hold; undefined (and absent) counts workers only. Bounded in time. */
  readonly readBudget?: (() => Promise<Demand | undefined>) | undefined;
  /** Absent: engines run unconfined. It remembers what it found. */
  readonly sandbox?: (() => Promise<Sandbox>) | undefined;
  /** Tells whether the machine has slept since it was last asked. */
  readonly sleepDetector?: { check(): boolean } | undefined;
  /** Where to tell what happens; its own unless given. Listeners must not call back from inside. */
  readonly events?: RuntimeEvents | undefined;
  readonly clock?: Clock | undefined;
  readonly spawn?: Spawn | undefined;
}
