/** Notices an engine that has stopped answering, while somebody waits for it and only then. */
import type { Clock } from "./clock.ts";

export interface SilenceWatch extends Disposable {
  /** The engine has sent something. Called for every token: it only notes the time. */
  heard(): void;
}

export interface SilenceOptions {
  readonly clock: Clock;
  /** Without a byte for this long the engine is asked. */
  readonly silenceMs: number;
  /** Whether it still answers: reading a long prompt takes minutes, and is no fault. */
  isResponsive(): Promise<boolean>;
  onUnresponsive(): void;
}

/** One timer, set again at most once per `silenceMs`. */
export function watchSilence(options: SilenceOptions): SilenceWatch {
  const { clock, silenceMs } = options;
  let heardMs = clock.now();
  let isOver = false;
  let timer = clock.setTimer(silenceMs, look);
  function look(): void {
    const leftMs = heardMs + silenceMs - clock.now();
    if (leftMs > 0) timer = clock.setTimer(leftMs, look);
    else void ask();
  }
  async function ask(): Promise<void> {
    const isResponsive = await options.isResponsive();
    if (isOver) return;
    const wasHeard = heardMs + silenceMs > clock.now();
    if (!isResponsive && !wasHeard) return options.onUnresponsive();
    heardMs = clock.now();
    timer = clock.setTimer(silenceMs, look);
  }
  return {
    heard() {
      heardMs = clock.now();
    },
    [Symbol.dispose]() {
      isOver = true;
      timer[Symbol.dispose]();
    },
  };
}
