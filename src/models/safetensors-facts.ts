/** Facts of a safetensors model: from the headers of all its shards and the `config.json` beside them. */
import { open } from "node:fs/promises";
import { isRecord } from "../oci/descriptor.ts";
import { PIPELINE, PIPELINE_INDEX } from "../oci/media-types.ts";
import { foreignFormat } from "../oci/foreign-formats.ts";
import { toTraits } from "../store/model-traits.ts";
import { toReadError } from "../store/read-error.ts";
import {
  readSafetensorsHeader,
  type SafetensorsHeader,
  type SafetensorsTensor,
} from "../store/safetensors-header.ts";
import { formatDecimalBytes, formatParameters } from "./amounts.ts";
import { baseName, directoryOf, weightFormatOf } from "./file-classes.ts";
import type { FactsFile, ModelFacts } from "./model-facts.ts";

/** Configs with long lists of labels have some hundred kilobytes. Bytes. */
const MAX_CONFIG_BYTES = 4 * 1024 * 1024;
/** An index names every tensor: some megabytes for the largest models. Bytes. */
const MAX_INDEX_BYTES = 32 * 1024 * 1024;
/** Texts of a config that go into ours. Characters. */
const MAX_TEXT = 128;

/** Where a config says what context the model was trained for, in order. */
const CONTEXT_KEYS = [
  "max_position_embeddings",
  "n_ctx",
  "n_positions",
  "max_length",
  "max_sequence_length",
  "model_max_length",
] as const;

/**
 * @param files of a model whose first weights are safetensors
 * @throws not_found, forbidden, invalid_model_file
 */
export async function readSafetensorsFacts(
  files: readonly FactsFile[],
  { signal }: { signal: AbortSignal },
): Promise<{ facts: ModelFacts; warnings: readonly string[] }> {
  const warnings: string[] = [];
  const weights = files.filter(
    ({ role, path }) => role === "weights" && weightFormatOf(path) === "safetensors",
  );
  const counted = await withoutCopies(weights, files, warnings);
  // The first part of a pipeline that has weights says nothing of the whole.
  const isPipeline = files.some(({ path }) => path === PIPELINE_INDEX);
  const config = isPipeline ? {} : await readConfig(counted[0], files, warnings);
  const foreign = foreignFormat(toTraits(config).quantization ?? "");
  if (foreign !== undefined)
    warnings.push(`no engine reads weights in ${foreign.title}. ${foreign.way.replace(/\.$/, "")}`);
  const headers: SafetensorsHeader[] = [];
  for (const { path, location } of counted)
    headers.push(await readSafetensorsHeader({ name: path, location }, { signal }));
  const facts = toSafetensorsFacts(headers, config);
  return { facts: isPipeline ? { ...facts, architecture: PIPELINE } : facts, warnings };
}

/**
 * Pure.
 *
 * @param headers of all shards, in order
 * @param config of transformers, if there is one: any JSON object
 */
export function toSafetensorsFacts(
  headers: readonly SafetensorsHeader[],
  config: Readonly<Record<string, unknown>>,
): ModelFacts {
  const packing = toPacking(config);
  const tensors = headers.flatMap((header) => header.tensors);
  const metadata = headers[0]?.metadata ?? {};
  const parameters = tensors.reduce((sum, tensor) => sum + parametersOf(tensor, packing?.bits), 0);
  const context = toContext(config);
  return {
    format: "safetensors",
    architecture: text(config["model_type"]) ?? text(metadata["architecture"]),
    name: toName(config["_name_or_path"]),
    license: null,
    quantization: packing?.name ?? commonType(tensors),
    parameters: formatParameters(parameters),
    size: formatDecimalBytes(headers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)),
    header: {
      ...metadata,
      ...(context === null ? {} : { context_length: String(context) }),
      tensor_count: String(tensors.length),
    },
  };
}

/**
 * Which files an index of shards names, relative to the directory it is in. Pure: bytes that are no index name none.
 *
 * @see https://huggingface.co/docs/transformers/big_models
 */
export function shardsOfIndex(bytes: Uint8Array): string[] {
  const map = parseObject(bytes)?.["weight_map"];
  if (!isRecord(map)) return [];
  return [...new Set(Object.values(map).filter((name) => typeof name === "string"))].toSorted();
}

export function isIndex(path: string): boolean {
  return path.toLowerCase().endsWith(".safetensors.index.json");
}

/** @returns undefined if it is larger than an index is. @throws not_found, forbidden */
export async function readIndexShards(file: {
  readonly path: string;
  readonly location: string;
}): Promise<string[] | undefined> {
  const bytes = await readSmall(file, MAX_INDEX_BYTES);
  return bytes === undefined ? undefined : shardsOfIndex(bytes);
}

// --- internal ---

/**
 * Repositories have the same weights twice: as shards that an index names and as one file, or under the names of
 * another program. What would count twice is left out of the facts.
 */
async function withoutCopies(
  weights: readonly FactsFile[],
  files: readonly FactsFile[],
  warnings: string[],
): Promise<FactsFile[]> {
  const named = new Map<string, ReadonlySet<string>>();
  for (const index of files.filter(({ path }) => isIndex(path))) {
    const shards = await readIndexShards(index);
    if (shards === undefined) warnings.push(`\`${index.path}\` is too large to be read`);
    const directory = directoryOf(index.path);
    const others = named.get(directory) ?? [];
    if (shards !== undefined && shards.length > 0)
      named.set(directory, new Set([...others, ...shards]));
  }
  const isCounted = ({ path }: FactsFile): boolean => {
    const directory = directoryOf(path);
    const shards = named.get(directory);
    if (shards !== undefined) return shards.has(baseName(path));
    const isConsolidated = /^consolidated\b/i.test(baseName(path));
    return (
      !isConsolidated || !weights.some((other) => other.path === `${directory}model.safetensors`)
    );
  };
  const counted = weights.filter(isCounted);
  return counted.length === 0 ? [...weights] : counted;
}

/** Beside the weights, or at the top. */
async function readConfig(
  weights: FactsFile | undefined,
  files: readonly FactsFile[],
  warnings: string[],
): Promise<Record<string, unknown>> {
  const places = [`${directoryOf(weights?.path ?? "")}config.json`, "config.json"];
  const file = places
    .map((place) => files.find(({ path }) => path === place))
    .find((found) => found !== undefined);
  if (file === undefined) return {};
  const bytes = await readSmall(file, MAX_CONFIG_BYTES);
  const config = bytes === undefined ? undefined : parseObject(bytes);
  if (config === undefined) warnings.push(`\`${file.path}\` is no configuration that can be read`);
  return config ?? {};
}

async function readSmall(
  { path, location }: { readonly path: string; readonly location: string },
  maxBytes: number,
): Promise<Uint8Array | undefined> {
  try {
    await using handle = await open(location, "r");
    const { size } = await handle.stat();
    return size > maxBytes ? undefined : await handle.readFile();
  } catch (error) {
    throw toReadError(location, error, path);
  }
}

function parseObject(bytes: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

interface Packing {
  /** Such as `AWQ-4bit`. */
  readonly name: string;
  /** Of a packed weight, where several share a number. */
  readonly bits: number | undefined;
}

/** Where weights are packed, the types of the tensors say nothing: a file of 4-bit weights is full of `I32`. */
function toPacking(config: Readonly<Record<string, unknown>>): Packing | undefined {
  const inner = isRecord(config["text_config"]) ? config["text_config"] : {};
  const settings = [
    config["quantization_config"],
    inner["quantization_config"],
    config["compression_config"],
    // MLX's own.
    config["quantization"],
  ].find(isRecord);
  if (settings === undefined) return undefined;
  const method = text(settings["quant_method"]) ?? text(settings["quant_type"]);
  const bits = bitsOf(settings);
  const parts = [method?.toUpperCase(), bits === undefined ? undefined : `${bits}bit`];
  const name = parts.filter((part) => part !== undefined).join("-");
  return name === "" ? undefined : { name, bits };
}

function bitsOf(settings: Record<string, unknown>): number | undefined {
  if (settings["load_in_4bit"] === true || settings["_load_in_4bit"] === true) return 4;
  if (settings["load_in_8bit"] === true || settings["_load_in_8bit"] === true) return 8;
  const groups = isRecord(settings["config_groups"])
    ? Object.values(settings["config_groups"])
    : [];
  const weights = groups.filter(isRecord).map((group) => group["weights"]);
  const said = [settings["bits"], ...weights.filter(isRecord).map((group) => group["num_bits"])];
  return said.find(
    (bits): bits is number =>
      Number.isInteger(bits) && (bits as number) > 0 && (bits as number) <= 16,
  );
}

/** How many of them share one number of the file. */
function parametersOf(
  { name, dtype, elements }: SafetensorsTensor,
  bits: number | undefined,
): number {
  const width = dtype === "I32" || dtype === "U32" ? 32 : dtype === "U8" ? 8 : undefined;
  const isPacked = /(?:^|\.)(?:qweight|weight|weight_packed)$|_blocks$/.test(name);
  if (bits === undefined || width === undefined || !isPacked) return elements;
  return Math.floor((elements * width) / bits);
}

function commonType(tensors: readonly SafetensorsTensor[]): string {
  const types = new Set(tensors.map(({ dtype }) => dtype));
  if (types.size > 1) return "mixed";
  return [...types][0] ?? "unknown";
}

/** Models of several kinds of input keep those of their texts apart. */
function toContext(config: Readonly<Record<string, unknown>>): number | null {
  const inner = isRecord(config["text_config"]) ? config["text_config"] : {};
  const said = CONTEXT_KEYS.flatMap((key) => [config[key], inner[key]]);
  const tokens = said.find(
    (value) => Number.isInteger(value) && (value as number) > 0 && (value as number) < 2 ** 31,
  );
  return (tokens as number | undefined) ?? null;
}

/** The repository a model was saved from; a path on somebody's disk is no name. */
function toName(value: unknown): string | null {
  const name = text(value);
  return name !== null && /^[\w.-]+(?:\/[\w.-]+)?$/.test(name) && !name.startsWith(".")
    ? baseName(name)
    : null;
}

function text(value: unknown): string | null {
  if (typeof value !== "string") return null;
  const trimmed = value.trim();
  const isClean = trimmed.length <= MAX_TEXT && /^\P{Cc}+$/u.test(trimmed);
  return isClean ? trimmed : null;
}
