/**
 * uv, which makes Python environments: the user's own if it is not too old, else its wheel from the package index,
 * unpacked into the cache.
 */
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";

import { urlSource } from "../../http/blob-source.ts";
import { discard, readBounded } from "../../http/body.ts";
import { acquireLock } from "../../lock.ts";
import type { Machine } from "../backend.ts";
import { runCommand } from "./command.ts";
import { download } from "./download.ts";
import { phaseOf, report, type SourceContext } from "./source.ts";
import { unpackZip } from "./unzip.ts";
import pinned from "./uv.json" with { type: "json" };

/** As uv and pip know it: the page of a package is below. */
const DEFAULT_INDEX = "https://pypi.org/simple";
/** Set by whoever has an index of their own; the first that is set wins: uv's before pip's. */
const INDEX_VARIABLES = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"];
/** Of Debian, Fedora, SUSE and Alpine. */
const SYSTEM_CERTIFICATES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];
/** An index that does not answer must not hold up the next source. */
const LOOKUP_TIMEOUT_MS = 10_000;
/** uv's own page has two megabytes: it lists all versions. */
const PAGE_LIMIT_BYTES = 32 * 1024 * 1024;
/** Others may be downloading it, over a slow line. */
const LOCK_WAIT_MS = 1_800_000;
/** The first that has all options that are used here: `--managed-python`, and `--no-bin`. */
const LEAST_VERSION = "0.8.0";
const VERSION_BOUND_MS = 10_000;
const STAGING_PREFIX = ".uv-";

/** What is fetched. */
export interface UvRelease {
  readonly version: string;
  /** By platform and architecture, such as `linux-x64`. */
  readonly wheels: Readonly<Record<string, Wheel>>;
}

interface Wheel {
  readonly file: string;
  /** Lower-case hex. */
  readonly sha256: string;
  readonly bytes: number;
}

interface Index {
  /** Without a slash at its end. */
  readonly url: string;
  /** For its origin. */
  readonly authorization: string | undefined;
}

/**
 * The path of uv.
 *
 * @param release default: the one that is known to work
 * @throws Error whose message is a clause
 */
export async function findUv(context: SourceContext, release: UvRelease = pinned): Promise<string> {
  const { env, machine, cacheDirectory, signal } = context;
  const own = Bun.which("uv", { PATH: env["PATH"] ?? "" });
  if (own !== null && (await isRecent(own, context))) return own;
  const directory = join(cacheDirectory, `uv-${release.version}`);
  const program = join(directory, programName(machine));
  if (await isFile(program)) return program;
  const wheel = wheelFor(machine, release);
  await mkdir(cacheDirectory, { recursive: true });
  // Engines that are installed at once share it.
  using _lock = await acquireLock(join(cacheDirectory, "uv.lock"), {
    signal,
    waitMs: LOCK_WAIT_MS,
    onWait: () => context.onProgress(phaseOf(context.backend, "waiting")),
  });
  if (!(await isFile(program))) await fetchUv(wheel, directory, context);
  return program;
}

/** What uv is to be told of the package index: it does not know pip's variables. */
export function indexVariables(
  env: Readonly<Record<string, string | undefined>>,
): Readonly<Record<string, string>> {
  const url = indexFrom(env);
  return url === undefined ? {} : { UV_DEFAULT_INDEX: url };
}

/**
 * uv trusts authorities of its own unless it is told to trust the system's, as Tug does: a company's are only there. Not
 * where the system has none, as in small containers; SSL_CERT_FILE holds either way.
 */
export function certificateVariables(
  platform: NodeJS.Platform = process.platform,
): Readonly<Record<string, string>> {
  const hasOwn = platform !== "linux" || SYSTEM_CERTIFICATES.some((path) => existsSync(path));
  return hasOwn ? { UV_SYSTEM_CERTS: "1", UV_NATIVE_TLS: "1" } : {};
}

/** The address, maybe a relative one, of the file of that name on a package's page, which is JSON or HTML. */
export function findLink(page: string, file: string): string | undefined {
  if (page.trimStart().startsWith("{")) return jsonLink(page, file);
  return htmlLinks(page).find((link) => lastSegment(link) === file);
}

// --- internal ---

function indexFrom(env: SourceContext["env"]): string | undefined {
  const variable = INDEX_VARIABLES.find((name) => (env[name] ?? "") !== "");
  return variable === undefined ? undefined : env[variable];
}

/** An old one lacks options; one that cannot be run is none. */
async function isRecent(uv: string, { env, signal }: SourceContext): Promise<boolean> {
  try {
    const { stdout } = await runCommand([uv, "--version"], {
      env,
      signal,
      timeoutMs: VERSION_BOUND_MS,
    });
    const version = /^uv (\d+\.\d+\.\d+)/.exec(stdout)?.[1];
    return version !== undefined && Bun.semver.order(version, LEAST_VERSION) >= 0;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

function programName({ platform }: Machine): string {
  return platform === "win32" ? "uv.exe" : "uv";
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true;
}

function wheelFor({ platform, arch }: Machine, { wheels }: UvRelease): Wheel {
  const wheel = wheels[`${platform}-${arch}`];
  if (wheel === undefined) throw new Error(`there is no uv for ${platform} ${arch}`);
  return wheel;
}

/** The caller holds the lock. */
async function fetchUv(wheel: Wheel, directory: string, context: SourceContext): Promise<void> {
  const { cacheDirectory, machine, signal } = context;
  await removeDebris(cacheDirectory);
  const archive = await fetchWheel(wheel, context);
  const staged = await mkdtemp(join(cacheDirectory, STAGING_PREFIX));
  try {
    await unpackZip({ archive, directory: staged, signal });
    const unpacked = join(staged, `${basename(directory)}.data`, "scripts");
    const program = join(unpacked, programName(machine));
    if (!(await isFile(program))) throw new Error(`\`${wheel.file}\` has no uv in it`);
    await chmod(program, 0o755);
    // What is there has no program in it.
    await rm(directory, { recursive: true, force: true });
    await rename(unpacked, directory);
  } finally {
    await rm(staged, { recursive: true, force: true });
    await rm(archive, { force: true });
  }
}

/** Of whoever was killed while unpacking. */
async function removeDebris(cacheDirectory: string): Promise<void> {
  const names = await readdir(cacheDirectory);
  for (const name of names.filter((one) => one.startsWith(STAGING_PREFIX))) {
    await rm(join(cacheDirectory, name), { recursive: true, force: true });
  }
}

async function fetchWheel(wheel: Wheel, context: SourceContext): Promise<string> {
  const { signal, cacheDirectory, env } = context;
  report(context, { phase: "downloading", id: "uv", done: 0, total: wheel.bytes });
  const { http } = await context.remotes();
  const index = readIndex(indexFrom(env) ?? DEFAULT_INDEX);
  const url = await locate(wheel, index, context);
  const isOfIndex = URL.parse(url)?.origin === URL.parse(index.url)?.origin;
  const authorization = isOfIndex ? index.authorization : undefined;
  const downloads = join(cacheDirectory, "downloads");
  await mkdir(downloads, { recursive: true });
  const path = join(downloads, wheel.sha256);
  await download({
    name: wheel.file,
    sources: [urlSource(http, url, { authorization })],
    path,
    bytes: wheel.bytes,
    sha256: wheel.sha256,
    signal,
    onBytes: (done) =>
      report(context, { phase: "downloading", id: "uv", done, total: wheel.bytes }),
  });
  return path;
}

/** Credentials in an address are for its origin; requests get them as a header. */
function readIndex(text: string): Index {
  const url = URL.parse(text.trim());
  // The request says what is wrong with it.
  if (url === null) return { url: text, authorization: undefined };
  const user = decode(url.username);
  const password = decode(url.password);
  url.username = "";
  url.password = "";
  const isAnonymous = user === "" && password === "";
  const basic = `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
  return {
    url: url.href.replace(/\/+$/, ""),
    authorization: isAnonymous ? undefined : basic,
  };
}

/** @see PEP 503, PEP 691 */
async function locate(
  { file }: Wheel,
  { url, authorization }: Index,
  context: SourceContext,
): Promise<string> {
  const { http } = await context.remotes();
  const page = `${url}/uv/`;
  const timeout = AbortSignal.timeout(LOOKUP_TIMEOUT_MS);
  const signal = AbortSignal.any([context.signal, timeout]);
  try {
    const response = await http.send(page, {
      signal,
      authorization,
      headers: { accept: "application/vnd.pypi.simple.v1+json, text/html;q=0.1" },
    });
    if (response.status !== 200) {
      await discard(response);
      throw new Error(`the package index answered ${response.status}`);
    }
    const bytes = await readBounded(response, { maxBytes: PAGE_LIMIT_BYTES, signal });
    const link = findLink(new TextDecoder().decode(bytes), file);
    // Relative to where redirects have led.
    const found = link === undefined ? null : URL.parse(link, response.url || page);
    if (found === null) throw new Error(`the package index has no \`${file}\``);
    return found.href;
  } catch (error) {
    context.signal.throwIfAborted();
    if (!timeout.aborted) throw error;
    const seconds = LOOKUP_TIMEOUT_MS / 1000;
    throw new Error(`the package index did not answer within ${seconds} s`, { cause: error });
  }
}

function jsonLink(page: string, file: string): string | undefined {
  const { files } = parseJson(page) as { readonly files?: unknown };
  if (!Array.isArray(files)) return undefined;
  const found = (files as readonly (Readonly<Record<string, unknown>> | null)[]).find(
    (one) => one?.["filename"] === file,
  );
  return typeof found?.["url"] === "string" ? found["url"] : undefined;
}

function parseJson(text: string): object {
  try {
    return JSON.parse(text) as object;
  } catch {
    return {};
  }
}

/** Targets of its links, without their fragments, which hold hashes. */
function htmlLinks(page: string): readonly string[] {
  const links = page.matchAll(/\bhref\s{0,9}=\s{0,9}(?:"([^"#<>]*)|'([^'#<>]*))/gi);
  return Array.from(links, ([, double, single]) =>
    (double ?? single ?? "").replaceAll("&amp;", "&"),
  );
}

/** The name of a file in an address, without a query. */
function lastSegment(link: string): string {
  const [path = ""] = link.split(/[?#]/);
  return decode(path.slice(path.lastIndexOf("/") + 1));
}

/** As it is, where it is not encoded well. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
