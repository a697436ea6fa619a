/** Starting the runner, once, and making an old one leave. */
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { VersionInfo } from "../api/engines.ts";
import { AppError } from "../errors.ts";
import { ownCommand, RUNTIME_SETTINGS } from "./own-command.ts";
import { pause } from "../pause.ts";
import { Client } from "./client.ts";
import { type ConnectOptions, pingRunner, runnerSocket } from "./connect.ts";
import { socketTransport } from "./transport.ts";

/** Starting takes milliseconds; this is for a machine that swaps. */
const START_TIMEOUT_MS = 30_000;
/** An old runner finishes the answers it is giving; longer than this, the user is told instead. */
const REPLACE_TIMEOUT_MS = 120_000;
/** How often to look whether the old runner has gone. */
const POLL_MS = 50;
/** Variables whose relative paths mean something in the user's directory only. */
const RELATIVE_PATHS = [
  "TUG_HOME",
  "TUG_LLAMA_SERVER",
  "LLAMA_SERVER_PATH",
  "TUG_TLS_CERT",
  "TUG_TLS_KEY",
  "MODEL_RUNNER_TLS_CERT",
  "MODEL_RUNNER_TLS_KEY",
] as const;

/**
 * Starts the runner and waits until it answers. Any number of processes may do so at once: the lock lets one win, and
 * the runners that lose leave with 0.
 *
 * @throws runner_unreachable with the last line of its log
 */
export async function launchRunner(options: ConnectOptions): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  let child = spawnRunner(options);
  let pauseMs = 4;
  while (performance.now() < deadline) {
    if ((await pingRunner(options)) !== undefined) return;
    options.signal.throwIfAborted();
    await pause(pauseMs, options.signal);
    pauseMs = Math.min(pauseMs * 1.5, 100);
    if (child.exitCode === null) continue;
    if (child.exitCode !== 0) throw startFailure(options, child.exitCode);
    // It lost to another one, which either answers soon or is on its way out: then ours must try again.
    if (pauseMs >= 100 && (await pingRunner(options)) === undefined) child = spawnRunner(options);
  }
  throw new AppError(
    "runner_unreachable",
    `the runner did not answer within ${START_TIMEOUT_MS / 1000} s`,
    {
      hint: `See \`${logFile(options)}\`.`,
    },
  );
}

/**
 * Asks this runner to finish its work and leave, and waits until it is gone, or another one is in its place.
 *
 * @throws timed_out if it goes on answering
 */
export async function replaceRunner(
  { pid }: VersionInfo,
  options: ConnectOptions & { force?: boolean },
): Promise<void> {
  const client = new Client(socketTransport(runnerSocket(options.config, options.paths)));
  await askToStop(client, { ...options, pid });
  const deadline = performance.now() + REPLACE_TIMEOUT_MS;
  for (;;) {
    const found = await pingRunner(options);
    if (found === undefined || found.pid !== pid) return;
    options.signal.throwIfAborted();
    if (performance.now() > deadline) {
      throw new AppError("timed_out", "the runner is still answering requests", {
        hint: "Wait, or end them with `tug stop-runner --force`.",
      });
    }
    await pause(POLL_MS, options.signal);
  }
}

export function logFile({ paths }: Pick<ConnectOptions, "paths">): string {
  return join(paths.logs, "runner.log");
}

// --- internal ---

/** Whoever asks second finds it gone, which is what was wanted. */
async function askToStop(
  client: Client,
  { signal, force, pid }: { signal: AbortSignal; force?: boolean; pid?: number | undefined },
): Promise<void> {
  try {
    await client.stopRunner({ signal, force: force ?? false, pid });
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "runner_unreachable") throw error;
  }
}

function spawnRunner(options: ConnectOptions): Bun.Subprocess {
  const file = logFile(options);
  mkdirSync(options.paths.logs, { recursive: true, mode: 0o700 });
  const log = openSync(file, "a", 0o600);
  try {
    const child = Bun.spawn([...ownCommand(), "__runner"], {
      detached: true,
      stdio: ["ignore", log, log],
      cwd: process.platform === "win32" ? (process.env["SystemRoot"] ?? "C:\\") : "/",
      env: runnerEnvironment(options),
      windowsHide: true,
    });
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

/** What the user set, made independent of the working directory, without what steers Bun itself. */
function runnerEnvironment({ paths, config }: ConnectOptions): Record<string, string> {
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && !name.startsWith("BUN_")) env[name] = value;
  }
  for (const name of RELATIVE_PATHS) {
    if (env[name]) env[name] = resolve(env[name]);
  }
  env["MODELS_PATH"] = paths.models;
  env["TUG_SOCKET"] = runnerSocket(config, paths);
  if (config.offline.value) env["TUG_OFFLINE"] = "1";
  return { ...env, ...RUNTIME_SETTINGS };
}

function startFailure(options: ConnectOptions, exitCode: number): AppError {
  let lines: readonly string[] = [];
  try {
    lines = readFileSync(logFile(options), "utf8").trimEnd().split("\n").slice(-2);
  } catch {
    // The exit code has to do.
  }
  const hint = lines.at(-1)?.startsWith("hint: ") === true ? lines.at(-1) : undefined;
  const reason = lines.at(hint === undefined ? -1 : -2)?.replace(/^error: /, "");
  return new AppError(
    "runner_unreachable",
    `cannot start the runner: ${reason || `it left with ${exitCode}`}`,
    { hint: hint?.replace("hint: ", "") ?? `See \`${logFile(options)}\`.` },
  );
}
