/** Which files of a repository make up a model with safetensors. Pure, but for the index that may have to be read. */
import { AppError } from "../errors.ts";
import { foreignFormatOf } from "../oci/foreign-formats.ts";
import { ambiguous, incomplete } from "./choice-failure.ts";
import { type HuggingFaceChoice, pathTag } from "./name.ts";
import {
  byText,
  groupName,
  groupShards,
  isComplete,
  type RepositoryFile,
  type ShardGroup,
} from "./shards.ts";
import { basename, dirname, formatSize, listed } from "./text.ts";

const EXTENSION = ".safetensors";
const INDEX = /\.safetensors\.index\.json$/i;

export interface SafetensorsChoice {
  /** Ordered by path. */
  readonly weights: readonly RepositoryFile[];
  /** Configuration, tokenizer, templates, licence: what engines read besides. */
  readonly others: readonly RepositoryFile[];
  readonly warnings: readonly string[];
}

export interface SafetensorsRequest {
  readonly choice: HuggingFaceChoice;
  /** As it is called in messages. */
  readonly repo: string;
  /** Names of the files that an index lists, relative to it. */
  readonly readIndex: (index: RepositoryFile) => Promise<readonly string[]>;
}

/** Whether there are safetensors that could be a model. */
export function hasSafetensors(files: readonly RepositoryFile[]): boolean {
  return files.some(({ path }) => isIncluded(path) && path.toLowerCase().endsWith(EXTENSION));
}

/**
 * The weights in the root as transformers reads them (`model.safetensors`, its shards, or what its index lists), else the
 * only set there; those of the components of a pipeline (diffusers, sentence-transformers) with them. Copies in other
 * formats, other precisions (`model.fp16.safetensors`), `consolidated` ones and `original/` are left out.
 *
 * @throws conflict (several sets), model_not_found (the file that was named), invalid_model_file (shards are missing),
 *         unsupported_model (only pickles, or no weights)
 */
export async function chooseSafetensors(
  files: readonly RepositoryFile[],
  request: SafetensorsRequest,
): Promise<SafetensorsChoice> {
  const included = files.filter(({ path }) => isIncluded(path));
  const root = await chooseRoot(included, request);
  const components = chooseComponents(included);
  const weights = [...root, ...components].toSorted((left, right) => byText(left.path, right.path));
  if (weights.length === 0) throw noWeights(files, request.repo);
  const others = companionsOf(files);
  return { weights, others, warnings: leftOut(files, new Set(weights)) };
}

/** What engines read beside the weights: configuration, tokenizer, templates, licence, and code, which is run only if allowed. */
export function companionsOf(files: readonly RepositoryFile[]): RepositoryFile[] {
  return files.filter(({ path }) => isIncluded(path) && isCompanion(path));
}

// --- internal ---

/** Weights of other frameworks, most of them pickles, which run code when they are read. */
const OTHER_WEIGHTS =
  /\.(?:bin|pt|pth|ckpt|pkl|pickle|h5|msgpack|ot|npz|onnx|onnx_data|tflite|mlmodel)$/i;
const PICKLES = /\.(?:bin|pt|pth|ckpt|pkl|pickle)$/i;
/** Copies of the model for other programs, and leavings of its training. */
const OTHER_DIRECTORIES =
  /^(?:original|onnx|openvino|coreml|metal|gguf|runs|logs|checkpoint-\d+|flax|tensorflow|\..*)$/i;
const COMPANIONS = /\.(?:json|txt|model|vocab|tiktoken|spm|bpe|jinja|md)$/i;
const LICENSE = /^(?:licen[cs]e|copying|notice)(?:[._-]|$)/i;
/** Indices of pickles, and states of a training. */
const USELESS = /\.(?:bin|h5|msgpack)\.index\.json$|^(?:trainer_state|training_args|optimizer)\b/i;
/** Directories of sentence-transformers: `1_Pooling`, `2_Dense`. */
const MODULE = /^\d+_[A-Za-z]+$/;

function isIncluded(path: string): boolean {
  const directories = path.split("/").slice(0, -1);
  return (
    !directories.some((name) => OTHER_DIRECTORIES.test(name)) && !basename(path).startsWith(".")
  );
}

function isCompanion(path: string): boolean {
  const name = basename(path);
  // Code beside the weights is what `auto_map` names; elsewhere it is examples.
  const isCode = /\.py$/i.test(name) && dirname(path) === "";
  return (COMPANIONS.test(name) || LICENSE.test(name) || isCode) && !USELESS.test(name);
}

async function chooseRoot(
  files: readonly RepositoryFile[],
  request: SafetensorsRequest,
): Promise<readonly RepositoryFile[]> {
  const { choice, repo } = request;
  const root = files.filter(({ path }) => dirname(path) === "");
  const groups = groupShards(root, EXTENSION);
  if (choice.kind === "file") return named(groupShards(files, EXTENSION), choice.path, repo);
  const index = indexOf(root);
  const standard = standardSet(groups, index !== undefined);
  if (standard !== undefined) return standard.files;
  if (index !== undefined) return indexed(root, index, request);
  return onlySet(groups, repo);
}

/** What transformers opens: the shards if there is an index, else the single file. */
function standardSet(groups: readonly ShardGroup[], hasIndex: boolean): ShardGroup | undefined {
  const models = groups.filter((group) => group.stem === "model" && isComplete(group));
  return models.find(({ count }) => count > 1 === hasIndex) ?? models[0];
}

function indexOf(root: readonly RepositoryFile[]): RepositoryFile | undefined {
  const indices = root.filter(({ path }) => INDEX.test(path));
  return indices.find(({ path }) => path === "model.safetensors.index.json") ?? indices[0];
}

/** @see https://huggingface.co/docs/transformers/big_models: `weight_map` names the file of each tensor */
async function indexed(
  root: readonly RepositoryFile[],
  index: RepositoryFile,
  { readIndex, repo }: SafetensorsRequest,
): Promise<readonly RepositoryFile[]> {
  const names = new Set(await readIndex(index));
  const files = root.filter(
    ({ path }) => names.has(path) && path.toLowerCase().endsWith(EXTENSION),
  );
  if (names.size > 0 && files.length === names.size) return files;
  const lost = [...names].filter((name) => !files.some(({ path }) => path === name));
  throw new AppError(
    "invalid_model_file",
    `cannot pull \`${repo}\`: ${listed([index.path])} lists ${lost.length === 0 ? "no files" : `files that are not there: ${listed(lost, 3)}`}`,
    { hint: "Choose another repository, or wait until all files are uploaded." },
  );
}

function named(
  groups: readonly ShardGroup[],
  path: string,
  repo: string,
): readonly RepositoryFile[] {
  const isIt = (file: RepositoryFile): boolean =>
    file.path.toLowerCase() === path.toLowerCase() || pathTag(file.path) === path;
  const found = groups.filter((group) => group.files.some(isIt));
  const [first] = found;
  if (found.length > 1) throw ambiguous(repo, listed([path]), found);
  if (first === undefined) {
    throw new AppError("model_not_found", `cannot pull \`${repo}\`: it has no ${listed([path])}`, {
      hint:
        groups.length === 0
          ? "Look at its list of files, and mind capitals."
          : `Choose one of ${listed(groups.map(groupName))}.`,
      details: { files: groups.map(groupName) },
    });
  }
  if (!isComplete(first)) throw incomplete(repo, first);
  return first.files;
}

/** Where nothing is called as transformers calls it. `consolidated` is Mistral's copy for its own program. */
function onlySet(groups: readonly ShardGroup[], repo: string): readonly RepositoryFile[] {
  const models = groups.filter(({ stem }) => !/^adapter_model/i.test(stem));
  if (models.length === 0 && groups.length > 0) throw adapterOnly(repo);
  const complete = models.filter(isComplete);
  const [broken] = models;
  if (complete.length === 0 && broken !== undefined) throw incomplete(repo, broken);
  const others = complete.filter(({ stem }) => stem !== "consolidated");
  const candidates = others.length > 0 ? others : complete;
  if (candidates.length > 1) throw ambiguous(repo, "`safetensors`", candidates);
  return candidates[0]?.files ?? [];
}

/** Diffusers says that it has components with `model_index.json`, sentence-transformers with `modules.json`. */
function chooseComponents(files: readonly RepositoryFile[]): RepositoryFile[] {
  const isPipeline = files.some(({ path }) => path === "model_index.json");
  const isSentence = files.some(({ path }) => path === "modules.json");
  const groups = groupShards(files, EXTENSION).filter((group) => {
    const directory = dirname(group.stem);
    if (directory === "" || !isComplete(group)) return false;
    return isPipeline || (isSentence && MODULE.test(directory));
  });
  // `x.fp16` beside `x` is the same in another precision.
  const stems = new Set(groups.map(({ stem }) => stem));
  return groups
    .filter(({ stem }) => !stems.has(stem.replace(/\.[A-Za-z0-9_]+$/, "")) || !/\.\w+$/.test(stem))
    .flatMap((group) => group.files);
}

function leftOut(
  files: readonly RepositoryFile[],
  taken: ReadonlySet<RepositoryFile>,
): readonly string[] {
  const rest = files.filter(
    (file) =>
      !taken.has(file) &&
      (OTHER_WEIGHTS.test(file.path) || file.path.toLowerCase().endsWith(EXTENSION)),
  );
  const [first] = rest;
  if (first === undefined) return [];
  const bytes = formatSize(rest.reduce((sum, { size }) => sum + size, 0));
  const paths = rest.map(({ path }) => path);
  return [`left out weights that are not needed (${bytes}): ${listed(paths, 3)}`];
}

function adapterOnly(repo: string): AppError {
  return new AppError(
    "unsupported_model",
    `cannot pull \`${repo}\`: it holds an adapter, not a model`,
    { hint: "Pull the model that it adapts." },
  );
}

function noWeights(files: readonly RepositoryFile[], repo: string): AppError {
  const pickles = files.filter(({ path }) => PICKLES.test(path)).map(({ path }) => path);
  const others = files.filter(({ path }) => OTHER_WEIGHTS.test(path)).map(({ path }) => path);
  const foreign = foreignFormatOf(files.map(({ path }) => path));
  const usual = "Choose a repository with GGUF or safetensors files.";
  const hint = foreign === undefined ? usual : foreign.way;
  const reason =
    foreign === undefined ? reasonOf(pickles, others) : `its weights are of ${foreign.title}`;
  return new AppError("unsupported_model", `cannot pull \`${repo}\`: ${reason}`, { hint });
}

function reasonOf(pickles: readonly string[], others: readonly string[]): string {
  if (pickles.length > 0) {
    return `its weights are pickles (${listed(pickles, 3)}), which can run code when they are opened`;
  }
  if (others.length > 0)
    return `its weights are in a format that no engine opens: ${listed(others, 3)}`;
  return "it has no weights";
}
