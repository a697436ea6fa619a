/** What a file of a model's directory is, by its name. Pure. */
import type { WeightFormat } from "../oci/media-types.ts";

export type FileClass = WeightFormat | "template" | "license" | "config" | "unknown";

/**
 * The first rule that fits, as in Docker Model Runner, except that a template in a JSON file is a config: no engine can
 * take it for a Jinja file.
 *
 * @param path relative, with forward slashes
 */
export function classifyFile(path: string): FileClass {
  const name = baseName(path).toLowerCase();
  const weights = weightFormatOf(name);
  if (weights !== undefined) return weights;
  const isTemplate = name.endsWith(".jinja") || name.includes("chat_template");
  if (isTemplate && !name.endsWith(".json")) return "template";
  if (/license|licence|copying|notice/.test(name)) return "license";
  return /\.(?:md|txt|json|vocab)$/.test(name) || name === "tokenizer.model" ? "config" : "unknown";
}

/** By the extension, in any case. */
export function weightFormatOf(path: string): WeightFormat | undefined {
  const extension = /\.(gguf|safetensors|dduf)$/i.exec(path)?.[1];
  return extension?.toLowerCase() as WeightFormat | undefined;
}

/** Python's own format, which runs code when it is opened. */
export function isPickle(path: string): boolean {
  return /\.(?:bin|pt|pth|ckpt|pkl|pickle)$/i.test(path);
}

export function isMarkdown(path: string): boolean {
  return path.toLowerCase().endsWith(".md");
}

/** Of a path with forward slashes. */
export function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** Of a path with forward slashes: with its last slash, or empty. */
export function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/") + 1);
}

export interface ShardName {
  /** Directory, prefix, count and format: what the shards of one set have in common. */
  readonly set: string;
  readonly number: number;
  readonly count: number;
}

/** `model-00002-of-00005.safetensors` and the same of a GGUF; undefined for what is no shard. */
export function parseShard(path: string): ShardName | undefined {
  const match = /^(.+)-(\d{5})-of-(\d{5})\.(gguf|safetensors)$/i.exec(path);
  if (match === null) return undefined;
  const [, prefix = "", number = "", count = "", format = ""] = match;
  return {
    set: `${prefix}-of-${count}.${format.toLowerCase()}`,
    number: Number(number),
    count: Number(count),
  };
}
