/**
 * Release assets on GitHub. Two endpoints are used: the release by its tag, which gives each asset's size and SHA-256,
 * and the asset itself.
 *
 * @see https://docs.github.com/en/rest/releases/releases#get-a-release-by-tag-name
 */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join, relative, sep } from "node:path";

import { AppError, errnoOf } from "../../errors.ts";
import type { InstallRecipe } from "../backend.ts";
import { download } from "./download.ts";
import { DIRECTORY, variantOf } from "./source.ts";
import type { EnginePlan, InstallSource, SourceContext, SourceRequest } from "./source.ts";
import { unpackTarGz } from "./untar.ts";
import { unpackZip } from "./unzip.ts";

const DEFAULT_API = "https://api.github.com";
/** A release description has about 100 kB; a host that does not answer must not hold up the next source. */
const LOOKUP_TIMEOUT_MS = 5_000;
/** No engine comes near; a larger number in a release is a mistake or worse. */
const ASSET_LIMIT_BYTES = 4 * 1024 ** 3;

interface Asset {
  readonly name: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
  readonly url: string;
}

/** @param api base URL of the API; a stand-in in tests */
export function createGithubInstallSource(api: string = DEFAULT_API): InstallSource {
  return {
    name: "github",
    network: true,
    variants: true,

    async resolve(request: SourceRequest, context: SourceContext): Promise<EnginePlan> {
      const { backend, machine } = context;
      const recipe = backend.recipe.github;
      if (recipe === undefined) throw new Error(`${backend.name} has no releases there`);
      const version = request.version ?? recipe.version;
      const names = recipe.assets(machine, request.gpu, version);
      const variant = variantOf(request.gpu);
      if (names.length === 0) {
        throw new Error(`it has no ${variant} build for ${machine.platform} ${machine.arch}`);
      }
      report(context, { phase: "resolving" });
      const url = `${api}/repos/${recipe.repository}/releases/tags/${encodeURIComponent(version)}`;
      const asset = chooseAsset(await lookUp(url, version, context.signal), names, version);
      return {
        version,
        variant,
        fetch: (directory) => fetchAsset({ asset, recipe, context, directory }),
      };
    },
  };
}

// --- internal ---

interface FetchInput {
  readonly asset: Asset;
  readonly recipe: NonNullable<InstallRecipe["github"]>;
  readonly context: SourceContext;
  readonly directory: string;
}

async function lookUp(url: string, version: string, signal: AbortSignal): Promise<unknown> {
  const { ofetch } = await import("ofetch");
  const timeout = AbortSignal.timeout(LOOKUP_TIMEOUT_MS);
  const { host } = new URL(url);
  try {
    return await ofetch<unknown>(url, {
      retry: 0,
      responseType: "json",
      headers: { accept: "application/vnd.github+json" },
      signal: AbortSignal.any([signal, timeout]),
    });
  } catch (error) {
    signal.throwIfAborted();
    if (isMissing(error)) throw new Error(`it has no release \`${version}\``, { cause: error });
    const problem = lookUpFailure(error, host, timeout.aborted);
    throw new AppError("registry_unavailable", problem, { cause: error });
  }
}

function isMissing(error: unknown): boolean {
  return (error as { status?: unknown }).status === 404;
}

function lookUpFailure(error: unknown, host: string, timedOut: boolean): string {
  if (timedOut) return `${host} did not answer within ${LOOKUP_TIMEOUT_MS / 1000} s`;
  const status = (error as { status?: unknown }).status;
  if (status === 403 || status === 429) return `${host} refuses more requests for now (${status})`;
  if (typeof status === "number") return `${host} answered with status ${status}`;
  const code = errnoOf((error as { cause?: unknown }).cause) ?? errnoOf(error);
  return `${host} cannot be reached${code === undefined ? "" : ` (${code})`}`;
}

function chooseAsset(release: unknown, names: readonly string[], version: string): Asset {
  const { assets } = (release ?? {}) as { assets?: unknown };
  const listed = (Array.isArray(assets) ? assets : []) as Record<string, unknown>[];
  const found = names
    .map((name) => listed.find((asset) => asset["name"] === name))
    .find((asset) => asset !== undefined);
  if (found === undefined) throw new Error(`release \`${version}\` has no \`${names[0]}\``);
  const { name, size, digest, browser_download_url: url } = found;
  const sha256 = /^sha256:([0-9a-f]{64})$/.exec(String(digest))?.[1];
  if (sha256 === undefined) throw new Error(`\`${String(name)}\` has no digest to verify it by`);
  if (typeof size !== "number" || size <= 0 || size > ASSET_LIMIT_BYTES) {
    throw new Error(`\`${String(name)}\` has an impossible size (${String(size)} bytes)`);
  }
  return { name: String(name), bytes: size, sha256, url: String(url) };
}

async function fetchAsset(input: FetchInput): Promise<readonly string[]> {
  const { asset, recipe, context, directory } = input;
  const { machine, signal, cacheDirectory } = context;
  const downloads = join(cacheDirectory, "downloads");
  await mkdir(downloads, { recursive: true });
  // Named by content: a resumed part can only be one of the same file.
  const path = join(downloads, asset.sha256);
  await download({
    url: asset.url,
    path,
    bytes: asset.bytes,
    sha256: asset.sha256,
    signal,
    onBytes: (done) =>
      report(context, { phase: "downloading", id: asset.name, done, total: asset.bytes }),
  });
  report(context, { phase: "unpacking" });
  const unpack = asset.name.endsWith(".zip") ? unpackZip : unpackTarGz;
  await unpack({ archive: path, directory, signal });
  const file = machine.platform === "win32" ? `${recipe.executable}.exe` : recipe.executable;
  const executable = await findFile(directory, file);
  if (executable === undefined) throw new Error(`\`${asset.name}\` does not hold \`${file}\``);
  await rm(path, { force: true });
  return [`${DIRECTORY}${sep}${executable}`];
}

/** The one nearest to the top, relative to `directory`. */
async function findFile(directory: string, name: string): Promise<string | undefined> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true });
  const paths = entries
    .filter((entry) => entry.isFile() && entry.name === name)
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)));
  return paths.toSorted((left, right) => left.split(sep).length - right.split(sep).length)[0];
}

function report(
  { backend, onProgress }: SourceContext,
  event: { phase: string; id?: string; done?: number; total?: number },
): void {
  onProgress({
    type: "progress",
    id: event.id ?? backend.name,
    phase: event.phase,
    done_bytes: event.done ?? null,
    total_bytes: event.total ?? null,
  });
}
