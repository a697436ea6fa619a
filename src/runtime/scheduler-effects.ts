/** What the scheduler asks of the world around it. */
import type { AppError } from "../errors.ts";
import type { StopReason } from "./scheduler-worker.ts";
import type { Ticket } from "./scheduler-state.ts";

/** All return at once and none may call the scheduler back from inside. */
export interface Effects {
  /** @param isRetry the attempt before this one ran out of memory */
  startWorker(workerId: number, ticket: Ticket, isRetry: boolean): void;
  /** Answered by `onExited`. */
  stopWorker(workerId: number, reason: StopReason): void;
  /** Answered by `onAsleep`; by `onExited` if it cannot, or does not in time. */
  sleepWorker(workerId: number): void;
  /** Answered by `onReady`, or by `onExited`. */
  wakeWorker(workerId: number): void;
  /** The ticket now holds a lease; `onReleased` gives it back. */
  grant(ticketId: number, workerId: number): void;
  reject(ticketId: number, error: AppError): void;
  /** When `onDeadline` is wanted: replaces the one asked for before; undefined for never. */
  setDeadline(atMs: number | undefined): void;
}
