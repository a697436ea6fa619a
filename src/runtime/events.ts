/** What happens in the runtime, for whoever watches: metrics, traces, `GET /engines/events`. */
import type { ErrorCode } from "../errors.ts";
import { log } from "../log.ts";
import type { Mode } from "./backend.ts";
import type { StopReason } from "./scheduler-worker.ts";

export interface WorkerFacts {
  readonly workerId: number;
  readonly backend: string;
  /** The name it was first asked for by. */
  readonly modelName: string;
  readonly modelId: string;
  readonly mode: Mode;
}

/** Times are milliseconds since 1970. */
export type RuntimeEvent = { readonly atMs: number } & (
  | { readonly kind: "queued"; readonly ticketId: number; readonly modelName: string }
  | {
      readonly kind: "granted";
      readonly ticketId: number;
      readonly worker: WorkerFacts;
      readonly waitedMs: number;
    }
  /** It left the queue without a worker; `cancelled` if its caller went. */
  | {
      readonly kind: "refused";
      readonly ticketId: number;
      readonly modelName: string;
      readonly waitedMs: number;
      readonly code: ErrorCode;
    }
  | { readonly kind: "loading"; readonly worker: WorkerFacts; readonly reason: LoadReason }
  | {
      readonly kind: "progress";
      readonly worker: WorkerFacts;
      readonly phase: string;
      readonly doneBytes: number | null;
      readonly totalBytes: number | null;
    }
  | { readonly kind: "ready"; readonly worker: WorkerFacts; readonly loadMs: number }
  /** It gave its GPUs back, and can be woken. */
  | { readonly kind: "asleep"; readonly worker: WorkerFacts }
  | { readonly kind: "stopping"; readonly worker: WorkerFacts; readonly reason: StopReason }
  /** The process is gone. `code` is absent if it was told to stop. */
  | {
      readonly kind: "exited";
      readonly worker: WorkerFacts;
      readonly code?: ErrorCode;
      readonly message?: string;
    }
  /** A request that held it has ended. */
  | { readonly kind: "released"; readonly worker: WorkerFacts; readonly heldMs: number }
);

/** Why a worker is started. */
export type LoadReason = "request" | "preload" | "retry" | "wake";

type Listener = (event: RuntimeEvent) => void;

export class RuntimeEvents {
  readonly #listeners = new Set<Listener>();

  /** @returns the way to stop listening */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** What a listener throws is its own affair: nothing here may break because somebody watches. */
  emit(event: RuntimeEvent): void {
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (thrown) {
        log.warn(`runtime: event not taken kind=${event.kind} reason=${String(thrown)}`);
      }
    }
  }
}
