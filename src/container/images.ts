/** Images of the container engine: pulled, looked at, removed. */
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AppError } from "../errors.ts";
import { complaintOf, runTool } from "./command.ts";
import type { ContainerEngine } from "./engine.ts";

type Env = Readonly<Record<string, string | undefined>>;

export interface ImageFacts {
  readonly id: string;
  /** `repository@sha256:…`, for each repository that it was pulled from. */
  readonly digests: readonly string[];
  /** `repository:tag` */
  readonly tags: readonly string[];
  /** Bytes on the disk. */
  readonly size: number;
  /** RFC 3339; undefined if the image does not say. */
  readonly created: string | undefined;
}

export interface ImageOptions {
  readonly env: Env;
  readonly signal: AbortSignal;
}

export interface PullImageOptions extends ImageOptions {
  /** `host[:port]`, as in references. */
  readonly registry: string;
  /** `os/arch[/variant]` */
  readonly platform?: string | undefined;
  readonly credential?: ImageCredential | undefined;
  /** Over plain http, or with any certificate. */
  readonly isInsecure: boolean;
  /** Each line that the engine prints. */
  readonly onLine: (line: string) => void;
}

export interface ImageCredential {
  readonly username: string;
  readonly password: string;
  readonly identityToken?: string | undefined;
}

/** Some ten gigabytes over a slow line; whoever has waited that long is not waiting any more. */
const PULL_MS = 24 * 3_600_000;
/** What the engine knows it says at once, unless its disk is busy with a pull. */
const LOOK_MS = 60_000;

/** @returns undefined if the engine has none of that name or id */
export async function inspectImage(
  engine: ContainerEngine,
  name: string,
  { env, signal }: ImageOptions,
): Promise<ImageFacts | undefined> {
  const argv = [engine.program, "image", "inspect", name];
  const { exitCode, stdout } = await runTool(argv, { env, signal, timeoutMs: LOOK_MS });
  return exitCode === 0 ? readFacts(stdout) : undefined;
}

/**
 * Credentials go by a file that only this user can read and that is removed; never on a command line.
 *
 * @param image `repository:tag` or `repository@digest`
 * @throws unauthorized, not_found, insufficient_storage, registry_unavailable, install_failed; rejects with the signal's
 *   reason
 */
export async function pullImage(
  engine: ContainerEngine,
  image: string,
  options: PullImageOptions,
): Promise<void> {
  const { signal, onLine, credential, platform } = options;
  await using held = new AsyncDisposableStack();
  const auth = credential && (await writeAuth(held, options.registry, credential));
  const { before, after, env } = await authFlags(engine, auth, options);
  const insecure = engine.kind === "podman" && options.isInsecure ? ["--tls-verify=false"] : [];
  const forPlatform = platform === undefined ? [] : [`--platform=${platform}`];
  const argv = [engine.program, ...before, "pull", ...after, ...insecure, ...forPlatform, image];
  const { exitCode, stderr } = await runTool(argv, { env, signal, timeoutMs: PULL_MS, onLine });
  if (exitCode !== 0) throw pullFailed(image, options.registry, { exitCode, stderr });
}

/**
 * Takes away the names that the image has in a repository, and with the last one the image.
 *
 * @returns whether it is gone
 */
export async function removeImage(
  engine: ContainerEngine,
  { image, repository }: { readonly image: string; readonly repository: string },
  options: ImageOptions,
): Promise<boolean> {
  const facts = await inspectImage(engine, image, options);
  if (facts === undefined) return false;
  const tags = facts.tags.filter((tag) => tag.startsWith(`${repository}:`));
  for (const name of tags.length === 0 ? [facts.id] : tags) {
    const argv = [engine.program, "rmi", name];
    const { exitCode } = await runTool(argv, { ...options, timeoutMs: LOOK_MS });
    if (exitCode !== 0) return false;
  }
  return (await inspectImage(engine, facts.id, options)) === undefined;
}

// --- internal ---

function readFacts(stdout: string): ImageFacts | undefined {
  const list = tryParse(stdout);
  const value: unknown = Array.isArray(list) ? list[0] : undefined;
  if (typeof value !== "object" || value === null) return undefined;
  const { Id: id, RepoDigests, RepoTags, Size: size, Created } = value as Record<string, unknown>;
  if (typeof id !== "string") return undefined;
  const createdMs = typeof Created === "string" ? Date.parse(Created) : Number.NaN;
  return {
    id,
    digests: texts(RepoDigests),
    tags: texts(RepoTags),
    size: typeof size === "number" && size >= 0 ? size : 0,
    created: Number.isNaN(createdMs) ? undefined : new Date(createdMs).toISOString(),
  };
}

function texts(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === "string") : [];
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

interface AuthFile {
  readonly directory: string;
  readonly file: string;
}

/** In the form of Docker's config.json, which podman reads, too. */
async function writeAuth(
  held: AsyncDisposableStack,
  registry: string,
  { username, password, identityToken }: ImageCredential,
): Promise<AuthFile> {
  const directory = await mkdtemp(join(tmpdir(), "tug-auth-"));
  held.defer(() => rm(directory, { recursive: true, force: true }));
  await chmod(directory, 0o700);
  const file = join(directory, "config.json");
  const auth = Buffer.from(`${username}:${password}`).toString("base64");
  const token = identityToken === undefined ? {} : { identitytoken: identityToken };
  await writeFile(file, JSON.stringify({ auths: { [registry]: { auth, ...token } } }), {
    mode: 0o600,
  });
  return { directory, file };
}

interface AuthFlags {
  /** In front of the subcommand. */
  readonly before: readonly string[];
  readonly after: readonly string[];
  readonly env: Env;
}

async function authFlags(
  engine: ContainerEngine,
  auth: AuthFile | undefined,
  { env, signal }: ImageOptions,
): Promise<AuthFlags> {
  if (auth === undefined) return { before: [], after: [], env };
  if (engine.kind === "podman") return { before: [], after: [`--authfile=${auth.file}`], env };
  // Another directory of settings has no contexts: where the daemon is has to be said.
  const argv = [engine.program, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"];
  const { exitCode, stdout } = await runTool(argv, { env, signal, timeoutMs: LOOK_MS });
  const host = exitCode === 0 ? stdout.trim() : "";
  const where = env["DOCKER_HOST"] || host === "" ? {} : { DOCKER_HOST: host };
  return { before: ["--config", auth.directory], after: [], env: { ...env, ...where } };
}

const DENIED =
  /unauthorized|authentication required|access denied|denied:|invalid username|\b40[13]\b/i;
const ABSENT = /manifest unknown|name unknown|not found|repository does not exist|\b404\b/i;
const FULL = /no space left/i;
const UNREACHED =
  /no such host|connection refused|connection reset|i\/o timeout|network is unreachable|dial tcp|x509|tls:|http response to https|EOF/i;

function pullFailed(
  image: string,
  registry: string,
  { exitCode, stderr }: { readonly exitCode: number; readonly stderr: string },
): AppError {
  const reason = complaintOf(stderr) || `it left with exit code ${exitCode}`;
  const message = `cannot pull the image \`${image.slice(0, 200)}\`: ${reason}`;
  if (DENIED.test(reason))
    return new AppError("unauthorized", message, { hint: loginHint(registry) });
  if (ABSENT.test(reason)) {
    return new AppError("not_found", message, { hint: "Check the name and its tag." });
  }
  if (FULL.test(reason)) {
    const hint = "Make room where the container engine keeps its images.";
    return new AppError("insufficient_storage", message, { hint });
  }
  if (UNREACHED.test(reason)) {
    const hint = "Check the host, the port and that the registry runs.";
    return new AppError("registry_unavailable", message, { hint });
  }
  return new AppError("install_failed", message);
}

function loginHint(registry: string): string {
  return registry === "nvcr.io"
    ? "Set NGC_API_KEY to your key of NGC, or run `tug login nvcr.io -u '$oauthtoken'`."
    : `Run \`tug login ${registry}\`.`;
}
