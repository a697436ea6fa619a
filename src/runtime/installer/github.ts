/**
 * Release assets on GitHub. Two endpoints are used: the release by its tag, which gives each asset's size and SHA-256,
 * and the asset itself.
 *
 * @see https://docs.github.com/en/rest/releases/releases#get-a-release-by-tag-name
 */
import { mkdir, rm } from "node:fs/promises";
import { dirname, join, sep } from "node:path";

import { AppError } from "../../errors.ts";
import { urlSource } from "../../http/blob-source.ts";
import { readBounded } from "../../http/body.ts";
import type { Http } from "../../http/http.ts";
import type { InstallRecipe } from "../backend.ts";
import { download } from "./download.ts";
import { findFile } from "./find-file.ts";
import { DIRECTORY, report, variantOf } from "./source.ts";
import type { EnginePlan, InstallSource, SourceContext, SourceRequest } from "./source.ts";
import { unpackTar } from "./untar.ts";
import { unpackZip } from "./unzip.ts";

const DEFAULT_API = "https://api.github.com";
/** A release description has about 100 kB; a host that does not answer must not hold up the next source. */
const LOOKUP_TIMEOUT_MS = 5_000;
/** A release of llama.cpp has some fifty assets. Bytes. */
const RELEASE_LIMIT_BYTES = 4 * 1024 * 1024;
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
      const release = await lookUp(url, version, context);
      const asset = chooseAsset(release, names, version);
      const needed = recipe.companions?.(asset.name) ?? [];
      const companions = needed.map((name) => chooseAsset(release, [name], version));
      return {
        version,
        variant,
        fetch: (directory) => fetchAssets({ asset, companions, recipe, context, directory }),
      };
    },
  };
}

// --- internal ---

interface FetchInput {
  readonly asset: Asset;
  readonly companions: readonly Asset[];
  readonly recipe: NonNullable<InstallRecipe["github"]>;
  readonly context: SourceContext;
  readonly directory: string;
}

async function lookUp(url: string, version: string, context: SourceContext): Promise<unknown> {
  const { createFetch } = await import("ofetch");
  const { http } = await context.remotes();
  const ofetch = createFetch({ fetch: fetchThrough(http, context.signal) });
  const { host } = new URL(url);
  try {
    return await ofetch<unknown>(url, {
      retry: 0,
      responseType: "json",
      headers: { accept: "application/vnd.github+json" },
    });
  } catch (error) {
    context.signal.throwIfAborted();
    if (statusOf(error) === 404)
      throw new Error(`it has no release \`${version}\``, { cause: error });
    throw new AppError("registry_unavailable", lookUpFailure(error, host), { cause: error });
  }
}

/** ofetch judges the answer; who is asked, how long, and how much is read is ours to say. */
function fetchThrough(http: Http, signal: AbortSignal): typeof fetch {
  const through = async (input: unknown, init?: RequestInit): Promise<Response> => {
    const response = await http.send(String(input), {
      headers: Object.fromEntries(new Headers(init?.headers)),
      headersTimeoutMs: LOOKUP_TIMEOUT_MS,
      signal,
    });
    const limits = { maxBytes: RELEASE_LIMIT_BYTES, stallMs: LOOKUP_TIMEOUT_MS, signal };
    const body = await readBounded(response, limits);
    return new Response(body as Uint8Array<ArrayBuffer>, { status: response.status });
  };
  return through as typeof fetch;
}

function statusOf(error: unknown): number | undefined {
  const { status } = error as { status?: unknown };
  return typeof status === "number" ? status : undefined;
}

function lookUpFailure(error: unknown, host: string): string {
  const status = statusOf(error);
  if (status === 403 || status === 429) return `${host} refuses more requests for now (${status})`;
  if (status !== undefined) return `${host} answered with status ${status}`;
  const { cause } = error as { cause?: unknown };
  return cause instanceof Error ? cause.message : `${host} sent no description of a release`;
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

async function fetchAssets(input: FetchInput): Promise<readonly string[]> {
  const { asset, companions, recipe, context, directory } = input;
  await unpackAsset(asset, context, directory);
  const isWindows = context.machine.platform === "win32";
  const file = isWindows ? `${recipe.executable}.exe` : recipe.executable;
  const executable = await findFile(directory, file);
  if (executable === undefined) throw new Error(`\`${asset.name}\` does not hold \`${file}\``);
  const beside = dirname(join(directory, executable));
  for (const companion of companions) await unpackAsset(companion, context, beside);
  return [`${DIRECTORY}${sep}${executable}`];
}

async function unpackAsset(asset: Asset, context: SourceContext, directory: string): Promise<void> {
  const { signal, cacheDirectory } = context;
  const downloads = join(cacheDirectory, "downloads");
  await mkdir(downloads, { recursive: true });
  const { http } = await context.remotes();
  // Named by content: a resumed part can only be one of the same file.
  const path = join(downloads, asset.sha256);
  await download({
    name: asset.name,
    sources: [urlSource(http, asset.url)],
    path,
    bytes: asset.bytes,
    sha256: asset.sha256,
    signal,
    onBytes: (done) =>
      report(context, { phase: "downloading", id: asset.name, done, total: asset.bytes }),
  });
  report(context, { phase: "unpacking" });
  const unpack = asset.name.endsWith(".zip") ? unpackZip : unpackTar;
  await unpack({ archive: path, directory, signal });
  await rm(path, { force: true });
}
