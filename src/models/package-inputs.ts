/** What a model is packaged from: every file is found and checked before the store is touched. */
import { open, stat } from "node:fs/promises";
import { basename, isAbsolute } from "node:path";
import type { PackageRequest } from "../api/models.ts";
import { AppError } from "../errors.ts";
import { type Reference, parseReference } from "../oci/reference.ts";
import { safePath } from "../store/safe-path.ts";
import { type GgufFacts, readGgufFacts, toReadError } from "../store/gguf.ts";
import { type ArtifactFormat, type LayerRole, nameInArtifact } from "./artifact.ts";
import { resolveCreated } from "./created.ts";

/** Licences and templates are texts; what is larger was named by mistake. Bytes. */
const MAX_TEXT_BYTES = 4 * 1024 * 1024;
/** The config holds an int32. */
const MAX_CONTEXT = 2 ** 31 - 1;

export interface PackageInputs {
  readonly reference: Reference;
  readonly format: ArtifactFormat;
  /** RFC 3339. */
  readonly created: string;
  readonly contextTokens: number | undefined;
  readonly facts: GgufFacts;
  readonly fallbackTitle: string;
  /** In the order of the layers. */
  readonly files: readonly InputFile[];
  /** Sentences about what looks odd and is done all the same. */
  readonly warnings: readonly string[];
}

export interface InputFile {
  readonly role: LayerRole;
  /** As it is called in the artifact. */
  readonly name: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

/** @throws usage, invalid_reference, not_found, forbidden, invalid_model_file, unsupported_model */
export async function readPackageInputs(
  request: PackageRequest,
  options: { signal: AbortSignal; sourceDateEpoch: string | undefined },
): Promise<PackageInputs> {
  const { signal } = options;
  const format = request.format ?? "docker";
  const reference = parseTarget(request.model);
  const created = resolveCreated(request.created, options.sourceDateEpoch);
  const contextTokens = checkContext(request.context_size, format);
  const facts = await readWeights(request.gguf, signal);
  const weights = facts.files.map((file) => toInput("weights", file, format));
  const { extras, warnings } = await readExtras(request, format, signal);
  refuseProjectorName(weights, format);
  const files = [...weights, ...extras];
  checkNames(files);
  const fallbackTitle = basename(request.gguf).replace(/(?:-\d{5}-of-\d{5})?\.gguf$/i, "");
  return { reference, format, created, contextTokens, facts, fallbackTitle, files, warnings };
}

/** @throws conflict if the file is not what it was when it was looked at */
export async function requireUnchanged(file: InputFile): Promise<void> {
  const { size, mtimeMs } = await stat(file.path);
  if (size === file.sizeBytes && mtimeMs === file.modifiedMs) return;
  throw new AppError("conflict", `cannot package \`${file.name}\`: it changed meanwhile`, {
    hint: "Wait until whatever writes the file is done, and package it again.",
  });
}

// --- internal ---

type FoundFile = Omit<InputFile, "role" | "name">;

function parseTarget(model: string): Reference {
  const reference = parseReference(model);
  if (reference.digest === undefined) return reference;
  throw new AppError("invalid_reference", `cannot package \`${model}\`: a name has no digest yet`, {
    hint: "Leave out what follows `@`.",
  });
}

function checkContext(tokens: number | undefined, format: ArtifactFormat): number | undefined {
  if (tokens === undefined) return undefined;
  if (format === "cncf") {
    throw new AppError("usage", "cannot record a context size: ModelPack has no field for it", {
      hint: "Leave out the context size, or package with `--format docker`.",
    });
  }
  const isValid = tokens === -1 || (Number.isInteger(tokens) && tokens > 0);
  if (isValid && tokens <= MAX_CONTEXT) return tokens;
  throw new AppError("usage", `cannot record a context size of ${tokens}`, {
    hint: "Give a whole number of tokens above 0, or -1 for the model's own maximum.",
  });
}

async function readWeights(path: string, signal: AbortSignal): Promise<GgufFacts> {
  requireAbsolute(path);
  const facts = await readGgufFacts(path, { signal });
  if (!facts.isProjector) return facts;
  throw new AppError(
    "unsupported_model",
    `cannot package \`${basename(path)}\`: it is a multimodal projector, not a model`,
    { hint: "Give the model's weights with `--gguf` and this file with `--mmproj`." },
  );
}

async function readExtras(
  request: PackageRequest,
  format: ArtifactFormat,
  signal: AbortSignal,
): Promise<{ extras: InputFile[]; warnings: string[] }> {
  const extras: InputFile[] = [];
  const warnings: string[] = [];
  // In an order of their own: the digest must not depend on that of the flags.
  const licenses = [...new Set(request.licenses)].toSorted((a, b) =>
    basename(a) < basename(b) ? -1 : 1,
  );
  for (const path of licenses) {
    extras.push(toInput("license", await readText(path, "licence", signal), format));
  }
  if (request.chat_template !== undefined) {
    const file = await readText(request.chat_template, "chat template", signal);
    extras.push(toInput("chatTemplate", file, format));
  }
  if (request.mmproj !== undefined) {
    requireAbsolute(request.mmproj);
    const facts = await readGgufFacts(request.mmproj, { signal });
    if (!facts.isProjector) {
      const name = basename(request.mmproj);
      warnings.push(`\`${name}\` does not look like a projector: its architecture is not \`clip\``);
    }
    extras.push(...facts.files.map((file) => toInput("mmproj", file, format)));
  }
  return { extras, warnings };
}

function toInput(
  role: LayerRole,
  file: { readonly path: string; readonly sizeBytes: number; readonly modifiedMs: number },
  format: ArtifactFormat,
): InputFile {
  return { ...file, role, name: nameInArtifact(role, basename(file.path), format) };
}

/** Reads it once to know that it can be read and is text. */
async function readText(path: string, what: string, signal: AbortSignal): Promise<FoundFile> {
  requireAbsolute(path);
  signal.throwIfAborted();
  try {
    const found = await stat(path);
    const reason = textFault(found);
    if (reason !== undefined) throw unusable(path, what, reason);
    await using file = await open(path, "r");
    requireUtf8(path, what, await file.readFile());
    return { path, sizeBytes: found.size, modifiedMs: found.mtimeMs };
  } catch (error) {
    throw toReadError(path, error);
  }
}

function textFault(found: { isFile(): boolean; isDirectory(): boolean; size: number }) {
  if (found.isDirectory()) return "it is a directory";
  if (!found.isFile()) return "it is not a regular file";
  if (found.size === 0) return "it is empty";
  return found.size > MAX_TEXT_BYTES ? `it has more than ${MAX_TEXT_BYTES} bytes` : undefined;
}

function requireUtf8(path: string, what: string, bytes: Uint8Array): void {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw unusable(path, what, "it is not UTF-8 text");
  }
}

function requireAbsolute(path: string): void {
  if (isAbsolute(path)) return;
  throw new AppError("usage", `cannot package \`${path}\`: the path is not absolute`, {
    hint: "Give the whole path of the file.",
  });
}

/** ModelPack tells projectors by their names. */
function refuseProjectorName(weights: readonly InputFile[], format: ArtifactFormat): void {
  const [misleading] = weights.filter(({ name }) => /mmproj/i.test(name));
  if (format === "docker" || misleading === undefined) return;
  throw new AppError(
    "usage",
    `cannot package \`${misleading.name}\` as ModelPack: its name says that it is a projector`,
    {
      hint: "Rename the file, or leave out `--format cncf`.",
    },
  );
}

/** Two files of one name would end up at one place; many file systems do not tell cases apart. */
function checkNames(files: readonly InputFile[]): void {
  const seen = new Set<string>();
  for (const { name, path } of files) {
    refuseUnsafeName(name, path);
    const key = name.normalize("NFC").toLowerCase();
    if (seen.has(key)) {
      throw new AppError("usage", `cannot package two files called \`${name}\``, {
        hint: "Rename one of them.",
      });
    }
    seen.add(key);
  }
}

/** A name that no bundle could have would make a model that never runs. */
function refuseUnsafeName(name: string, path: string): void {
  try {
    safePath(name);
  } catch (cause) {
    throw new AppError(
      "usage",
      `cannot package ${JSON.stringify(path)}: not every system can have a file of this name`,
      {
        hint: 'Rename the file: leave out `< > : " | ? * \\`, control characters and names of devices.',
        cause,
      },
    );
  }
}

function unusable(path: string, what: string, reason: string): AppError {
  const message = `cannot use \`${basename(path)}\` as a ${what}: ${reason}`;
  return new AppError("usage", message, { hint: `Give the ${what} as a text file.` });
}
