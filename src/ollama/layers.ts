/** What the layers of an Ollama manifest are for. Pure. */
import { AppError } from "../errors.ts";
import { printable } from "../http/host.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { PlannedRole } from "../transfer/plan.ts";
import { type OllamaName, formatOllamaName } from "./name.ts";

const PREFIX = "application/vnd.ollama.image.";
/** Types in a warning: more are counted. */
const MAX_NAMED = 5;

interface OllamaFile {
  readonly role: PlannedRole;
  /** Within the artifact. */
  readonly path: string;
  readonly layer: Descriptor;
}

export interface OllamaLayers {
  /** In the order of an artifact: weights, licences, projector, adapters, draft model. */
  readonly files: readonly OllamaFile[];
  /** JSON. */
  readonly params: Descriptor | undefined;
  /** Text. */
  readonly system: Descriptor | undefined;
  /** JSON. */
  readonly messages: Descriptor | undefined;
  readonly warnings: readonly string[];
}

/**
 * File names depend on the model's name and not on its tag, so that tags of one manifest become one model here, too.
 * Templates are Ollama's own language: the weights bring their own Jinja template along.
 *
 * @throws unsupported_model if there are no weights, or ones that are split into tensors
 */
export function sortLayers(layers: readonly Descriptor[], name: OllamaName): OllamaLayers {
  const byKind = Map.groupBy(layers, ({ mediaType }) => kindOf(mediaType));
  refuseTensors(byKind, name);
  const all = (kind: string): Descriptor[] => distinct(byKind.get(kind) ?? []);
  const weights = all("model");
  if (weights.length === 0) throw unsupported(name, "it has no weights");
  const projectors = all("projector");
  const { model } = name;
  return {
    files: [
      ...toFiles("weights", weights, (index, total) => shardPath(model, index, total)),
      ...toFiles("license", all("license"), (index) => `LICENSE${suffix(index)}`),
      ...toFiles("mmproj", projectors.slice(0, 1), () => `mmproj-${model}.gguf`),
      ...toFiles("adapter", all("adapter"), (index) => `${model}-adapter${suffix(index)}.gguf`),
      ...toFiles("draft", all("draft").slice(0, 1), () => `${model}-draft.gguf`),
    ],
    params: byKind.get("params")?.at(-1),
    system: byKind.get("system")?.at(-1),
    messages: byKind.get("messages")?.at(-1),
    warnings: [
      ...surplus("projectors", projectors),
      ...surplus("draft models", all("draft")),
      ...unknownTypes(layers.filter(({ mediaType }) => kindOf(mediaType) === "unknown")),
    ],
  };
}

export function unsupported(name: OllamaName, reason: string, hint?: string): AppError {
  return new AppError("unsupported_model", `cannot pull \`${formatOllamaName(name)}\`: ${reason}`, {
    hint: hint ?? "Choose another tag: those whose weights are GGUF files can be pulled.",
  });
}

// --- internal ---

type PathOf = (index: number, total: number) => string;

/** `embed` is deprecated and `prompt` is what templates were called; both mean nothing here, as templates do. */
const KINDS: ReadonlySet<string> = new Set([
  "model",
  "projector",
  "adapter",
  "draft",
  "license",
  "params",
  "system",
  "messages",
  "template",
  "prompt",
  "embed",
  "tensor",
  "json",
]);

function toFiles(role: PlannedRole, layers: readonly Descriptor[], path: PathOf): OllamaFile[] {
  return layers.map((layer, index) => ({ role, layer, path: path(index, layers.length) }));
}

function kindOf(mediaType: string): string {
  const kind = mediaType.startsWith(PREFIX) ? mediaType.slice(PREFIX.length) : "";
  return KINDS.has(kind) ? kind : "unknown";
}

function refuseTensors(byKind: ReadonlyMap<string, unknown>, name: OllamaName): void {
  if (!byKind.has("tensor") && !byKind.has("json")) return;
  throw unsupported(
    name,
    "it is a safetensors model that is split into single tensors, as Ollama's MLX engine wants it",
    "Choose a tag with GGUF weights, or pull the model from Hugging Face as `hf.co/ORG/REPO`.",
  );
}

/** The same bytes twice are one file. */
function distinct(layers: readonly Descriptor[]): Descriptor[] {
  return [...new Map(layers.map((layer) => [layer.digest, layer])).values()];
}

/** llama.cpp finds the other shards by these names. */
function shardPath(model: string, index: number, total: number): string {
  if (total === 1) return `${model}.gguf`;
  return `${model}-${fiveDigits(index + 1)}-of-${fiveDigits(total)}.gguf`;
}

function fiveDigits(value: number): string {
  return String(value).padStart(5, "0");
}

function suffix(index: number): string {
  return index === 0 ? "" : `-${index + 1}`;
}

function surplus(what: string, layers: readonly Descriptor[]): string[] {
  return layers.length > 1
    ? [`the model has ${layers.length} ${what}; only the first is kept`]
    : [];
}

function unknownTypes(layers: readonly Descriptor[]): string[] {
  const types = [...new Set(layers.map(({ mediaType }) => mediaType))];
  if (types.length === 0) return [];
  const named = types.slice(0, MAX_NAMED).map((type) => `\`${printable(type)}\``);
  const more = types.length > MAX_NAMED ? ` and ${types.length - MAX_NAMED} more` : "";
  return [`left out layers of unknown types: ${named.join(", ")}${more}`];
}
