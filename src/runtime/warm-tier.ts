/**
 * The warm tier: engines that gave their GPUs back and wait in main memory, from where they are back in a second or two.
 * Sends the requests; when, the scheduler decides.
 */
import { log } from "../log.ts";
import type { Clock } from "./clock.ts";
import { probeEngine } from "./engine-ask.ts";
import type { RuntimeEvents } from "./events.ts";
import type { Entry, Roster } from "./roster.ts";
import type { Scheduler } from "./scheduler.ts";
import { wakeError } from "./worker-errors.ts";

export interface WarmTierOptions {
  readonly scheduler: Pick<Scheduler, "onAsleep" | "onReady">;
  readonly roster: Pick<Roster, "get">;
  readonly clock: Clock;
  readonly events: RuntimeEvents;
  /** Default: two minutes. */
  readonly boundMs?: number | undefined;
}

/** Hundreds of gigabytes go to main memory that the system has to find first. */
const BOUND_MS = 120_000;

export class WarmTier {
  readonly #options: WarmTierOptions;

  constructor(options: WarmTierOptions) {
    this.#options = options;
  }

  /** Returns at once. A worker that does not fall asleep in time is ended. */
  sleep(workerId: number): void {
    const entry = this.#options.roster.get(workerId);
    if (entry === undefined) return;
    entry.isAsleep = true;
    entry.hasSlept = true;
    void this.#sleep(entry);
  }

  /** Returns at once. A worker that does not wake in time is ended. */
  wake(workerId: number): void {
    const entry = this.#options.roster.get(workerId);
    if (entry !== undefined) void this.#wake(entry);
  }

  // --- internal ---

  async #sleep(entry: Entry): Promise<void> {
    const { scheduler, clock, events } = this.#options;
    const { path } = entry.backend.sleep ?? {};
    const sleeps = await this.#does(entry, path);
    if (entry.worker.isLeaving) return;
    if (sleeps) {
      log.info(`runtime: worker sleeps ${nameOf(entry)}`);
      events.emit({ kind: "asleep", atMs: clock.now(), worker: entry.facts });
      return scheduler.onAsleep(entry.id, clock.now());
    }
    if (!entry.worker.isLost) log.warn(`runtime: worker does not sleep ${nameOf(entry)}`);
    entry.worker.stop();
  }

  async #wake(entry: Entry): Promise<void> {
    const { scheduler, clock, events } = this.#options;
    const startedMs = clock.now();
    events.emit({ kind: "loading", atMs: startedMs, worker: entry.facts, reason: "wake" });
    const wakes = await this.#does(entry, entry.backend.sleep?.wakePath);
    // Told to end meanwhile, it may take its time for that.
    if (entry.worker.isLeaving) return;
    if (!wakes) return entry.worker.kill(wakeError(entry.names));
    const loadMs = clock.now() - startedMs;
    entry.isAsleep = false;
    entry.isSuspect = false;
    log.info(`runtime: worker awake ${nameOf(entry)} ms=${Math.round(loadMs)}`);
    events.emit({ kind: "ready", atMs: clock.now(), worker: entry.facts, loadMs });
    scheduler.onReady(entry.id, clock.now(), loadMs);
  }

  async #does({ address }: Entry, path: string | undefined): Promise<boolean> {
    const { boundMs: timeoutMs = BOUND_MS } = this.#options;
    // The scheduler is in the middle of an event: nothing of ours may reach it before it is done.
    await Promise.resolve();
    if (path === undefined) return false;
    return (await probeEngine(address, path, { timeoutMs, method: "POST" })) === 200;
  }
}

// --- internal ---

function nameOf({ id, plan }: Entry): string {
  return `model=${plan.model.name} backend=${plan.backend} worker=${id}`;
}
