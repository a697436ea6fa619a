/** What the files of a model's directory are, and whether they are all there. */
import { lstat, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { AppError } from "../errors.ts";
import { foreignFormatOf } from "../oci/foreign-formats.ts";
import { type GgufFacts, readGgufFiles } from "../store/gguf.ts";
import { toReadError } from "../store/read-error.ts";
import { type ArtifactFormat, type LayerRole, pathInArtifact } from "./artifact.ts";
import {
  baseName,
  classifyFile,
  directoryOf,
  isPickle,
  parseShard,
  weightFormatOf,
} from "./file-classes.ts";
import { checkPaths, type FoundFile, type InputFile } from "./input-file.ts";
import { shardsOf, toNamed } from "./model-facts.ts";
import { isIndex, readIndexShards } from "./safetensors-facts.ts";

/** A file is a layer, and the manifest with all of them must stay under 4 MiB. */
const MAX_FILES = 8192;
/** Deeper than any model; a loop of mounts ends here. */
const MAX_DEPTH = 32;

export interface DirectoryOptions {
  readonly format: ArtifactFormat;
  readonly signal: AbortSignal;
  /** Whether a file is weights besides those whose names are known to be. */
  readonly isWeights?: ((path: string) => boolean) | undefined;
}

export interface DirectoryContents {
  /** In the order of the walk, which is that of the layers. */
  readonly files: readonly InputFile[];
  readonly warnings: readonly string[];
}

/**
 * Walks a directory in lexical order. Hidden names and symbolic links are skipped, as in Docker Model Runner; at least
 * one file must be weights, and of a sharded set none may be missing.
 *
 * @param root absolute
 * @throws usage, not_found, forbidden, invalid_model_file
 */
export async function readDirectory(
  root: string,
  { format, signal, isWeights = () => false }: DirectoryOptions,
): Promise<DirectoryContents> {
  const walk = { root, files: [], links: 0, signal };
  await walkDirectory(walk, "", 0);
  const found: readonly WalkedFile[] = walk.files;
  checkPaths(found);
  const warnings: string[] = [];
  const roles = await assignRoles(found, { signal, warnings, isWeights });
  if (![...roles.values()].includes("weights")) throw noWeights(root, walk);
  requireCompleteSets(root, found);
  await requireIndexed(root, found);
  warnAboutPickles(
    found.filter(({ path }) => !isWeights(path)),
    warnings,
  );
  const files = found.flatMap((file) => {
    const role = roles.get(file.path);
    return role === undefined
      ? []
      : [{ ...file, role, path: pathInArtifact(role, file.path, format) }];
  });
  return { files, warnings };
}

// --- internal ---

interface WalkedFile extends FoundFile {
  readonly path: string;
}

interface Walk {
  readonly root: string;
  readonly files: WalkedFile[];
  links: number;
  readonly signal: AbortSignal;
}

/** @param directory relative, with its last slash; empty at the top */
async function walkDirectory(walk: Walk, directory: string, depth: number): Promise<void> {
  walk.signal.throwIfAborted();
  if (depth > MAX_DEPTH)
    throw unusable(walk.root, `it has more than ${MAX_DEPTH} directories in one another`);
  const location = join(walk.root, directory);
  for (const name of await namesOf(location)) {
    const entry = join(location, name);
    const stats = await lstat(entry);
    // Some systems store names decomposed: the same file must have the same path everywhere.
    const path = `${directory}${name.normalize("NFC")}`;
    if (stats.isSymbolicLink()) walk.links += 1;
    if (stats.isDirectory()) await walkDirectory(walk, `${path}/`, depth + 1);
    if (!stats.isFile()) continue;
    walk.files.push({
      path,
      location: entry,
      sizeBytes: stats.size,
      modifiedMs: stats.mtimeMs,
    });
    if (walk.files.length > MAX_FILES)
      throw unusable(walk.root, `it has more than ${MAX_FILES} files`);
  }
}

/** Sorted by their bytes, which is the same on every machine. */
async function namesOf(location: string): Promise<string[]> {
  try {
    const names = await readdir(location);
    return names
      .filter((name) => !name.startsWith("."))
      .toSorted((a, b) =>
        Buffer.compare(Buffer.from(a.normalize("NFC")), Buffer.from(b.normalize("NFC"))),
      );
  } catch (error) {
    throw toReadError(location, error);
  }
}

interface RoleOptions {
  readonly signal: AbortSignal;
  readonly warnings: string[];
  isWeights(path: string): boolean;
}

async function assignRoles(
  files: readonly WalkedFile[],
  options: RoleOptions,
): Promise<Map<string, LayerRole>> {
  const roles = new Map<string, LayerRole>();
  for (const { path } of files) {
    const kind = classifyFile(path);
    const isKnown = kind === "safetensors" || kind === "dduf";
    if (isKnown || options.isWeights(path)) roles.set(path, "weights");
    else roles.set(path, kind === "license" ? "license" : "file");
  }
  const template = chooseTemplate(files.map(({ path }) => path));
  if (template !== undefined) roles.set(template, "chatTemplate");
  for (const [path, role] of await rolesOfGgufs(files, options)) {
    if (role === undefined) roles.delete(path);
    else roles.set(path, role);
  }
  return roles;
}

/** A model has one template: the one by the usual name, at the top if possible. The others are files. */
function chooseTemplate(paths: readonly string[]): string | undefined {
  return paths
    .filter((path) => classifyFile(path) === "template")
    .toSorted((a, b) => templateRank(a) - templateRank(b))[0];
}

function templateRank(path: string): number {
  const isNested = path.includes("/") ? 4 : 0;
  const name = path.toLowerCase();
  if (baseName(name) === "chat_template.jinja") return isNested;
  return isNested + (name.endsWith(".jinja") ? 1 : 2);
}

/** By their headers: a projector, an adapter and a model all end in `.gguf`. */
async function rolesOfGgufs(
  files: readonly WalkedFile[],
  { signal, warnings }: Omit<RoleOptions, "isWeights">,
): Promise<Map<string, LayerRole | undefined>> {
  const ggufs = files.filter(({ path }) => weightFormatOf(path) === "gguf");
  const roles = new Map<string, LayerRole | undefined>();
  const models: string[] = [];
  for (const file of ggufs) {
    if (roles.has(file.path)) continue;
    const shards = shardsOf(file, ggufs);
    requireCompleteSets(directoryOf(file.location), shards);
    const role = roleOfGguf(file.path, await readGgufFiles(shards.map(toNamed), { signal }));
    for (const { path } of shards) roles.set(path, role);
    if (role === "weights") models.push(file.path);
  }
  if (models.length > 1) {
    const [first = ""] = models;
    warnings.push(
      `the directory has ${models.length} GGUF models: engines open the first, \`${first}\``,
    );
  }
  leaveOutProjectors(roles, warnings);
  return roles;
}

function roleOfGguf(path: string, facts: GgufFacts): LayerRole {
  if (facts.isProjector || baseName(path).toLowerCase().includes("mmproj")) return "mmproj";
  return facts.header["general.type"] === "adapter" ? "adapter" : "weights";
}

/** With two projectors nobody could say which is meant. */
function leaveOutProjectors(roles: Map<string, LayerRole | undefined>, warnings: string[]): void {
  const projectors = [...roles].filter(([, role]) => role === "mmproj").map(([path]) => path);
  const [chosen, ...others] = projectors.toSorted((a, b) => projectorRank(a) - projectorRank(b));
  for (const other of others) {
    roles.set(other, undefined);
    warnings.push(`\`${other}\` is left out: a model has one projector, here \`${chosen}\``);
  }
}

/** Half precision is what engines are tried with. */
function projectorRank(path: string): number {
  const found = [/(?<![a-z])f16/i, /bf16/i, /f32/i].findIndex((pattern) => pattern.test(path));
  return found === -1 ? 3 : found;
}

function requireCompleteSets(root: string, files: readonly { readonly path: string }[]): void {
  const sets = new Map<string, { count: number; numbers: Set<number> }>();
  for (const { path } of files) {
    const shard = parseShard(path);
    if (shard === undefined) continue;
    const { set, number, count } = shard;
    if (number < 1 || number > count)
      throw unusable(root, `\`${path}\` is a shard that its set cannot have`);
    const known = sets.get(set) ?? { count, numbers: new Set() };
    known.numbers.add(number);
    sets.set(set, known);
  }
  for (const [set, { count, numbers }] of sets) {
    if (numbers.size === count) continue;
    const prefix = set.replace(/-of-\d{5}\.[a-z]+$/, "");
    throw incomplete(root, `of the shards of \`${prefix}\` it found ${numbers.size} of ${count}`);
  }
}

/** An index names the shards of its model, whatever they are called. */
async function requireIndexed(root: string, files: readonly WalkedFile[]): Promise<void> {
  const paths = new Set(files.map(({ path }) => path));
  for (const index of files.filter(({ path }) => isIndex(path))) {
    const shards = (await readIndexShards(index)) ?? [];
    const there = shards.filter((name) => paths.has(`${directoryOf(index.path)}${name}`));
    if (there.length === shards.length) continue;
    const reason = `of the shards that \`${index.path}\` names it found ${there.length} of ${shards.length}`;
    throw incomplete(root, reason);
  }
}

function warnAboutPickles(files: readonly WalkedFile[], warnings: string[]): void {
  const pickles = files.map(({ path }) => path).filter(isPickle);
  const [first] = pickles;
  if (first === undefined) return;
  const more = pickles.length > 1 ? ` and ${pickles.length - 1} more like it` : "";
  warnings.push(
    `\`${first}\`${more} may be a pickle, which runs code when it is opened: packaged as a plain file`,
  );
}

function noWeights(root: string, { files, links }: Walk): AppError {
  const hasPickles = files.some(({ path }) => isPickle(path));
  const reason = hasPickles
    ? "the directory has no weights except pickles"
    : "the directory has no weights";
  const hasGraph = files.some(({ path }) => /\.onnx$/i.test(path));
  if (hasGraph) return unusable(root, reason, "Give an ONNX model with `--onnx-dir DIR`.");
  const foreign = foreignFormatOf(files.map(({ path }) => path));
  if (foreign !== undefined) return unusable(root, `it is of ${foreign.title}`, foreign.way);
  if (hasPickles) {
    return unusable(
      root,
      reason,
      "Save it as safetensors with `save_pretrained` of transformers, or give it with `--pytorch-dir DIR`: it runs where that is allowed.",
    );
  }
  const needed = "A model needs at least one `.safetensors`, `.gguf` or `.dduf` file";
  const linked = `${links} symbolic links were skipped: copy the files with \`cp -rL\` first`;
  const hint = links > 0 ? `${needed}; ${linked}.` : `${needed}.`;
  return unusable(root, reason, hint);
}

function incomplete(root: string, reason: string): AppError {
  return unusable(root, reason, "Get the missing shards, and package the directory again.");
}

function unusable(root: string, reason: string, hint?: string): AppError {
  return new AppError(
    "invalid_model_file",
    `cannot package \`${basename(root)}\`: ${reason}`,
    hint === undefined ? {} : { hint },
  );
}
