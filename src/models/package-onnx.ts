/** Packages the directory of an ONNX model: its graphs, what they keep in files beside them, and what reads texts. */
import { AppError } from "../errors.ts";
import { formatBinaryBytes } from "./amounts.ts";
import { weightFormatOf } from "./file-classes.ts";
import { readDirectory } from "./package-directory.ts";
import type { InputOptions, PackageInputs } from "./package-inputs.ts";

/** What its config calls it. */
const ONNX = "onnx";

/**
 * Weights that are not ONNX stay behind: a repository often has the same ones in several formats.
 *
 * @throws usage, not_found, forbidden, invalid_model_file
 */
export async function readOnnxInputs(path: string, options: InputOptions): Promise<PackageInputs> {
  const contents = await readDirectory(path, { ...options, isWeights: isOnnx });
  const leftOut = contents.files.filter(isOfAnother);
  const files = contents.files.filter((file) => !isOfAnother(file)).toSorted(byGraph);
  if (!files.some(isGraph)) {
    throw new AppError("invalid_model_file", "cannot package the model: it has no `.onnx` file", {
      hint: "Give the directory that its `model.onnx`, or the directory `onnx`, lies in.",
    });
  }
  const weights = files.filter(({ role }) => role === "weights");
  const size = weights.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const [first] = leftOut;
  const others = leftOut.length > 1 ? ` and ${leftOut.length - 1} more` : "";
  const warning = `left out weights that are not ONNX: \`${first?.path}\`${others}`;
  return {
    layout: "directory",
    facts: {
      format: ONNX,
      architecture: null,
      name: null,
      license: null,
      quantization: null,
      parameters: null,
      size: formatBinaryBytes(size),
      header: null,
    },
    // What the directory is called here is no fact of the model.
    fallbackTitle: undefined,
    files,
    warnings: [...contents.warnings, ...(first === undefined ? [] : [warning])],
  };
}

// --- internal ---

type Named = Pick<PackageInputs["files"][number], "path">;

const GRAPH = /\.onnx$/i;
/** A graph of more than two gigabytes keeps its weights in files beside it, which exporters name so. */
const DATA = /\.onnx[._]data(?:_\d+)?$/i;
const PYTORCH = /(?:^|\/)pytorch_model[^/]*\.bin$|\.(?:h5|msgpack|ot|pth?)$/i;

function isOnnx(path: string): boolean {
  return GRAPH.test(path) || DATA.test(path);
}

function isGraph({ path }: Named): boolean {
  return GRAPH.test(path);
}

function isOfAnother({ path }: Named): boolean {
  return weightFormatOf(path) !== undefined || PYTORCH.test(path);
}

/** The first file is the one that engines are given. */
function byGraph(a: Named, b: Named): number {
  return Number(isGraph(b)) - Number(isGraph(a));
}
