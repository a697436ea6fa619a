/** Questions to a person. Never asked of a pipe: clack would wait for ever. */
import { AppError } from "../errors.ts";

export interface ConfirmOptions {
  /** The question, such as `Remove all models?`. */
  readonly message: string;
  /** The flag that answers it beforehand, such as `--force`. */
  readonly flag: string;
  /** What Enter means; default false. */
  readonly initial?: boolean;
  readonly signal?: AbortSignal;
  readonly input?: NodeJS.ReadStream;
  /** Default: stderr, since stdout carries answers only. */
  readonly output?: NodeJS.WriteStream;
}

export type TextOptions = Omit<ConfirmOptions, "initial">;

/** One line of text. @throws usage (no terminal; the hint names the flag) · cancelled */
export async function ask(options: TextOptions): Promise<string> {
  const prompt = toPrompt(options);
  const { text } = await import("@clack/prompts");
  return answerOf(await text(prompt));
}

/** One line that is not shown. @throws usage (no terminal; the hint names the flag) · cancelled */
export async function askSecret(options: TextOptions): Promise<string> {
  const prompt = toPrompt(options);
  const { password } = await import("@clack/prompts");
  return answerOf(await password({ ...prompt, mask: "" }));
}

/**
 * @throws usage (no terminal; the hint names the flag) · cancelled (Ctrl-C, Escape, or the signal)
 */
export async function confirm(options: ConfirmOptions): Promise<boolean> {
  const { initial = false, ...prompt } = options;
  const shared = toPrompt(prompt, "go ahead without the question");
  const clack = await import("@clack/prompts");
  return answerOf(await clack.confirm({ ...shared, initialValue: initial }));
}

// --- internal ---

interface Prompt {
  readonly message: string;
  readonly input: NodeJS.ReadStream;
  readonly output: NodeJS.WriteStream;
  readonly signal?: AbortSignal;
}

/** What clack takes, once it is certain that somebody is there to answer. */
function toPrompt(options: TextOptions, purpose = "answer it beforehand"): Prompt {
  const { message, flag, signal } = options;
  const { input = process.stdin, output = process.stderr } = options;
  if (!input.isTTY || !output.isTTY) {
    throw new AppError("usage", `cannot ask \`${message}\`: not at a terminal`, {
      hint: `Give \`${flag}\` to ${purpose}.`,
    });
  }
  return { message, input, output, ...(signal === undefined ? {} : { signal }) };
}

/** Ctrl-C and Escape give a symbol. */
function answerOf<T>(answer: T): Exclude<T, symbol> {
  if (typeof answer === "symbol") throw new AppError("cancelled", "cancelled");
  return answer as Exclude<T, symbol>;
}
