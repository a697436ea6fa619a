/** Packages the directory of a PyTorch checkpoint. Its weights are pickles: whoever runs them must allow it. */
import { PYTORCH } from "../oci/media-types.ts";
import { AppError } from "../errors.ts";
import { isPickle, weightFormatOf } from "./file-classes.ts";
import { type DirectoryFormat, readFormatInputs } from "./package-format.ts";
import type { InputOptions, PackageInputs } from "./package-inputs.ts";

/**
 * As transformers' `save_pretrained` laid models out before safetensors: `config.json`, and `pytorch_model.bin` or its
 * shards.
 *
 * @throws usage, not_found, forbidden, invalid_model_file
 */
export async function readPytorchInputs(
  path: string,
  options: InputOptions,
): Promise<PackageInputs> {
  const inputs = await readFormatInputs(path, FORMAT, options);
  if (!inputs.files.some((file) => file.path === "config.json")) {
    throw new AppError("invalid_model_file", "cannot package the model: it has no `config.json`", {
      hint: "Give a directory as transformers lays it out: a bare checkpoint does not say what it is of.",
    });
  }
  return inputs;
}

// --- internal ---

/** What transformers and PyTorch write beside the weights while they train. */
const TRAINING =
  /(?:^|\/)(?:training_args|optimizer|scheduler|scaler|rng_state[^/]*|trainer_state)\.(?:bin|pth?)$/i;
/** The names that transformers opens. @see transformers/utils/__init__.py: WEIGHTS_NAME */
const STANDARD = /^pytorch_model(?:-\d{5}-of-\d{5})?\.bin$/i;
const OTHERS = /\.(?:h5|msgpack|ot|onnx|onnx[._]data(?:_\d+)?)$/i;

const FORMAT: DirectoryFormat = {
  name: PYTORCH,
  title: "PyTorch's",
  isWeights: isCheckpoint,
  isMain: (path) => STANDARD.test(path),
  isOfAnother: (path) =>
    weightFormatOf(path) !== undefined ||
    OTHERS.test(path) ||
    (isPickle(path) && !isCheckpoint(path)),
  missing: {
    reason: "it has no `pytorch_model.bin`, nor shards of one",
    hint: "Save it with `save_pretrained` of transformers; with safetensors there are no pickles in it.",
  },
};

/** Whether a file is part of a model, and not what is left of its training. */
function isCheckpoint(path: string): boolean {
  return isPickle(path) && !TRAINING.test(path);
}
