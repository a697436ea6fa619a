/** A model on Hugging Face as files to fetch. */
import { AppError } from "../errors.ts";
import { urlSource } from "../http/blob-source.ts";
import { LICENSES } from "../oci/media-types.ts";
import type { PlannedFile, PlannedRole, SourcePlan } from "../transfer/plan.ts";
import { chooseGguf, isGgufModel } from "./gguf-choice.ts";
import { displayName, type HubFormat, type HuggingFaceName, huggingFaceReference } from "./name.ts";
import { chooseGenaiDirectory, chooseOnnx, hasOnnx, isOnnxTag } from "./onnx-choice.ts";
import { choosePytorch, hasPytorch } from "./pytorch-choice.ts";
import {
  bearer,
  type HubOptions,
  listRepository,
  readIndex,
  readInfo,
  type RepositoryInfo,
  requireAccess,
} from "./repository.ts";
import { chooseSafetensors, hasSafetensors, type SafetensorsChoice } from "./safetensors-choice.ts";
import type { RepositoryFile } from "./shards.ts";
import { basename, dirname } from "./text.ts";

/** Each is a layer, and a manifest has at most 4 MiB. Large models have a few hundred. */
const MAX_FILES = 4000;
/** Licences and templates beside GGUF files are texts. Bytes. */
const MAX_TEXT_BYTES = 4 * 1024 * 1024;
/** Where the Hub does not say: the same as of every model whose age is unknown. */
const UNKNOWN_TIME = "1970-01-01T00:00:00Z";
const SITE = "https://huggingface.co";

/** Address of the repository. */
const SOURCE = "org.opencontainers.image.source";
/** The commit. */
const REVISION = "org.opencontainers.image.revision";

/**
 * Asks what the repository holds and chooses among it. The revision is resolved to a commit first, and every address names
 * that commit: what is fetched later is what was listed.
 *
 * @throws what `chooseGguf`, `chooseSafetensors`, `chooseOnnx`, `choosePytorch` and `readInfo` throw
 */
export async function planHuggingFace(
  name: HuggingFaceName,
  options: HubOptions,
): Promise<SourcePlan> {
  const info = await readInfo(name, options);
  // After a renaming the old name is a redirect; the new one spares it.
  const listing = await listRepository({ ...name, repo: info.repo }, info.commit, options);
  const files = inDirectory(listing, name);
  const source: Source = { name, info, options };
  const format = formatOf(files, name);
  const selection =
    format === "gguf"
      ? selectGguf(files, { source, listing })
      : await selectDirectory(files, source, format);
  refuseTooMany(selection, name);
  const [first] = selection.files;
  if (info.isGated && first !== undefined) {
    await requireAccess(name, addressOf(source, first.file), options);
  }
  return {
    reference: huggingFaceReference(name),
    layout: selection.layout,
    weightFormat: selection.weightFormat,
    files: withoutTwins(selection.files).map((planned) => toPlanned(source, planned)),
    created: info.lastModified ?? UNKNOWN_TIME,
    annotations: {
      [SOURCE]: `${SITE}/${info.repo}`,
      [REVISION]: info.commit,
      ...(info.license === undefined ? {} : { [LICENSES]: info.license }),
    },
    warnings: selection.warnings,
  };
}

/**
 * The commit that a name means now. A model of the store is up to date if its annotation
 * `org.opencontainers.image.revision` says the same.
 *
 * @throws as `readInfo`
 */
export async function huggingFaceRevision(
  name: HuggingFaceName,
  options: HubOptions,
): Promise<string> {
  return (await readInfo(name, options)).commit;
}

// --- internal ---

interface Source {
  readonly name: HuggingFaceName;
  readonly info: RepositoryInfo;
  readonly options: HubOptions;
}

interface SelectedFile {
  readonly role: PlannedRole;
  /** Within the artifact. */
  readonly path: string;
  readonly file: RepositoryFile;
}

interface Selection {
  readonly layout: SourcePlan["layout"];
  readonly files: readonly SelectedFile[];
  readonly weightFormat?: string | undefined;
  readonly warnings: readonly string[];
}

function inDirectory(
  files: readonly RepositoryFile[],
  { choice, repo }: HuggingFaceName,
): readonly RepositoryFile[] {
  if (choice.kind !== "directory") return files;
  const inside = files.filter(({ path }) => path.startsWith(`${choice.path}/`));
  if (inside.length > 0) return inside;
  throw new AppError(
    "model_not_found",
    `cannot pull \`${displayName({ repo })}\`: it has no directory \`${choice.path.slice(0, 200)}\``,
    { hint: "Look at its list of files, and mind capitals." },
  );
}

/** GGUF unless something else was asked for, or there is none: it is what runs everywhere. Pickles come last. */
function formatOf(files: readonly RepositoryFile[], { choice }: HuggingFaceName): HubFormat {
  if (choice.kind === "format") return choice.format;
  if (choice.kind === "file") {
    const extension = /\.(gguf|onnx)$/.exec(choice.path.toLowerCase())?.[1];
    return extension === "gguf" || extension === "onnx" ? extension : "safetensors";
  }
  if (files.some(({ path }) => isGgufModel(path))) return "gguf";
  if (choice.kind === "quant") return isOnnxTag(files, choice.quant) ? "onnx" : "gguf";
  if (hasSafetensors(files)) return "safetensors";
  if (hasOnnx(files)) return "onnx";
  return hasPytorch(without(files, directoryPrefix(choice))) ? "pytorch" : "safetensors";
}

/** A directory of a repository is a model of its own: its paths begin there. */
function directoryPrefix(choice: HuggingFaceName["choice"]): string {
  return choice.kind === "directory" ? `${choice.path}/` : "";
}

/** A projector, a licence and a template are for the whole repository, wherever the weights are. */
function selectGguf(
  files: readonly RepositoryFile[],
  { source, listing }: { source: Source; listing: readonly RepositoryFile[] },
): Selection {
  const { name } = source;
  const repo = displayName(name);
  const models = files.filter(({ path }) => isGgufModel(path));
  if (name.choice.kind === "quant" && models.length === 0) throw noQuantizations(files, repo);
  const companions = listing.filter(({ path }) => !isGgufModel(path));
  const { weights, mmproj, warnings } = chooseGguf([...models, ...companions], name.choice, repo);
  const texts = companions.filter(({ path, size }) => dirname(path) === "" && isText(size));
  const template = texts.find(({ path }) => path === "chat_template.jinja");
  return {
    layout: "gguf",
    files: [
      ...weights.files.map((file) => select("weights", file)),
      ...texts.filter(({ path }) => isLicense(path)).map((file) => select("license", file)),
      ...(template === undefined ? [] : [select("chatTemplate", template)]),
      ...(mmproj === undefined ? [] : [select("mmproj", mmproj)]),
    ],
    warnings,
  };
}

function select(role: PlannedRole, file: RepositoryFile): SelectedFile {
  return { role, path: basename(file.path), file };
}

/** Every file at its path, as engines open directories. */
async function selectDirectory(
  files: readonly RepositoryFile[],
  source: Source,
  format: Exclude<HubFormat, "gguf">,
): Promise<Selection> {
  const { name, options } = source;
  const { choice } = name;
  const repo = displayName(name);
  const given = directoryPrefix(choice);
  const below = without(files, given);
  const genai = format === "onnx" ? chooseGenaiDirectory(below, { choice, repo }) : undefined;
  const prefix = genai === undefined ? given : `${given}${genai}/`;
  const relative = without(files, prefix);
  const original = (file: RepositoryFile): RepositoryFile => ({
    ...file,
    path: `${prefix}${file.path}`,
  });
  const choosing: Readonly<Record<typeof format, () => Chosen>> = {
    safetensors: () =>
      chooseSafetensors(relative, {
        choice,
        repo,
        readIndex: async (index) => readIndex(name, addressOf(source, original(index)), options),
      }),
    // The tag has chosen the directory, which has one model.
    onnx: () =>
      chooseOnnx(relative, { choice: genai === undefined ? choice : { kind: "default" }, repo }),
    pytorch: () => choosePytorch(relative, repo),
  };
  const { weights, others, warnings } = await choosing[format]();
  const toSelected = (role: PlannedRole, file: RepositoryFile): SelectedFile => ({
    role,
    path: file.path,
    file: original(file),
  });
  return {
    layout: "directory",
    weightFormat: format === "safetensors" ? undefined : format,
    files: [
      ...weights.map((file) => toSelected("weights", file)),
      ...others.map((file) => toSelected(roleOf(file.path), file)),
    ],
    warnings,
  };
}

type Chosen = SafetensorsChoice | Promise<SafetensorsChoice>;

/** Those below a directory, as it sees them. */
function without(files: readonly RepositoryFile[], prefix: string): RepositoryFile[] {
  return files
    .filter(({ path }) => path.startsWith(prefix))
    .map((file) => ({ ...file, path: file.path.slice(prefix.length) }));
}

/** Engines take one template, that of the root. */
function roleOf(path: string): PlannedRole {
  if (path === "chat_template.jinja") return "chatTemplate";
  return isLicense(path) ? "license" : "file";
}

function isLicense(path: string): boolean {
  return /^(?:licen[cs]e|copying|notice)(?:[._-]|$)/i.test(basename(path));
}

function isText(size: number): boolean {
  return size > 0 && size <= MAX_TEXT_BYTES;
}

/** Many file systems do not tell cases apart; of `LICENSE` and `license` one is enough. */
function withoutTwins(files: readonly SelectedFile[]): SelectedFile[] {
  const seen = new Set<string>();
  return files.filter(({ path }) => {
    const key = path.normalize("NFC").toLowerCase();
    return !seen.has(key) && seen.add(key);
  });
}

function toPlanned(source: Source, { role, path, file }: SelectedFile): PlannedFile {
  const { http, token } = source.options;
  const authorization = bearer(token);
  const url = addressOf(source, file);
  return {
    role,
    path,
    size: file.size,
    digest: file.digest,
    sources: [urlSource(http, url, { authorization })],
  };
}

function addressOf({ info, options }: Source, { path }: RepositoryFile): string {
  const encoded = path.split("/").map(encodeURIComponent).join("/");
  return `${options.endpoint}/${info.repo}/resolve/${info.commit}/${encoded}`;
}

function refuseTooMany({ files }: Selection, name: HuggingFaceName): void {
  if (files.length <= MAX_FILES) return;
  throw new AppError(
    "unsupported_model",
    `cannot pull \`${displayName(name)}\`: its model has ${files.length} files, more than an artifact can have`,
    { hint: "Choose a repository with fewer files." },
  );
}

function noQuantizations(files: readonly RepositoryFile[], repo: string): AppError {
  const hint = hasSafetensors(files)
    ? `Pull it as it is with \`${repo}\`, or choose a repository with GGUF files.`
    : "Choose a repository with GGUF files: `tug search` finds some.";
  return new AppError(
    "model_not_found",
    `cannot pull \`${repo}\`: it has no GGUF files, and only those have quantizations to choose from`,
    { hint },
  );
}
