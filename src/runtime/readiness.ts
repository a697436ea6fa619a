/** Waits until an engine can serve. It may take as long as it likes, as long as something happens. */
import { pause } from "../pause.ts";
import type { EngineAddress } from "./engine-address.ts";
import { probeEngine } from "./engine-ask.ts";

export interface ReadinessOptions {
  readonly address: EngineAddress;
  /** Answers 200 when ready. */
  readonly path: string;
  /** Resolves when the process has ended. */
  readonly exited: Promise<unknown>;
  /** When the engine last printed something, on the scale of `performance.now()`. */
  lastOutputMs(): number;
  /** Gives up when nothing was printed and it gave no new answer for this long. */
  readonly stallMs: number;
  /** Gives up after this long, whatever happens; default: never. */
  readonly boundMs?: number | undefined;
  readonly signal: AbortSignal;
}

export interface Readiness {
  /** `late`: it makes progress, and has had its time. */
  readonly outcome: "ready" | "exited" | "stalled" | "late";
  /** The status of the last answer; undefined: there was none. */
  readonly answer: number | undefined;
}

/** A small model is ready within 40 ms, so the first probes are close together. Each takes about a millisecond. */
const MIN_PAUSE_MS = 5;
const MAX_PAUSE_MS = 250;
/** Pauses grow with what it has taken so far: readiness is seen at most this part of the load too late. */
const PAUSE_SHARE = 1 / 16;
/** An engine that accepts a connection and says nothing must not stop us from looking at its process. */
const PROBE_TIMEOUT_MS = 5000;

/** How long to wait before asking again what was not ready after so many milliseconds. */
export function probePause(elapsedMs: number): number {
  return Math.min(Math.max(elapsedMs * PAUSE_SHARE, MIN_PAUSE_MS), MAX_PAUSE_MS);
}

/** Throws the signal's reason when it aborts. Leaves the process alone in every case. */
export async function waitUntilReady(options: ReadinessOptions): Promise<Readiness> {
  const ended = new AbortController();
  void options.exited.then(() => ended.abort());
  const signal = AbortSignal.any([options.signal, ended.signal]);
  const { boundMs = Infinity } = options;
  const timeoutMs = Math.min(PROBE_TIMEOUT_MS, options.stallMs, boundMs);
  let answer: number | undefined;
  const startedMs = performance.now();
  let progressMs = startedMs;
  for (;;) {
    const next = await probeEngine(options.address, options.path, { timeoutMs, signal });
    options.signal.throwIfAborted();
    if (ended.signal.aborted) return { outcome: "exited", answer };
    if (next === 200) return { outcome: "ready", answer: next };
    if (next !== answer) progressMs = performance.now();
    answer = next;
    const nowMs = performance.now();
    const heardMs = isRefusal(answer) ? progressMs : options.lastOutputMs();
    const silentMs = nowMs - Math.max(progressMs, heardMs);
    if (silentMs >= options.stallMs) return { outcome: "stalled", answer };
    if (nowMs - startedMs >= boundMs) return { outcome: "late", answer };
    // Ends early when the process does, or when nobody wants it any more.
    await pause(probePause(nowMs - startedMs), signal);
  }
}

// --- internal ---

/** It is there and has nothing of that path: what it prints then may be about our own questions, and is no progress. */
function isRefusal(status: number | undefined): boolean {
  return status !== undefined && status >= 400 && status < 500;
}
