/** A caller's hold on a worker. */
import type { AppError } from "../errors.ts";
import type { EngineReport } from "./backend.ts";
import type { EngineAddress } from "./engine-address.ts";
import type { WorkerPlan } from "./planner.ts";
import type { SilenceWatch } from "./silence.ts";
import type { Turns } from "./turns.ts";
import { cancelledError } from "./worker-errors.ts";

/** While it is held the worker is not unloaded. Release it when the answer has ended, however it ended. */
export interface Lease extends Disposable {
  /** Where the engine listens. */
  readonly address: EngineAddress;
  readonly backend: string;
  readonly modelId: string;
  readonly modelName: string;
  readonly workerId: number;
  /** Of this request; what shapes the process it has in common with the worker's. */
  readonly plan: WorkerPlan;
  /** What the engine said of itself when it was ready; undefined if it tells nothing. */
  readonly report: EngineReport | undefined;
  /** False as soon as its process is known to have ended. */
  readonly isAlive: boolean;
  /**
   * Why the engine died, for a caller whose connection to it broke; undefined if it is alive. Waits up to a second,
   * because a broken connection is seen before the exit. An engine that lives and cannot be reached any more is ended.
   */
  failure(): Promise<AppError | undefined>;
  /**
   * Begins to watch an answer for silence: an engine that says nothing for a minute and does not answer a question
   * after its health either is ended, and `failure` says so. It ends with the lease at the latest.
   */
  watch(): SilenceWatch;
  /** The engine has said itself that it is at an end: it is ended, `failure` says why, and others get another one. */
  giveUp(reason: AppError): void;
}

/** One that its engine may not have room for yet. */
export interface GrantedLease extends Lease {
  /**
   * Resolves when the engine has room for its request. Called once.
   *
   * @throws queue_full; rejects with the signal's reason
   */
  turn(signal: AbortSignal): Promise<void>;
}

export interface LeaseFacts {
  readonly turns: Pick<Turns, "take" | "give">;
  readonly address: EngineAddress;
  readonly plan: WorkerPlan;
  readonly modelName: string;
  readonly workerId: number;
  readonly report: EngineReport | undefined;
  isAlive(): boolean;
  failure(): Promise<AppError | undefined>;
  watch(): SilenceWatch;
  giveUp(reason: AppError): void;
}

/** @param release called once, however often the lease is disposed */
export function createLease(facts: LeaseFacts, release: () => void): GrantedLease {
  let isHeld = true;
  let hasTurn = false;
  let watching: SilenceWatch | undefined;
  const { plan } = facts;
  return {
    address: facts.address,
    backend: plan.backend,
    modelId: plan.model.id,
    modelName: facts.modelName,
    workerId: facts.workerId,
    plan,
    report: facts.report,
    get isAlive() {
      return facts.isAlive();
    },
    async turn(signal) {
      await facts.turns.take(signal);
      hasTurn = true;
    },
    failure: () => facts.failure(),
    giveUp: (reason) => facts.giveUp(reason),
    watch() {
      watching?.[Symbol.dispose]();
      watching = facts.watch();
      return watching;
    },
    [Symbol.dispose]() {
      if (!isHeld) return;
      isHeld = false;
      watching?.[Symbol.dispose]();
      if (hasTurn) facts.turns.give();
      release();
    },
  };
}

/**
 * The lease when its turn has come; until then it counts, so that the worker stays.
 *
 * @throws cancelled, queue_full; the lease is then released
 */
export async function inTurn(
  lease: GrantedLease,
  { plan, signal }: { readonly plan: WorkerPlan; readonly signal: AbortSignal },
): Promise<Lease> {
  try {
    await lease.turn(signal);
    return lease;
  } catch (thrown) {
    lease[Symbol.dispose]();
    throw signal.aborted ? cancelledError(plan, signal) : thrown;
  }
}
