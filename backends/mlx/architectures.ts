/** Models that mlx-lm makes itself. Pure. */
import type { ModelTraits } from "../../src/runtime/backend.ts";
import names from "./architectures.txt" with { type: "text" };

/**
 * Clause for a model whose classes are in files of its own as transformers loads them, which mlx-lm never does, and which
 * it does not have itself.
 */
export function unreadableCode({ hasAutoMap, architecture }: ModelTraits): string | undefined {
  if (!hasAutoMap || (architecture !== undefined && known().has(architecture))) return undefined;
  return "models that come with PyTorch code of their own";
}

// --- internal ---

let architectures: ReadonlySet<string> | undefined;

/** Of the locked mlx-lm: the files of its `models`, and the names that `MODEL_REMAPPING` maps to them. Split once, if asked. */
function known(): ReadonlySet<string> {
  architectures ??= new Set(names.trim().split(/\s+/));
  return architectures;
}
