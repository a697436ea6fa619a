/** Which files of a repository make up a model that has PyTorch's checkpoints only. Pure. */
import { AppError } from "../errors.ts";
import { incomplete } from "./choice-failure.ts";
import { companionsOf, type SafetensorsChoice } from "./safetensors-choice.ts";
import { groupShards, isComplete, type RepositoryFile } from "./shards.ts";
import { dirname } from "./text.ts";

const EXTENSION = ".bin";
/** @see transformers/utils/__init__.py: WEIGHTS_NAME, WEIGHTS_INDEX_NAME */
const STEM = "pytorch_model";
const INDEX = "pytorch_model.bin.index.json";

/** Whether transformers would find a checkpoint there. */
export function hasPytorch(files: readonly RepositoryFile[]): boolean {
  const paths = new Set(files.map(({ path }) => path));
  return paths.has("config.json") && checkpoints(files).length > 0;
}

/**
 * Its shards if there is an index, else the single file.
 *
 * @throws invalid_model_file (shards are missing), unsupported_model (no checkpoint that transformers would find)
 */
export function choosePytorch(files: readonly RepositoryFile[], repo: string): SafetensorsChoice {
  const groups = checkpoints(files);
  const [first] = groups;
  if (first === undefined || !hasPytorch(files)) throw noCheckpoint(repo);
  const index = files.find(({ path }) => path === INDEX);
  const complete = groups.filter(isComplete);
  const chosen = complete.find(({ count }) => count > 1 === (index !== undefined)) ?? complete[0];
  if (chosen === undefined) throw incomplete(repo, first);
  const others = companionsOf(files);
  const isSharded = chosen.count > 1 && index !== undefined;
  return {
    weights: chosen.files,
    others: isSharded ? [...others, index] : others,
    warnings: [
      "its weights are pickles, which can run code when they are opened: it runs only after `tug configure MODEL --allow-pickle`",
    ],
  };
}

// --- internal ---

function checkpoints(files: readonly RepositoryFile[]) {
  const top = files.filter(({ path }) => dirname(path) === "");
  return groupShards(top, EXTENSION).filter(({ stem }) => stem.toLowerCase() === STEM);
}

function noCheckpoint(repo: string): AppError {
  return new AppError(
    "unsupported_model",
    `cannot pull \`${repo}\`: it has no PyTorch checkpoint with a \`config.json\``,
    { hint: "Choose a repository with GGUF or safetensors files." },
  );
}
