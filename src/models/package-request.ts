/** What a request to package says, checked before anything is read. Pure. */
import type { PackageRequest } from "../api/models.ts";
import { AppError } from "../errors.ts";
import { CREATED, ownFormat } from "../oci/media-types.ts";
import type { ArtifactFormat } from "./artifact.ts";

/** The config holds an int32. */
const MAX_CONTEXT = 2 ** 31 - 1;
/** The manifest with all annotations must stay under 4 MiB; labels are short. Characters. */
const MAX_KEY = 255;
const MAX_VALUE = 16_384;
const MAX_ANNOTATIONS = 256;
/** What of a wrong name is shown. Characters. */
const MAX_SHOWN = 80;

const SOURCES = {
  gguf: "--gguf",
  safetensors_dir: "--safetensors-dir",
  onnx_dir: "--onnx-dir",
  pytorch_dir: "--pytorch-dir",
  dduf: "--dduf",
  files: "--file",
  from: "--from",
} as const;

/** @throws usage unless it says what to package, once, and nothing that excludes another thing */
export function requireOneSource(request: PackageRequest): void {
  const given = (Object.keys(SOURCES) as (keyof typeof SOURCES)[]).filter(
    (source) => request[source] !== undefined,
  );
  if (given.length === 0) {
    throw new AppError("usage", "cannot package a model: nothing says what to package", {
      hint: "Give one of `--gguf FILE`, `--safetensors-dir DIR`, `--onnx-dir DIR`, `--pytorch-dir DIR`, `--dduf FILE`, `--file FILE` and `--from MODEL`.",
    });
  }
  if (given.length > 1) {
    const flags = given.map((source) => `\`${SOURCES[source]}\``).join(" and ");
    throw new AppError("usage", `cannot package a model: ${flags} exclude each other`, {
      hint: "Give one of them.",
    });
  }
  checkFormatName(request);
  if (request.link === true && request.push === true && request.keep !== true) {
    throw new AppError("usage", "cannot link the weights: nothing is stored when pushing", {
      hint: "Leave out `--link`, or add `--keep`.",
    });
  }
}

/** @throws usage */
export function checkContext(
  tokens: number | undefined,
  format: ArtifactFormat,
): number | undefined {
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

/**
 * @throws usage
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md#rules
 */
export function checkAnnotations(
  annotations: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const entries = Object.entries(annotations);
  if (entries.length > MAX_ANNOTATIONS)
    throw unusable("annotations", `there are more than ${MAX_ANNOTATIONS}`);
  for (const [key, value] of entries) {
    const reason = annotationFault(key, value);
    if (reason !== undefined) throw unusable(JSON.stringify(key.slice(0, MAX_KEY)), reason);
  }
  return annotations;
}

// --- internal ---

/** Of a known format more is known than its name, and read from the files. */
function checkFormatName({ files, format_name: name }: PackageRequest): void {
  if (files === undefined && name === undefined) return;
  const what = "cannot package a model of another format";
  if (files === undefined || files.length === 0) {
    throw new AppError("usage", `${what}: nothing says which files it has`, {
      hint: "Give each with `--file FILE`.",
    });
  }
  if (name !== undefined && ownFormat(name) !== undefined) return;
  const reason =
    name === undefined
      ? "nothing says what the format is called"
      : `\`${name.slice(0, MAX_SHOWN)}\` is a known one, or no name of any`;
  throw new AppError("usage", `${what}: ${reason}`, {
    hint: "Give its name with `--format-name NAME`: letters, digits, `.`, `_`, `+` and `-`; GGUF, safetensors and DDUF have flags of their own.",
  });
}

function annotationFault(key: string, value: string): string | undefined {
  if (!/^[^\s\p{Cc}]+$/u.test(key)) return "a key is neither empty nor has spaces";
  if (key.length > MAX_KEY) return `a key has at most ${MAX_KEY} characters`;
  if (value.length > MAX_VALUE) return `its value has more than ${MAX_VALUE} characters`;
  return key === CREATED ? "the creation time has an option of its own" : undefined;
}

function unusable(what: string, reason: string): AppError {
  return new AppError("usage", `cannot annotate the model with ${what}: ${reason}`, {
    hint: "Give annotations as `--annotation KEY=VALUE`, and the time with `--created`.",
  });
}
