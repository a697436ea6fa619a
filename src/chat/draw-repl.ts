/** A session with a model that draws: each line gives a picture, in a file of the working directory. */
import { AppError, toAppError } from "../errors.ts";
import { openOutput } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { createStyle, hasColor, stripControls } from "../terminal/style.ts";
import { expandMessage } from "./attachments.ts";
import { type DrawClient, drawPicture, type DrawRequest, partsOf, savePicture } from "./drawing.ts";
import { History, isHistoryWanted } from "./history.ts";
import { Prompt } from "./prompt.ts";

export interface DrawOptions {
  /** Asked for each picture: the runner may have left meanwhile. */
  readonly connect: (signal: AbortSignal) => Promise<DrawClient>;
  readonly request: Omit<DrawRequest, "prompt">;
  readonly input: NodeJS.ReadStream;
  readonly output: NodeJS.WriteStream;
  readonly errors: NodeJS.WriteStream;
  readonly historyFile: string;
  readonly signal: AbortSignal;
}

const LEAVING: ReadonlySet<string> = new Set(["/bye", "/exit", "/quit"]);
const HELP = `Each line is drawn, into a file of this directory; with \`@FILE\` in it, that picture is changed.
  /bye   leave (or Ctrl+D)
Ctrl+C ends what is being drawn.`;

/** @returns the exit code: 0 when the person left, 130 when the signal ended it @throws usage (not at a terminal) */
export async function runDrawing(options: DrawOptions): Promise<number> {
  const { input, output, errors, signal } = options;
  const terminal = [output, errors].find((stream) => stream.isTTY);
  if (!input.isTTY || terminal === undefined) {
    throw new AppError("usage", "cannot draw by lines: not at a terminal", {
      hint: `Give the prompt as an argument: \`tug run ${options.request.model} "…"\`.`,
    });
  }
  openOutput(output);
  openOutput(errors);
  const isWritable = isHistoryWanted(process.env);
  const history = await History.open({ file: options.historyFile, isWritable });
  const style = createStyle(hasColor(terminal));
  using prompt = new Prompt({ input, output: terminal, style, history });
  const say = (text: string): void => void errors.write(`${text}\n`);
  for (;;) {
    const result = await prompt.readLine(signal);
    if (signal.aborted) return 130;
    if (result.kind === "end") return 0;
    if (result.kind === "interrupt") {
      if (result.wasEmpty) say("Press Ctrl+D or type /bye to leave.");
      continue;
    }
    const text = result.submission.text.trim();
    if (text !== "") await history.add(result.submission.typed);
    if (LEAVING.has(text)) return 0;
    if (text !== "") await takeLine(text, { ...options, prompt, say });
  }
}

// --- internal ---

interface Line extends DrawOptions {
  readonly prompt: Prompt;
  readonly say: (text: string) => void;
}

async function takeLine(text: string, line: Line): Promise<void> {
  if (text.startsWith("/")) line.say(HELP);
  else await drawLine(text, line);
}

/** What it fails with is shown, and the session goes on. */
async function drawLine(text: string, { prompt, say, ...options }: Line): Promise<void> {
  const stop = new AbortController();
  using _ = prompt.busy(() => stop.abort());
  const signal = AbortSignal.any([stop.signal, options.signal]);
  try {
    const { content } = await expandMessage(text, { signal });
    const name = await withNote(options.errors, async () => {
      const client = await options.connect(signal);
      const picture = await drawPicture(
        client,
        { ...options.request, prompt: content },
        { signal },
      );
      return savePicture(picture, partsOf(content).text);
    });
    say(`Drew ${name}`);
  } catch (thrown) {
    if (signal.aborted) return;
    const { message, hint } = toAppError(thrown);
    say(
      `error: ${stripControls(message)}${hint === undefined ? "" : `\nhint: ${stripControls(hint)}`}`,
    );
  }
}

async function withNote<T>(stream: NodeJS.WriteStream, work: () => Promise<T>): Promise<T> {
  using progress = createProgress({ stream, transient: true });
  progress.listener({
    type: "progress",
    id: "picture",
    phase: "drawing",
    done_bytes: null,
    total_bytes: null,
  });
  return await work();
}
