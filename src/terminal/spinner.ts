/** A sign of life on stderr while nothing can be shown yet. Draws nothing unless the stream is a terminal. */
import { createStyle, hasColor, isInteractive } from "./style.ts";

export const SPINNER_FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"] as const;
const INTERVAL_MS = 100;
/** What is over sooner than this needs no sign; drawing it would flicker. */
const DEFAULT_DELAY_MS = 200;

export interface SpinnerOptions {
  readonly text: string;
  /** Default: stderr. */
  readonly stream?: NodeJS.WriteStream;
  /** Milliseconds before it is first drawn; default 200. */
  readonly delayMs?: number;
}

export interface Spinner extends Disposable {
  /** Erases it. May be called again. */
  stop(): void;
}

export function startSpinner(options: SpinnerOptions): Spinner {
  const { text, stream = process.stderr, delayMs = DEFAULT_DELAY_MS } = options;
  if (!isInteractive(stream)) return { stop() {}, [Symbol.dispose]() {} };
  const style = createStyle(hasColor(stream));
  let frame = 0;
  let drawn = false;
  const draw = (): void => {
    drawn = true;
    const sign = SPINNER_FRAMES[frame++ % SPINNER_FRAMES.length] ?? "";
    stream.write(`\r${style.cyan(sign)} ${style.dim(text)}\u001B[K`);
  };
  let timer = setTimeout(() => {
    draw();
    timer = setInterval(draw, INTERVAL_MS);
  }, delayMs);
  const stop = (): void => {
    clearTimeout(timer);
    if (drawn) stream.write("\r\u001B[K");
    drawn = false;
  };
  return { stop, [Symbol.dispose]: stop };
}
