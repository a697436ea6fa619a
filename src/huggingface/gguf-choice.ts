/** Which GGUF files of a repository are the model that was asked for. Pure. */
import { AppError } from "../errors.ts";
import { type HuggingFaceChoice, pathTag } from "./name.ts";
import { ambiguous, incomplete } from "./choice-failure.ts";
import {
  namesPart,
  normalizeQuantization,
  preferenceRank,
  quantizationOf,
} from "./quantization.ts";
import {
  byText,
  groupName,
  groupShards,
  isComplete,
  type RepositoryFile,
  type ShardGroup,
} from "./shards.ts";
import { basename, dirname, formatSize, listed } from "./text.ts";

const EXTENSION = ".gguf";

export interface GgufChoice {
  readonly weights: ShardGroup;
  readonly mmproj: RepositoryFile | undefined;
  readonly warnings: readonly string[];
}

/** Whether a file is weights of a model that could be run: neither a projector, an importance matrix nor a bare vocabulary. */
export function isGgufModel(path: string): boolean {
  return path.toLowerCase().endsWith(EXTENSION) && !isProjector(path) && !isByProduct(path);
}

/**
 * A file that is named is taken with its shards; a quantization means the file of that name; with neither, the best by
 * preference. Two models are never mixed: where several fit equally well, that is an error.
 *
 * @param repo as it is called in messages
 * @throws conflict (several fit), model_not_found (none does), invalid_model_file (shards are missing), unsupported_model
 */
export function chooseGguf(
  files: readonly RepositoryFile[],
  choice: HuggingFaceChoice,
  repo: string,
): GgufChoice {
  const groups = groupShards(
    files.filter(({ path }) => isGgufModel(path)),
    EXTENSION,
  );
  const projectors = files.filter(({ path }) => isProjector(path) && !isByProduct(path));
  const chosen = chooseWeights(groups, { choice, repo, projectors });
  if (!isComplete(chosen.weights)) throw incomplete(repo, chosen.weights);
  if (choice.kind === "file") return withoutProjector(chosen, projectors);
  const { mmproj, warnings } = chooseProjector(chosen.weights, projectors);
  return { weights: chosen.weights, mmproj, warnings: [...chosen.warnings, ...warnings] };
}

// --- internal ---

interface Chosen {
  readonly weights: ShardGroup;
  readonly warnings: readonly string[];
}

interface Request {
  readonly choice: HuggingFaceChoice;
  readonly repo: string;
  readonly projectors: readonly RepositoryFile[];
}

/** Best first: half precision loses nothing that is seen, and engines run it everywhere; bf16 is slow without hardware for it. */
const PROJECTOR_PREFERENCE = ["F16", "BF16", "F32", "Q8_0"];

function isProjector(path: string): boolean {
  const name = basename(path).toLowerCase();
  return name.endsWith(EXTENSION) && name.includes("mmproj");
}

function isByProduct(path: string): boolean {
  return /imatrix|^ggml-vocab-/.test(basename(path).toLowerCase());
}

function chooseWeights(groups: readonly ShardGroup[], request: Request): Chosen {
  const { choice, repo } = request;
  if (choice.kind === "file") {
    return { weights: findFile(groups, choice.path, request), warnings: [] };
  }
  if (groups.length === 0) throw noModel(request);
  if (choice.kind === "quant") return findQuantization(groups, choice.quant, repo);
  return preferred(groups, repo);
}

/** By its path; by its path as a tag, which is how the store calls it; or by its name alone. */
function findFile(groups: readonly ShardGroup[], path: string, request: Request): ShardGroup {
  const wanted = path.toLowerCase();
  const ways: ((file: RepositoryFile) => boolean)[] = [
    (file) => file.path === path,
    (file) => file.path.toLowerCase() === wanted,
    (file) => pathTag(file.path) === path,
    (file) => basename(file.path).toLowerCase() === wanted,
  ];
  for (const isIt of ways) {
    const found = groups.filter((group) => group.files.some(isIt));
    const [first] = found;
    if (found.length > 1) throw ambiguous(request.repo, `\`${basename(path)}\``, found);
    if (first !== undefined) return first;
  }
  throw noFile(groups, path, request);
}

function findQuantization(groups: readonly ShardGroup[], tag: string, repo: string): Chosen {
  const wanted = normalizeQuantization(tag);
  const exact = groups.filter(({ stem }) => quantizationOf(stem) === wanted);
  const found = exact.length > 0 ? exact : groups.filter(isNamedBy(tag, wanted));
  if (found.length === 0) throw noQuantization(groups, tag, repo);
  const weights = plainOne(found);
  if (weights === undefined) throw ambiguous(repo, `\`${tag}\``, found);
  const isVariant = quantizationOf(weights.stem) === `UD-${wanted}`;
  const warnings = isVariant
    ? [`there is no plain \`${tag}\`: chose \`${groupName(weights)}\``]
    : [];
  return { weights, warnings };
}

/** `K_M` and `M` are no names of a `Q4_K_M`. */
function isNamedBy(tag: string, wanted: string): (group: ShardGroup) => boolean {
  return ({ stem }) =>
    namesPart(stem, tag) && quantizationOf(stem)?.endsWith(`_${wanted}`) !== true;
}

/** Of `x-Q4_K_M` and `x-Q4_K_M-imat` the first; undefined if they are unrelated. The same bytes at two places are one. */
function plainOne(found: readonly ShardGroup[]): ShardGroup | undefined {
  const [shortest] = found.toSorted(
    (left, right) => left.stem.length - right.stem.length || byText(left.stem, right.stem),
  );
  if (shortest === undefined) return undefined;
  const isPlain = found.every(
    (group) => group.stem.startsWith(shortest.stem) || isSame(group, shortest),
  );
  return isPlain ? shortest : undefined;
}

function isSame(left: ShardGroup, right: ShardGroup): boolean {
  return (
    left.files.length === right.files.length &&
    left.files.every(
      ({ digest }, index) => digest !== undefined && digest === right.files[index]?.digest,
    )
  );
}

/** What has shards missing counts only if there is nothing else. */
function preferred(groups: readonly ShardGroup[], repo: string): Chosen {
  const complete = groups.filter(isComplete);
  const candidates = complete.length > 0 ? complete : groups;
  const [first] = candidates.map(labelled).toSorted(byPreference);
  const label = first?.label;
  const best = candidates.filter(({ stem }) => quantizationOf(stem) === label);
  const weights = plainOne(best) ?? (label === undefined ? best[0] : undefined);
  if (weights === undefined) throw ambiguous(repo, `\`${label}\``, best);
  if (candidates.length === 1) return { weights, warnings: [] };
  const name = listed([label ?? groupName(weights)]);
  const others = describe(groups.filter((group) => group !== weights));
  const warning = `no quantization was named: chose ${name} (${formatSize(weights.bytes)}); there are also ${others}`;
  return { weights, warnings: [warning] };
}

interface Labelled {
  readonly label: string | undefined;
  readonly rank: number;
}

function labelled({ stem }: ShardGroup): Labelled {
  const label = quantizationOf(stem);
  return { label, rank: preferenceRank(label) };
}

/** Unknown ones by name, and those without one last. */
function byPreference(left: Labelled, right: Labelled): number {
  return left.rank - right.rank || byText(left.label ?? "~", right.label ?? "~");
}

function describe(groups: readonly ShardGroup[]): string {
  return listed([
    ...new Set(groups.map((group) => quantizationOf(group.stem) ?? groupName(group))),
  ]);
}

/** One whose name belongs to the weights, and of those the best precision. */
function chooseProjector(
  weights: ShardGroup,
  projectors: readonly RepositoryFile[],
): { mmproj: RepositoryFile | undefined; warnings: string[] } {
  const stem = normalizedStem(weights.stem);
  const ranked = projectors
    .map((file) => ({ file, rank: projectorRank(file, stem, dirname(weights.stem)) }))
    .toSorted((left, right) => left.rank - right.rank || byText(left.file.path, right.file.path));
  const mmproj = ranked[0]?.file;
  if (mmproj === undefined || ranked.length === 1) return { mmproj, warnings: [] };
  const others = listed(ranked.slice(1).map(({ file }) => file.path));
  return {
    mmproj,
    warnings: [`chose the projector ${listed([mmproj.path])}; there are also ${others}`],
  };
}

/** That it is of the same model counts more than where it is, and that more than its precision. */
function projectorRank(file: RepositoryFile, weights: string, directory: string): number {
  const stem = file.path.slice(0, -EXTENSION.length);
  const model = normalizedStem(stem);
  const label = quantizationOf(stem) ?? "";
  const index = PROJECTOR_PREFERENCE.indexOf(label);
  const precision = index === -1 ? PROJECTOR_PREFERENCE.length : index;
  const isOfModel = model !== "" && weights.startsWith(model);
  const isNear = dirname(file.path) === directory;
  return (isOfModel ? 0 : 100) + (isNear ? 0 : 10) + precision;
}

/** A file's name without `mmproj`, its precision and separators. */
function normalizedStem(stem: string): string {
  return basename(stem)
    .toLowerCase()
    .replace(/mmproj|(?<=^|[-._])(?:model|b?f16|fp16|f32|fp32|q8_0)(?=$|[-._])/g, "")
    .replace(/[^a-z0-9]+/g, "");
}

function withoutProjector(chosen: Chosen, projectors: readonly RepositoryFile[]): GgufChoice {
  const [projector] = projectors;
  const warning = `the projector ${listed([projector?.path ?? ""])} is left out, because a file was named: images cannot be read`;
  return { ...chosen, mmproj: undefined, warnings: projector === undefined ? [] : [warning] };
}

function noModel({ repo, projectors }: Request): AppError {
  const reason =
    projectors.length > 0 ? "it has a projector, but no model" : "it has no GGUF files";
  return new AppError("unsupported_model", `cannot pull \`${repo}\`: ${reason}`, {
    hint: "Choose a repository with GGUF files: `tug search` finds some.",
  });
}

function noFile(groups: readonly ShardGroup[], path: string, request: Request): AppError {
  const { repo, projectors } = request;
  if (projectors.some((file) => basename(file.path) === basename(path))) {
    return new AppError(
      "unsupported_model",
      `cannot pull \`${repo}\`: ${listed([basename(path)])} is a projector, not a model`,
      { hint: "Name a file with weights, or a quantization: the projector then comes along." },
    );
  }
  return new AppError("model_not_found", `cannot pull \`${repo}\`: it has no ${listed([path])}`, {
    hint:
      groups.length === 0
        ? "Look at its list of files, and mind capitals."
        : `Choose one of ${listed(groups.map(groupName))}.`,
    details: { files: groups.map(groupName) },
  });
}

function noQuantization(groups: readonly ShardGroup[], tag: string, repo: string): AppError {
  const quantizations = [
    ...new Set(groups.map((group) => quantizationOf(group.stem) ?? basename(groupName(group)))),
  ];
  const complaint = `it has no quantization ${listed([tag])}`;
  return new AppError("model_not_found", `cannot pull \`${repo}\`: ${complaint}`, {
    hint: `Choose one of ${listed(quantizations)}, as in \`${repo}:${quantizations[0]}\`.`,
    details: { quantizations },
  });
}
