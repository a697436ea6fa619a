/** What the commands have in common that move models over a network. */
import { setPriority } from "node:os";
import type { ProgressListener } from "../api/progress.ts";
import { toAppError } from "../errors.ts";
import { log } from "../log.ts";
import { createProgress } from "../terminal/progress.ts";

export interface TransferOptions {
  /** Draw no progress; warnings show all the same. */
  readonly quiet: boolean;
  /** What remains of it when it is interrupted: one sentence. */
  readonly kept: string;
}

/** For pulls. */
export const FETCHED_IS_KEPT = "What was fetched is kept; run the command again to go on.";

/** As nice as what people start with `nice`. */
const PRIORITY = 10;

/** Hashing and writing take what others leave: answers that are being given nearby keep their pace. */
export function makeWay(): void {
  try {
    setPriority(PRIORITY);
  } catch (error) {
    log.debug(`transfer: could not lower the priority reason=${(error as Error).message}`);
  }
}

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
