/** Packages the directory of a model in a format whose weights are plain files here: ONNX, PyTorch's checkpoints. */
import { AppError } from "../errors.ts";
import type { ModelFormat } from "../store/bundle.ts";
import { formatBinaryBytes } from "./amounts.ts";
import type { ModelFacts } from "./model-facts.ts";
import { readDirectory } from "./package-directory.ts";
import type { InputOptions, PackageInputs } from "./package-inputs.ts";

export interface DirectoryFormat {
  /** What its config calls it. */
  readonly name: ModelFormat;
  /** As a warning calls it. */
  readonly title: string;
  /** All that is weights of it. */
  isWeights(path: string): boolean;
  /** What engines are given: the first such file becomes the first layer. */
  isMain(path: string): boolean;
  /** The same weights in another format, which stay behind. */
  isOfAnother(path: string): boolean;
  /** Of a directory without such a file. */
  readonly missing: { readonly reason: string; readonly hint: string };
}

/**
 * A repository often has the same weights in several formats: those of others stay behind.
 *
 * @throws usage, not_found, forbidden, invalid_model_file
 */
export async function readFormatInputs(
  path: string,
  format: DirectoryFormat,
  options: InputOptions,
): Promise<PackageInputs> {
  const contents = await readDirectory(path, {
    ...options,
    isWeights: (name) => format.isWeights(name),
  });
  const leftOut = contents.files.filter((file) => format.isOfAnother(file.path));
  const files = contents.files
    .filter((file) => !format.isOfAnother(file.path))
    .toSorted((a, b) => Number(format.isMain(b.path)) - Number(format.isMain(a.path)));
  if (!files.some((file) => format.isMain(file.path))) {
    const { reason, hint } = format.missing;
    throw new AppError("invalid_model_file", `cannot package the model: ${reason}`, { hint });
  }
  const weights = files.filter(({ role }) => role === "weights");
  const [first] = leftOut;
  const others = leftOut.length > 1 ? ` and ${leftOut.length - 1} more` : "";
  const warning = `left out weights that are not ${format.title}: \`${first?.path}\`${others}`;
  return {
    layout: "directory",
    facts: plainFacts(
      format.name,
      weights.map(({ sizeBytes }) => sizeBytes),
    ),
    // What the directory is called here is no fact of the model.
    fallbackTitle: undefined,
    files,
    warnings: [...contents.warnings, ...(first === undefined ? [] : [warning])],
  };
}

/**
 * Of weights that are not opened here.
 *
 * @param sizes of the files, in bytes
 */
export function plainFacts(format: ModelFormat, sizes: readonly number[]): ModelFacts {
  return {
    format,
    architecture: null,
    name: null,
    license: null,
    quantization: null,
    parameters: null,
    size: formatBinaryBytes(sizes.reduce((sum, size) => sum + size, 0)),
    header: null,
  };
}
