/**
 * Which way a command reaches the API, decided once:
 * 1. the address the user gave; 2. the socket of the runner on this machine, if it answers; 3. this process, for what
 * needs only models; 4. a runner started for it, for what needs inference.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { VersionInfo } from "../api/engines.ts";
import type { Config } from "../config.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { Paths } from "../paths.ts";
import { VERSION } from "../version.ts";
import { Client } from "./client.ts";
import { inProcessTransport, remoteTransport, socketTransport } from "./transport.ts";

/**
 * `models`: a runner if there is one, else this process. `local`: always this process. `transfer`: the address the user
 * gave, else this process, so that moving models never slows down what the runner does. `inference`: a runner, started
 * if need be. `running`: a runner that is there, never started.
 */
export type Need = "models" | "local" | "transfer" | "inference" | "running";

export interface ConnectOptions {
  readonly config: Config;
  readonly paths: Paths;
  readonly signal: AbortSignal;
}

/** A runner on this machine answers within microseconds; one that takes this long is as good as dead. */
const PING_TIMEOUT_MS = 5000;

/**
 * @throws runner_unreachable (`running` and none runs; `inference` and none could be started), usage (`local` and the
 *   command line names another place)
 */
export async function connect(need: Need, options: ConnectOptions): Promise<Client> {
  const { config, paths } = options;
  if (need === "local") {
    refuseHost(config);
    return openInProcess(options);
  }
  if (config.host.value !== "")
    return new Client(
      remoteTransport(config.host.value, config.apiKey.value, () => readTrusted(options)),
    );
  if (need === "transfer") return openInProcess(options);
  const found = await pingRunner(options);
  const isUsable = found !== undefined && found.stopping !== true && !isOlder(found.version);
  if (found !== undefined && (need !== "inference" || isUsable)) {
    return new Client(socketTransport(runnerSocket(config, paths)));
  }
  if (need === "models") return openInProcess(options);
  if (need === "running") {
    throw new AppError("runner_unreachable", "the runner is not running", {
      hint: "It starts by itself with `tug run`; `tug start-runner` starts it now.",
    });
  }
  await ensureRunner(found, options);
  return new Client(socketTransport(runnerSocket(config, paths)));
}

export function runnerSocket(config: Config, paths: Paths): string {
  return config.socket.value === "" ? join(paths.run, "runner.sock") : config.socket.value;
}

/** The runner on this machine, or undefined if none answers. */
export async function pingRunner({
  config,
  paths,
  signal,
}: ConnectOptions): Promise<VersionInfo | undefined> {
  const socket = runnerSocket(config, paths);
  if (!existsSync(socket)) return undefined;
  const client = new Client(socketTransport(socket));
  try {
    return await client.version({
      signal: AbortSignal.any([signal, AbortSignal.timeout(PING_TIMEOUT_MS)]),
    });
  } catch (error) {
    signal.throwIfAborted();
    log.debug(`client: runner did not answer socket=${socket} reason=${(error as Error).message}`);
    return undefined;
  }
}

// --- internal ---

/** What the user named, for everything or for this, and the authority of this machine's own runner. */
async function readTrusted({ config, paths }: ConnectOptions): Promise<string | undefined> {
  const own = join(paths.tls, "ca.crt");
  const named = [config.caBundle.value, config.tlsCa.value].filter((path) => path !== "");
  const files = existsSync(own) ? [...named, own] : named;
  if (files.length === 0) return undefined;
  const { readAuthorities } = await import("../http/certificates.ts");
  return (await Promise.all(files.map((path) => readAuthorities(path)))).join("\n");
}

/** What the environment says is for all commands; a flag is for this one, and would be ignored. */
function refuseHost({ host }: Config): void {
  if (host.source !== "--host") return;
  throw new AppError("usage", "this command works on this machine only, not through `--host`", {
    hint: "Leave out `--host`, or run the command on the other machine.",
  });
}

/** @param found one that cannot be used as it is, because it is older or leaving */
async function ensureRunner(
  found: VersionInfo | undefined,
  options: ConnectOptions,
): Promise<void> {
  const { replaceRunner, launchRunner } = await import("./launch.ts");
  if (found !== undefined) {
    log.info(`client: replacing runner pid=${found.pid} old=${found.version} new=${VERSION}`);
    await replaceRunner(found, options);
  }
  // Somebody else may have started the next one meanwhile.
  if ((await pingRunner(options)) === undefined) await launchRunner(options);
}

async function openInProcess({ config, paths }: ConnectOptions): Promise<Client> {
  const { openLocal } = await import("../daemon.ts");
  return new Client(inProcessTransport(openLocal({ config, paths })));
}

function isOlder(version: string): boolean {
  return Bun.semver.order(version, VERSION) < 0;
}
