import { isAbsolute, resolve } from "node:path";
import { Client } from "../client/client.ts";
import { inProcessTransport } from "../client/transport.ts";
import type { Runner } from "../daemon.ts";
import { createProgress } from "../terminal/progress.ts";
import { runnerSocket } from "../client/connect.ts";
import { logFile } from "../client/launch.ts";
import { ensureRuntimeSettings } from "../client/own-command.ts";
import { type Config, parsePort } from "../config.ts";
import { AppError } from "../errors.ts";
import { configureLog, log } from "../log.ts";
import { type Command, defineCommand } from "./command.ts";
import { toModelName } from "./run.ts";

export const command = defineCommand({
  args: {
    host: {
      type: "string",
      valueHint: "ADDRESS",
      description: "Address to listen on (127.0.0.1 unless given)",
    },
    port: {
      type: "string",
      valueHint: "N",
      description: "TCP port (12434 unless given; 0 picks a free one)",
    },
    socket: {
      type: "string",
      valueHint: "PATH",
      description: "Unix socket (in the run directory unless given)",
    },
    model: {
      type: "string",
      valueHint: "PATH-or-REF",
      description: "Load this model straight away",
    },
  },
  details: "Runs until Ctrl-C or SIGTERM, and then stops its engines. Log lines go to stderr.",
  async run({ args, config, paths, signal }) {
    ensureRuntimeSettings();
    configureLog({ level: config.logLevel.value, timestamps: !process.stderr.isTTY });
    const { startRunner } = await import("../daemon.ts");
    const runner = await startRunner({
      config,
      paths,
      hostname: parseHostname(args.host, config.apiKey.value !== ""),
      port: args.port === undefined ? config.port.value : parsePort(args.port),
      socket: args.socket === undefined ? runnerSocket(config, paths) : resolve(args.socket),
      idleExitMs: null,
      signal,
    });
    if (runner === undefined) {
      throw new AppError("conflict", "a runner is running already", {
        hint: "Use it, or stop it with `tug stop-runner`; another TUG_HOME has a runner of its own.",
      });
    }
    const { endpoint, endpoint_problem: problem, socket } = await runner.info();
    process.stderr.write(
      `Listening on ${endpoint ?? `no port (${problem ?? "unknown reason"})`} and ${socket ?? "no socket"}\n`,
    );
    if (args.model !== undefined) await preload(runner, args.model, signal);
    await runner.closed;
  },
});

/** The runner that commands start: no terminal, a log file as stderr, and it leaves when idle. */
export const backgroundCommand: Command = {
  args: {},
  async run({ config, paths, signal }: { config: Config } & Parameters<Command["run"]>[0]) {
    configureLog({ level: config.logLevel.value, timestamps: true });
    const { startRunner } = await import("../daemon.ts");
    const runner = await startRunner({
      config,
      paths,
      hostname: "127.0.0.1",
      port: config.port.value,
      socket: runnerSocket(config, paths),
      logFile: logFile({ paths }),
      idleExitMs: config.idleExitMs.value,
      signal,
    });
    // Another one was faster: whoever started this one will find that one.
    if (runner === undefined) return;
    log.info(`runner: started pid=${process.pid}`);
    await runner.closed;
  },
};

// --- internal ---

/** A file may then be used by every client, under the path that is printed. */
async function preload(runner: Runner, typed: string, signal: AbortSignal): Promise<void> {
  const model = toModelName(typed, false);
  if (model !== typed || isAbsolute(typed)) runner.allowFile(model);
  const client = new Client(inProcessTransport(runner.app));
  using progress = createProgress();
  // For ever: it was asked for by name.
  await client.load({ model, keep_alive: -1 }, { signal, onProgress: progress.listener });
  progress.finish();
  process.stderr.write(`Serving ${model}\n`);
}

/** Beyond loopback anyone who reaches the port could use, remove and read everything: a key is the least. */
function parseHostname(host: string | undefined, hasKey: boolean): string {
  const hostname = host ?? "127.0.0.1";
  const isLoopback = /^(localhost|127\.\d+\.\d+\.\d+|::1|\[::1\])$/.test(hostname);
  if (isLoopback || hasKey) return hostname;
  throw new AppError("forbidden", `cannot listen on \`${hostname}\` without an API key`, {
    hint: "Set TUG_API_KEY to a long random word; callers send it as `Authorization: Bearer KEY`.",
  });
}
