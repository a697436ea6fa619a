import type { RequestRecord } from "../api/requests.ts";
import { connect } from "../client/connect.ts";
import { findRequest, replayRequest } from "../client/requests.ts";
import { AppError } from "../errors.ts";
import { printJson, renderJson } from "../terminal/json.ts";
import { openOutput, print } from "../terminal/output.ts";
import { createStyle, hasColor, stripControls } from "../terminal/style.ts";
import { answerError, answerText } from "./answer-text.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";
import { diffLines } from "./line-diff.ts";

export const command = defineCommand({
  args: {
    id: { type: "positional", description: "The request; `tug requests` lists them" },
    model: { type: "string", valueHint: "MODEL", description: "Ask this model instead" },
    diff: { type: "boolean", description: "Show what differs from the recorded answer" },
    json: JSON_FLAG,
  },
  details: `Sends a recorded request again, with its own settings. A model at a temperature above 0 answers differently each
time. What images or sounds were cut from cannot be sent again.`,
  async run({ args, config, paths, signal }) {
    const client = await connect("inference", { config, paths, signal });
    const record = await findRequest(client, args.id, { signal });
    const startedMs = performance.now();
    const isQuiet = args.json === true || args.diff === true;
    const parts = replayRequest(client, record, { model: args.model, signal });
    const text = await readAnswer(parts, isQuiet ? async () => true : writeOut);
    const before = recordedText(record);
    if (args.json === true) {
      const durationMs = Math.round(performance.now() - startedMs);
      return printJson({
        id: record.id,
        model: args.model ?? record.model,
        recorded: before,
        replayed: text,
        same: before === text,
        duration_ms: durationMs,
      });
    }
    if (args.diff === true) return print(renderDiff(before, text, hasColor(process.stdout)));
    if (!text.endsWith("\n")) await print("\n");
  },
});

/**
 * The words of an answer, handed to `write` as they come; an answer without any is shown as it is.
 *
 * @throws worker_failed (the answer says that something went wrong)
 */
export async function readAnswer(
  parts: AsyncIterable<unknown>,
  write: (text: string) => Promise<boolean>,
): Promise<string> {
  const words: string[] = [];
  let last: unknown;
  for await (const part of parts) {
    const error = answerError(part);
    if (error !== undefined) {
      throw new AppError("worker_failed", `cannot replay: ${stripControls(error).slice(0, 200)}`);
    }
    last = part;
    const text = answerText(part);
    if (text === "") continue;
    words.push(text);
    if (!(await write(text))) break;
  }
  if (words.length > 0 || last === undefined) return words.join("");
  const whole = renderJson(last);
  await write(whole);
  return whole;
}

/** As `diff -u` marks lines. */
export function renderDiff(before: string, after: string, colors: boolean): string {
  if (before === after) return "The answers are the same.\n";
  const style = createStyle(colors);
  const lines = diffLines(before, after).map(({ kind, text }) => {
    const shown = stripControls(text);
    if (kind === "same") return `  ${shown}\n`;
    return kind === "removed" ? `${style.red(`- ${shown}`)}\n` : `${style.green(`+ ${shown}`)}\n`;
  });
  return lines.join("");
}

export function recordedText({ response }: RequestRecord): string {
  if (response === null) return "";
  let value: unknown;
  try {
    value = JSON.parse(response);
  } catch {
    // It was cut: it is what is left of it.
    return response;
  }
  return answerText(value) || renderJson(value);
}

// --- internal ---

function writeOut(text: string): Promise<boolean> {
  const output = openOutput();
  return output.write(output.isTerminal ? stripControls(text) : text);
}
