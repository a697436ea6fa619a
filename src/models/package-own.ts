/** Packages files of a format that is not known here: what they are, the request says. */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import type { PackageRequest } from "../api/models.ts";
import { AppError } from "../errors.ts";
import { ownFormat } from "../oci/media-types.ts";
import { toReadError } from "../store/read-error.ts";
import { type ArtifactFormat, pathInArtifact } from "./artifact.ts";
import { weightFormatOf } from "./file-classes.ts";
import { type InputFile, requireAbsolute } from "./input-file.ts";
import { plainFacts } from "./package-format.ts";
import type { PackageInputs } from "./package-inputs.ts";

/** More are a directory's, which has a flag of its own. */
const MAX_FILES = 1000;

export interface OwnOptions {
  readonly request: PackageRequest;
  readonly format: ArtifactFormat;
}

/**
 * Every file is a layer at its own name; they are not opened.
 *
 * @param paths absolute; the first is the one that engines are given
 * @throws usage, not_found, forbidden
 */
export async function readOwnInputs(
  paths: readonly string[],
  { request, format }: OwnOptions,
): Promise<PackageInputs> {
  if (paths.length > MAX_FILES) {
    throw new AppError("usage", `cannot package a model of ${paths.length} files`, {
      hint: `Give at most ${MAX_FILES}.`,
    });
  }
  const files: InputFile[] = [];
  for (const path of paths) files.push(await readOwnFile(path, format));
  const sizes = files.map(({ sizeBytes }) => sizeBytes);
  return {
    layout: "directory",
    facts: plainFacts(ownFormat(request.format_name) ?? "", sizes),
    fallbackTitle: files[0]?.path.replace(/(?<=.)\.[^.]{1,16}$/, ""),
    files,
    warnings: [],
  };
}

// --- internal ---

async function readOwnFile(location: string, format: ArtifactFormat): Promise<InputFile> {
  requireAbsolute(location);
  // Some systems store names decomposed: the same file must have the same name everywhere.
  const name = basename(location).normalize("NFC");
  const path = pathInArtifact("weights", name, format);
  const known = weightFormatOf(path);
  if (known !== undefined && format === "cncf") {
    throw new AppError(
      "usage",
      `cannot package \`${name}\` as ModelPack: its name says that it is of the format ${known}`,
      { hint: "Rename the file, or leave out `--format cncf`." },
    );
  }
  try {
    const found = await stat(location);
    if (!found.isFile()) {
      throw new AppError("usage", `cannot package \`${name}\`: it is not a regular file`, {
        hint: "Give each file of the model with `--file`.",
      });
    }
    return { location, role: "weights", path, sizeBytes: found.size, modifiedMs: found.mtimeMs };
  } catch (error) {
    throw toReadError(location, error);
  }
}
