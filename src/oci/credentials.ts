/** Who we are towards a registry. A credential belongs to one host and goes nowhere else. */
import { mkdir } from "node:fs/promises";
import { join, sep } from "node:path";
import { AppError } from "../errors.ts";
import { acquireLock } from "../lock.ts";
import { log } from "../log.ts";
import {
  createHelperRunner,
  eraseFromHelper,
  getFromHelper,
  type HelperOptions,
  type RunHelper,
  storeInHelper,
} from "./credential-helper.ts";
import {
  type DockerConfig,
  findHelper,
  findInAuths,
  fromPair,
  type HelperName,
  hostOfKey,
  readDockerConfig,
  serverKey,
  withAuth,
  writeDockerConfig,
} from "./docker-config.ts";

export interface Credential {
  readonly username: string;
  /** A password or access token; empty if there is only an identity token. */
  readonly password: string;
  /** OAuth2 refresh token (`identitytoken`, or a helper's `<token>` user). */
  readonly identityToken?: string;
  /** For people: where it comes from, such as `DOCKER_USERNAME` or `~/.docker/config.json`. */
  readonly source: string;
}

export interface CredentialStore {
  /** @param host `host[:port]` as in references; `docker.io` for Docker Hub */
  find(host: string, options: { readonly signal: AbortSignal }): Promise<Credential | undefined>;
  /** @returns where it is kept now, for people */
  save(
    host: string,
    credential: { readonly username: string; readonly password: string },
    options: { readonly signal: AbortSignal },
  ): Promise<string>;
  /** @returns where it was kept; undefined if there was none */
  remove(host: string, options: { readonly signal: AbortSignal }): Promise<string | undefined>;
}

export interface CredentialOptions {
  /** `DOCKER_USERNAME` and others; `DOCKER_CONFIG` is the directory of Docker's config.json. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The home directory. */
  readonly home: string;
  /** Where our own `auth.json` lies. */
  readonly configDirectory: string;
  /** Runs credential helpers; for tests. */
  readonly run?: RunHelper;
}

/**
 * Looks for a credential in this order: `DOCKER_USERNAME` and `DOCKER_PASSWORD` (for the registry in `DOCKER_REGISTRY`, else
 * Docker Hub), `DOCKER_HUB_USER` and `DOCKER_HUB_PASSWORD`, our own `auth.json`, and Docker's config.json: the helper of
 * that registry, the helper of all, what is in the file. Saves with the helper if there is one, else in `auth.json` (0600).
 *
 * `find` and the others throw usage (a file that cannot be read) and unauthorized (a helper that fails).
 */
export function createCredentials(options: CredentialOptions): CredentialStore {
  const { env, home, configDirectory } = options;
  const run = options.run ?? createHelperRunner(env);
  const dockerPath = join(env["DOCKER_CONFIG"] || join(home, ".docker"), "config.json");
  const files: Files = {
    ownPath: join(configDirectory, "auth.json"),
    configDirectory,
    home,
    readOwn: () => readDockerConfig(files.ownPath, shownPath(files.ownPath, home)),
    readDocker: () => readDockerConfig(dockerPath, shownPath(dockerPath, home)),
  };
  return {
    async find(host, { signal }) {
      const own = fromEnvironment(env, host) ?? fromFile(await files.readOwn(), host);
      return own ?? fromDocker(await files.readDocker(), host, { run, signal });
    },
    save: (host, credential, { signal }) => save(files, { host, ...credential }, { run, signal }),
    remove: (host, { signal }) => remove(files, host, { run, signal }),
  };
}

// --- internal ---

interface Files {
  readonly ownPath: string;
  readonly configDirectory: string;
  readonly home: string;
  readonly readOwn: () => Promise<DockerConfig | undefined>;
  readonly readDocker: () => Promise<DockerConfig | undefined>;
}

function fromEnvironment(env: CredentialOptions["env"], host: string): Credential | undefined {
  const registry = hostOfKey(env["DOCKER_REGISTRY"] || "docker.io");
  const candidates = [
    { username: "DOCKER_USERNAME", password: "DOCKER_PASSWORD", for: registry },
    { username: "DOCKER_HUB_USER", password: "DOCKER_HUB_PASSWORD", for: "docker.io" },
  ];
  for (const names of candidates) {
    const [username, password] = [env[names.username] ?? "", env[names.password] ?? ""];
    if (names.for === host && username !== "" && password !== "")
      return { username, password, source: names.username };
  }
  return undefined;
}

function fromFile(config: DockerConfig | undefined, host: string): Credential | undefined {
  return config === undefined ? undefined : findInAuths(config, host);
}

async function fromDocker(
  config: DockerConfig | undefined,
  host: string,
  options: HelperOptions,
): Promise<Credential | undefined> {
  if (config === undefined) return undefined;
  const helper = findHelper(config, host);
  const found = helper === undefined ? undefined : await ask(helper, host, options);
  return found ?? findInAuths(config, host);
}

async function ask(
  helper: HelperName,
  host: string,
  options: HelperOptions,
): Promise<Credential | undefined> {
  try {
    const pair = await getFromHelper(helper.name, serverKey(host), options);
    return pair === undefined ? undefined : fromPair(pair, shownHelper(helper));
  } catch (error) {
    if (!isDispensable(helper, error)) throw error;
    return undefined;
  }
}

/**
 * Docker's file travels into containers and other systems where the helper for all registries is missing: that must not keep
 * anybody from what is public.
 */
function isDispensable({ name, isForHost }: HelperName, error: unknown): boolean {
  if (isForHost || !(error instanceof AppError) || error.code !== "not_found") return false;
  log.warn(
    `credentials: helper was passed over, there is no such program name=docker-credential-${name}`,
  );
  return true;
}

interface Kept {
  readonly host: string;
  readonly username: string;
  readonly password: string;
}

async function save(files: Files, kept: Kept, options: HelperOptions): Promise<string> {
  const { host, username, password } = kept;
  const docker = await files.readDocker();
  const helper = docker === undefined ? undefined : findHelper(docker, host);
  if (helper !== undefined && (await tryStore(helper, kept, options))) {
    // What lies in our file is found first, and would be older.
    await changeOwn(files, { host }, options.signal);
    return shownHelper(helper);
  }
  await changeOwn(files, { host, credential: { username, password } }, options.signal);
  return shownPath(files.ownPath, files.home);
}

async function tryStore(
  helper: HelperName,
  { host, username, password }: Kept,
  options: HelperOptions,
): Promise<boolean> {
  try {
    await storeInHelper(helper.name, { server: serverKey(host), username, password }, options);
    return true;
  } catch (error) {
    if (!isDispensable(helper, error)) throw error;
    return false;
  }
}

/** What `save` would have written goes; what Docker keeps in its own file is Docker's. */
async function remove(
  files: Files,
  host: string,
  options: HelperOptions,
): Promise<string | undefined> {
  const wasOwn = await changeOwn(files, { host }, options.signal);
  const docker = await files.readDocker();
  const helper = docker === undefined ? undefined : findHelper(docker, host);
  const kept = helper === undefined ? undefined : await ask(helper, host, options);
  if (helper !== undefined && kept !== undefined) {
    await eraseFromHelper(helper.name, serverKey(host), options);
    return shownHelper(helper);
  }
  return wasOwn ? shownPath(files.ownPath, files.home) : undefined;
}

interface Change {
  readonly host: string;
  /** Undefined: the entry goes. */
  readonly credential?: { readonly username: string; readonly password: string };
}

/** @returns whether there was an entry */
async function changeOwn(
  files: Files,
  { host, credential }: Change,
  signal: AbortSignal,
): Promise<boolean> {
  if (credential === undefined && (await files.readOwn()) === undefined) return false;
  await mkdir(files.configDirectory, { recursive: true, mode: 0o700 });
  using _lock = await acquireLock(join(files.configDirectory, "auth.lock"), { signal });
  const config = await files.readOwn();
  const wasThere = config !== undefined && findInAuths(config, host) !== undefined;
  if (credential !== undefined || wasThere)
    await writeDockerConfig(files.ownPath, withAuth(config?.content ?? {}, host, credential));
  return wasThere;
}

function shownHelper({ name }: HelperName): string {
  return `the credential helper \`${name}\``;
}

function shownPath(path: string, home: string): string {
  return path.startsWith(home + sep) ? `~${path.slice(home.length)}` : path;
}
