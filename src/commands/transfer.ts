/** What the commands have in common that move models over a network. */
import type { ProgressListener } from "../api/progress.ts";
import { toAppError } from "../errors.ts";
import { createProgress } from "../terminal/progress.ts";

export interface TransferOptions {
  /** Draw no progress; warnings show all the same. */
  readonly quiet: boolean;
  /** What remains of it when it is interrupted: one sentence. */
  readonly kept: string;
}

/** For pulls. */
export const FETCHED_IS_KEPT = "What was fetched is kept; run the command again to go on.";

/** Shows the progress of `work`; where it is interrupted, says what remains of it. */
export async function withTransferProgress<T>(
  { quiet, kept }: TransferOptions,
  work: (onProgress: ProgressListener) => Promise<T>,
): Promise<T> {
  using progress = createProgress({ quiet });
  try {
    return await work(progress.listener);
  } catch (thrown) {
    const error = toAppError(thrown);
    // The last state first: nothing is drawn over the sentence.
    progress.finish();
    if (error.code === "cancelled") process.stderr.write(`${kept}\n`);
    throw error;
  }
}
