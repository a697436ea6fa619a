/** What the scheduler knows at one moment. Values only: decisions read it and never change it. */
import type { Crash } from "./backoff.ts";
import type { Demand } from "./demand.ts";
import type { SchedulerWorker } from "./scheduler-worker.ts";

/** A request that waits for a worker. It ends exactly once: granted, rejected or cancelled. */
export interface Ticket {
  readonly id: number;
  /** Identity of the worker it needs: tickets with one key share one worker. */
  readonly key: string;
  /** For messages. */
  readonly modelName: string;
  /** What the worker is expected to hold. */
  readonly demand: Demand;
  /** What the worker holds while it sleeps; undefined: it cannot. */
  readonly asleep?: Demand | undefined;
  /** What would fit where this does not: `a context of 8192 tokens would fit`. */
  readonly advice?: string | undefined;
  /** Replaces the worker's keep-alive; -1 keeps it for ever; undefined leaves it as it is. */
  readonly keepAliveMs: number | undefined;
  /** Pins or unpins the worker; undefined leaves it as it is. */
  readonly pinned?: boolean | undefined;
  readonly arrivedMs: number;
}

export interface SchedulerLimits {
  /** Processes at once, those that are on their way out included. */
  readonly maxWorkers: number;
  /** Bytes that all workers may hold; a device it does not name gives none. Undefined counts workers only. */
  readonly budget: Demand | undefined;
  /** Tickets that may wait; the next one is refused. */
  readonly queueLimit: number;
  /** Keep-alive of a worker that nobody asked another for; -1 keeps it for ever. */
  readonly keepAliveMs: number;
  /** How long requests for models that are loaded may overtake one that waits for room; default 15 s. */
  readonly ageCapMs?: number | undefined;
}

/** Workers that were closed to newcomers for a ticket that has been overtaken for too long. */
export interface Turn {
  /** Who arrived from then on waits for the next turn, unless the worker was still loading. */
  readonly closedMs: number;
  readonly workerIds: ReadonlySet<number>;
}

export interface SchedulerState {
  readonly limits: SchedulerLimits;
  readonly workers: readonly SchedulerWorker[];
  /** By arrival. */
  readonly queue: readonly Ticket[];
  /** The one ticket that may take room: the oldest whose key has no worker. */
  readonly first: Ticket | undefined;
  readonly turn: Turn | undefined;
  /** Demands that have shown to be too small, by key. */
  readonly raises: ReadonlyMap<string, Demand>;
  /** Keys that are loaded a second time because the engine ran out of memory. */
  readonly retries: ReadonlySet<string>;
  readonly crashes: { holding(key: string, nowMs: number): Crash | undefined };
}
