/** Workers that are told to leave: unloading, and draining a model that is to be removed. */
import { AppError } from "../errors.ts";
import type { Clock } from "./clock.ts";
import type { WorkerPlan } from "./planner.ts";
import type { Entry, Roster } from "./roster.ts";
import { leaseCount, type SchedulerWorker } from "./scheduler-worker.ts";
import type { Scheduler } from "./scheduler.ts";
import type {
  SkippedWorker,
  UnloadFilter,
  UnloadOutcome,
  UnloadRequest,
} from "./supervisor-deps.ts";
import { unlessAborted } from "./unless-aborted.ts";
import type { Waiters } from "./waiters.ts";

export interface DeparturesOptions {
  readonly scheduler: Scheduler;
  readonly roster: Roster;
  readonly waiters: Waiters;
  readonly clock: Clock;
}

interface Manner {
  readonly wait: boolean;
  readonly force: boolean;
  readonly signal?: AbortSignal | undefined;
}

export class Departures {
  readonly #options: DeparturesOptions;
  /** Model ids that are being drained, and by how many. */
  readonly #drained = new Map<string, number>();

  constructor(options: DeparturesOptions) {
    this.#options = options;
  }

  /** @throws conflict for a model that is being removed, as a draft model, too */
  assertWelcome(plan: WorkerPlan): void {
    const { model, draft } = plan;
    const isBarred = this.#drained.has(model.id) || (draft && this.#drained.has(draft.id)) === true;
    if (isBarred) throw beingRemoved(plan.model.name);
  }

  /**
   * The model is asked for as it is set now: workers of how it was set before finish what they serve, and go. Nobody
   * would ask for them again.
   */
  supersede(plan: WorkerPlan, key: string): void {
    if (plan.isUsual !== true) return;
    const { scheduler, roster, clock } = this.#options;
    const outdated = roster.all.filter(
      (entry) => entry.key !== key && entry.plan.isUsual === true && isSameUse(entry.plan, plan),
    );
    if (outdated.length === 0) return;
    const ids = new Set(outdated.map(({ id }) => id));
    scheduler.onUnload((id) => ids.has(id), clock.now());
  }

  unload({
    wait = false,
    force = false,
    signal,
    ...filter
  }: UnloadRequest): Promise<UnloadOutcome> {
    return this.#dismiss((entry) => matches(filter, entry), { wait, force, signal });
  }

  async drain(
    modelId: string,
    { signal, force = false }: { readonly signal: AbortSignal; readonly force?: boolean },
  ): Promise<Disposable> {
    const allow = this.#bar(modelId);
    try {
      const uses = ({ plan }: Entry): boolean =>
        plan.model.id === modelId || plan.draft?.id === modelId;
      await this.#dismiss(uses, { wait: true, force, signal });
      return { [Symbol.dispose]: allow };
    } catch (error) {
      allow();
      throw error;
    }
  }

  // --- internal ---

  /** Refuses who waits for the model and who comes; returns the way to allow it again, once. */
  #bar(modelId: string): () => void {
    const { scheduler, waiters, clock } = this.#options;
    this.#drained.set(modelId, (this.#drained.get(modelId) ?? 0) + 1);
    for (const { ticketId, plan } of waiters.ofModel(modelId)) {
      waiters.refuse(ticketId, beingRemoved(plan.model.name));
      scheduler.onCancelled(ticketId, clock.now());
    }
    let isBarred = true;
    return () => {
      if (!isBarred) return;
      isBarred = false;
      const left = (this.#drained.get(modelId) ?? 1) - 1;
      if (left > 0) this.#drained.set(modelId, left);
      else this.#drained.delete(modelId);
    };
  }

  async #dismiss(isMeant: (entry: Entry) => boolean, manner: Manner): Promise<UnloadOutcome> {
    const { scheduler, roster, clock } = this.#options;
    const meant = scheduler.workers.flatMap((worker) => {
      const entry = roster.get(worker.id);
      return entry !== undefined && isMeant(entry)
        ? [{ entry, reason: this.#busyWith(worker) }]
        : [];
    });
    const areBusyToo = manner.wait || manner.force;
    const leaving = meant.filter(({ reason }) => areBusyToo || reason === undefined);
    const ids = new Set(leaving.map(({ entry }) => entry.id));
    const told = scheduler.onUnload((id) => ids.has(id), clock.now());
    if (manner.force) for (const { entry } of leaving) entry.worker.stop();
    await this.#gone(
      leaving.map(({ entry }) => entry),
      manner.signal,
    );
    const skipped = meant.flatMap(({ entry, reason }) =>
      areBusyToo || reason === undefined ? [] : [toSkipped(entry, reason)],
    );
    return { unloaded: told.length, skipped };
  }

  /** Undefined for one that is idle or leaves already. */
  #busyWith(worker: SchedulerWorker): string | undefined {
    const leases = leaseCount(worker);
    if (leases > 0) return `it serves ${leases} request${leases === 1 ? "" : "s"}`;
    const isAwaited = worker.kind === "starting" && this.#options.waiters.hasKey(worker.key);
    return isAwaited ? "it is being loaded for a request" : undefined;
  }

  async #gone(entries: readonly Entry[], signal: AbortSignal | undefined): Promise<void> {
    const gone = Promise.all(entries.map((entry) => entry.gone));
    if (signal === undefined) return void (await gone);
    try {
      await unlessAborted(gone, signal);
    } catch (cause) {
      throw new AppError(
        "cancelled",
        "cannot wait for workers to leave: the request was cancelled",
        {
          cause,
        },
      );
    }
  }
}

function matches({ all, backend, models }: UnloadFilter, { plan }: Entry): boolean {
  if (all === true) return true;
  if (backend === undefined && models === undefined) return false;
  if (backend !== undefined && backend !== plan.backend) return false;
  return models === undefined || models.includes(plan.model.id);
}

function isSameUse(one: WorkerPlan, other: WorkerPlan): boolean {
  const { model, backend, mode } = other;
  return one.model.id === model.id && one.backend === backend && one.mode === mode;
}

function toSkipped({ plan }: Entry, reason: string): SkippedWorker {
  return { modelName: plan.model.name, modelId: plan.model.id, reason };
}

function beingRemoved(modelName: string): AppError {
  return new AppError("conflict", `cannot run \`${modelName}\`: it is being removed`, {
    hint: "Choose another model, or pull it again when `tug rm` has finished.",
  });
}
