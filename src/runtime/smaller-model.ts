/** Which model that is here would do instead of one that does not fit. Pure. */
import type { Model } from "../api/models.ts";
import { displayReference } from "../oci/reference.ts";
import { type Demand, totalBytes } from "./demand.ts";
import { estimateBytes } from "./memory.ts";

/**
 * The largest that fits of those with the same architecture and as many parameters: the same model, quantized more.
 *
 * @param models all that are here
 * @param modelId of the one that does not fit
 * @returns a clause for a message
 */
export function describeSmaller(
  models: readonly Model[],
  modelId: string,
  budget: Demand,
): string | undefined {
  const asked = models.find(({ id }) => id === modelId);
  if (asked === undefined || asked.config.parameters === null) return undefined;
  const room = totalBytes(budget);
  const [best] = models
    .filter((model) => isSameModel(model, asked) && model.size_bytes < asked.size_bytes)
    .filter(({ size_bytes: weightBytes }) => estimateBytes({ weightBytes }) <= room)
    .toSorted((a, b) => b.size_bytes - a.size_bytes);
  if (best === undefined) return undefined;
  const { quantization } = best.config;
  const kind = quantization === null ? "" : `, ${quantization}`;
  return `\`${displayReference(best.tags[0] ?? best.id)}\`${kind}, is here and would fit`;
}

// --- internal ---

function isSameModel({ tags, config }: Model, asked: Model): boolean {
  return (
    tags.length > 0 &&
    config.architecture === asked.config.architecture &&
    config.parameters === asked.config.parameters
  );
}
