/** What a package says of its model, whatever the format of its weights: read from their headers, wherever they lie. */
import { open } from "node:fs/promises";
import { AppError } from "../errors.ts";
import type { ModelFormat } from "../store/bundle.ts";
import { type GgufFacts, readGgufFiles } from "../store/gguf.ts";
import { invalidFile, type NamedFile, toReadError } from "../store/read-error.ts";
import { formatBinaryBytes, formatDecimalBytes, formatParameters } from "./amounts.ts";
import type { LayerRole } from "./artifact.ts";
import { baseName, parseShard, weightFormatOf } from "./file-classes.ts";
import { readSafetensorsFacts } from "./safetensors-facts.ts";

/** As a config has it: amounts are texts. Null is what nothing tells. */
export interface ModelFacts {
  readonly format: ModelFormat;
  readonly architecture: string | null;
  readonly name: string | null;
  /** SPDX identifier by convention. */
  readonly license: string | null;
  /** Such as `Q4_K_M` or `BF16`. */
  readonly quantization: string | null;
  /** Such as `361.82M`. */
  readonly parameters: string | null;
  /** Such as `256.35MiB`. */
  readonly size: string | null;
  /** The header as text, under the name of the format. */
  readonly header: Readonly<Record<string, string>> | null;
}

/** A file of a model on this machine. */
export interface FactsFile {
  readonly role: LayerRole;
  /** Within the artifact. */
  readonly path: string;
  /** Where it can be read: beside the others, or as a blob of the store. */
  readonly location: string;
}

/**
 * Of the first weights and what belongs to them; further formats are not looked at.
 *
 * @param files in the order of the layers
 * @throws not_found, forbidden, invalid_model_file (also if there are no weights), unsupported_model (a projector)
 */
export async function readModelFacts(
  files: readonly FactsFile[],
  options: { signal: AbortSignal },
): Promise<{ facts: ModelFacts; warnings: readonly string[] }> {
  const weights = files.filter(({ role }) => role === "weights");
  const [first] = weights;
  if (first === undefined)
    throw new AppError("invalid_model_file", "cannot package the model: it has no weights");
  const format = weightFormatOf(first.path) ?? "gguf";
  if (format === "dduf") return { facts: await readDdufFacts(toNamed(first)), warnings: [] };
  if (format === "safetensors") return readSafetensorsFacts(files, options);
  const set = shardsOf(first, weights);
  const facts = await readGgufFiles(set.map(toNamed), options);
  if (facts.isProjector) throw projectorAsModel(first.path);
  return { facts: fromGguf(facts), warnings: [] };
}

/** Pure. */
export function fromGguf(facts: GgufFacts): ModelFacts {
  const { architecture, name, license, quantization, header } = facts;
  return {
    format: "gguf",
    architecture,
    name,
    license,
    quantization,
    parameters: formatParameters(facts.parameterCount),
    size: formatBinaryBytes(facts.tensorBytes),
    header,
  };
}

/**
 * A DDUF is a ZIP archive of a diffusion pipeline.
 *
 * @throws not_found, forbidden, invalid_model_file
 * @see https://huggingface.co/docs/hub/dduf
 */
export async function readDdufFacts(file: NamedFile): Promise<ModelFacts> {
  const sizeBytes = await checkZip(file);
  return {
    format: "dduf",
    architecture: "diffusers",
    name: null,
    license: null,
    quantization: null,
    parameters: null,
    size: formatDecimalBytes(sizeBytes),
    header: { dduf_file: baseName(file.name), layout: "dduf" },
  };
}

export function projectorAsModel(path: string): AppError {
  return new AppError(
    "unsupported_model",
    `cannot package \`${baseName(path)}\`: it is a multimodal projector, not a model`,
    { hint: "Give the model's weights with `--gguf` and this file with `--mmproj`." },
  );
}

/** Without a set, the file alone. */
export function shardsOf<File extends { readonly path: string }>(
  file: File,
  files: readonly File[],
): File[] {
  const shard = parseShard(file.path);
  if (shard === undefined) return [file];
  return files
    .filter(({ path }) => parseShard(path)?.set === shard.set)
    .toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

export function toNamed({ path, location }: { path: string; location: string }): NamedFile {
  return { location, name: path };
}

// --- internal ---

/** APPNOTE.TXT §4.3.7 and §4.3.16: an archive begins with a file's header and ends with this record. */
const ZIP_START = "PK\u0003\u0004";
const ZIP_END = "PK\u0005\u0006";
/** The record that ends an archive, and the longest comment that may follow it. Bytes. */
const MAX_ZIP_TAIL = 22 + 65_535;

/** @returns its size in bytes */
async function checkZip({ location, name }: NamedFile): Promise<number> {
  try {
    await using handle = await open(location, "r");
    const stats = await handle.stat();
    if (!stats.isFile()) throw invalidFile(name, "it is not a regular file");
    const start = await handle.read(Buffer.alloc(4), 0, 4, 0);
    if (start.buffer.subarray(0, start.bytesRead).toString("latin1") !== ZIP_START) {
      throw invalidFile(name, "it is not a DDUF file", {
        hint: "Give a `.dduf` file: a ZIP archive of a diffusion pipeline.",
      });
    }
    const length = Math.min(stats.size, MAX_ZIP_TAIL);
    const tail = await handle.read(Buffer.alloc(length), 0, length, stats.size - length);
    if (!tail.buffer.subarray(0, tail.bytesRead).includes(ZIP_END, 0, "latin1")) {
      throw invalidFile(name, "it is truncated: the end of its archive is missing", {
        hint: "Get the file again: its transfer was cut short.",
      });
    }
    return stats.size;
  } catch (error) {
    throw toReadError(location, error, name);
  }
}
