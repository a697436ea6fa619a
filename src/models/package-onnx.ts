/** Packages the directory of an ONNX model: its graphs, what they keep in files beside them, and what reads texts. */
import { ONNX } from "../oci/media-types.ts";
import { isPickle, weightFormatOf } from "./file-classes.ts";
import { type DirectoryFormat, readFormatInputs } from "./package-format.ts";
import type { InputOptions, PackageInputs } from "./package-inputs.ts";

/** @throws usage, not_found, forbidden, invalid_model_file */
export function readOnnxInputs(path: string, options: InputOptions): Promise<PackageInputs> {
  return readFormatInputs(path, FORMAT, options);
}

// --- internal ---

const GRAPH = /\.onnx$/i;
/** A graph of more than two gigabytes keeps its weights in files beside it, which exporters name so. */
const DATA = /\.onnx[._]data(?:_\d+)?$/i;
const OTHERS = /\.(?:h5|msgpack|ot)$/i;

const FORMAT: DirectoryFormat = {
  name: ONNX,
  title: "ONNX",
  isWeights: (path) => GRAPH.test(path) || DATA.test(path),
  isMain: (path) => GRAPH.test(path),
  isOfAnother: (path) =>
    weightFormatOf(path) !== undefined || isCheckpoint(path) || OTHERS.test(path),
  missing: {
    reason: "it has no `.onnx` file",
    hint: "Give the directory that its `model.onnx`, or the directory `onnx`, lies in.",
  },
};

/** Not every `.bin`: tokenizers and graphs have such files, too. */
function isCheckpoint(path: string): boolean {
  return isPickle(path) && (!/\.bin$/i.test(path) || /(?:^|\/)pytorch_model[^/]*$/i.test(path));
}
