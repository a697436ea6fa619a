/**
 * The root command: names and one-line descriptions in a static table (so that `--help` loads no command), global
 * flags, parsing, and the report of a failure. Returns the exit code; only main.ts exits.
 */
import { resolve } from "node:path";
import { parseArguments } from "./commands/arguments.ts";
import type { ArgumentDefinitions, Command } from "./commands/command.ts";
import { loadConfig, parseBaseUrl, type Config } from "./config.ts";
import { AppError, toAppError, toErrorObject } from "./errors.ts";
import { configureLog, flushLog, log } from "./log.ts";
import { nearest } from "./nearest.ts";
import { resolvePaths } from "./paths.ts";
import { print } from "./terminal/output.ts";

interface Entry {
  readonly description: string;
  readonly alias?: string;
  /** Left out of the overview. */
  readonly hidden?: true;
  load(): Promise<{ readonly command: Command<never> | Command }>;
}

const COMMANDS: Readonly<Record<string, Entry>> = {
  run: {
    description: "Chat with a model, or ask it one thing",
    load: () => import("./commands/run.ts"),
  },
  pull: {
    description: "Get a model from a registry, Hugging Face, Ollama or the web",
    load: () => import("./commands/pull.ts"),
  },
  pulls: {
    description: "List or cancel what the runner pulls",
    load: () => import("./commands/pulls.ts"),
  },
  search: { description: "Find models to pull", load: () => import("./commands/search.ts") },
  list: {
    description: "List the models on this machine",
    alias: "ls",
    load: () => import("./commands/list.ts"),
  },
  package: {
    description: "Make a model of files, or of another model",
    load: () => import("./commands/package.ts"),
  },
  push: {
    description: "Bring a model into a registry",
    load: () => import("./commands/push.ts"),
  },
  copy: {
    description: "Copy a model from registry to registry",
    alias: "cp",
    load: () => import("./commands/copy.ts"),
  },
  login: { description: "Log in to a registry", load: () => import("./commands/login.ts") },
  logout: { description: "Log out of a registry", load: () => import("./commands/logout.ts") },
  export: {
    description: "Write models into an archive",
    load: () => import("./commands/export.ts"),
  },
  import: {
    description: "Read models from an archive",
    load: () => import("./commands/import.ts"),
  },
  adopt: {
    description: "Use the model files of other programs on this machine",
    load: () => import("./commands/adopt.ts"),
  },
  inspect: {
    description: "Show everything about a model as JSON",
    load: () => import("./commands/inspect.ts"),
  },
  show: { description: "Show a model's facts", load: () => import("./commands/show.ts") },
  tag: { description: "Give a model another name", load: () => import("./commands/tag.ts") },
  rm: { description: "Remove models", load: () => import("./commands/rm.ts") },
  ps: { description: "List the loaded models", load: () => import("./commands/ps.ts") },
  unload: {
    description: "Unload models from memory",
    alias: "stop",
    load: () => import("./commands/unload.ts"),
  },
  pin: {
    description: "Keep models in memory",
    load: () => import("./commands/pin.ts"),
  },
  unpin: {
    description: "Let pinned models go when they are idle",
    load: () => import("./commands/unpin.ts"),
  },
  configure: {
    description: "Set how a model is run",
    alias: "config",
    load: () => import("./commands/configure.ts"),
  },
  explain: {
    description: "Show which settings a model runs with, and why",
    load: () => import("./commands/explain.ts"),
  },
  estimate: {
    description: "Show how much memory a model needs",
    load: () => import("./commands/estimate.ts"),
  },
  df: {
    description: "Show the disk space that models and engines use",
    load: () => import("./commands/df.ts"),
  },
  prune: { description: "Remove what no model uses", load: () => import("./commands/prune.ts") },
  purge: { description: "Remove all models", load: () => import("./commands/purge.ts") },
  verify: {
    description: "Check every stored byte against its digest",
    load: () => import("./commands/verify.ts"),
  },
  serve: {
    description: "Run the runner in the foreground",
    load: () => import("./commands/serve.ts"),
  },
  rpc: {
    description: "Lend this machine to llama.cpp on another one",
    load: () => import("./commands/rpc.ts"),
  },
  key: {
    description: "Make, list and revoke API keys",
    load: () => import("./commands/key.ts"),
  },
  status: {
    description: "Show whether the runner runs",
    load: () => import("./commands/status.ts"),
  },
  logs: {
    description: "Show what the runner and its engines said",
    load: () => import("./commands/logs.ts"),
  },
  requests: {
    description: "Show what models were asked and answered",
    load: () => import("./commands/requests.ts"),
  },
  replay: {
    description: "Send a recorded request again",
    load: () => import("./commands/replay.ts"),
  },
  "start-runner": {
    description: "Start the runner in the background",
    load: () => import("./commands/start-runner.ts"),
  },
  "stop-runner": {
    description: "Stop the runner",
    load: () => import("./commands/stop-runner.ts"),
  },
  "restart-runner": {
    description: "Stop the runner and start it again",
    load: () => import("./commands/restart-runner.ts"),
  },
  engines: {
    description: "Show the engines, and choose their versions",
    load: () => import("./commands/engines.ts"),
  },
  "install-runner": {
    description: "Install an engine",
    load: () => import("./commands/install-runner.ts"),
  },
  "uninstall-runner": {
    description: "Remove an engine",
    load: () => import("./commands/uninstall-runner.ts"),
  },
  __runner: {
    description: "The runner in the background",
    hidden: true,
    load: async () => ({ command: (await import("./commands/serve.ts")).backgroundCommand }),
  },
  __pull: {
    description: "A pull for the runner",
    hidden: true,
    load: async () => ({ command: (await import("./commands/pull.ts")).workerCommand }),
  },
  version: {
    description: "Show the versions of tug and of the runner",
    load: () => import("./commands/version.ts"),
  },
};

/** Accepted before and behind every command's name; a command's own flag of the same name wins. */
const GLOBAL_FLAGS = {
  host: { type: "string", valueHint: "URL", description: "Use the runner at this address" },
  "ca-bundle": {
    type: "string",
    valueHint: "FILE",
    description: "Trust these certificate authorities (PEM) besides the system's",
  },
  offline: { type: "boolean", description: "Contact nothing beyond this machine" },
  debug: { type: "boolean", description: "Say on stderr what is done" },
  help: { type: "boolean", alias: "h", description: "Show how it is used" },
} as const satisfies ArgumentDefinitions;

/** @returns the exit code */
export async function runCli(words: readonly string[], signal: AbortSignal): Promise<number> {
  try {
    return await dispatch(words, signal);
  } catch (thrown) {
    return await report(toAppError(thrown), words);
  } finally {
    await flushLog();
  }
}

// --- internal ---

async function dispatch(words: readonly string[], signal: AbortSignal): Promise<number> {
  const at = commandIndex(words);
  const name = words[at];
  if (name === undefined) {
    // `--help` alone succeeds; no command at all is a mistake that is answered the same way, on stderr.
    const { help } = parseArguments(GLOBAL_FLAGS, words);
    return printOverview(help === true);
  }
  if (name === "help") return helpFor(words[at + 1]);
  const entry = findCommand(name);
  const { command } = await entry.load();
  const definitions = { ...GLOBAL_FLAGS, ...command.args };
  const rest = [...words.slice(0, at), ...words.slice(at + 1)];
  if (asksForHelp(rest)) return printHelp(name, entry, command);
  const args = parseArguments(definitions, rest);
  const config = applyGlobals(loadConfig(resolvePaths().configFile), command, args);
  configureLog({ level: args.debug ? "debug" : "warn" });
  const code = await (command as Command).run({ args, config, paths: resolvePaths(), signal });
  return code ?? 0;
}

/** Global flags whose value is the next word. */
const VALUED: ReadonlySet<string> = new Set(["--host", "--ca-bundle"]);

/** Index of the first word that is neither a global flag nor the value of one. */
function commandIndex(words: readonly string[]): number {
  let index = 0;
  while (index < words.length && words[index]?.startsWith("-") === true) {
    index += VALUED.has(words[index] ?? "") ? 2 : 1;
  }
  return index;
}

function asksForHelp(words: readonly string[]): boolean {
  const end = words.indexOf("--");
  return words
    .slice(0, end === -1 ? undefined : end)
    .some((word) => word === "--help" || word === "-h");
}

function findCommand(name: string): Entry {
  const own = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  const entry = own ?? Object.values(COMMANDS).find(({ alias }) => alias === name);
  if (entry !== undefined) return entry;
  const names = Object.entries(COMMANDS).flatMap(([key, { alias }]) =>
    alias === undefined ? [key] : [key, alias],
  );
  const guess = nearest(name, names);
  throw new AppError("usage", `unknown command \`${name}\``, {
    hint:
      guess === undefined ? "Run `tug --help` for the commands." : `Did you mean \`tug ${guess}\`?`,
  });
}

function applyGlobals(
  config: Config,
  command: Command,
  args: Readonly<Record<string, unknown>>,
): Config {
  const host = "host" in command.args ? undefined : args["host"];
  const caBundle = args["ca-bundle"];
  return {
    ...config,
    ...(typeof caBundle === "string"
      ? { caBundle: { value: resolve(caBundle), source: "--ca-bundle" } }
      : {}),
    ...(typeof host === "string" ? { host: { value: parseBaseUrl(host), source: "--host" } } : {}),
    ...(args["offline"] === true ? { offline: { value: true, source: "--offline" } } : {}),
  };
}

async function helpFor(name: string | undefined): Promise<number> {
  if (name === undefined) return printOverview(true);
  const entry = findCommand(name);
  const { command } = await entry.load();
  return printHelp(name, entry, command);
}

async function printOverview(asked: boolean): Promise<number> {
  const { renderOverview } = await import("./commands/usage.ts");
  const text = await renderOverview(COMMANDS, GLOBAL_FLAGS);
  if (asked) await print(text);
  else process.stderr.write(text);
  return asked ? 0 : 2;
}

async function printHelp(name: string, { description }: Entry, command: Command): Promise<number> {
  const { renderCommandUsage } = await import("./commands/usage.ts");
  await print(await renderCommandUsage({ name, description, command, globals: GLOBAL_FLAGS }));
  return 0;
}

/** `error:` and `hint:` on stderr, or one JSON document on stdout for whoever asked for JSON. */
async function report(error: AppError, words: readonly string[]): Promise<number> {
  if (wantsJson(words) && (await tryPrintJson({ error: toErrorObject(error) }))) {
    return error.exitCode;
  }
  if (error.code !== "cancelled") {
    const { stripControls } = await import("./terminal/style.ts");
    process.stderr.write(`error: ${stripControls(error.message)}\n`);
    if (error.hint !== undefined) process.stderr.write(`hint: ${stripControls(error.hint)}\n`);
  }
  if (error.code === "internal")
    log.debug(`stack: ${(error.cause as Error | undefined)?.stack ?? error.stack ?? ""}`);
  return error.exitCode;
}

/** @returns false if stdout takes nothing: then stderr has to do */
async function tryPrintJson(value: unknown): Promise<boolean> {
  const { printJson } = await import("./terminal/json.ts");
  try {
    await printJson(value);
    return true;
  } catch {
    return false;
  }
}

function wantsJson(words: readonly string[]): boolean {
  const end = words.indexOf("--");
  return words.slice(0, end === -1 ? undefined : end).includes("--json");
}
