/** Names of models on Hugging Face, as people type and paste them, and what the same models are called in the store. Pure. */
import { AppError } from "../errors.ts";
import { printable } from "../http/host.ts";
import type { Reference } from "../oci/reference.ts";
import { basename } from "./text.ts";

/** A pasted address with its query is shorter; it bounds the work of the patterns. */
const MAX_TEXT_LENGTH = 2048;
const MAX_PATH_LENGTH = 1024;
const MAX_TAG_LENGTH = 128;
const DEFAULT_REVISION = "main";
/** What the store calls every model from there, whatever endpoint served it. */
const REGISTRY = "huggingface.co";
const FORMATS = ["gguf", "safetensors", "onnx", "pytorch"] as const;

export interface HuggingFaceName {
  /** `org/repo`, in the case of the text. */
  readonly repo: string;
  /** Branch, tag or commit. */
  readonly revision: string;
  readonly choice: HuggingFaceChoice;
}

/** Formats that a repository may have its weights in. */
export type HubFormat = (typeof FORMATS)[number];

/** Which of the repository's files. */
export type HuggingFaceChoice =
  | { readonly kind: "default" }
  | { readonly kind: "format"; readonly format: HubFormat }
  | { readonly kind: "quant"; readonly quant: string }
  /** A file and the shards it belongs to; the path within the repository, or what is unmistakable of it. */
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "directory"; readonly path: string };

/**
 * Understands names and the addresses of the Hub's pages:
 *
 * ```
 * name      := host "/" org "/" repo [":" (quant | format | file)] ["@" revision]
 * host      := "hf.co" | "huggingface.co" | "hf:/"    ; with an optional scheme
 * format    := "gguf" | "safetensors" | "onnx" | "pytorch"
 * address   := host "/" org "/" repo ["/" ("blob" | "resolve" | "raw") "/" revision "/" file | "/tree/" revision ["/" directory]]
 * ```
 *
 * A tag of the store (`huggingfaceReference`) is understood, too: `Q4_K_M--v1.0` is `Q4_K_M` of the revision `v1.0`.
 *
 * @returns undefined for what is not on Hugging Face
 * @throws invalid_reference for what is there and is no model
 */
export function parseHuggingFaceName(text: string): HuggingFaceName | undefined {
  const trimmed = text.trim();
  const host = HOST.exec(trimmed);
  if (host === null) return undefined;
  if (trimmed.length > MAX_TEXT_LENGTH) throw invalid(trimmed, "it is too long");
  const rest = trimmed
    .slice(host[0].length)
    .replace(/[?#].*$/s, "")
    .replace(/^\/+|\/+$/g, "");
  refusePages(trimmed, rest);
  const [, org = "", repoPart = "", tail = ""] = /^([^/:@]*)\/([^/:@]*)(.*)$/s.exec(rest) ?? [];
  const repo = repoPart.replace(/\.git$/, "");
  if (!REPO_PART.test(org) || !REPO_PART.test(repo)) {
    throw invalid(trimmed, "it does not name an organization and a repository");
  }
  return { repo: `${org}/${repo}`, ...parseTail(trimmed, tail) };
}

/**
 * What the model is called in the store: `huggingface.co/org/repo:tag`, lower-cased but for the tag. The tag is the
 * quantization, the file or `latest`; another revision than `main` follows it after two dashes. Every tag can be given to
 * `parseHuggingFaceName` again, unless it had to be shortened: then it ends in eight digits of a digest.
 */
export function huggingFaceReference({ repo, revision, choice }: HuggingFaceName): Reference {
  const selected = pathTag(chosenText(choice));
  const tag = revision === DEFAULT_REVISION ? selected : `${selected}--${plainRevision(revision)}`;
  return {
    registry: REGISTRY,
    repository: repo.split("/").map(toComponent).join("/"),
    tag: tag.length <= MAX_TAG_LENGTH ? tag : shortened(tag, tag),
  };
}

/** A file's path as a tag: `Q4_K_M/model.gguf` is `Q4_K_M-model.gguf`. What a tag cannot have gives way to a part of a digest. */
export function pathTag(path: string): string {
  const plain = path.replaceAll("/", "-");
  if (TAG.test(plain)) return plain;
  return shortened(plain.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[.-]+/, "_"), path);
}

/**
 * Whether a path of a listing can be a file here and wherever the model goes: relative, without ways out, and without what
 * Windows cannot have. The store refuses such paths; one stray file must not keep a model out of it.
 */
export function isUsablePath(path: string): boolean {
  if (path.length > MAX_PATH_LENGTH || FORBIDDEN.test(path)) return false;
  return path
    .split("/")
    .every((name) => name !== "" && !/[. ]$|^\.\.?$/.test(name) && !DEVICE.test(name));
}

/** For messages. */
export function displayName({ repo }: Pick<HuggingFaceName, "repo">): string {
  return `hf.co/${repo}`;
}

// --- internal ---

const HOST = /^(?:(?:https?:\/\/)?(?:www\.)?(?:hf\.co|huggingface\.co)(?:\/|$)|hf:\/\/)/i;
const REPO_PART = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,95}$/;
/** What Git lets a branch be called, without the characters that addresses cannot have. */
const REVISION = /^[A-Za-z0-9_](?:[A-Za-z0-9._+-]|\/(?!\/|$)){0,199}$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*$/;
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const FORBIDDEN = /[\u0000-\u001F\u007F-\u009F<>:"|?*\\]/;
/** @see https://learn.microsoft.com/windows/win32/fileio/naming-a-file */
const DEVICE = /^(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\.|$)/i;
const WEIGHT_FILE = /\.(?:gguf|safetensors|onnx)$/i;
const HINT = "Give it as `hf.co/ORG/REPO`, with an optional `:QUANT` or `:FILE.gguf`.";

/** Places of the site that look like an organization. */
const PAGES: Readonly<Record<string, string>> = {
  datasets: "a dataset",
  spaces: "a space",
  collections: "a collection",
  kernels: "a kernel",
  buckets: "a bucket",
  papers: "a paper",
  docs: "a page of the documentation",
  blog: "a page of the blog",
  models: "a search",
  api: "a route of the API",
  settings: "a page of settings",
  organizations: "a page about an organization",
  posts: "a post",
  learn: "a course",
};

interface Selection {
  readonly revision: string;
  readonly choice: HuggingFaceChoice;
}

function refusePages(text: string, rest: string): void {
  const first = /^[^/:@]*/.exec(rest)?.[0].toLowerCase() ?? "";
  const page = Object.hasOwn(PAGES, first) ? PAGES[first] : undefined;
  if (page !== undefined) throw invalid(text, `it is ${page}, not a model`);
}

function parseTail(text: string, tail: string): Selection {
  if (tail === "") return { revision: DEFAULT_REVISION, choice: { kind: "default" } };
  if (tail.startsWith("/")) return parsePage(text, decodeSegments(text, tail));
  if (tail.startsWith("@")) return parseRevisionFirst(text, tail.slice(1));
  const at = tail.indexOf("@");
  if (at !== -1) {
    const revision = checkRevision(text, tail.slice(at + 1));
    return { revision, choice: parseChoice(text, tail.slice(1, at)) };
  }
  return parseTag(text, tail.slice(1));
}

/** `revision`, `revision:choice`, or `revision/file.gguf` as in `hf://` addresses. */
function parseRevisionFirst(text: string, rest: string): Selection {
  const file = /^(refs\/pr\/\d+|[^/:]+)\/(.+)$/s.exec(rest);
  if (file !== null && WEIGHT_FILE.test(rest)) {
    const [, revision = "", path = ""] = file;
    return { revision: checkRevision(text, revision), choice: toFile(text, path) };
  }
  const colon = rest.indexOf(":");
  if (colon === -1 || /^sha256:/i.test(rest)) {
    return { revision: checkRevision(text, rest), choice: { kind: "default" } };
  }
  const revision = checkRevision(text, rest.slice(0, colon));
  return { revision, choice: parseChoice(text, rest.slice(colon + 1)) };
}

/** As people write it, or as the store has it: with a revision after two dashes. */
function parseTag(text: string, tag: string): Selection {
  const dashes = WEIGHT_FILE.test(tag) ? -1 : tag.lastIndexOf("--");
  if (dashes <= 0) return { revision: DEFAULT_REVISION, choice: parseChoice(text, tag) };
  const revision = checkRevision(text, tag.slice(dashes + 2));
  return { revision, choice: parseChoice(text, tag.slice(0, dashes)) };
}

function parseChoice(text: string, tag: string): HuggingFaceChoice {
  const lower = tag.toLowerCase();
  if (tag === "" || lower === "latest" || lower === DEFAULT_REVISION) return { kind: "default" };
  const format = FORMATS.find((one) => one === lower);
  if (format !== undefined) return { kind: "format", format };
  if (WEIGHT_FILE.test(tag)) return toFile(text, tag);
  if (TAG.test(tag)) return { kind: "quant", quant: tag };
  throw invalid(text, `\`${printable(tag)}\` is neither a quantization nor a file with weights`);
}

function toFile(text: string, path: string): HuggingFaceChoice {
  if (!isUsablePath(path)) throw invalid(text, "its file has a path that no file can have");
  if (WEIGHT_FILE.test(path)) return { kind: "file", path };
  throw new AppError(
    "invalid_reference",
    `cannot read model name \`${printable(text)}\`: \`${printable(basename(path))}\` holds no weights`,
    { hint: "Name a file that ends in `.gguf`, `.safetensors` or `.onnx`." },
  );
}

/** The addresses of the site's pages, and `org/repo/file.gguf`. */
function parsePage(text: string, segments: readonly string[]): Selection {
  const [page = "", ...rest] = segments;
  if (!/^(?:blob|resolve|raw|tree|commit|commits)$/.test(page)) {
    if (WEIGHT_FILE.test(segments.at(-1) ?? "")) {
      return { revision: DEFAULT_REVISION, choice: toFile(text, segments.join("/")) };
    }
    throw invalid(text, `\`${printable(page)}\` is not a page of files`);
  }
  const isPullRequest = rest[0] === "refs" && rest[1] === "pr";
  const length = isPullRequest ? 3 : 1;
  const revision = checkRevision(text, rest.slice(0, length).join("/"));
  const path = rest.slice(length).join("/");
  if (/^(?:blob|resolve|raw)$/.test(page)) return { revision, choice: toFile(text, path) };
  if (path === "" || page.startsWith("commit")) return { revision, choice: { kind: "default" } };
  if (!isUsablePath(path)) throw invalid(text, "its directory has a path that none can have");
  return { revision, choice: { kind: "directory", path } };
}

function decodeSegments(text: string, tail: string): string[] {
  try {
    return tail.slice(1).split("/").map(decodeURIComponent);
  } catch (cause) {
    throw invalid(text, "its percent signs make no sense", cause);
  }
}

function checkRevision(text: string, revision: string): string {
  if (/^sha256:/i.test(revision)) {
    throw new AppError(
      "invalid_reference",
      `cannot read model name \`${printable(text)}\`: Hugging Face has no digests of whole models`,
      { hint: "Pin it by a commit, as in `hf.co/ORG/REPO@COMMIT`." },
    );
  }
  if (REVISION.test(revision) && !revision.includes("..")) return revision;
  throw invalid(text, `\`${printable(revision)}\` is not a valid revision`);
}

function chosenText(choice: HuggingFaceChoice): string {
  if (choice.kind === "default") return "latest";
  if (choice.kind === "format") return choice.format;
  return choice.kind === "quant" ? choice.quant : choice.path;
}

function plainRevision(revision: string): string {
  const plain = revision.replace(/[^A-Za-z0-9._-]|-{2,}/g, "-");
  return plain === revision ? plain : `${plain}-${shortDigest(revision)}`;
}

/** The OCI grammar has no names such as `a_.b`, which Hugging Face has. A digest keeps them apart from `a-b`. */
function toComponent(part: string): string {
  const lower = part.toLowerCase();
  if (COMPONENT.test(lower)) return lower;
  const plain = lower.replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  return plain === "" ? shortDigest(lower) : `${plain}-${shortDigest(lower)}`;
}

/** Keeps the extension at the end: it says that the tag is a file. */
function shortened(tag: string, original: string): string {
  const extension = WEIGHT_FILE.exec(tag)?.[0] ?? "";
  const end = `-${shortDigest(original)}${extension}`;
  return `${tag.slice(0, Math.min(tag.length - extension.length, MAX_TAG_LENGTH - end.length))}${end}`;
}

function shortDigest(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex").slice(0, 8);
}

function invalid(text: string, reason: string, cause?: unknown): AppError {
  return new AppError(
    "invalid_reference",
    `cannot read model name \`${printable(text)}\`: ${reason}`,
    {
      hint: HINT,
      cause,
    },
  );
}
