/** Which files of a repository make up an ONNX model. Pure. */
import { AppError } from "../errors.ts";
import { type HuggingFaceChoice, pathTag } from "./name.ts";
import { companionsOf, type SafetensorsChoice } from "./safetensors-choice.ts";
import { byText, type RepositoryFile } from "./shards.ts";
import { basename, dirname, formatSize, listed } from "./text.ts";

export interface OnnxRequest {
  readonly choice: HuggingFaceChoice;
  /** As it is called in messages. */
  readonly repo: string;
}

/** Whether there are graphs that could be a model. */
export function hasOnnx(files: readonly RepositoryFile[]): boolean {
  return files.some(({ path }) => GRAPH.test(path));
}

/** Whether a tag names one of the exports: a precision as transformers.js calls it, or a directory of genai's. */
export function isOnnxTag(files: readonly RepositoryFile[], tag: string): boolean {
  const isVariant = variantsOf(tag).length > 0 && plainGraphs(files).length > 0;
  return isVariant || genaiDirectories(files).some((directory) => isNamed(directory, tag));
}

/**
 * Of repositories that have several models for onnxruntime-genai, each in a directory of its own (`genai_config.json`),
 * the one that is meant: by its name as the tag, else the only one, else the only one for processors.
 *
 * @returns undefined where there is no such directory below the top; then the whole repository is one model
 * @throws conflict if several fit, model_not_found
 * @see https://huggingface.co/microsoft/Phi-3-mini-4k-instruct-onnx
 */
export function chooseGenaiDirectory(
  files: readonly RepositoryFile[],
  { choice, repo }: OnnxRequest,
): string | undefined {
  const all = genaiDirectories(files);
  if (all.length === 0 || all.includes("") || choice.kind === "file") return undefined;
  const tag = choice.kind === "quant" ? choice.quant : undefined;
  const named = tag === undefined ? all : all.filter((directory) => isNamed(directory, tag));
  if (named.length === 0 && plainGraphs(files).length > 0) return undefined;
  const forProcessors = named.filter((directory) => PROCESSORS.test(directory));
  const only = onlyOne(named) ?? onlyOne(forProcessors);
  if (only === undefined) throw unclearDirectory(repo, { tag, named, all });
  return only;
}

/**
 * The graph that was named, or the export in the precision that was, else the best for processors; with the files that hold
 * its weights, and what reads texts. Graphs lie at the top or in `onnx`.
 *
 * @throws unsupported_model (a model of several graphs), model_not_found, conflict
 */
export function chooseOnnx(
  files: readonly RepositoryFile[],
  request: OnnxRequest,
): SafetensorsChoice {
  const graphs = files.filter(({ path }) => GRAPH.test(path) && isNear(path));
  const graph = chooseGraph(graphs, files, request);
  const data = files.filter(({ path }) => isDataOf(graph.path, path));
  const rest = graphs.filter((other) => other !== graph);
  const others = listed(
    rest.map(({ path }) => path),
    3,
  );
  const warnings =
    rest.length === 0 || request.choice.kind === "file"
      ? []
      : [
          `chose the graph ${listed([graph.path])} (${sizeOf(graph, data)}); there are also ${others}`,
        ];
  return { weights: [graph, ...data], others: companionsOf(files), warnings };
}

// --- internal ---

const GRAPH = /\.onnx$/i;
const PROCESSORS = /(?:^|[/_-])cpu(?:[/_-]|$)/i;
/** What exporters call the graph of a model that has one; the rest of the name is its precision. */
const PLAIN = /^(?:model|decoder_model_merged)(?:_(?<variant>[a-z0-9]+))?\.onnx$/i;
/** A part of a model of several graphs. */
const PART =
  /encoder|vision|audio|speech|embed_tokens|embed_images|with_past|decoder_model(?!_merged)/i;
/** Best first, on processors: of what writes, few bits lose little and are fast; vectors are to be exact. */
const WRITING = ["q4", "int8", "quantized", "uint8", "", "fp16", "bnb4", "q4f16"];
const EMBEDDING = ["", "fp16", "int8", "quantized", "uint8", "q4", "bnb4", "q4f16"];
/** Names of precisions that people use, and the exports that have them. */
const TAGS: Readonly<Record<string, readonly string[]>> = {
  fp32: [""],
  f32: [""],
  fp16: ["fp16"],
  f16: ["fp16"],
  q8: ["quantized", "int8"],
  q8_0: ["quantized", "int8"],
  int8: ["int8", "quantized"],
  uint8: ["uint8"],
  quantized: ["quantized"],
  q4: ["q4"],
  q4_0: ["q4"],
  q4f16: ["q4f16"],
  bnb4: ["bnb4"],
};

function variantsOf(tag: string): readonly string[] {
  const name = tag.toLowerCase();
  return Object.hasOwn(TAGS, name) ? (TAGS[name] ?? []) : [];
}

function variantOf(path: string): string | undefined {
  const found = PLAIN.exec(basename(path));
  return found === null ? undefined : (found.groups?.["variant"] ?? "").toLowerCase();
}

function plainGraphs(files: readonly RepositoryFile[]): readonly RepositoryFile[] {
  return files.filter(({ path }) => isNear(path) && variantOf(path) !== undefined);
}

function isNear(path: string): boolean {
  const directory = dirname(path);
  return directory === "" || directory === "onnx";
}

/** `model.onnx_data`, `model.onnx_data_1`, `model.onnx.data`. */
function isDataOf(graph: string, path: string): boolean {
  return path.startsWith(graph) && /^[._]data(?:_\d+)?$/i.test(path.slice(graph.length));
}

function genaiDirectories(files: readonly RepositoryFile[]): readonly string[] {
  const configs = files.filter(({ path }) => basename(path) === "genai_config.json");
  return configs.map(({ path }) => dirname(path)).toSorted(byText);
}

function isNamed(directory: string, tag: string): boolean {
  return basename(directory).toLowerCase() === tag.toLowerCase();
}

function chooseGraph(
  graphs: readonly RepositoryFile[],
  files: readonly RepositoryFile[],
  { choice, repo }: OnnxRequest,
): RepositoryFile {
  if (choice.kind === "file") return namedGraph(graphs, choice.path, repo);
  const [only] = graphs;
  if (graphs.length === 1 && only !== undefined && choice.kind !== "quant") return only;
  const part = graphs.find(({ path }) => PART.test(basename(path)));
  if (part !== undefined) throw severalParts(repo, part.path);
  const wanted = choice.kind === "quant" ? variantsOf(choice.quant) : undefined;
  const isWriting = files.some(({ path }) => WRITES.has(basename(path)));
  for (const variant of wanted ?? (isWriting ? WRITING : EMBEDDING)) {
    const found = graphs.find(({ path }) => variantOf(path) === variant);
    if (found !== undefined) return found;
  }
  throw notThere(repo, choice.kind === "quant" ? choice.quant : "model.onnx", graphs);
}

function namedGraph(graphs: readonly RepositoryFile[], path: string, repo: string): RepositoryFile {
  const wanted = path.toLowerCase();
  const found = graphs.find(
    (graph) => graph.path.toLowerCase() === wanted || pathTag(graph.path) === path,
  );
  if (found === undefined) throw notThere(repo, path, graphs);
  return found;
}

function onlyOne(names: readonly string[]): string | undefined {
  return names.length === 1 ? names[0] : undefined;
}

function unclearDirectory(
  repo: string,
  found: {
    readonly tag: string | undefined;
    readonly named: readonly string[];
    readonly all: readonly string[];
  },
): AppError {
  const { tag = "", named, all } = found;
  const isThere = named.length > 0;
  const directories = isThere ? named : all;
  const reason = isThere ? "it has several ONNX models" : `it has no ONNX model ${listed([tag])}`;
  return new AppError(
    isThere ? "conflict" : "model_not_found",
    `cannot pull \`${repo}\`: ${reason}`,
    {
      hint: `Choose one of ${listed(directories.map(basename))}, as in \`${repo}:${basename(directories[0] ?? "")}\`.`,
      details: { directories },
    },
  );
}

/** Files that only a model which writes has. */
const WRITES: ReadonlySet<string> = new Set(["generation_config.json", "genai_config.json"]);

function sizeOf(graph: RepositoryFile, data: readonly RepositoryFile[]): string {
  return formatSize([graph, ...data].reduce((sum, { size }) => sum + size, 0));
}

function severalParts(repo: string, path: string): AppError {
  return new AppError(
    "unsupported_model",
    `cannot pull \`${repo}\`: its ONNX export is of several graphs, such as ${listed([path])}`,
    {
      hint: "Take the same model as safetensors or GGUF: ONNX models of one graph are served here.",
    },
  );
}

function notThere(repo: string, what: string, graphs: readonly RepositoryFile[]): AppError {
  const names = graphs.map(({ path }) => path);
  return new AppError(
    "model_not_found",
    `cannot pull \`${repo}\`: it has no ONNX model ${listed([what])}`,
    {
      hint:
        names.length === 0
          ? "Choose a repository with `onnx/model.onnx`."
          : `Name one of its graphs, ${listed(names)}, as in \`${repo}:${names[0]?.replaceAll("/", "-")}\`.`,
      details: { files: names },
    },
  );
}
