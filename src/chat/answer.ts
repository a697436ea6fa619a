/** One answer, streamed: the answer itself to stdout, everything else to stderr. */
import type { ChatRequest, Timings, Usage } from "../api/chat.ts";
import { formatDuration } from "../terminal/bytes.ts";
import type { MarkdownStream } from "../terminal/markdown.ts";
import { openOutput, type Output } from "../terminal/output.ts";
import { startSpinner, type Spinner } from "../terminal/spinner.ts";
import { createStyle, hasColor, stripControls, type Style } from "../terminal/style.ts";
import type { ChatClient } from "./client.ts";

export interface AnswerOptions {
  readonly client: Pick<ChatClient, "chat">;
  readonly request: ChatRequest;
  readonly signal: AbortSignal;
  /** The answer; default stdout. */
  readonly output?: NodeJS.WriteStream;
  /** Reasoning, notices and timings; default stderr. */
  readonly errors?: NodeJS.WriteStream;
  /** Render Markdown; only ever done at a terminal. Default false. */
  readonly markdown?: boolean;
  /** Default: shown if stderr is a terminal. */
  readonly showReasoning?: boolean;
  /** Timings after the answer. Default false. */
  readonly verbose?: boolean;
}

export interface Answer {
  /** Without reasoning. */
  readonly text: string;
  /** `interrupted`: the signal was aborted. `unread`: nobody reads the output any more. */
  readonly outcome: "complete" | "interrupted" | "unread";
  readonly finishReason: string | null;
  readonly usage: Usage | null;
  readonly timings: Timings | null;
  /** Milliseconds to the first text, or null if none came. */
  readonly firstTokenMs: number | null;
  readonly totalMs: number;
}

/**
 * The output always ends in a newline, if anything was written. An interruption is an outcome, not an error.
 *
 * @throws AppError (what the client throws; what came before it has been written)
 */
export async function streamAnswer(options: AnswerOptions): Promise<Answer> {
  const { client, request } = options;
  const writer = await createWriter(options);
  const signal = AbortSignal.any([options.signal, writer.unread]);
  const startedAt = performance.now();
  let answer: Answer = {
    text: "",
    outcome: "complete",
    finishReason: null,
    usage: null,
    timings: null,
    firstTokenMs: null,
    totalMs: 0,
  };
  let isDone = false;
  try {
    signal.throwIfAborted();
    for await (const event of client.chat(request, { signal })) {
      if (event.kind === "done") {
        const { finishReason, usage, timings } = event;
        isDone = true;
        answer = { ...answer, finishReason, usage, timings };
        continue;
      }
      const firstTokenMs = answer.firstTokenMs ?? performance.now() - startedAt;
      const text = event.kind === "content" ? answer.text + event.text : answer.text;
      answer = { ...answer, text, firstTokenMs };
      await writer.write(event.kind, event.text);
      signal.throwIfAborted();
    }
    // A stream that just ends when it is cancelled did not answer in full.
    if (!isDone) signal.throwIfAborted();
  } catch (error) {
    if (!signal.aborted) throw error;
    answer = { ...answer, outcome: options.signal.aborted ? "interrupted" : "unread" };
  } finally {
    await writer.end();
  }
  answer = { ...answer, totalMs: performance.now() - startedAt };
  await writer.notice(renderNotices(answer, options.verbose ?? false));
  return answer;
}

/** `12 prompt tokens (130.1/s), 40 answer tokens (45.2/s), first after 0.3s, 1.2s in all` */
export function renderStatistics(answer: Answer): string {
  const { usage, timings, firstTokenMs, totalMs } = answer;
  const parts = [
    renderCount("prompt", timings?.prompt_n ?? usage?.prompt_tokens, timings?.prompt_per_second),
    renderCount(
      "answer",
      timings?.predicted_n ?? usage?.completion_tokens,
      timings?.predicted_per_second,
    ),
    firstTokenMs === null ? "" : `first after ${formatDuration(firstTokenMs)}`,
    `${formatDuration(totalMs)} in all`,
  ];
  return parts.filter((part) => part !== "").join(", ");
}

// --- internal ---

interface AnswerWriter {
  readonly unread: AbortSignal;
  write(kind: "reasoning" | "content", text: string): Promise<void>;
  end(): Promise<void>;
  notice(lines: readonly string[]): Promise<void>;
}

interface WriterState {
  readonly output: Output;
  readonly errors: Output;
  readonly style: Style;
  readonly showReasoning: boolean;
  readonly markdown: MarkdownStream | undefined;
  readonly spinner: Spinner;
  /** What the last written text was, and whether it ended a line. */
  last: "none" | "reasoning" | "content";
  isLineEnded: boolean;
}

async function createWriter(options: AnswerOptions): Promise<AnswerWriter> {
  const { output = process.stdout, errors = process.stderr } = options;
  const state: WriterState = {
    output: openOutput(output),
    errors: openOutput(errors),
    style: createStyle(hasColor(errors)),
    showReasoning: options.showReasoning ?? openOutput(errors).isTerminal,
    markdown: await createMarkdown(output, options.markdown ?? false),
    spinner: startSpinner({ text: "waiting for the model", stream: errors }),
    last: "none",
    isLineEnded: true,
  };
  return {
    unread: state.output.closed,
    write: (kind, text) =>
      kind === "content" ? writeContent(state, text) : writeReasoning(state, text),
    async end() {
      state.spinner.stop();
      const rest = state.markdown?.end() ?? "";
      if (rest !== "") await emit(state, rest);
      await endLine(state);
    },
    async notice(lines) {
      for (const line of lines) await state.errors.write(`${state.style.dim(line)}\n`);
    },
  };
}

async function createMarkdown(
  output: NodeJS.WriteStream,
  isWanted: boolean,
): Promise<MarkdownStream | undefined> {
  if (!isWanted || !output.isTTY) return undefined;
  const { MarkdownStream } = await import("../terminal/markdown.ts");
  return new MarkdownStream({ columns: () => output.columns, colors: hasColor(output) });
}

async function writeReasoning(state: WriterState, text: string): Promise<void> {
  if (!state.showReasoning || text === "") return;
  state.spinner.stop();
  if (state.last === "content") await endLine(state);
  const header = state.last === "reasoning" ? "" : `${state.style.dim("Thinking:")}\n`;
  state.last = "reasoning";
  state.isLineEnded = text.endsWith("\n");
  const shown = state.errors.isTerminal ? stripControls(text) : text;
  await state.errors.write(header + state.style.dim(shown));
}

async function writeContent(state: WriterState, text: string): Promise<void> {
  const shown = state.output.isTerminal ? stripControls(text) : text;
  const ready = state.markdown === undefined ? shown : state.markdown.push(text);
  if (ready !== "") await emit(state, ready);
}

async function emit(state: WriterState, text: string): Promise<void> {
  state.spinner.stop();
  if (state.last === "reasoning") {
    await endLine(state);
    await state.errors.write("\n");
  }
  state.last = "content";
  state.isLineEnded = text.endsWith("\n");
  await state.output.write(text);
}

async function endLine(state: WriterState): Promise<void> {
  if (state.isLineEnded) return;
  state.isLineEnded = true;
  await (state.last === "reasoning" ? state.errors : state.output).write("\n");
}

function renderNotices(answer: Answer, verbose: boolean): string[] {
  const notices: string[] = [];
  if (answer.finishReason === "length")
    notices.push("(the answer was cut: the limit of tokens was reached)");
  if (verbose && answer.outcome !== "unread") notices.push(renderStatistics(answer));
  return notices;
}

function renderCount(
  what: string,
  count: number | undefined,
  perSecond: number | undefined,
): string {
  if (count === undefined) return "";
  const rate = perSecond === undefined ? "" : ` (${perSecond.toFixed(1)}/s)`;
  return `${count} ${what} ${count === 1 ? "token" : "tokens"}${rate}`;
}
