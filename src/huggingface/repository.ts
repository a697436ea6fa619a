/**
 * What a repository on the Hub is and holds, read through the Hub's own library over our `Http`: offline mode, proxies,
 * private authorities, bounds and retries hold, and the token goes to the endpoint only.
 */
import * as v from "valibot";
import { AppError } from "../errors.ts";
import { readBounded } from "../http/body.ts";
import type { Http } from "../http/http.ts";
import { withRetry } from "../http/retry.ts";
import { type Digest, tryParseDigest } from "../oci/digest.ts";
import { type Asked, senseless, toFailure } from "./failure.ts";
import { displayName, type HuggingFaceName, isUsablePath } from "./name.ts";
import { isToken } from "./settings.ts";
import type { RepositoryFile } from "./shards.ts";

/** A page of a listing has up to 1,000 entries of 300 bytes; an index names each tensor of a model. Bytes. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
/** More files than any model has; a dataset in the wrong place. */
const MAX_ENTRIES = 20_000;
/** `MAX_ENTRIES` in pages of 100, the smallest that the Hub sends. A chain that is longer turns in a circle. */
const MAX_PAGES = 200;
const MAX_LICENSE_LENGTH = 100;

export interface HubOptions {
  readonly http: Http;
  /** Base URL, without a slash at its end: `findHuggingFaceEndpoint`. */
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly signal: AbortSignal;
  /** Of each request, in all; 5 unless given. */
  readonly attempts?: number;
}

export interface RepositoryInfo {
  /** The commit that the revision is now. */
  readonly commit: string;
  /** `org/repo` as the Hub calls it: after a renaming, the new name. */
  readonly repo: string;
  /** Files are given only to those who accepted terms. */
  readonly isGated: boolean;
  /** RFC 3339 in whole seconds; absent where the Hub does not say. */
  readonly lastModified: string | undefined;
  /** As the model card has it, such as `apache-2.0`. */
  readonly license: string | undefined;
}

interface Making {
  readonly asked: Asked;
  /** Of the answer, for the message. */
  readonly what: string;
  readonly signal: AbortSignal;
}

/** @throws unauthorized, forbidden, model_not_found, too_many_requests, registry_unavailable, offline, timed_out */
export async function readInfo(
  name: HuggingFaceName,
  options: HubOptions,
): Promise<RepositoryInfo> {
  const asked = askedFor(name, options);
  return making({ asked, what: "its description", signal: options.signal }, async () => {
    const { modelInfo } = await import("./hub.ts");
    const info = v.parse(
      INFO,
      await modelInfo({
        name: name.repo,
        revision: name.revision,
        additionalFields: ["sha", "cardData"],
        hubUrl: options.endpoint,
        fetch: hubFetch(asked, options),
      }),
    );
    return {
      commit: info.sha,
      repo: info.name,
      isGated: info.gated !== undefined && info.gated !== false,
      lastModified: toWholeSeconds(info.updatedAt),
      license: licenseOf(info.cardData),
    };
  });
}

/**
 * Every file of a commit, ordered as the Hub has them. Paths that no file here can have are left out.
 *
 * @throws as `readInfo`; unsupported_model if there are more than 20,000
 */
export async function listRepository(
  name: HuggingFaceName,
  commit: string,
  options: HubOptions,
): Promise<RepositoryFile[]> {
  const asked = askedFor(name, options);
  return making({ asked, what: "its list of files", signal: options.signal }, async () => {
    const { listFiles } = await import("./hub.ts");
    const files: RepositoryFile[] = [];
    let entries = 0;
    const listing = listFiles({
      repo: { type: "model", name: name.repo },
      revision: commit,
      recursive: true,
      hubUrl: options.endpoint,
      fetch: hubFetch(asked, options),
    });
    for await (const listed of listing) {
      entries += 1;
      if (entries > MAX_ENTRIES) throw tooManyFiles(asked);
      const entry = v.parse(ENTRY, listed);
      if (entry.type === "file" && isUsablePath(entry.path)) files.push(toFile(entry));
    }
    return files;
  });
}

/**
 * The weight files that an index of safetensors names.
 *
 * @param url of the index
 * @see https://huggingface.co/docs/transformers/big_models
 */
export async function readIndex(
  name: HuggingFaceName,
  url: string,
  options: HubOptions,
): Promise<string[]> {
  const asked = askedFor(name, options);
  return making({ asked, what: "its index of weights", signal: options.signal }, async () => {
    const response = await ask(url, asked, options);
    const index = v.parse(INDEX, await response.json());
    return [...new Set(Object.values(index.weight_map))];
  });
}

/**
 * Whether the files can be had at all: descriptions and listings of gated repositories are public, files are not.
 *
 * @throws unauthorized, forbidden
 */
export async function requireAccess(
  name: HuggingFaceName,
  url: string,
  options: HubOptions,
): Promise<void> {
  const { http, signal, token } = options;
  const asked = askedFor(name, options);
  const authorization = bearer(token);
  const request = { method: "HEAD", redirect: "manual", authorization, signal } as const;
  await withRetry(async () => {
    const response = await http.send(url, request);
    if (response.status >= 400) throw await toFailure(response, asked);
  }, retryOptions(options));
}

/**
 * The value of `Authorization`.
 *
 * @throws usage if a header cannot carry the token. What would say so otherwise would show it
 */
export function bearer(token: string | undefined): string | undefined {
  if (token === undefined || token === "") return undefined;
  if (isToken(token)) return `Bearer ${token}`;
  throw new AppError("usage", "cannot use the Hugging Face token: it is no token", {
    hint: "Give a token from https://huggingface.co/settings/tokens, without spaces.",
  });
}

/**
 * A `fetch` for the Hub's library, for one question: it reads answers whole, so that they are bounded, and throws what a
 * refusal means. The library is not given the token: it takes only those that begin with `hf_`, and would send it to
 * whatever address a `Link` names. Here, the next page is always one of the endpoint, also behind a mirror that leaves
 * the Hub's own addresses in its answers.
 */
export function hubFetch(asked: Asked, options: HubOptions): typeof fetch {
  let pages = 0;
  const send = async (url: string): Promise<Response> => {
    pages += 1;
    if (pages > MAX_PAGES) throw tooManyFiles(asked);
    return ask(url, asked, options);
  };
  // The library calls it with the text of an address.
  return send as unknown as typeof fetch;
}

/** Runs what reads an answer, and says so if the answer is not of the documented form. */
export async function making<T>(
  { asked, what, signal }: Making,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof AppError) throw error;
    throw senseless(asked.attempt, what, error);
  }
}

// --- internal ---

const SIZE = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const INFO = v.object({
  sha: v.pipe(v.string(), v.regex(/^[0-9a-f]{40}(?:[0-9a-f]{24})?$/)),
  name: v.pipe(v.string(), v.regex(/^[\w.-]{1,96}(?:\/[\w.-]{1,96})?$/)),
  gated: v.optional(v.union([v.boolean(), v.string(), v.null()])),
  updatedAt: v.instance(Date),
  cardData: v.optional(v.unknown()),
});

/** Git's own digest in `oid` is SHA-1; that of large-file storage, and of Xet, is the SHA-256 of the content. */
const ENTRY = v.object({
  type: v.string(),
  path: v.string(),
  size: SIZE,
  lfs: v.nullish(
    v.object({ oid: v.pipe(v.string(), v.regex(/^(?:sha256:)?[0-9a-f]{64}$/)), size: SIZE }),
  ),
});

const INDEX = v.object({ weight_map: v.record(v.string(), v.string()) });

function toFile({ path, size, lfs }: v.InferOutput<typeof ENTRY>): RepositoryFile {
  if (lfs === undefined || lfs === null) return { path, size, digest: undefined };
  return { path, size: lfs.size, digest: toDigest(lfs.oid) };
}

function toDigest(oid: string): Digest | undefined {
  return tryParseDigest(`sha256:${oid.replace(/^sha256:/, "")}`);
}

function askedFor(name: HuggingFaceName, { endpoint, token }: HubOptions): Asked {
  return {
    attempt: `cannot pull \`${displayName(name)}\``,
    page: `${endpoint}/${name.repo}`,
    revision: name.revision,
    hasToken: bearer(token) !== undefined,
  };
}

async function ask(url: string, asked: Asked, options: HubOptions): Promise<Response> {
  const { http, signal, token } = options;
  const headers = { accept: "application/json" };
  return withRetry(async () => {
    const response = await http.send(url, { headers, authorization: bearer(token), signal });
    if (!response.ok) throw await toFailure(response, asked);
    const bytes = await readBounded(response, { maxBytes: MAX_ANSWER_BYTES, signal });
    const next = nextPage(response.headers.get("link"), options.endpoint);
    return new Response(Buffer.from(bytes), {
      headers: next === undefined ? {} : { link: `<${next}>; rel="next"` },
    });
  }, retryOptions(options));
}

function retryOptions({ signal, attempts }: HubOptions): {
  signal: AbortSignal;
  attempts?: number;
} {
  return { signal, ...(attempts === undefined ? {} : { attempts }) };
}

/** @see https://www.rfc-editor.org/rfc/rfc8288#section-3 */
function nextPage(link: string | null, endpoint: string): string | undefined {
  const target = /<([^>]*)>[^,]*;\s*rel="?next"?/i.exec(link ?? "")?.[1];
  const url = target === undefined ? null : URL.parse(target, `${endpoint}/`);
  if (url === null) return undefined;
  const api = url.pathname.indexOf("/api/");
  return api === -1 ? undefined : `${endpoint}${url.pathname.slice(api)}${url.search}`;
}

function toWholeSeconds(date: Date): string | undefined {
  const isValid = !Number.isNaN(date.getTime()) && date.getUTCFullYear() <= 9999;
  return isValid ? date.toISOString().replace(/\.\d+Z$/, "Z") : undefined;
}

/** `license` is an identifier or a list of them; for `other`, `license_name` says which. */
function licenseOf(card: unknown): string | undefined {
  if (typeof card !== "object" || card === null) return undefined;
  const { license, license_name: name } = card as Record<string, unknown>;
  const given: unknown = license === "other" ? name : license;
  const licenses = (Array.isArray(given) ? given : [given]).filter(isLicense);
  return licenses.length === 0 ? undefined : licenses.join(" OR ").slice(0, MAX_LICENSE_LENGTH);
}

function isLicense(value: unknown): value is string {
  return typeof value === "string" && /^[\w.+-]{1,64}$/.test(value) && value !== "unknown";
}

function tooManyFiles({ attempt }: Asked): AppError {
  return new AppError(
    "unsupported_model",
    `${attempt}: it has more than ${MAX_ENTRIES} files, which no model has`,
    { hint: "Name a file of it, as in `hf.co/ORG/REPO:FILE.gguf`, from a smaller repository." },
  );
}
