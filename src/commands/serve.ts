import { isAbsolute, resolve } from "node:path";
import { Client } from "../client/client.ts";
import { inProcessTransport } from "../client/transport.ts";
import type { Runner } from "../daemon.ts";
import { print } from "../terminal/output.ts";
import { createProgress, type ProgressUpdate } from "../terminal/progress.ts";
import { runnerSocket } from "../client/connect.ts";
import { logFile } from "../client/launch.ts";
import { ensureRuntimeSettings } from "../client/own-command.ts";
import { type Config, parsePort, withFlag } from "../config.ts";
import { AppError, toAppError } from "../errors.ts";
import { configureLog, log } from "../log.ts";
import { announce } from "./announce.ts";
import { type Command, defineCommand } from "./command.ts";
import { toModelName } from "./run.ts";

export const command = defineCommand({
  args: {
    host: {
      type: "string",
      valueHint: "ADDRESS",
      description: "Address to listen on (127.0.0.1 unless given)",
    },
    lan: {
      type: "boolean",
      description: "Listen on the local network, and make an API key for it if there is none",
    },
    "api-key": {
      type: "string",
      valueHint: "KEY",
      description:
        "Demand this key over TCP (TUG_API_KEY does the same, and other users cannot see it)",
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
    "memory-budget": {
      type: "string",
      valueHint: "SIZE",
      description: "Memory that all models may hold: `8GB`, `60%`, `ram=8GB,cuda:0=90%`",
    },
    "keep-alive": {
      type: "string",
      valueHint: "TIME",
      description: "How long an idle model stays loaded: `5m`, 0, or -1 for ever",
    },
    "max-workers": {
      type: "string",
      valueHint: "N",
      description: "Models loaded at once, however small",
    },
    sandbox: {
      type: "string",
      valueHint: "MODE",
      options: ["auto", "off", "require"],
      description: "How engines are confined",
    },
    tls: {
      type: "boolean",
      description: "Speak TLS on the port, with a certificate that is made here",
    },
    "tls-cert": {
      type: "string",
      valueHint: "FILE",
      description: "Speak TLS with this certificate and its chain (PEM)",
    },
    "tls-key": { type: "string", valueHint: "FILE", description: "Its key (PEM)" },
    "log-format": {
      type: "string",
      valueHint: "FORMAT",
      options: ["text", "json"],
      description: "How log lines are written: text, or json for an object a line",
    },
  },
  details:
    "Runs until Ctrl-C or SIGTERM, and then stops its engines. Log lines go to stderr; with --log-format json nothing else does.",
  async run({ args, config: given, paths, signal }) {
    ensureRuntimeSettings();
    const config = withFlags(given, { ...args, tls: args.tls === true ? "true" : undefined });
    const format = config.logFormat.value;
    configureLog({ level: config.logLevel.value, timestamps: !process.stderr.isTTY, format });
    if (format === "text") return serve({ args, config, paths, signal });
    return reportAsLog(() => serve({ args, config, paths, signal }));
  },
});

/** The runner that commands start: no terminal, a log file as stderr, and it leaves when idle. */
export const backgroundCommand: Command = {
  args: {},
  async run({ config, paths, signal }: { config: Config } & Parameters<Command["run"]>[0]) {
    const [level, format] = [config.logLevel.value, config.logFormat.value];
    configureLog({ level, format, timestamps: true, file: logFile({ paths }) });
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

/** All IPv4 addresses. Those of IPv6 are often reached from the whole internet, which `--lan` does not mean. */
const LAN_HOSTNAME = "0.0.0.0";

interface ServeContext extends Omit<Parameters<Command["run"]>[0], "args"> {
  readonly args: Readonly<Record<"host" | "port" | "socket" | "model", string | undefined>> & {
    readonly lan: boolean | undefined;
  };
}

async function serve({ args, config, paths, signal }: ServeContext): Promise<void> {
  const { startRunner } = await import("../daemon.ts");
  const runner = await startRunner({
    config,
    paths,
    hostname: toHostname(args),
    makesKey: args.lan === true,
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
  // The log has it already; its reader wants nothing else.
  const isLog = config.logFormat.value === "json";
  const info = await runner.info();
  announce(info, { isLog });
  if (args.lan === true) await announceOnLan(runner, { endpoint: info.endpoint, config, signal });
  if (args.model !== undefined) await preload(runner, args.model, { isLog, signal });
  await runner.closed;
}

/** Without a port there is nothing that others could reach. */
async function announceOnLan(
  runner: Runner,
  options: {
    readonly endpoint: string | null;
    readonly config: Config;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { endpoint, config, signal } = options;
  if (endpoint === null) return;
  const { shareOnLan } = await import("./lan.ts");
  const client = new Client(inProcessTransport(runner.app));
  const ownKey = config.apiKey.value === "" ? null : config.apiKey.source;
  await print(await shareOnLan(client, { endpoint, ownKey, signal }));
}

/** Flags that stand for a setting, and the setting. */
const SETTING_FLAGS = {
  "api-key": "apiKey",
  "memory-budget": "memoryBudget",
  "keep-alive": "keepAliveMs",
  "max-workers": "maxWorkers",
  sandbox: "sandbox",
  tls: "tls",
  "tls-cert": "tlsCert",
  "tls-key": "tlsKey",
  "log-format": "logFormat",
} as const satisfies Readonly<Record<string, keyof Config>>;

type SettingFlag = keyof typeof SETTING_FLAGS;

function withFlags(
  config: Config,
  args: Readonly<Record<SettingFlag, string | undefined>>,
): Config {
  return (Object.keys(SETTING_FLAGS) as SettingFlag[]).reduce(
    (all, name) => withFlag(all, SETTING_FLAGS[name], { flag: `--${name}`, text: args[name] }),
    config,
  );
}

/** @returns the exit code */
async function reportAsLog(work: () => Promise<void>): Promise<number> {
  try {
    await work();
    return 0;
  } catch (thrown) {
    const { code, exitCode, hint, message } = toAppError(thrown);
    const advice = hint === undefined ? "" : ` hint=${JSON.stringify(hint)}`;
    if (code !== "cancelled") log.error(`runner: failed code=${code}${advice} reason=${message}`);
    return exitCode;
  }
}

/** A file may then be used by every client, under the path that is printed. */
async function preload(
  runner: Runner,
  typed: string,
  { isLog, signal }: { isLog: boolean; signal: AbortSignal },
): Promise<void> {
  const model = toModelName(typed, false);
  if (model !== typed || isAbsolute(typed)) runner.allowFile(model);
  const client = new Client(inProcessTransport(runner.app));
  using progress = createProgress({ quiet: isLog });
  const onProgress = isLog ? logWarning : progress.listener;
  // For ever: it was asked for by name.
  await client.load({ model, keep_alive: -1 }, { signal, onProgress });
  progress.finish();
  if (!isLog) process.stderr.write(`Serving ${model}\n`);
}

function logWarning(event: ProgressUpdate): void {
  if (event.type === "warning") log.warn(`runner: warned while loading reason=${event.message}`);
}

/** Beyond loopback the runner wants a key, and says so. @throws usage */
function toHostname({ host, lan }: ServeContext["args"]): string {
  if (lan !== true) return host ?? "127.0.0.1";
  if (host === undefined) return LAN_HOSTNAME;
  throw new AppError("usage", "`--lan` and `--host` exclude each other", {
    hint: "`--lan` listens on all IPv4 addresses; leave it out for one of them.",
  });
}
