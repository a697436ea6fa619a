/** Keeps the promises that observers rely on, and answers from whatever observers do. */
import type { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { Lease } from "../runtime/lease.ts";
import {
  beginAll,
  type InferenceFacts,
  type InferenceObserver,
  type InferenceTrace,
} from "./observer.ts";

/** One trace for all; undefined if none wants to know. */
export function beginGuarded(
  observers: readonly InferenceObserver[],
  facts: InferenceFacts,
): InferenceTrace | undefined {
  return beginAll(observers.map(guard), facts);
}

// --- internal ---

function guard(observer: InferenceObserver): InferenceObserver {
  return {
    begin(facts) {
      try {
        const trace = observer.begin(facts);
        return trace === undefined ? undefined : new GuardedTrace(trace);
      } catch (thrown) {
        warn(thrown);
        return undefined;
      }
    },
  };
}

/** `ended` comes once and last, and what an observer throws is its own affair. */
class GuardedTrace implements InferenceTrace {
  #trace: InferenceTrace | undefined;

  constructor(trace: InferenceTrace) {
    this.#trace = trace;
  }

  acquired(lease: Lease, waitedMs: number): void {
    this.#tell((trace) => trace.acquired(lease, waitedMs));
  }

  responded(status: number, headers: Headers): void {
    this.#tell((trace) => trace.responded(status, headers));
  }

  /** Called for every token: no closure. */
  chunk(bytes: Uint8Array): void {
    try {
      this.#trace?.chunk(bytes);
    } catch (thrown) {
      warn(thrown);
    }
  }

  ended(error?: AppError): void {
    const trace = this.#trace;
    this.#trace = undefined;
    try {
      trace?.ended(error);
    } catch (thrown) {
      warn(thrown);
    }
  }

  #tell(call: (trace: InferenceTrace) => void): void {
    try {
      if (this.#trace !== undefined) call(this.#trace);
    } catch (thrown) {
      warn(thrown);
    }
  }
}

function warn(thrown: unknown): void {
  log.warn(`server: observer failed reason=${String(thrown).slice(0, 200)}`);
}
