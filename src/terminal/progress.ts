/**
 * Draws the progress of long operations on stderr. At a terminal: one line an id with a bar, the rate and the time
 * left, redrawn at most ten times a second. Elsewhere: one line a phase.
 */
import { formatBytes, formatDuration } from "./bytes.ts";
import { SPINNER_FRAMES } from "./spinner.ts";
import { createStyle, hasColor, isInteractive, stripControls, type Style } from "./style.ts";

const DRAW_INTERVAL_MS = 100;
/** The rate is the mean over this window: short enough to follow a stall, long enough to be readable. */
const RATE_WINDOW_MS = 5000;
const BAR_CELLS = 24;
const LABEL_CELLS = 40;
const FALLBACK_COLUMNS = 80;
const FALLBACK_ROWS = 24;

/** The shape of `api/progress.ts`, declared here because drawing knows no wire. */
export type ProgressUpdate =
  | {
      readonly type: "progress";
      readonly id: string;
      readonly phase: string;
      readonly done_bytes: number | null;
      readonly total_bytes: number | null;
    }
  | { readonly type: "warning"; readonly message: string };

export interface ProgressOptions {
  /** Default: stderr. */
  readonly stream?: NodeJS.WriteStream;
  /** Erase everything at the end instead of leaving the last state; default false. */
  readonly transient?: boolean;
  /** Draw nothing but warnings; default false. */
  readonly quiet?: boolean;
  /** Milliseconds on a monotonic clock; for tests. */
  readonly now?: () => number;
}

/** Dispose it before anything else writes to the terminal. */
export interface ProgressDisplay extends Disposable {
  /** Give it to whatever reports progress; it needs no `this`. */
  readonly listener: (event: ProgressUpdate) => void;
  /** Draws the last state, or erases it if transient. May be called again. */
  finish(): void;
}

export function createProgress(options: ProgressOptions = {}): ProgressDisplay {
  const { stream = process.stderr, quiet = false } = options;
  const style = createStyle(hasColor(stream));
  if (quiet || !isInteractive(stream)) return createPlainDisplay(stream, { style, quiet });
  return new LiveDisplay({ ...options, stream, style });
}

/** What a live display remembers of one id. */
export interface ProgressLine {
  readonly id: string;
  phase: string;
  doneBytes: number | null;
  totalBytes: number | null;
  readonly samples: { at: number; done: number }[];
}

/** Bytes a second over the last five seconds, or null while it cannot be known. */
export function rateOf(line: ProgressLine): number | null {
  const first = line.samples[0];
  const last = line.samples.at(-1);
  if (first === undefined || last === undefined || last.at - first.at < DRAW_INTERVAL_MS)
    return null;
  return ((last.done - first.done) * 1000) / (last.at - first.at);
}

/** @param options.columns cells of the terminal; the result is one shorter, because a full line would wrap */
function renderProgressLine(
  line: ProgressLine,
  options: { columns: number; style: Style; frame: number; final: boolean },
): string {
  const { columns, style, frame, final } = options;
  const complete = isComplete(line);
  const spinner = final ? " " : (SPINNER_FRAMES[frame % SPINNER_FRAMES.length] ?? " ");
  const sign = complete ? style.green("✓") : style.cyan(spinner);
  const name = truncate(`${line.phase} ${displayId(line.id)}`, LABEL_CELLS);
  const facts = describe(line, final || complete);
  const room = columns - 1 - 2 - Bun.stringWidth(name) - 1 - Bun.stringWidth(facts) - 1;
  const bar = room >= BAR_CELLS + 1 ? renderBar(line, style) : "";
  const text = [name, bar, style.dim(facts)].filter((part) => part !== "").join(" ");
  return truncate(`${sign} ${text}`, columns - 1);
}

// --- internal ---

function createPlainDisplay(
  stream: NodeJS.WriteStream,
  { style, quiet }: { style: Style; quiet: boolean },
): ProgressDisplay {
  const phases = new Map<string, string>();
  const listener = (event: ProgressUpdate): void => {
    if (event.type === "warning") {
      stream.write(`${renderWarning(event.message, style)}\n`);
      return;
    }
    if (quiet || phases.get(event.id) === event.phase) return;
    phases.set(event.id, event.phase);
    const size = event.total_bytes === null ? "" : ` (${formatBytes(event.total_bytes)})`;
    stream.write(`${stripControls(event.phase)} ${displayId(event.id)}${size}\n`);
  };
  return { listener, finish: nothing, [Symbol.dispose]: nothing };
}

function nothing(): void {}

class LiveDisplay implements ProgressDisplay {
  readonly listener: (event: ProgressUpdate) => void;
  readonly #stream: NodeJS.WriteStream;
  readonly #style: Style;
  readonly #transient: boolean;
  readonly #now: () => number;
  readonly #lines = new Map<string, ProgressLine>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #drawnAt = Number.NEGATIVE_INFINITY;
  #drawnRows = 0;
  #frame = 0;
  #finished = false;

  constructor(options: ProgressOptions & { stream: NodeJS.WriteStream; style: Style }) {
    this.#stream = options.stream;
    this.#style = options.style;
    this.#transient = options.transient ?? false;
    this.#now = options.now ?? (() => performance.now());
    this.listener = (event) => this.#onEvent(event);
  }

  finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    clearInterval(this.#timer);
    if (this.#transient) this.#replace([], []);
    else if (this.#lines.size > 0) this.#draw();
  }

  [Symbol.dispose](): void {
    this.finish();
  }

  #onEvent(event: ProgressUpdate): void {
    if (this.#finished) return;
    if (event.type === "warning") {
      this.#replace([renderWarning(event.message, this.#style)], this.#render());
      return;
    }
    updateLine(this.#lines, event, this.#now());
    // A tick redraws, so that a stall and the spinner show; it must not keep the process alive.
    this.#timer ??= setInterval(() => this.#draw(), DRAW_INTERVAL_MS).unref();
    if (this.#now() - this.#drawnAt >= DRAW_INTERVAL_MS) this.#draw();
  }

  #draw(): void {
    this.#drawnAt = this.#now();
    this.#frame += 1;
    this.#replace(this.#overflow(), this.#render());
  }

  /** Writes `above` for good over the live lines, and `live` under it. */
  #replace(above: readonly string[], live: readonly string[]): void {
    const erase = this.#drawnRows > 0 ? `\u001B[${this.#drawnRows}A\r\u001B[J` : "";
    const text = [...above, ...live].map((line) => `${line}\n`).join("");
    if (erase !== "" || text !== "") this.#stream.write(erase + text);
    this.#drawnRows = live.length;
  }

  /** Complete lines that no longer fit on the screen become fixed text. */
  #overflow(): string[] {
    const fixed: string[] = [];
    let surplus = this.#lines.size - this.#room();
    for (const line of this.#lines.values()) {
      if (surplus <= 0) break;
      if (!isComplete(line)) continue;
      fixed.push(this.#renderLine(line));
      this.#lines.delete(line.id);
      surplus -= 1;
    }
    return fixed;
  }

  #render(): string[] {
    const room = this.#room();
    const shown = [...this.#lines.values()].slice(0, room).map((line) => this.#renderLine(line));
    const hidden = this.#lines.size - shown.length;
    return hidden > 0 ? [...shown, this.#style.dim(`  and ${hidden} more`)] : shown;
  }

  #renderLine(line: ProgressLine): string {
    return renderProgressLine(line, {
      columns: this.#stream.columns || FALLBACK_COLUMNS,
      style: this.#style,
      frame: this.#frame,
      final: this.#finished,
    });
  }

  /** Lines that fit; two are left for "and N more" and the cursor. */
  #room(): number {
    return Math.max(1, (this.#stream.rows || FALLBACK_ROWS) - 2);
  }
}

function updateLine(
  lines: Map<string, ProgressLine>,
  event: ProgressUpdate & { type: "progress" },
  at: number,
): void {
  const known = lines.get(event.id);
  const line = known ?? {
    id: event.id,
    phase: event.phase,
    doneBytes: null,
    totalBytes: null,
    samples: [],
  };
  const done = event.done_bytes;
  const last = line.samples.at(-1);
  if (line.phase !== event.phase || (done !== null && last !== undefined && done < last.done))
    line.samples.length = 0;
  line.phase = stripControls(event.phase);
  line.doneBytes = done;
  line.totalBytes = event.total_bytes;
  if (done !== null) addSample(line.samples, at, done);
  if (known === undefined) lines.set(event.id, line);
}

function addSample(samples: ProgressLine["samples"], at: number, done: number): void {
  const last = samples.at(-1);
  // One sample a drawing is enough; thousands of small chunks a second would only cost memory.
  if (last !== undefined && samples.length > 1 && at - last.at < DRAW_INTERVAL_MS / 2) {
    last.done = done;
    last.at = at;
  } else samples.push({ at, done });
  while (samples.length > 2 && at - (samples[0]?.at ?? at) > RATE_WINDOW_MS) samples.shift();
}

function isComplete(line: ProgressLine): boolean {
  return line.totalBytes !== null && line.doneBytes !== null && line.doneBytes >= line.totalBytes;
}

function describe(line: ProgressLine, still: boolean): string {
  const { doneBytes, totalBytes } = line;
  if (doneBytes === null) return "";
  if (totalBytes === null) return formatBytes(doneBytes);
  if (still && doneBytes >= totalBytes) return formatBytes(totalBytes);
  const percent = totalBytes === 0 ? 100 : Math.floor((doneBytes * 100) / totalBytes);
  const amount = `${percent}% ${formatBytes(doneBytes)}/${formatBytes(totalBytes)}`;
  const rate = still ? null : rateOf(line);
  if (rate === null) return amount;
  const left = rate > 0 ? ` ${formatRemaining((totalBytes - doneBytes) / rate)}` : "";
  return `${amount} ${formatBytes(rate)}/s${left}`;
}

/** Whole seconds: tenths of an estimate are noise. */
function formatRemaining(seconds: number): string {
  return seconds < 60 ? `${Math.ceil(seconds)}s` : formatDuration(seconds * 1000);
}

function renderBar(line: ProgressLine, style: Style): string {
  const { doneBytes, totalBytes } = line;
  if (doneBytes === null || totalBytes === null || isComplete(line)) return "";
  const filled = Math.floor((doneBytes / totalBytes) * BAR_CELLS);
  return style.cyan("█".repeat(filled)) + style.dim("░".repeat(BAR_CELLS - filled));
}

/** A digest is shown as its first twelve hexadecimal digits. */
function displayId(id: string): string {
  return stripControls(id.replace(/^sha256:([0-9a-f]{12})[0-9a-f]{52}$/, "$1"));
}

function renderWarning(message: string, style: Style): string {
  return `${style.yellow("warning:")} ${stripControls(message)}`;
}

function truncate(text: string, columns: number): string {
  if (Bun.stringWidth(text) <= columns) return text;
  return `${Bun.sliceAnsi(text, 0, Math.max(0, columns - 1))}…`;
}
