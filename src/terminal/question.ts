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

/**
 * @throws usage (no terminal; the hint names the flag) · cancelled (Ctrl-C, Escape, or the signal)
 */
export async function confirm(options: ConfirmOptions): Promise<boolean> {
  const { message, flag, initial = false, signal } = options;
  const { input = process.stdin, output = process.stderr } = options;
  if (!input.isTTY || !output.isTTY) {
    throw new AppError("usage", `cannot ask \`${message}\`: not at a terminal`, {
      hint: `Give \`${flag}\` to go ahead without the question.`,
    });
  }
  const clack = await import("@clack/prompts");
  const answer = await clack.confirm({
    message,
    initialValue: initial,
    input,
    output,
    ...(signal === undefined ? {} : { signal }),
  });
  if (clack.isCancel(answer)) throw new AppError("cancelled", "cancelled");
  return answer;
}
