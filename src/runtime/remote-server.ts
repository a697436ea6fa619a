/**
 * An engine's RPC server on this machine, which computes for engines on others: found, confined as far as a listener can
 * be, watched, and started again when it ends after having served for a while.
 */
import { access, constants } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import { pause } from "../pause.ts";
import type { Backend, EngineCommand, ExitFacts, Installation, RpcSupport } from "./backend.ts";
import { engineView } from "./engine-view.ts";
import { type EngineProcess, spawnEngine, settlesWithin } from "./process.ts";
import { readAnswer } from "./remote-answer.ts";
import type { Sandbox } from "./sandbox/sandbox.ts";
import { unwrapExit } from "./worker-errors.ts";

export interface RemoteServerOptions {
  readonly backend: Backend;
  readonly installation: Installation;
  readonly sandbox: Sandbox;
  /** IPv4 address. */
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly devices: readonly string[];
  /** Exists. Undefined: tensors are not kept. */
  readonly cacheDirectory: string | undefined;
  /** Its own, empty and private. */
  readonly directory: string;
  /** Aborting it ends the server. */
  readonly signal: AbortSignal;
  /** A line that the server said. */
  readonly onLine: (line: string) => void;
  /** It answers, for the first time. */
  readonly onReady: (port: number) => void;
  /** For tests: what lives shorter is not started again. */
  readonly settledMs?: number;
}

/** What lives shorter has a reason that another start does not mend. */
const SETTLED_MS = 10_000;
const RESTART_PAUSE_MS = 1000;
/** Drivers of GPUs take seconds to wake. */
const START_MS = 60_000;
const POLL_MS = 50;
/** A line that has no end yet. Characters. */
const MAX_LINE = 4096;

/**
 * Serves until the signal aborts.
 *
 * @throws not_supported (this installation has no such server), conflict (the port is taken), usage (an address that is
 *   not this machine's), worker_failed (it ended soon after its start)
 */
export async function serveRemotely(options: RemoteServerOptions): Promise<void> {
  const { backend, installation, host, signal, settledMs = SETTLED_MS } = options;
  const support = backend.rpc;
  const program = support && (await findProgram(installation, support));
  if (support === undefined || program === undefined) throw noServer(installation);
  const port = claimPort(host, options.port);
  const { devices, cacheDirectory } = options;
  const own = support.serve({ host, port, devices, cacheDirectory });
  let isFirst = true;
  while (!signal.aborted) {
    const startedMs = performance.now();
    const server = await spawn(options, { program, own });
    using _ending = whenAborted(signal, () => void server.terminate());
    try {
      const isReady = await untilReady(server, { host, port, signal });
      if (isReady && isFirst) options.onReady(port);
      if (isReady) isFirst = false;
      const facts = await endOf(server, options.sandbox);
      if (signal.aborted) return;
      const { reason, hint } = support.explainExit(facts);
      if (!isReady || performance.now() - startedMs < settledMs) throw ended(reason, hint);
      log.warn(`rpc: server ended, started again reason=${reason}`);
    } finally {
      await server.terminate();
    }
    await pause(RESTART_PAUSE_MS, signal).catch(() => undefined);
  }
}

// --- internal ---

/** At once if it has aborted already, which it may while a server is being started. */
function whenAborted(signal: AbortSignal, act: () => void): Disposable {
  signal.addEventListener("abort", act, { once: true });
  if (signal.aborted) act();
  return { [Symbol.dispose]: () => signal.removeEventListener("abort", act) };
}

async function endOf(server: EngineProcess, sandbox: Sandbox): Promise<ExitFacts> {
  const facts = await server.exited;
  return sandbox.name === "bubblewrap" ? unwrapExit(facts) : facts;
}

/** Beside the engine's own program, whatever brings it. */
async function findProgram(
  { command }: Installation,
  { executables }: RpcSupport,
): Promise<string | undefined> {
  const directory = dirname(command.at(-1) ?? "");
  const extension = process.platform === "win32" ? ".exe" : "";
  for (const name of executables) {
    const path = join(directory, name + extension);
    const isThere = await access(path, constants.R_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  return undefined;
}

/** Before the server: what it says of a port that is taken is little. @returns the port */
function claimPort(hostname: string, port: number): number {
  try {
    const listener = Bun.listen({ hostname, port, socket: { data() {} } });
    const claimed = listener.port;
    listener.stop(true);
    return claimed;
  } catch (cause) {
    const isTaken = (cause as { code?: unknown }).code === "EADDRINUSE";
    if (isTaken) {
      throw new AppError("conflict", `cannot listen on ${hostname}:${port}: the port is taken`, {
        hint: "Choose another with `--port N`, or 0 for any that is free.",
        cause,
      });
    }
    throw new AppError(
      "usage",
      `cannot listen on ${hostname}:${port}: the system does not allow it`,
      { hint: "Name an address of this machine, and a port above 1023.", cause },
    );
  }
}

async function spawn(
  { installation, sandbox, directory, cacheDirectory, onLine }: RemoteServerOptions,
  { program, own }: { readonly program: string; readonly own: EngineCommand },
): Promise<EngineProcess> {
  const { args, env } = own;
  const command = [...installation.command.slice(0, -1), program, ...args];
  const view = await engineView({
    installation: { ...installation, command: [...installation.command, program] },
    bundles: [],
    settings: { runtimeFlags: [] },
    socket: join(directory, "none"),
    env,
  });
  const writable = [...view.writable, ...(cacheDirectory === undefined ? [] : [cacheDirectory])];
  const lines = splitLines(onLine);
  return spawnEngine({
    command: sandbox.wrap(command, { ...view, writable, reachesOthers: true }),
    env,
    sandbox,
    directory,
    onOutput: (chunk) => Promise.resolve(lines(chunk)),
  });
}

function splitLines(onLine: (line: string) => void): (chunk: Uint8Array) => void {
  const decoder = new TextDecoder();
  let rest = "";
  return (chunk) => {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = (parts.pop() ?? "").slice(0, MAX_LINE);
    for (const line of parts.filter((one) => one.trim() !== "")) {
      log.debug(`rpc: server said line=${JSON.stringify(line)}`);
      onLine(line);
    }
  };
}

/** False: it ended before, or was asked to. @throws worker_failed (it does not listen) */
async function untilReady(
  server: EngineProcess,
  { host, port, signal }: { host: string; port: number; signal: AbortSignal },
): Promise<boolean> {
  const address = `${host === "0.0.0.0" ? "127.0.0.1" : host}:${port}`;
  const giveUpMs = performance.now() + START_MS;
  while (!(await settlesWithin(server.exited, POLL_MS))) {
    if (signal.aborted) return false;
    const answer = await readAnswer(address, { signal }).catch(() => "absent");
    // Somebody who waited for it was faster.
    if (answer !== "absent") return true;
    if (performance.now() > giveUpMs) {
      throw ended(`it did not listen within ${START_MS / 1000} s`, undefined);
    }
  }
  return false;
}

function noServer({ backend, version, source }: Installation): AppError {
  const hint =
    source === "path"
      ? "Build it with `-DGGML_RPC=ON`, or unset what names the engine and run `tug install-runner`."
      : `Run \`tug uninstall-runner --backend ${backend}\`, then \`tug install-runner\`: an earlier version of Tug did not install it.`;
  return new AppError(
    "not_supported",
    `cannot serve other machines: ${backend} ${version} (from ${source}) came without an RPC server`,
    { hint },
  );
}

function ended(reason: string, hint: string | undefined): AppError {
  return new AppError("worker_failed", `cannot serve other machines: ${reason}`, { hint });
}
