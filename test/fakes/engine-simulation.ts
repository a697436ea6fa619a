import { AppError } from "../../src/errors.ts";
import { Scheduler, type SchedulerLimits } from "../../src/runtime/scheduler.ts";

const STOPPED = new AppError("shutting_down", "cannot serve the model: its worker was stopped");

export interface Arrival {
  readonly model: string;
  readonly atMs: number;
}

export interface EngineTimes {
  readonly loadMs: number;
  readonly stopMs: number;
  /** One request in a slot. */
  readonly serveMs: number;
  /** Requests that an engine serves at once; the others wait inside it. */
  readonly slots: number;
}

export interface Served extends Arrival {
  readonly grantedMs: number;
  /** When the worker that served it had become ready. */
  readonly readyMs: number;
  readonly endedMs: number;
}

interface Engine {
  readonly model: string;
  readyMs: number;
  /** Ticket ids inside it, by arrival. */
  waiting: number[];
  running: number;
}

/** Engines in simulated time, driven by a real scheduler. Each model needs 1 byte of memory. */
export class EngineSimulation {
  readonly served: Served[] = [];
  readonly rejected: AppError[] = [];
  loads = 0;
  readonly #times: EngineTimes;
  readonly #scheduler: Scheduler;
  readonly #engines = new Map<number, Engine>();
  readonly #arrivals = new Map<number, Arrival>();
  readonly #grants = new Map<number, number>();
  #events: { readonly atMs: number; readonly run: () => void }[] = [];
  #nowMs = 0;

  constructor(times: EngineTimes, limits: Partial<SchedulerLimits> = {}) {
    this.#times = times;
    const all = { maxWorkers: 16, budget: { ram: 1 }, queueLimit: 10_000, keepAliveMs: 300_000 };
    this.#scheduler = new Scheduler(
      { ...all, ...limits },
      {
        startWorker: (id, ticket) => {
          this.loads += 1;
          this.#engines.set(id, { model: ticket.key, readyMs: 0, waiting: [], running: 0 });
          this.#after(times.loadMs, () => this.#ready(id));
        },
        // Nothing here can sleep.
        sleepWorker: () => undefined,
        wakeWorker: () => undefined,
        stopWorker: (id) => {
          this.#after(times.stopMs, () => this.#scheduler.onExited(id, STOPPED, this.#nowMs));
        },
        grant: (ticketId, workerId) => {
          this.#grants.set(ticketId, this.#nowMs);
          this.#engines.get(workerId)?.waiting.push(ticketId);
          this.#after(0, () => this.#fill(workerId));
        },
        reject: (_ticketId, error) => this.rejected.push(error),
        setDeadline: () => {},
      },
    );
  }

  run(arrivals: readonly Arrival[]): void {
    for (const [id, arrival] of arrivals.entries()) {
      this.#arrivals.set(id, arrival);
      this.#after(arrival.atMs, () => this.#arrive(id, arrival));
    }
    for (;;) {
      const [next] = this.#events;
      if (next === undefined) return;
      this.#events.shift();
      this.#nowMs = next.atMs;
      next.run();
    }
  }

  #after(delayMs: number, run: () => void): void {
    const atMs = this.#nowMs + delayMs;
    const index = this.#events.findIndex((event) => event.atMs > atMs);
    this.#events.splice(index < 0 ? this.#events.length : index, 0, { atMs, run });
  }

  #arrive(id: number, { model, atMs }: Arrival): void {
    const facts = { id, key: model, modelName: model, demand: { ram: 1 }, keepAliveMs: undefined };
    this.#scheduler.onRequest({ ...facts, arrivedMs: atMs }, this.#nowMs);
  }

  #ready(workerId: number): void {
    const engine = this.#engines.get(workerId);
    if (engine !== undefined) engine.readyMs = this.#nowMs;
    this.#scheduler.onReady(workerId, this.#nowMs);
  }

  #fill(workerId: number): void {
    const engine = this.#engines.get(workerId);
    if (engine === undefined) return;
    while (engine.running < this.#times.slots) {
      const ticketId = engine.waiting.shift();
      if (ticketId === undefined) return;
      engine.running += 1;
      this.#after(this.#times.serveMs, () => this.#end(workerId, ticketId));
    }
  }

  #end(workerId: number, ticketId: number): void {
    const engine = this.#engines.get(workerId);
    const arrival = this.#arrivals.get(ticketId);
    if (engine === undefined || arrival === undefined) return;
    engine.running -= 1;
    const grantedMs = this.#grants.get(ticketId) ?? Number.NaN;
    this.served.push({ ...arrival, grantedMs, readyMs: engine.readyMs, endedMs: this.#nowMs });
    this.#fill(workerId);
    this.#scheduler.onReleased(workerId, this.#nowMs);
  }
}
