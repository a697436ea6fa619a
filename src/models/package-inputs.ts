/** What a model is packaged from: every file is found and checked before anything is stored or sent. */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import type { PackageRequest } from "../api/models.ts";
import { AppError } from "../errors.ts";
import { foreignFormatOf } from "../oci/foreign-formats.ts";
import { readGgufFacts } from "../store/gguf.ts";
import { toReadError } from "../store/read-error.ts";
import {
  type ArtifactFormat,
  type ArtifactLayout,
  type LayerRole,
  pathInArtifact,
} from "./artifact.ts";
import { isPickle } from "./file-classes.ts";
import {
  checkPaths,
  type FoundFile,
  type InputFile,
  readText,
  requireAbsolute,
} from "./input-file.ts";
import {
  fromGguf,
  type ModelFacts,
  projectorAsModel,
  readDdufFacts,
  readModelFacts,
} from "./model-facts.ts";
import { readDirectory } from "./package-directory.ts";
import { readOnnxInputs } from "./package-onnx.ts";
import { readOwnInputs } from "./package-own.ts";
import { readPytorchInputs } from "./package-pytorch.ts";

export interface PackageInputs {
  readonly layout: ArtifactLayout;
  readonly facts: ModelFacts;
  readonly fallbackTitle: string | undefined;
  /** In the order of the layers. */
  readonly files: readonly InputFile[];
  /** Sentences about what looks odd and is done all the same. */
  readonly warnings: readonly string[];
}

export interface InputOptions {
  readonly format: ArtifactFormat;
  readonly signal: AbortSignal;
}

/**
 * Reads what `gguf`, `safetensors_dir`, `onnx_dir`, `pytorch_dir`, `dduf` or `files` names, and the files that go with it.
 *
 * @throws usage, not_found, forbidden, invalid_model_file, unsupported_model
 */
export async function readPackageInputs(
  request: PackageRequest,
  options: InputOptions,
): Promise<PackageInputs> {
  const weights = await readWeights(request, options);
  const { extras, warnings } = await readExtras(request, options);
  const replaced = new Set<LayerRole>(
    extras.map(({ role }) => role).filter((role) => role !== "license"),
  );
  const files = [...weights.files.filter(({ role }) => !replaced.has(role)), ...extras];
  refuseProjectorName(files, options.format);
  checkPaths(files);
  return { ...weights, files, warnings: [...weights.warnings, ...warnings] };
}

/** Licences, template and projector: what goes with weights wherever they come from. In the order of their layers. */
export async function readExtras(
  request: PackageRequest,
  { format, signal }: InputOptions,
): Promise<{ extras: InputFile[]; warnings: string[] }> {
  const extras: InputFile[] = [];
  const warnings: string[] = [];
  // In an order of their own: the digest must not depend on that of the flags.
  const licenses = [...new Set(request.licenses)].toSorted((a, b) =>
    basename(a) < basename(b) ? -1 : 1,
  );
  for (const path of licenses) {
    extras.push(toInput("license", await readText(path, "licence", { signal }), format));
  }
  if (request.chat_template !== undefined) {
    const file = await readText(request.chat_template, "chat template", { signal });
    extras.push(toInput("chatTemplate", file, format));
  }
  if (request.mmproj !== undefined) {
    requireAbsolute(request.mmproj);
    const facts = await readGgufFacts(request.mmproj, { signal });
    if (!facts.isProjector) {
      const name = basename(request.mmproj);
      warnings.push(`\`${name}\` does not look like a projector: its architecture is not \`clip\``);
    }
    extras.push(
      ...facts.files.map(({ path, ...file }) =>
        toInput("mmproj", { ...file, location: path }, format),
      ),
    );
  }
  return { extras, warnings };
}

/**
 * ModelPack tells projectors by their names.
 *
 * @throws usage
 */
export function refuseProjectorName(
  files: readonly { readonly role: LayerRole; readonly path: string }[],
  format: ArtifactFormat,
): void {
  const misleading = files.find(
    ({ role, path }) => role === "weights" && /mmproj/i.test(basename(path)),
  );
  if (format === "docker" || misleading === undefined) return;
  throw new AppError(
    "usage",
    `cannot package \`${misleading.path}\` as ModelPack: its name says that it is a projector`,
    {
      hint: "Rename the file, or leave out `--format cncf`.",
    },
  );
}

// --- internal ---

async function readWeights(request: PackageRequest, options: InputOptions): Promise<PackageInputs> {
  const { gguf, safetensors_dir: safetensors, onnx_dir: onnx, dduf, files } = request;
  const { pytorch_dir: pytorch } = request;
  const directory = safetensors ?? onnx ?? pytorch;
  if (files !== undefined) return readOwnInputs(files, { request, ...options });
  const path = gguf ?? directory ?? dduf ?? "";
  requireAbsolute(path);
  const isDirectory = await checkKind(path, { mustBeDirectory: directory !== undefined });
  if (onnx !== undefined) return readOnnxInputs(path, options);
  if (pytorch !== undefined) return readPytorchInputs(path, options);
  if (isDirectory && dduf === undefined) return readDirectoryInputs(path, options);
  return dduf === undefined ? readGgufInputs(path, options) : readDdufInputs(path, options);
}

/** @throws unsupported_model for what no engine reads by its name; its bytes would only say that it is no GGUF */
function refuseForeign(path: string): void {
  const name = nameOf(path);
  const foreign = foreignFormatOf([name]);
  if (foreign !== undefined) {
    throw new AppError(
      "unsupported_model",
      `cannot package \`${name}\`: no engine reads the format ${foreign.title}`,
      { hint: foreign.way, details: { format: foreign.name } },
    );
  }
  const flag = /\.onnx$/i.test(name) ? "--onnx-dir" : isPickle(name) ? "--pytorch-dir" : undefined;
  if (flag === undefined) return;
  throw new AppError("usage", `cannot package \`${name}\`: it is one file of a model of several`, {
    hint: `Give the directory that it is in, with \`${flag} DIR\`.`,
  });
}

/** @returns whether it is a directory */
async function checkKind(
  path: string,
  { mustBeDirectory }: { mustBeDirectory: boolean },
): Promise<boolean> {
  let isDirectory: boolean;
  try {
    isDirectory = (await stat(path)).isDirectory();
  } catch (error) {
    // Of a set with a missing shard, the header reader says best what is wrong.
    if (!mustBeDirectory) return false;
    throw toReadError(path, error);
  }
  if (isDirectory || !mustBeDirectory) return isDirectory;
  throw new AppError("usage", `cannot package \`${basename(path)}\`: it is not a directory`, {
    hint: "Give the directory that the file is in, or a GGUF file with `--gguf`.",
  });
}

async function readGgufInputs(
  path: string,
  { format, signal }: InputOptions,
): Promise<PackageInputs> {
  const facts = await readGgufFacts(path, { signal }).catch((error: unknown) => {
    refuseForeign(path);
    throw error;
  });
  if (facts.isProjector) throw projectorAsModel(basename(path));
  return {
    layout: "gguf",
    facts: fromGguf(facts),
    fallbackTitle: nameOf(path).replace(/(?:-\d{5}-of-\d{5})?\.gguf$/i, ""),
    files: facts.files.map(({ path: location, ...file }) =>
      toInput("weights", { ...file, location }, format),
    ),
    warnings: [],
  };
}

async function readDirectoryInputs(path: string, options: InputOptions): Promise<PackageInputs> {
  const contents = await readDirectory(path, options);
  const { facts, warnings } = await readModelFacts(contents.files, options);
  return {
    layout: "directory",
    facts,
    // What the directory is called here is no fact of the model.
    fallbackTitle: undefined,
    files: contents.files,
    warnings: [...contents.warnings, ...warnings],
  };
}

async function readDdufInputs(location: string, { format }: InputOptions): Promise<PackageInputs> {
  const name = nameOf(location);
  const facts = await readDdufFacts({ location, name });
  const { size, mtimeMs } = await stat(location);
  return {
    layout: "gguf",
    facts,
    fallbackTitle: name.replace(/\.dduf$/i, ""),
    files: [toInput("weights", { location, sizeBytes: size, modifiedMs: mtimeMs }, format)],
    warnings: [],
  };
}

/** Some systems store names decomposed: the same file must have the same name everywhere. */
function nameOf(location: string): string {
  return basename(location).normalize("NFC");
}

function toInput(role: LayerRole, file: FoundFile, format: ArtifactFormat): InputFile {
  return { ...file, role, path: pathInArtifact(role, nameOf(file.location), format) };
}
