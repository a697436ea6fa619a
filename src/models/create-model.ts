/**
 * Makes a model of another one, or of blobs that were uploaded, with texts and settings of its own. Nothing is converted:
 * weights are stored as they are.
 */
import { mkdtemp, open, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ProgressListener } from "../api/progress.ts";
import { AppError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { encodeDefaults, type PackagedDefaults, readDefaults } from "../oci/model-defaults.ts";
import type { Reference } from "../oci/reference.ts";
import { readGgufFiles } from "../store/gguf.ts";
import { safePath } from "../store/safe-path.ts";
import type { Store, StoredModel, Transaction } from "../store/store.ts";
import {
  type ArtifactLayout,
  type EncodedModel,
  encodeModel,
  type LayerFile,
  type LayerRole,
} from "./artifact.ts";
import { resolveCreated } from "./created.ts";
import { classifyFile, isPickle, weightFormatOf } from "./file-classes.ts";
import { checkPaths } from "./input-file.ts";
import { readModelFacts } from "./model-facts.ts";
import { formatOfArtifact, readVariant } from "./package-from.ts";
import { checkContext } from "./package-request.ts";

export { ignoredWarning, readParameters } from "../ollama/parameters.ts";

/** File names and the blobs of the store that they are. */
export type NamedBlobs = Readonly<Record<string, Digest>>;

export interface CreateModelRequest {
  /** With a tag. */
  readonly reference: Reference;
  /** Either a model, or files. */
  readonly base: { readonly model: StoredModel } | { readonly files: NamedBlobs };
  readonly adapters: NamedBlobs;
  /** Texts; none leaves those of the base. */
  readonly licenses: readonly string[];
  /** Jinja; undefined leaves that of the base. */
  readonly template: string | undefined;
  /** What is said wins over what the base says, parameter by parameter. */
  readonly defaults: PackagedDefaults;
  /** Tokens; undefined leaves that of the base. */
  readonly contextTokens: number | undefined;
}

export interface CreateModelOptions {
  readonly signal: AbortSignal;
  readonly onProgress: ProgressListener;
}

/**
 * @throws usage, invalid_request (file names), blob_not_found, invalid_model_file, unsupported_model,
 *   insufficient_storage, cancelled
 */
export async function createModel(
  store: Store,
  request: CreateModelRequest,
  options: CreateModelOptions,
): Promise<StoredModel> {
  await using transaction = await store.begin();
  const work: Work = { store, request, options, transaction };
  const encoded =
    "model" in request.base
      ? await deriveFrom(work, request.base.model)
      : await makeOf(work, request.base.files);
  await transaction.writeBlob(encoded.config.bytes);
  options.signal.throwIfAborted();
  return await transaction.commit(encoded.manifest.bytes, request.reference);
}

// --- internal ---

interface Work {
  readonly store: Store;
  readonly request: CreateModelRequest;
  readonly options: CreateModelOptions;
  readonly transaction: Transaction;
}

/** A file of the model that is a blob of the store. */
interface BlobFile extends LayerFile {
  readonly location: string;
}

async function deriveFrom(work: Work, model: StoredModel): Promise<EncodedModel> {
  const { store, request, transaction } = work;
  const { signal } = work.options;
  await transaction.pin(
    [...model.manifest.layers, model.manifest.config].map((blob) => blob.digest),
  );
  const adapters = await claimAdapters(work);
  const directory = await mkdtemp(join(tmpdir(), "tug-create-"));
  try {
    const texts = await writeTexts(directory, request);
    const format = formatOfArtifact(model);
    const variant = await readVariant(
      store,
      { model, request: { model: "", ...texts } },
      {
        signal,
        format,
        created: undefined,
        contextTokens: checkContext(request.contextTokens, format),
        annotations: mergedDefaults(model, request.defaults),
      },
    );
    const added: LayerFile[] = [];
    for (const { location, role, path } of variant.files) {
      const { digest, size } = await transaction.ingestFile(location, { signal });
      added.push({ role, path, digest, size });
    }
    return variant.assemble([...added, ...adapters]);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** None where nothing is said: then the model stays what it is. */
function mergedDefaults(
  { manifest }: StoredModel,
  said: PackagedDefaults,
): Readonly<Record<string, string>> {
  if (Object.keys(encodeDefaults(said)).length === 0) return {};
  const base = readDefaults(manifest);
  const parameters = { ...base?.parameters, ...said.parameters };
  return encodeDefaults({ ...base, ...said, parameters });
}

/** Packaging reads texts from files. */
async function writeTexts(
  directory: string,
  { licenses, template }: CreateModelRequest,
): Promise<{ licenses: string[]; chat_template?: string }> {
  const paths: string[] = [];
  for (const [index, text] of licenses.entries()) {
    const path = join(directory, licensePath(index));
    await writeFile(path, text);
    paths.push(path);
  }
  if (template === undefined) return { licenses: paths };
  const path = join(directory, TEMPLATE_PATH);
  await writeFile(path, template);
  return { licenses: paths, chat_template: path };
}

const TEMPLATE_PATH = "template.jinja";

function licensePath(index: number): string {
  return index === 0 ? "LICENSE" : `LICENSE-${index + 1}`;
}

async function makeOf(work: Work, named: NamedBlobs): Promise<EncodedModel> {
  const { request, options } = work;
  const { signal, onProgress } = options;
  const found = await claimAll(work, named);
  const layout: ArtifactLayout = found.some(({ path }) => weightFormatOf(path) === "safetensors")
    ? "directory"
    : "gguf";
  const files = layout === "directory" ? found : await judgeGgufs(found, signal);
  const adapters = await claimAdapters(work);
  const all = [...files, ...(await storeTexts(work)), ...adapters];
  checkPaths(all);
  const { facts, warnings } = await readModelFacts(all, { signal });
  for (const message of warnings) onProgress({ type: "warning", message });
  return encodeModel({
    format: "docker",
    layout,
    facts,
    files: all.map(({ role, path, digest, size }) => ({ role, path, digest, size })),
    created: resolveCreated(undefined, process.env["SOURCE_DATE_EPOCH"]),
    contextTokens: checkContext(request.contextTokens, "docker"),
    defaults: request.defaults,
  });
}

async function storeTexts({ store, request, transaction }: Work): Promise<BlobFile[]> {
  const texts: [LayerRole, string, string][] = request.licenses.map((text, index) => [
    "license",
    licensePath(index),
    text,
  ]);
  if (request.template !== undefined) texts.push(["chatTemplate", TEMPLATE_PATH, request.template]);
  const files: BlobFile[] = [];
  for (const [role, path, text] of texts) {
    const { digest, size } = await transaction.writeBlob(new TextEncoder().encode(text));
    files.push({ role, path, digest, size, location: store.blobPath(digest) });
  }
  return files;
}

/** In the order of their names: a digest must not depend on that of the request. */
async function claimAll(work: Work, named: NamedBlobs): Promise<BlobFile[]> {
  const files: BlobFile[] = [];
  const entries = Object.entries(named).toSorted(([a], [b]) => (a < b ? -1 : 1));
  for (const [name, digest] of entries) files.push(await claim(work, name, digest));
  return files;
}

async function claim(
  { store, transaction, options }: Work,
  name: string,
  digest: Digest,
): Promise<BlobFile> {
  options.signal.throwIfAborted();
  const location = store.blobPath(digest);
  // Before the look, so that it is not swept after it.
  await transaction.pin([digest]);
  const found = await stat(location).catch(() => undefined);
  if (found === undefined) {
    throw new AppError("blob_not_found", `cannot use \`${shown(name)}\`: its blob is not here`, {
      hint: `Upload it first: \`POST /api/blobs/${digest}\`.`,
    });
  }
  const path = checkName(name);
  if (isPickle(path)) throw unusable(path, "it is a pickle, which runs code when it is opened");
  const isUnnamed = weightFormatOf(path) === undefined && (await beginsAsGguf(location));
  const whole = isUnnamed ? `${path}.gguf` : path;
  return { role: roleOf(whole), path: whole, digest, size: found.size, location };
}

/** @throws invalid_request for names that leave the model or that some system cannot have */
function checkName(name: string): string {
  try {
    return safePath(name);
  } catch (cause) {
    throw new AppError(
      "invalid_request",
      `cannot use ${JSON.stringify(shown(name))} as a file's name`,
      {
        hint: "Give a relative path without `..`, as every system can have it.",
        cause,
      },
    );
  }
}

function roleOf(path: string): LayerRole {
  const kind = classifyFile(path);
  if (kind === "gguf" || kind === "safetensors" || kind === "dduf") return "weights";
  if (kind === "license") return "license";
  return path.toLowerCase().endsWith(".jinja") ? "chatTemplate" : "file";
}

async function beginsAsGguf(location: string): Promise<boolean> {
  await using file = await open(location, "r");
  const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0);
  return buffer.subarray(0, bytesRead).toString("latin1") === "GGUF";
}

/** Headers tell models, projectors and adapters apart, which all end in `.gguf`. */
async function judgeGgufs(files: readonly BlobFile[], signal: AbortSignal): Promise<BlobFile[]> {
  const judged: BlobFile[] = [];
  for (const file of files) {
    const isShard = /-\d{5}-of-\d{5}\.gguf$/i.test(file.path);
    const isJudged = file.role === "weights" && weightFormatOf(file.path) === "gguf" && !isShard;
    judged.push(isJudged ? { ...file, role: await roleOfGguf(file, signal) } : file);
  }
  return judged;
}

async function roleOfGguf(file: BlobFile, signal: AbortSignal): Promise<LayerRole> {
  const facts = await readGgufFiles([{ location: file.location, name: file.path }], { signal });
  if (facts.isProjector) return "mmproj";
  return facts.header["general.type"] === "adapter" ? "adapter" : "weights";
}

async function claimAdapters(work: Work): Promise<BlobFile[]> {
  const files = await claimAll(work, work.request.adapters);
  for (const file of files) {
    const isGguf = weightFormatOf(file.path) === "gguf";
    if (!isGguf || (await roleOfGguf(file, work.options.signal)) !== "adapter")
      throw unusable(file.path, "it is no LoRA adapter in a GGUF file");
  }
  return files.map((file) => ({ ...file, role: "adapter" }));
}

function unusable(path: string, reason: string): AppError {
  return new AppError("unsupported_model", `cannot use \`${shown(path)}\`: ${reason}`, {
    hint: "Convert it with llama.cpp's scripts first.",
  });
}

function shown(text: string): string {
  return text.slice(0, 200);
}
