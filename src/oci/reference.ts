/** Names of models: `[registry/]repository[:tag][@digest]`. */
import { AppError } from "../errors.ts";
import { type Digest, tryParseDigest } from "./digest.ts";

const DEFAULT_REGISTRY = "docker.io";
const DEFAULT_TAG = "latest";
/** What a name without a slash is in. */
const DEFAULT_NAMESPACE = "ai";

/** @see https://github.com/distribution/reference: registry and repository together. */
const MAX_NAME_LENGTH = 255;
/** A name, a tag of 128 characters and a digest of 71 fit; it bounds the work of the patterns. */
const MAX_TEXT_LENGTH = 512;

export interface Reference {
  /** Host with an optional port; `docker.io` for Docker Hub. */
  readonly registry: string;
  readonly repository: string;
  /** Absent only if there is a digest. */
  readonly tag?: string;
  readonly digest?: Digest;
}

export interface ParseOptions {
  /** For names that do not start with a registry; `docker.io` unless given. */
  readonly defaultRegistry?: string;
}

/**
 * Reads a name as people type it, as Docker Model Runner does: `pebble` is `docker.io/ai/pebble:latest`, `hf.co` is
 * `huggingface.co`, `ollama.com/x` is `registry.ollama.ai/library/x`, registry and repository are lower-cased, the tag keeps its case. Unlike there, a digest after a tag counts.
 *
 * ```
 * reference   := [registry "/"] component *("/" component) [":" [tag]] ["@" digest]
 * registry    := (host | "[" IPv6 "]") [":" port]    ; has a dot or a colon, or is "localhost"
 * component   := alphanumeric *(("." | "_" | "__" | 1*"-") alphanumeric)
 * tag         := (letter | digit | "_") *127(letter | digit | "_" | "." | "-")
 * ```
 *
 * @throws invalid_reference
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests
 */
export function parseReference(text: string, options: ParseOptions = {}): Reference {
  const trimmed = text.trim();
  refuseNonNames(trimmed);
  const at = trimmed.indexOf("@");
  const digest = at === -1 ? undefined : parseDigestPart(trimmed, trimmed.slice(at + 1));
  const { name, tag } = splitTag(at === -1 ? trimmed : trimmed.slice(0, at));
  if (tag !== "" && !TAG.test(tag))
    throw invalid(trimmed, `\`${tag}\` is not a valid tag`, TAG_HINT);
  const { registry, repository } = splitRegistry(name, options.defaultRegistry);
  checkName(trimmed, registry, repository);
  const tagOrDefault = tag === "" && digest === undefined ? DEFAULT_TAG : tag;
  return {
    registry,
    repository,
    ...(tagOrDefault === "" ? {} : { tag: tagOrDefault }),
    ...(digest === undefined ? {} : { digest }),
  };
}

/** The canonical form, such as `docker.io/ai/pebble:latest`. */
export function formatReference({ registry, repository, tag, digest }: Reference): string {
  const tagPart = tag === undefined ? "" : `:${tag}`;
  return `${registry}/${repository}${tagPart}${digest === undefined ? "" : `@${digest}`}`;
}

/**
 * The shortest text that names the same model: without `docker.io/`, `ai/` and `:latest`. What is no reference comes back as it is.
 */
export function displayReference(text: string): string {
  const canonical = canonicalOrUndefined(text);
  if (canonical === undefined) return text;
  const short = canonical.replace(/:latest$/, "");
  const withoutRegistry = withoutPrefix(short, `${DEFAULT_REGISTRY}/`);
  const candidates = [
    withoutPrefix(withoutRegistry, `${DEFAULT_NAMESPACE}/`),
    withoutRegistry,
    short,
  ];
  return candidates.find((candidate) => canonicalOrUndefined(candidate) === canonical) ?? canonical;
}

/**
 * A registry as references have it: lower case, Docker Hub's several hosts as `docker.io`. Its address will do, as Google's
 * instructions for `docker login` have it. @throws invalid_reference
 */
export function parseRegistryHost(text: string): string {
  const host = canonicalRegistry(bareHost(text));
  if (REGISTRY.test(host)) return host;
  throw new AppError("invalid_reference", `cannot use \`${shown(text)}\` as a registry`, {
    hint: "Give a host with an optional port, such as `registry.example.com:5000`.",
  });
}

/** Without scheme, slash and version of the API at the end; in lower case. */
export function bareHost(text: string): string {
  return text
    .trim()
    .toLowerCase()
    .replace(/^https?:\/\//, "")
    .replace(/\/(?:v[12]\/?)?$/, "");
}

/** Whether the text may be a model's digest: 12 or 64 lower-case hexadecimal digits, or `sha256:` and 12 to 64 of them. */
export function looksLikeId(text: string): boolean {
  return /^(?:[0-9a-f]{12}|[0-9a-f]{64}|sha256:[0-9a-f]{12,64})$/.test(text);
}

// --- internal ---

const COMPONENT = /^[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const REGISTRY =
  /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])(?::\d{1,5})?$/;
const NAME_HINT =
  "Give a model as NAME, NAMESPACE/NAME or REGISTRY/NAMESPACE/NAME, with an optional :TAG.";
const TAG_HINT =
  "Use at most 128 letters, digits, `_`, `.` and `-`, and begin with none of the last two.";
const HUB_HOSTS = new Set(["index.docker.io", "registry-1.docker.io", "docker.io"]);
/** The Ollama library: where its pages and its registry are, and what a bare name is in. */
const OLLAMA_REGISTRY = "registry.ollama.ai";
const OLLAMA_NAMESPACE = "library";

function refuseNonNames(text: string): void {
  if (text === "") throw invalid(text, "it is empty", NAME_HINT);
  if (text.length > MAX_TEXT_LENGTH) throw invalid(text, "it is too long", NAME_HINT);
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) {
    throw invalid(
      text,
      "it is an address, not a name",
      "Leave out the scheme, such as `https://`.",
    );
  }
  if (/^(?:sha256:)?[0-9a-f]{64}$/.test(text)) {
    throw invalid(text, "it is a digest, not a name", NAME_HINT);
  }
}

function parseDigestPart(text: string, part: string): Digest {
  const digest = tryParseDigest(part);
  if (digest !== undefined) return digest;
  throw invalid(
    text,
    "what follows `@` is not a SHA-256 digest",
    "Give `@sha256:` and 64 lower-case hexadecimal digits.",
  );
}

/** A colon before the last slash belongs to the registry's port. */
function splitTag(text: string): { name: string; tag: string } {
  const colon = text.indexOf(":", text.lastIndexOf("/") + 1);
  return colon === -1
    ? { name: text, tag: "" }
    : { name: text.slice(0, colon), tag: text.slice(colon + 1) };
}

function splitRegistry(
  name: string,
  defaultRegistry = DEFAULT_REGISTRY,
): { registry: string; repository: string } {
  const lower = name.toLowerCase();
  const slash = lower.indexOf("/");
  const first = slash === -1 ? "" : lower.slice(0, slash);
  const isExplicit = /[.:]/.test(first) || first === "localhost";
  const registry = canonicalRegistry(isExplicit ? first : defaultRegistry.toLowerCase());
  const repository = isExplicit ? lower.slice(slash + 1) : lower;
  return { registry, repository: withNamespace(repository, registry, isExplicit) };
}

/** Docker Hub and the Ollama library have namespaces for names without one; other registries take them as they are. */
function withNamespace(repository: string, registry: string, isExplicit: boolean): string {
  if (repository.includes("/")) return repository;
  if (registry === OLLAMA_REGISTRY) return `${OLLAMA_NAMESPACE}/${repository}`;
  return !isExplicit || registry === DEFAULT_REGISTRY
    ? `${DEFAULT_NAMESPACE}/${repository}`
    : repository;
}

function canonicalRegistry(host: string): string {
  if (HUB_HOSTS.has(host)) return DEFAULT_REGISTRY;
  if (host === "ollama.com" || host === "ollama.ai") return OLLAMA_REGISTRY;
  return host === "hf.co" ? "huggingface.co" : host;
}

function checkName(text: string, registry: string, repository: string): void {
  if (!REGISTRY.test(registry))
    throw invalid(text, `\`${registry}\` is not a valid registry`, NAME_HINT);
  const bad = repository.split("/").find((component) => !COMPONENT.test(component));
  if (bad === "") throw invalid(text, "a part of its name is empty", NAME_HINT);
  if (bad !== undefined) {
    throw invalid(
      text,
      `\`${bad}\` is not a valid part of a name`,
      "Use letters and digits, with single dots, one or two underscores, or dashes between them.",
    );
  }
  if (registry.length + 1 + repository.length > MAX_NAME_LENGTH) {
    throw invalid(
      text,
      `its name is longer than ${MAX_NAME_LENGTH} characters`,
      "Choose a shorter name.",
    );
  }
}

function canonicalOrUndefined(text: string): string | undefined {
  try {
    return formatReference(parseReference(text));
  } catch {
    return undefined;
  }
}

function withoutPrefix(text: string, prefix: string): string {
  return text.startsWith(prefix) ? text.slice(prefix.length) : text;
}

function invalid(text: string, reason: string, hint: string): AppError {
  return new AppError("invalid_reference", `cannot read model name \`${shown(text)}\`: ${reason}`, {
    hint,
  });
}

/** Untrusted text in a message is bounded. */
function shown(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
