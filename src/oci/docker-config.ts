/**
 * Docker's configuration file, as far as it is about credentials, and the file of our own, which has its format.
 *
 * @see https://docs.docker.com/reference/cli/docker/login/#credential-stores
 */
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { AppError, errnoOf } from "../errors.ts";
import { printable } from "../http/host.ts";
import type { Credential } from "./credentials.ts";
import { isRecord } from "./descriptor.ts";
import { bareHost } from "./reference.ts";

/** Hundreds of registries fit. */
const MAX_CONFIG_BYTES = 1024 * 1024;

/** Docker Hub's key, from the days of its first API. */
const HUB_KEY = "https://index.docker.io/v1/";
const HUB_HOSTS: ReadonlySet<string> = new Set([
  "docker.io",
  "index.docker.io",
  "registry-1.docker.io",
]);

export interface DockerConfig {
  /** For people. */
  readonly source: string;
  /** The file as it is, so that what we do not know survives. */
  readonly content: Readonly<Record<string, unknown>>;
}

/** @returns undefined if there is no file @throws usage (it cannot be read; never with what is in it) */
export async function readDockerConfig(
  path: string,
  source: string,
): Promise<DockerConfig | undefined> {
  const text = await readText(path, source);
  if (text === undefined) return undefined;
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    // Without the cause: its message quotes the file.
    throw unreadable(source, "it is not JSON");
  }
  if (!isRecord(content)) throw unreadable(source, "it is not a JSON object");
  for (const name of ["auths", "credHelpers"]) {
    const member = content[name] ?? {};
    if (!isRecord(member)) throw unreadable(source, `\`${name}\` is not an object`);
  }
  if (typeof (content["credsStore"] ?? "") !== "string")
    throw unreadable(source, "`credsStore` is not a text");
  return { source, content };
}

/** Writes it as a whole, readable for its owner alone. The directory is made. */
export async function writeDockerConfig(
  path: string,
  content: Readonly<Record<string, unknown>>,
): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = await open(temporary, "w", 0o600);
    try {
      // A file that was left over keeps its mode.
      await file.chmod(0o600);
      await file.writeFile(`${JSON.stringify(content, undefined, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** What `auths` says about a host. @throws usage (an entry that is damaged) */
export function findInAuths(
  { source, content }: DockerConfig,
  host: string,
): Credential | undefined {
  for (const [key, value] of entriesFor(content["auths"], host)) {
    const credential = toCredential({ source, key }, value);
    if (credential !== undefined) return credential;
  }
  return undefined;
}

export interface HelperName {
  readonly name: string;
  /** It was chosen for this host, not for all. */
  readonly isForHost: boolean;
}

/** The helper that keeps a host's credential. @throws usage (its name is no name) */
export function findHelper(
  { source, content }: DockerConfig,
  host: string,
): HelperName | undefined {
  const [own] = entriesFor(content["credHelpers"], host);
  const all = content["credsStore"] ?? "";
  const name = own?.[1] ?? all;
  if (name === "") return undefined;
  // It becomes the name of a program.
  if (typeof name !== "string" || !/^[A-Za-z0-9_.-]{1,64}$/.test(name))
    throw unreadable(source, "the name of a credential helper is not valid");
  return { name, isForHost: own !== undefined };
}

/** @returns the content with the host's entries replaced by this one, or removed */
export function withAuth(
  content: Readonly<Record<string, unknown>>,
  host: string,
  credential: { readonly username: string; readonly password: string } | undefined,
): Readonly<Record<string, unknown>> {
  const auths = isRecord(content["auths"]) ? content["auths"] : {};
  const others = Object.entries(auths).filter(([key]) => hostOfKey(key) !== host);
  const entry =
    credential === undefined
      ? []
      : [[serverKey(host), { auth: encodeAuth(credential) }] as [string, unknown]];
  return { ...content, auths: Object.fromEntries([...others, ...entry]) };
}

/** What a host is called in files and by helpers. */
export function serverKey(host: string): string {
  return host === "docker.io" ? HUB_KEY : host;
}

/** The other way round: without scheme, path and slash, in lower case; `docker.io` for every name of Docker Hub. */
export function hostOfKey(key: string): string {
  const host = bareHost(key);
  return HUB_HOSTS.has(host) ? "docker.io" : host;
}

// --- internal ---

/** The exact key first. */
function entriesFor(value: unknown, host: string): readonly (readonly [string, unknown])[] {
  const entries = isRecord(value) ? Object.entries(value) : [];
  const exact = serverKey(host);
  return entries
    .filter(([key]) => hostOfKey(key) === host)
    .toSorted(([a], [b]) => Number(b === exact) - Number(a === exact));
}

interface EntryName {
  readonly source: string;
  readonly key: string;
}

/** Docker leaves entries without content where a helper keeps the credential. */
function toCredential({ source, key }: EntryName, value: unknown): Credential | undefined {
  const damaged = (): AppError =>
    unreadable(source, `its entry for \`${printable(key)}\` is damaged`);
  if (!isRecord(value)) throw damaged();
  const { auth = "", username = "", password = "", identitytoken: token = "" } = value;
  if (![auth, username, password, token].every((member) => typeof member === "string"))
    throw damaged();
  const pair =
    auth === "" ? { username: String(username), password: String(password) } : decodeAuth(auth);
  if (pair === undefined) throw damaged();
  if (token !== "") return { ...pair, source, identityToken: String(token) };
  return pair.username === "" && pair.password === "" ? undefined : fromPair(pair, source);
}

/** Docker's convention: this user's password is an identity token. */
export function fromPair(
  { username, password }: { readonly username: string; readonly password: string },
  source: string,
): Credential {
  return username === "<token>"
    ? { username, password: "", identityToken: password, source }
    : { username, password, source };
}

function encodeAuth({ username, password }: { username: string; password: string }): string {
  return Buffer.from(`${username}:${password}`, "utf8").toString("base64");
}

function decodeAuth(auth: unknown): { username: string; password: string } | undefined {
  if (typeof auth !== "string" || !/^[A-Za-z0-9+/_-]+=*$/.test(auth)) return undefined;
  const text = Buffer.from(auth, "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon === -1) return undefined;
  // Old versions padded passwords with zeros.
  return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, "") };
}

async function readText(path: string, source: string): Promise<string | undefined> {
  try {
    const { size } = await stat(path);
    if (size > MAX_CONFIG_BYTES) throw unreadable(source, "it is too large");
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof AppError) throw error;
    const code = errnoOf(error);
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw unreadable(source, `the system does not let us (${code ?? "unknown"})`);
  }
}

function unreadable(source: string, reason: string): AppError {
  return new AppError("usage", `cannot read credentials from \`${source}\`: ${reason}`, {
    hint: "Correct the file or move it away.",
  });
}
