/** Waits until an engine can serve. It may take as long as it likes, as long as something happens. */
import { pause } from "../pause.ts";
import { probeEngine } from "./engine-ask.ts";

export interface ReadinessOptions {
  readonly socket: string;
  /** Answers 200 when ready. */
  readonly path: string;
  /** Resolves when the process has ended. */
  readonly exited: Promise<unknown>;
  /** When the engine last printed something, on the scale of `performance.now()`. */
  lastOutputMs(): number;
  /** Gives up when nothing was printed and the socket gave no new answer for this long. */
  readonly stallMs: number;
  readonly signal: AbortSignal;
}

export type Readiness = "ready" | "exited" | "stalled";

/** A small model is ready within 40 ms, so the first probes are close together. */
const FIRST_PAUSE_MS = 5;
const MAX_PAUSE_MS = 250;
/** An engine that accepts a connection and says nothing must not stop us from looking at its process. */
const PROBE_TIMEOUT_MS = 5000;

/** Throws the signal's reason when it aborts. Leaves the process alone in every case. */
export async function waitUntilReady(options: ReadinessOptions): Promise<Readiness> {
  const ended = new AbortController();
  void options.exited.then(() => ended.abort());
  const signal = AbortSignal.any([options.signal, ended.signal]);
  const timeoutMs = Math.min(PROBE_TIMEOUT_MS, options.stallMs);
  let answer: number | undefined;
  let progressMs = performance.now();
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 1.5, MAX_PAUSE_MS)) {
    const next = await probeEngine(options.socket, options.path, { timeoutMs, signal });
    options.signal.throwIfAborted();
    if (ended.signal.aborted) return "exited";
    if (next === 200) return "ready";
    if (next !== answer) progressMs = performance.now();
    answer = next;
    const silentMs = performance.now() - Math.max(progressMs, options.lastOutputMs());
    if (silentMs >= options.stallMs) return "stalled";
    // Ends early when the process does, or when nobody wants it any more.
    await pause(pauseMs, signal);
  }
}
