/**
 * Draws the progress of long operations on stderr. At a terminal: one line an id with a bar, the rate and the time
 * left, and one for all of them together, redrawn at most ten times a second. Elsewhere: one line a phase.
 */
import { formatBytes, formatDuration } from "./bytes.ts";
import { SPINNER_FRAMES } from "./spinner.ts";
import { createStyle, hasColor, isInteractive, stripControls, type Style } from "./style.ts";

const DRAW_INTERVAL_MS = 100;
/** The rate is the mean over this window: short enough to follow a stall, long enough to be readable. */
const RATE_WINDOW_MS = 5000;
const BAR_CELLS = 24;
/** A shorter bar says nothing that the percentage does not. */
const MIN_BAR_CELLS = 8;
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

/** How lines are drawn that stand one above the other. */
interface LineStyle {
  /** Cells of the terminal; a line is one shorter, because a full line would wrap. */
  readonly columns: number;
  readonly style: Style;
  readonly frame: number;
  readonly final: boolean;
  /** Cells of the longest phase, of the longest name and of a bar, for what stands under them. */
  readonly phaseCells: number;
  readonly nameCells: number;
  readonly barCells: number;
}

function renderProgressLine(line: ProgressLine, options: LineStyle): string {
  const { columns, style, frame, final } = options;
  const complete = isComplete(line);
  const spinner = final ? " " : (SPINNER_FRAMES[frame % SPINNER_FRAMES.length] ?? " ");
  const sign = complete ? style.green("✓") : style.cyan(spinner);
  const name = padEnd(nameOf(line, options.phaseCells), options.nameCells);
  const facts = describe(line, final || complete);
  const bar = renderBar(line, style, options.barCells);
  const text = [name, bar, style.dim(facts)].filter((part) => part !== "").join(" ");
  return truncate(`${sign} ${text}`, columns - 1).trimEnd();
}

function nameOf({ phase, id }: ProgressLine, phaseCells: number): string {
  return truncate(`${padEnd(phase, phaseCells)} ${displayId(id)}`.trim(), LABEL_CELLS);
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
  readonly #sum = new Sum();
  #timer: ReturnType<typeof setInterval> | undefined;
  #drawnAt = Number.NEGATIVE_INFINITY;
  #drawnRows = 0;
  /** The most that has stood behind a bar: it only grows, else bars would change their length with every digit. */
  #factsCells = 0;
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
    if (this.#sum.isKept(event)) return;
    this.#sum.add(updateLine(this.#lines, event, this.#now()), this.#now());
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
      fixed.push(...this.#renderLines([line]));
      this.#lines.delete(line.id);
      this.#sum.keep(line);
      surplus -= 1;
    }
    return fixed;
  }

  #render(): string[] {
    const shown = [...this.#lines.values()].slice(0, this.#room());
    const hidden = this.#lines.size - shown.length;
    const more = hidden > 0 ? [this.#style.dim(`  and ${hidden} more`)] : [];
    const total = this.#sum.line(this.#lines.values());
    const drawn = this.#renderLines(total === undefined ? shown : [...shown, total]);
    return total === undefined
      ? [...drawn, ...more]
      : [...drawn.slice(0, -1), ...more, ...drawn.slice(-1)];
  }

  #renderLines(lines: readonly ProgressLine[]): string[] {
    const phaseCells = widest(lines.filter(({ id }) => id !== "").map(({ phase }) => phase));
    const nameCells = widest(lines.map((line) => nameOf(line, phaseCells)));
    const columns = this.#stream.columns || FALLBACK_COLUMNS;
    const options: LineStyle = {
      columns,
      style: this.#style,
      frame: this.#frame,
      final: this.#finished,
      phaseCells,
      nameCells,
      barCells: this.#barCells(lines, columns - 1 - 2 - nameCells - 1),
    };
    return lines.map((line) => renderProgressLine(line, options));
  }

  /** Of all bars the same, so that they can be compared. @param room cells behind the names */
  #barCells(lines: readonly ProgressLine[], room: number): number {
    const facts = lines
      .filter((line) => !isComplete(line))
      .map((line) => describe(line, this.#finished));
    this.#factsCells = Math.max(this.#factsCells, widest(facts));
    const cells = Math.min(BAR_CELLS, room - this.#factsCells - 1);
    return cells < MIN_BAR_CELLS ? 0 : cells;
  }

  /** Lines that fit; three are left for "and N more", the total and the cursor. */
  #room(): number {
    const reserved = this.#sum.isShown ? 3 : 2;
    return Math.max(1, (this.#stream.rows || FALLBACK_ROWS) - reserved);
  }
}

/** All lines together. */
class Sum {
  /** Bytes that came while they were watched: what was there before says nothing of the rate. */
  #moved = 0;
  readonly #samples: ProgressLine["samples"] = [];
  /** Complete lines that are no longer drawn, by id. */
  readonly #kept = new Map<string, { readonly phase: string; readonly bytes: number }>();
  #counted = 0;

  /** Whether there is anything to sum up. */
  get isShown(): boolean {
    return this.#counted > 1;
  }

  add({ id, moved, isCounted }: Change, at: number): void {
    // One that goes on in another phase is drawn again.
    this.#kept.delete(id);
    this.#moved += moved;
    if (isCounted) this.#counted += 1;
    if (this.isShown || moved > 0) addSample(this.#samples, at, this.#moved);
  }

  /** A complete line leaves the screen. */
  keep({ id, phase, totalBytes }: ProgressLine): void {
    this.#kept.set(id, { phase, bytes: totalBytes ?? 0 });
  }

  /** Whether this has been said, and drawn for good. */
  isKept({ id, phase, done_bytes: done }: ProgressUpdate & { type: "progress" }): boolean {
    const kept = this.#kept.get(id);
    return kept !== undefined && kept.phase === stripControls(phase) && kept.bytes === done;
  }

  /** @returns undefined unless several things are counted in bytes */
  line(lines: Iterable<ProgressLine>): ProgressLine | undefined {
    if (!this.isShown) return undefined;
    let doneBytes = this.#kept.values().reduce((sum, { bytes }) => sum + bytes, 0);
    let totalBytes: number | null = doneBytes;
    for (const line of lines) {
      if (line.doneBytes === null) continue;
      doneBytes += line.doneBytes;
      // The sum of what is known would promise an end that is none.
      totalBytes =
        totalBytes === null || line.totalBytes === null ? null : totalBytes + line.totalBytes;
    }
    return { id: "", phase: "total", doneBytes, totalBytes, samples: this.#samples };
  }
}

/** What an event changed. */
interface Change {
  readonly id: string;
  /** Bytes that came since the line's last event. */
  readonly moved: number;
  /** It is counted in bytes from now on. */
  readonly isCounted: boolean;
}

function updateLine(
  lines: Map<string, ProgressLine>,
  event: ProgressUpdate & { type: "progress" },
  at: number,
): Change {
  const { id } = event;
  const known = lines.get(id);
  const line = known ?? { id, phase: "", doneBytes: null, totalBytes: null, samples: [] };
  const phase = stripControls(event.phase);
  const done = event.done_bytes;
  const last = line.samples.at(-1)?.done;
  const moved = line.phase === phase && done !== null && last !== undefined ? done - last : 0;
  if (line.phase !== phase || moved < 0) line.samples.length = 0;
  const isCounted = done !== null && line.doneBytes === null;
  line.phase = phase;
  line.doneBytes = done;
  line.totalBytes = event.total_bytes;
  if (done !== null) addSample(line.samples, at, done);
  if (known === undefined) lines.set(id, line);
  return { id, moved: Math.max(0, moved), isCounted };
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

function renderBar(line: ProgressLine, style: Style, cells: number): string {
  const { doneBytes, totalBytes } = line;
  if (doneBytes === null || totalBytes === null || isComplete(line) || cells === 0) return "";
  const filled = Math.floor((doneBytes / totalBytes) * cells);
  return style.cyan("█".repeat(filled)) + style.dim("░".repeat(cells - filled));
}

/** A digest is shown as its first twelve hexadecimal digits. */
function displayId(id: string): string {
  return stripControls(id.replace(/^sha256:([0-9a-f]{12})[0-9a-f]{52}$/, "$1"));
}

function renderWarning(message: string, style: Style): string {
  return `${style.yellow("warning:")} ${stripControls(message)}`;
}

function widest(texts: readonly string[]): number {
  return texts.reduce((cells, text) => Math.max(cells, Bun.stringWidth(text)), 0);
}

function padEnd(text: string, cells: number): string {
  return text + " ".repeat(Math.max(0, cells - Bun.stringWidth(text)));
}

function truncate(text: string, columns: number): string {
  if (Bun.stringWidth(text) <= columns) return text;
  return `${Bun.sliceAnsi(text, 0, Math.max(0, columns - 1))}…`;
}
