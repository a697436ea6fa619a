/** What engines that build on transformers read, and when they need code that comes with a model. Pure. */
import type { ModelTraits } from "../../src/runtime/backend.ts";
import architectures from "./architectures.txt" with { type: "text" };

/**
 * Clause for weights of a kind that an engine does not read.
 *
 * @param reads whether it reads weights that are quantised so; undefined if they are not
 */
export function unreadableWeights(
  { quantization }: ModelTraits,
  reads: (quantization: string) => boolean,
): string | undefined {
  if (quantization === undefined || reads(quantization)) return undefined;
  if (quantization === "mlx") return "weights that are quantised for MLX";
  return `weights that are quantised with ${quantization.toUpperCase()}`;
}

/** What neither vLLM nor SGLang has: formats of other engines' own. */
export function unreadableOnGpus(traits: ModelTraits): string | undefined {
  return unreadableWeights(traits, (quantization) => !OWN_FORMATS.has(quantization));
}

/**
 * Whether transformers could make such a model only with the Python files beside it. A model that transformers knows by
 * now often still has those that it came with; they are not run then.
 */
export function needsAutoMap({ hasAutoMap, architecture }: ModelTraits): boolean {
  return hasAutoMap && !(architecture !== undefined && knownArchitectures().has(architecture));
}

// --- internal ---

const OWN_FORMATS: ReadonlySet<string> = new Set(["mlx", "exl2", "exl3"]);

let known: ReadonlySet<string> | undefined;

/** Of the locked transformers: the names in its `models/auto/auto_mappings.py`, `CONFIG_MAPPING_NAMES`. Split once, if asked. */
function knownArchitectures(): ReadonlySet<string> {
  known ??= new Set(architectures.trim().split(/\s+/));
  return known;
}
