/** A caller's hold on a worker. */
import type { AppError } from "../errors.ts";

/** While it is held the worker is not unloaded. Release it when the answer has ended, however it ended. */
export interface Lease extends Disposable {
  /** The unix socket the engine listens on. */
  readonly socket: string;
  readonly backend: string;
  readonly modelId: string;
  readonly modelName: string;
  readonly workerId: number;
  /**
   * Why the engine died, for a caller whose connection to it broke; undefined if it is alive. Waits up to a second,
   * because a broken connection is seen before the exit.
   */
  failure(): Promise<AppError | undefined>;
}

export type LeaseFacts = Omit<Lease, typeof Symbol.dispose>;

/** @param release called once, however often the lease is disposed */
export function createLease(facts: LeaseFacts, release: () => void): Lease {
  let isHeld = true;
  return {
    ...facts,
    [Symbol.dispose]() {
      if (!isHeld) return;
      isHeld = false;
      release();
    },
  };
}
