/**
 * The two ways to have the API in a process: `openLocal` is the one without engines, for commands that only touch models;
 * `startRunner` is the runner. What they are made of is put together in `compose-app.ts` and `compose-runner.ts`.
 */
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { RunnerInfo } from "./api/engines.ts";
import { composeApp } from "./compose-app.ts";
import type { Config } from "./config.ts";
import { AppError } from "./errors.ts";
import { acquireLock } from "./lock.ts";
import type { Paths } from "./paths.ts";
import type { InstallProgress } from "./runtime/installer/source.ts";
import type { App } from "./server/app.ts";

export interface LocalOptions {
  readonly config: Config;
  readonly paths: Paths;
}

export interface RunnerOptions extends LocalOptions {
  /** Beyond loopback there must be an API key, or one must be about to be made (`makesKey`). */
  readonly hostname: string;
  /** Whoever starts it makes an API key as soon as it listens: until then nobody is let in. */
  readonly makesKey?: boolean;
  /** 0 picks a free one. */
  readonly port: number;
  readonly socket: string;
  /** Where its stderr goes, for `tug logs`; undefined for one that runs at a terminal. */
  readonly logFile?: string;
  /** Milliseconds of idleness after which it leaves; null never. */
  readonly idleExitMs: number | null;
  /** Aborting it stops the runner gracefully. */
  readonly signal: AbortSignal;
}

/** `tug rpc serve`. */
export interface RpcServerOptions extends LocalOptions {
  /** IPv4 address. */
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  /** By llama.cpp's names; empty: all GPUs. */
  readonly devices: readonly string[];
  /** Large tensors are kept on disk. */
  readonly keepsTensors: boolean;
  /** Aborting it ends the server. */
  readonly signal: AbortSignal;
  /** Of an installation. */
  readonly onProgress: (event: InstallProgress) => void;
  readonly onWarning: (message: string) => void;
  /** A line that the server said. */
  readonly onLine: (line: string) => void;
  /** It answers, for the first time. */
  readonly onReady: (port: number) => void;
}

export interface Runner {
  info(): Promise<RunnerInfo>;
  /** Lets every client run this file by its absolute path, which else only trusted ones may. */
  allowFile(path: string): void;
  /** The API, for a caller in this process. */
  readonly app: LocalApp;
  /** Resolves when everything has stopped. */
  readonly closed: Promise<void>;
}

/** Whoever holds the lock keeps it for life; this is for two that start at the same instant and refuse each other. */
const RUNNER_LOCK_WAIT_MS = 50;

/** What a transport needs of an app. */
export interface LocalApp {
  fetch(request: Request): Response | Promise<Response>;
}

/** The API in this process, for a caller that is trusted: the user's own command. */
export function openLocal(options: LocalOptions): LocalApp {
  return asTrusted(composeApp({ ...options, files: [] }));
}

/**
 * @returns undefined if another runner of this user holds the lock
 * @throws usage (beyond loopback without an API key)
 */
export async function startRunner(options: RunnerOptions): Promise<Runner | undefined> {
  const { paths } = options;
  process.umask(0o077);
  ensurePrivateDirectory(paths.run);
  mkdirSync(paths.logs, { recursive: true, mode: 0o700 });
  const lock = await takeRunnerLock(join(paths.run, "runner.lock"));
  if (lock === undefined) return undefined;
  try {
    const { composeRunner } = await import("./compose-runner.ts");
    return await composeRunner(options, lock);
  } catch (error) {
    lock[Symbol.dispose]();
    throw error;
  }
}

/**
 * Lends this machine to llama.cpp on others until the signal aborts. No runner takes part.
 *
 * @throws not_supported (the engine came without a server), conflict (the port is taken), usage, install_failed,
 *   sandbox_unavailable, worker_failed
 */
export async function startRpcServer(options: RpcServerOptions): Promise<void> {
  const { composeRpcServer } = await import("./compose-rpc.ts");
  await composeRpcServer(options);
}

/** What it is asked comes from the user's own command. */
export function asTrusted(app: App): LocalApp {
  return { fetch: (request) => app.fetch(request, { trusted: true }) };
}

// --- internal ---

async function takeRunnerLock(path: string): Promise<Disposable | undefined> {
  try {
    return await acquireLock(path, { waitMs: RUNNER_LOCK_WAIT_MS });
  } catch (error) {
    if (error instanceof AppError && error.code === "conflict") return undefined;
    throw error;
  }
}

/** Somebody else's directory could hold somebody else's socket. */
function ensurePrivateDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (process.getuid === undefined) return;
  const { uid, mode } = statSync(directory);
  if (uid === process.getuid() && (mode & 0o077) === 0) return;
  throw new AppError(
    "forbidden",
    `cannot use \`${directory}\` for the runner's socket: other users can reach it`,
    {
      hint: `Run \`chmod 700 ${directory}\` if it is yours, or set TUG_HOME to a directory of your own.`,
    },
  );
}
