/** What llama-server's flags change of the memory it takes. Pure; the values have been checked. */
import type { FlagMemory } from "../../src/runtime/backend.ts";
import type { Flag } from "./flags.ts";

/** llama-server's own `--batch-size`; a micro-batch is no larger than a batch. @see llama.cpp common/common.h */
const BATCH_TOKENS = 2048;

/** Of several that say the same the last one holds, as in the engine. @returns undefined if they change nothing */
export function memoryOf(flags: readonly Flag[]): FlagMemory | undefined {
  const last = (names: string): number | undefined => {
    const found = flags.findLast(({ name }) => names.split(" ").includes(name));
    return found?.value === undefined ? undefined : Number(found.value);
  };
  const memory: FlagMemory = {
    promptCacheMiB: last("-cram --cache-ram"),
    contextCheckpoints: last("-ctxcp --ctx-checkpoints --swa-checkpoints"),
    microBatch: microBatchOf(last("-b --batch-size"), last("-ub --ubatch-size")),
    keepsWholeWindows: flags.some(({ name }) => name === "--swa-full") || undefined,
  };
  return Object.values(memory).some((value) => value !== undefined) ? memory : undefined;
}

// --- internal ---

/** 0 of a micro-batch is all of the batch. */
function microBatchOf(batch: number | undefined, micro: number | undefined): number | undefined {
  // A larger batch changes nothing: it is computed in the same parts.
  if (micro === undefined) return undefined;
  const most = batch ?? BATCH_TOKENS;
  return Math.max(1, micro === 0 ? most : Math.min(micro, most));
}
