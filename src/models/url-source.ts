/** A GGUF file anywhere on the web as a source of a model: `https://example.com/models/tiny.gguf`. */
import { AppError } from "../errors.ts";
import { urlSource } from "../http/blob-source.ts";
import { discard } from "../http/body.ts";
import { isLoopback, printable, shownUrl } from "../http/host.ts";
import type { Http } from "../http/http.ts";
import { withRetry } from "../http/retry.ts";
import { digestOf, hexOf } from "../oci/digest.ts";
import { type Reference, parseReference } from "../oci/reference.ts";
import { splitNames } from "../store/gguf.ts";
import { safePath } from "../store/safe-path.ts";
import type { PlannedFile, SourcePlan } from "../transfer/plan.ts";

/** The largest models in circulation have some 200 shards; each costs a request before anything is pulled. */
const MAX_SHARDS = 1000;
/** Requests at once for the sizes of shards. */
const PROBES_AT_ONCE = 4;
/** References have 255 characters for registry and repository; the host keeps its own. */
const MAX_REPOSITORY = 180;
/** A header of another machine that becomes an annotation. Characters. */
const MAX_ETAG = 200;
/** Where the server tells no time: what the same bytes become must not depend on when they were pulled. */
const UNKNOWN_TIME = "1970-01-01T00:00:00Z";
/** RFC 3339 has four digits for the year. */
const LAST_MS = Date.UTC(9999, 11, 31);
const SOURCE = "org.opencontainers.image.source";
const REVISION = "org.opencontainers.image.revision";
const HINT =
  "Give the address of a `.gguf` file, of a Hugging Face repository, or of a model in a registry.";

/** An address that names a GGUF file. */
export interface ModelUrl {
  /** With its query, which may be a secret; without userinfo and fragment. */
  readonly href: string;
  /** Value of `Authorization`, of an address with userinfo. */
  readonly authorization: string | undefined;
  /** The name that the model gets on this machine. */
  readonly reference: Reference;
}

export interface UrlOptions {
  readonly http: Http;
  readonly signal: AbortSignal;
  /** Hosts (`host[:port]`) that may be spoken to over plain http besides this machine; none unless given. */
  readonly isInsecure?: (host: string) => boolean;
}

/**
 * @returns undefined for what is no address of the web
 * @throws invalid_reference for one that is not of a GGUF file
 */
export function parseModelUrl(text: string): ModelUrl | undefined {
  const trimmed = text.trim();
  if (!/^https?:\/\//i.test(trimmed)) return undefined;
  const url = URL.parse(trimmed);
  if (url === null) throw invalid(trimmed, "it is malformed", HINT);
  const authorization = basicAuthorization(url);
  url.username = "";
  url.password = "";
  url.hash = "";
  const segments = url.pathname.split("/").map((segment) => decode(segment, trimmed));
  const file = segments.at(-1) ?? "";
  if (!/.\.gguf$/i.test(file)) throw invalid(trimmed, "it is not of a `.gguf` file", HINT);
  return { href: url.href, authorization, reference: toReference(url, segments) };
}

/**
 * Asks for sizes and states of the file and, if it is one of several, of all its shards. No weights are read.
 *
 * @throws invalid_reference (plain http to another machine), not_found, unauthorized, forbidden, unsupported_model (the
 *         answer is a web page), too_many_requests, registry_unavailable, offline, cancelled
 */
export async function planUrl(model: ModelUrl, options: UrlOptions): Promise<SourcePlan> {
  const url = new URL(model.href);
  const { urls, probes } = await inspectUrls(url, model, options);
  const files = urls.map((shard, index): PlannedFile => ({
    role: "weights",
    path: filePath(shard),
    size: probes[index]?.size,
    digest: undefined,
    sources: [source(shard, model, options)],
  }));
  const revision = revisionOf(probes);
  return {
    reference: model.reference,
    layout: "gguf",
    files,
    created: newest(probes),
    annotations: {
      [SOURCE]: url.origin + url.pathname,
      ...(revision === undefined ? {} : { [REVISION]: revision }),
    },
    warnings: [],
  };
}

/**
 * What the servers' `ETag`s say of the present state, as `org.opencontainers.image.revision` of a pulled model has it.
 *
 * @returns undefined where a server gives none
 * @throws as `planUrl`
 */
export async function urlRevision(
  model: ModelUrl,
  options: UrlOptions,
): Promise<string | undefined> {
  const { probes } = await inspectUrls(new URL(model.href), model, options);
  return revisionOf(probes);
}

// --- internal ---

/** What a server says of a file before it sends it. */
interface Probe {
  readonly size: number | undefined;
  readonly etag: string | undefined;
  /** Milliseconds since the epoch. */
  readonly modifiedMs: number | undefined;
}

function decode(segment: string, text: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw invalid(text, "its path has a malformed escape", HINT);
  }
}

function basicAuthorization({ username, password, href }: URL): string | undefined {
  if (username === "" && password === "") return undefined;
  const [user, secret] = [username, password].map((part) => decode(part, href));
  return `Basic ${Buffer.from(`${user}:${secret}`).toString("base64")}`;
}

/** `https://host/a/B c/Model-Q4.gguf` is `host/a/b-c/model-q4:latest`. */
function toReference(url: URL, segments: readonly string[]): Reference {
  const [file = "", ...directories] = segments.toReversed();
  const [first = file] = splitNames(file.replaceAll(/[/\\]/g, "-"));
  const stem = first.replace(/(?:-\d{5}-of-\d{5})?\.gguf$/i, "");
  const names = [...directories.toReversed().map(toComponent), toComponent(stem) || "model"];
  return parseReference(`${toRegistry(url)}/${shorten(names.filter((name) => name !== ""))}`);
}

/** A name without a dot would be taken for a namespace of Docker Hub. */
function toRegistry({ hostname, host, protocol }: URL): string {
  const clean = host.replaceAll("_", "-");
  if (/[.:]/.test(clean) || hostname === "localhost") return clean;
  return `${clean}:${protocol === "http:" ? 80 : 443}`;
}

/** What a part of a repository's name may be: lower case, with single separators between letters and digits. */
function toComponent(text: string): string {
  return text
    .normalize("NFKD")
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, "-")
    .replaceAll(/[._-]{2,}/g, (run) => (/^(?:__|-+)$/.test(run) ? run : "-"))
    .replaceAll(/^[._-]+|[._-]+$/g, "");
}

/** Too long a path becomes its digest and as much of the file's name as fits. */
function shorten(names: readonly string[]): string {
  const whole = names.join("/");
  if (whole.length <= MAX_REPOSITORY) return whole;
  const digest = hexOf(digestOf(new TextEncoder().encode(whole))).slice(0, 12);
  return `${digest}/${toComponent((names.at(-1) ?? "").slice(0, MAX_REPOSITORY / 2))}`;
}

function refusePlain(url: URL, { isInsecure }: UrlOptions): void {
  if (url.protocol === "https:" || isLoopback(url.host) || isInsecure?.(url.host) === true) return;
  throw invalid(
    url.href,
    "nothing protects what comes over plain http",
    "Use `https://`, or allow this host with `--insecure` or TUG_INSECURE_REGISTRIES.",
  );
}

/** @throws invalid_reference if there are absurdly many */
function shardUrls(url: URL): string[] {
  const slash = url.pathname.lastIndexOf("/") + 1;
  const file = url.pathname.slice(slash);
  const total = Number(/-of-(\d{5})\.gguf$/i.exec(file)?.[1] ?? 1);
  if (total > MAX_SHARDS)
    throw invalid(url.href, `a model of ${total} files is not plausible`, HINT);
  return splitNames(file).map((name) => {
    const shard = new URL(url);
    shard.pathname = url.pathname.slice(0, slash) + name;
    return shard.href;
  });
}

/** The name of a file as every system can have it. */
function filePath(url: string): string {
  const segment = new URL(url).pathname.split("/").at(-1) ?? "";
  const name = decodeURIComponent(segment).replaceAll(/[\p{Cc}<>:"|?*\\/]/gu, "-");
  return safePath(name);
}

function source(url: string, { authorization }: ModelUrl, { http }: UrlOptions) {
  return urlSource(http, url, { authorization });
}

/** All shards, and what is said of each. */
async function inspectUrls(
  url: URL,
  model: ModelUrl,
  options: UrlOptions,
): Promise<{ urls: readonly string[]; probes: readonly Probe[] }> {
  refusePlain(url, options);
  const urls = shardUrls(url);
  return { urls, probes: await probeAll(urls, model, options) };
}

/** In the order of the addresses. */
async function probeAll(
  urls: readonly string[],
  model: ModelUrl,
  options: UrlOptions,
): Promise<Probe[]> {
  const probes: Probe[] = [];
  for (let index = 0; index < urls.length; index += PROBES_AT_ONCE) {
    const batch = urls.slice(index, index + PROBES_AT_ONCE);
    probes.push(...(await Promise.all(batch.map((url) => probe(url, model, options)))));
  }
  return probes;
}

async function probe(url: string, model: ModelUrl, options: UrlOptions): Promise<Probe> {
  return (await head(url, model, options)) ?? (await firstByte(url, model, options));
}

/** @returns undefined where HEAD gets no good answer: not every server has it, and signed addresses are for GET alone */
async function head(
  url: string,
  { authorization }: ModelUrl,
  { http, signal }: UrlOptions,
): Promise<Probe | undefined> {
  const response = await withRetry(
    () => http.send(url, { method: "HEAD", authorization, signal }),
    { signal },
  );
  await discard(response);
  if (!response.ok) return undefined;
  const { headers } = response;
  refusePage(url, headers.get("content-type"));
  const isIdentity = /^(?:identity)?$/i.test(headers.get("content-encoding") ?? "");
  const length = headers.get("content-length") ?? "";
  const modifiedMs = Date.parse(headers.get("last-modified") ?? "");
  const etag = headers.get("etag") ?? "";
  return {
    size: isIdentity && /^[1-9]\d{0,14}$/.test(length) ? Number(length) : undefined,
    etag: etag !== "" && etag.length <= MAX_ETAG ? printable(etag) : undefined,
    modifiedMs: modifiedMs >= 0 && modifiedMs <= LAST_MS ? modifiedMs : undefined,
  };
}

/** The transfer's own kind of request finds out what is wrong, in its words. */
async function firstByte(url: string, model: ModelUrl, options: UrlOptions): Promise<Probe> {
  const { signal } = options;
  const opened = await withRetry(
    () => source(url, model, options).open({ start: 0, end: 1 }, { signal }),
    { signal },
  );
  await opened.body.cancel();
  return { size: opened.totalBytes, etag: undefined, modifiedMs: undefined };
}

/** A page to log in at, or one that says in a friendly way that there is no such file. */
function refusePage(url: string, contentType: string | null): void {
  if (!/^\s*(?:text\/html|application\/xhtml)/i.test(contentType ?? "")) return;
  throw new AppError(
    "unsupported_model",
    `cannot pull \`${shownUrl(url)}\`: the answer is a web page, not a GGUF file`,
    { hint: "Open the address in a browser: it may need a login, or lead to the file." },
  );
}

/** Of one file its own state; of several what depends on all of theirs. */
function revisionOf(probes: readonly Probe[]): string | undefined {
  const etags = probes.map(({ etag }) => etag);
  if (etags.includes(undefined)) return undefined;
  if (etags.length === 1) return etags[0];
  return digestOf(new TextEncoder().encode(etags.join("\n")));
}

function newest(probes: readonly Probe[]): string {
  const latestMs = Math.max(...probes.map(({ modifiedMs }) => modifiedMs ?? 0));
  return latestMs === 0 ? UNKNOWN_TIME : new Date(latestMs).toISOString().replace(/\.\d{3}Z$/, "Z");
}

function invalid(text: string, reason: string, hint: string): AppError {
  return new AppError("invalid_reference", `cannot pull \`${shownUrl(text)}\`: ${reason}`, {
    hint,
  });
}
