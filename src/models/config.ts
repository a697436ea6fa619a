/**
 * What an artifact says of its model, in any of the spellings in use: Docker's v0.1 and v0.2, ModelPack, and the text of
 * Docker's model specification, which its code does not follow. Nothing is required: what is missing or odd is null.
 */
import type { ModelConfig } from "../api/models.ts";
import { isRecord } from "../oci/descriptor.ts";
import type { Manifest } from "../oci/manifest.ts";
import {
  archivedFormat,
  CREATED,
  isOwnWeight,
  ownFormat,
  weightFormat,
} from "../oci/media-types.ts";
import { type ModelLayer, modelLayers } from "../oci/model-layers.ts";
import type { Store, StoredModel } from "../store/store.ts";
import { formatBinaryBytes } from "./amounts.ts";
import { toUnixSeconds } from "./created.ts";

/** GGUF headers with large templates make configs of some 100 KB. Bytes. */
const MAX_CONFIG_BYTES = 16 * 1024 * 1024;

export interface ConfigFacts {
  readonly config: ModelConfig;
  /** The context it was packaged with, in tokens; -1 is the model's own maximum; null if nobody said one. */
  readonly packagedContext: number | null;
  /** Unix seconds; 0 if nothing says. */
  readonly created: number;
  readonly layers: readonly ModelLayer[];
}

/** @throws blob_not_found, digest_mismatch */
export async function readConfigFacts(store: Store, model: StoredModel): Promise<ConfigFacts> {
  const bytes = await store.readBlob(model.manifest.config, { maxBytes: MAX_CONFIG_BYTES });
  return toConfigFacts(bytes, model.manifest);
}

/** What is known without the config: the format, from the layers. */
export function emptyConfigFacts(manifest: Manifest): ConfigFacts {
  return toConfigFacts(new Uint8Array(0), manifest);
}

/** Pure. Bytes that are no JSON object say nothing. */
export function toConfigFacts(bytes: Uint8Array, manifest: Manifest): ConfigFacts {
  const root = parseObject(bytes);
  const layers = modelLayers(manifest, root);
  const config = objectAt(root, "config");
  const descriptor = objectAt(root, "descriptor");
  const gguf = toTextMap(config["gguf"]);
  const format = text(config["format"])?.toLowerCase() ?? formatOfLayers(layers);
  const architecture = text(config["architecture"]) ?? text(descriptor["family"]);
  return {
    config: {
      format,
      quantization: toQuantization(config),
      parameters: compact(text(config["parameters"]) ?? text(config["paramSize"])),
      architecture,
      size: toSize(config["size"]),
      context_size: toContext(config, gguf, architecture),
      gguf,
    },
    packagedContext: contextOf(config["context_size"]),
    layers,
    created: toUnixSeconds(
      descriptor["created"] ?? descriptor["createdAt"] ?? manifest.annotations?.[CREATED],
    ),
  };
}

/** Layers that hold weights, plain or packed, in order; of a format that is not known here all its files. */
export function weightLayers({ config, layers }: ConfigFacts): readonly ModelLayer[] {
  const known = layers.filter(
    (layer) => formatOfLayer(layer, config.format ?? undefined) !== undefined,
  );
  if (known.length > 0 || ownFormat(config.format) === undefined) return known;
  return layers.filter(({ mediaType, path }) => isOwnWeight(mediaType, path));
}

// --- internal ---

function parseObject(bytes: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isRecord(value) ? value : {};
  } catch {
    return {};
  }
}

function objectAt(parent: Record<string, unknown>, key: string): Record<string, unknown> {
  const value = parent[key];
  return isRecord(value) ? value : {};
}

function text(value: unknown): string | null {
  return typeof value === "string" && value.trim() !== "" ? value.trim() : null;
}

/** Older artifacts on Docker Hub have a space before the unit: `361.82 M`. */
function compact(amount: string | null): string | null {
  return amount?.replace(/^([\d.]+)\s+(\S+)$/, "$1$2") ?? null;
}

/** Docker Model Runner writes llama.cpp's `MOSTLY_Q4_K_M` for what everybody calls `Q4_K_M`. */
function toQuantization(config: Record<string, unknown>): string | null {
  const named = text(config["quantization"]) ?? text(config["precision"]);
  return named?.replace(/^(?:MOSTLY|ALL)_/, "") ?? null;
}

/** The specification's text has bytes where its code has text. */
function toSize(value: unknown): string | null {
  if (typeof value === "number" && value >= 0) return formatBinaryBytes(value);
  return compact(text(value));
}

/** Packaged, or else what the model was trained for, as the headers of its weights or the files beside them say. */
function toContext(
  config: Record<string, unknown>,
  gguf: Readonly<Record<string, string>> | null,
  architecture: string | null,
): number | null {
  const trained =
    gguf?.[`${architecture}.context_length`] ??
    gguf?.["llama.context_length"] ??
    toTextMap(config["safetensors"])?.["context_length"];
  return contextOf(config["context_size"]) ?? contextOf(Number(trained ?? Number.NaN));
}

function contextOf(value: unknown): number | null {
  const isContext = Number.isSafeInteger(value) && ((value as number) > 0 || value === -1);
  return isContext ? (value as number) : null;
}

function toTextMap(value: unknown): Record<string, string> | null {
  if (!isRecord(value)) return null;
  const entries = Object.entries(value).filter(([, member]) => typeof member !== "object");
  return Object.fromEntries(entries.map(([key, member]) => [key, String(member)]));
}

function formatOfLayers(layers: readonly ModelLayer[]): string | null {
  const formats = layers.map((layer) => formatOfLayer(layer));
  return formats.find((format) => format !== undefined) ?? null;
}

function formatOfLayer({ mediaType, path }: ModelLayer, configFormat?: string): string | undefined {
  return (
    weightFormat(mediaType, path, configFormat) ?? archivedFormat(mediaType, path, configFormat)
  );
}
