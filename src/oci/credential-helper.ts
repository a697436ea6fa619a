/**
 * Programs that keep secrets in the system's own store: `docker-credential-osxkeychain` and its relatives.
 *
 * @see https://github.com/docker/docker-credential-helpers#development
 */
import { AppError, errnoOf } from "../errors.ts";
import { printable } from "../http/host.ts";
import { pause } from "../pause.ts";
import { isRecord } from "./descriptor.ts";

/** Some ask a person to unlock something first. */
const HELPER_TIMEOUT_MS = 60_000;
/** What a helper leaves running may keep its output open; whoever has ended says nothing more. */
const OUTPUT_GRACE_MS = 500;
/** Tokens of cloud registries have a few KiB. */
const MAX_OUTPUT_BYTES = 256 * 1024;

export type HelperAction = "get" | "store" | "erase";

export interface HelperCall {
  /** `docker-credential-…` and the action. */
  readonly argv: readonly [string, HelperAction];
  readonly input: string;
  readonly signal: AbortSignal;
}

export interface HelperOutput {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program without a shell. @throws ENOENT if there is none of that name */
export type RunHelper = (call: HelperCall) => Promise<HelperOutput>;

export interface HelperOptions {
  readonly run: RunHelper;
  readonly signal: AbortSignal;
}

/** @returns undefined if the helper has none for this server @throws not_found (no such program), unauthorized (it failed) */
export async function getFromHelper(
  name: string,
  server: string,
  options: HelperOptions,
): Promise<{ username: string; password: string } | undefined> {
  const output = await call(name, { action: "get", input: server }, options);
  if (output === undefined) return undefined;
  const value = tryJson(output);
  const { Username: username, Secret: password } = isRecord(value) ? value : {};
  if (typeof username !== "string" || typeof password !== "string")
    throw failed(name, "its answer is not a credential");
  return username === "" && password === "" ? undefined : { username, password };
}

/** @throws not_found (no such program), unauthorized (it failed) */
export async function storeInHelper(
  name: string,
  credential: { readonly server: string; readonly username: string; readonly password: string },
  options: HelperOptions,
): Promise<void> {
  const { server, username, password } = credential;
  const input = JSON.stringify({ ServerURL: server, Username: username, Secret: password });
  await call(name, { action: "store", input }, options);
}

/** That there is none is no failure. @throws not_found (no such program), unauthorized (it failed) */
export async function eraseFromHelper(
  name: string,
  server: string,
  options: HelperOptions,
): Promise<void> {
  await call(name, { action: "erase", input: server }, options);
}

/** Starts the program with this environment. */
export function createHelperRunner(env: Readonly<Record<string, string | undefined>>): RunHelper {
  return async ({ argv, input, signal }) => {
    signal.throwIfAborted();
    const timeout = AbortSignal.timeout(HELPER_TIMEOUT_MS);
    const child = Bun.spawn([...argv], {
      env: { ...env },
      stdin: Buffer.from(input),
      stdout: "pipe",
      stderr: "pipe",
      signal: AbortSignal.any([signal, timeout]),
      killSignal: "SIGKILL",
    });
    const kill = (): void => child.kill("SIGKILL");
    const read = new AbortController();
    const end = child.exited.then(() => pause(OUTPUT_GRACE_MS, read.signal));
    const [stdout, stderr, exitCode] = await Promise.all([
      collect(child.stdout, { kill, end }),
      collect(child.stderr, { kill, end }),
      child.exited,
    ]).finally(() => read.abort());
    signal.throwIfAborted();
    if (timeout.aborted) throw new Error(`it did not end within ${HELPER_TIMEOUT_MS / 1000} s`);
    return { exitCode, stdout, stderr };
  };
}

// --- internal ---

/** Helpers complain on stdout; the words are those of Docker's library. */
const MISS = /credentials not found|no credentials (?:found|server)|could not find the item/i;

/** @returns its output; undefined if it says that there is no such credential */
async function call(
  name: string,
  { action, input }: { readonly action: HelperAction; readonly input: string },
  { run, signal }: HelperOptions,
): Promise<string | undefined> {
  let output: HelperOutput;
  try {
    output = await run({ argv: [`docker-credential-${name}`, action], input, signal });
  } catch (error) {
    signal.throwIfAborted();
    if (errnoOf(error) === "ENOENT") throw missing(name, error);
    throw failed(name, error instanceof Error ? error.message : String(error));
  }
  const { exitCode, stdout, stderr } = output;
  if (exitCode === 0) return stdout;
  if (MISS.test(stdout) || MISS.test(stderr)) return undefined;
  // A failing `get` says nothing secret; its words are all there is to go by.
  const words = stderr.trim() === "" ? stdout : stderr;
  throw failed(name, words.trim() === "" ? `it ended with exit code ${exitCode}` : words);
}

/** What comes until the stream ends, or the time is up. */
async function collect(
  stream: ReadableStream<Uint8Array>,
  { kill, end }: { readonly kill: () => void; readonly end: Promise<void> },
): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = stream.getReader();
  const leave = (): void => void reader.cancel().catch(() => undefined);
  void end.then(leave);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return Buffer.concat(chunks).toString("utf8");
    size += value.length;
    if (size > MAX_OUTPUT_BYTES) {
      kill();
      throw new Error(`it wrote more than ${MAX_OUTPUT_BYTES} bytes`);
    }
    chunks.push(value);
  }
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function missing(name: string, cause: unknown): AppError {
  return new AppError(
    "not_found",
    `cannot use credential helper \`docker-credential-${name}\`: there is no such program`,
    { hint: "Install it, or take it out of Docker's config.json.", cause },
  );
}

function failed(name: string, reason: string): AppError {
  return new AppError(
    "unauthorized",
    `cannot use credential helper \`docker-credential-${name}\`: ${printable(reason)}`,
    { hint: "See whether the store behind it is unlocked and reachable." },
  );
}
