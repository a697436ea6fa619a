/**
 * Reads `[engines."NAME"]` of config.toml where it has a `command`: an engine of the user's own. Pure. Tables without
 * one are about engines that Tug knows, see `engine-settings.ts`.
 */
import { parseDuration } from "../config.ts";
import { AppError } from "../errors.ts";
import { formatReference, parseReference } from "../oci/reference.ts";
import type { Mode, ModelFormat } from "./backend.ts";
import { parseBudget } from "./budget.ts";
import { findPlaceholders, type Placeholder, PLACEHOLDERS } from "./custom-command.ts";
import { programTexts } from "./program-text.ts";
import { splitShellWords } from "./shell-words.ts";

export interface CustomDefinition {
  readonly name: string;
  /** The program and its arguments, with placeholders. At least one word. */
  readonly command: readonly string[];
  /** May be empty where there are `models`. */
  readonly formats: readonly ModelFormat[];
  /** Whole references of models that it brings itself: they have no files here. */
  readonly models: readonly string[];
  readonly modes: readonly Mode[];
  /** Path that answers 200 once it can serve. */
  readonly ready: string;
  /** How long its load may take; undefined: as long as it makes progress. */
  readonly readyTimeoutMs: number | undefined;
  /** Bytes of main memory that it takes besides the model's files. */
  readonly memoryBytes: number | undefined;
  readonly servedModel: string | undefined;
  /** Values have placeholders, too. */
  readonly env: Readonly<Record<string, string>>;
  /** Files and directories besides those that the command names; absolute, or below `~/`. */
  readonly reads: readonly string[];
  /** Where it starts; absolute, or below `~/`. */
  readonly cwd: string | undefined;
}

/** Whether a table of `[engines]` is one of these. */
export function isCustomTable(table: unknown): table is Readonly<Record<string, unknown>> {
  return isTable(table) && Object.hasOwn(table, "command");
}

/**
 * @param reserved names of the engines that Tug knows
 * @throws usage
 */
export function readDefinition(
  name: string,
  table: Readonly<Record<string, unknown>>,
  reserved: readonly string[],
): CustomDefinition {
  const fail = (reason: string, hint: string): AppError => unreadable(name, reason, hint);
  checkName(name, reserved, fail);
  const stray = Object.keys(table).find((key) => !KNOWN.has(key));
  if (stray !== undefined) {
    throw fail(`unknown setting \`${shown(stray)}\``, `Known are ${[...KNOWN].join(", ")}.`);
  }
  const command = readCommand(table["command"], fail);
  const env = readEnv(table["env"], fail);
  const models = readModels(table["models"], fail);
  const formats = readFormats(table["formats"], models, fail);
  const words = [...command, ...Object.values(env)];
  checkPlaceholders(words, fail);
  if (formats.length === 0) refuseFiles(words, fail);
  refuseProgramText(command, fail);
  return {
    name,
    command,
    env,
    formats,
    models,
    modes: readModes(table["modes"], fail),
    ready: readReady(table["ready"], fail),
    readyTimeoutMs: readTimeout(table["ready_timeout"], fail),
    memoryBytes: readMemory(table["memory"], fail),
    servedModel: readServed(table["served_model"], fail),
    reads: readReads(table["reads"], fail),
    cwd: readCwd(table["cwd"], fail),
  };
}

// --- internal ---

type Fail = (reason: string, hint: string) => AppError;

const KNOWN: ReadonlySet<string> = new Set([
  "command",
  "formats",
  "models",
  "modes",
  "ready",
  "ready_timeout",
  "memory",
  "served_model",
  "env",
  "reads",
  "cwd",
]);
const MODES: readonly Mode[] = ["completion", "embedding", "reranking", "image-generation"];

/** It is a word of paths of the API, and of directories. */
const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/i;
/** A word of paths of the API where names of engines stand. */
const TAKEN = /^v\d+$/i;
const FORMAT = /^[a-z0-9][a-z0-9._+-]{0,63}$/;
const VARIABLE = /^[a-z_][a-z0-9_]{0,127}$/i;
/** What they stand for others have chosen. */
const FROM_MODEL: readonly Placeholder[] = ["MODEL", "MODEL_DIR", "MODEL_NAME"];
const CONTROLS = /\p{Cc}/u;
/** Absolute, or below `~/`. */
const PATH = /^(?:~?\/.|[a-z]:[\\/])/i;

/** More than any command line has, less than systems take. */
const MAX_WORDS = 512;
const MAX_WORD = 16_384;
/** Of formats, variables, files. */
const MAX_ENTRIES = 64;
/** Characters of a path of an engine's API, and of a model's name. */
const MAX_TEXT = 1024;
/** What of a wrong value is shown. Characters. */
const MAX_SHOWN = 80;

const COMMAND_HINT = 'Write it as `command = ["PROGRAM", "--port", "${PORT}"]`, or as one text.';
const PLACEHOLDER_HINT = `There are ${Object.keys(PLACEHOLDERS)
  .map((name) => `\${${name}}`)
  .join(", ")}; \`$\${\` is a plain \`\${\`.`;

function checkName(name: string, reserved: readonly string[], fail: Fail): void {
  if (!NAME.test(name) || TAKEN.test(name)) {
    const hint = "Use letters, digits, `.`, `_` and `-`, at most 64, and no version of an API.";
    throw fail("it cannot be called so", hint);
  }
  if (!reserved.some((one) => one.toLowerCase() === name.toLowerCase())) return;
  throw fail("Tug has an engine of that name", "Choose another name, or leave out `command`.");
}

function readCommand(value: unknown, fail: Fail): readonly string[] {
  const words = typeof value === "string" ? split(value, fail) : value;
  if (!isTexts(words, MAX_WORDS, MAX_WORD)) {
    throw fail("`command` is neither a text nor a list of texts", COMMAND_HINT);
  }
  const [program = ""] = words;
  if (program.trim() === "") throw fail("`command` is empty", COMMAND_HINT);
  if (program.includes("${")) throw fail("its program is a placeholder", COMMAND_HINT);
  const isFound = program.startsWith("/") || program.startsWith("~/") || isBare(program);
  if (isFound) return words;
  const hint = "Give an absolute path, one below `~/`, or the name of a program on PATH.";
  throw fail(`its program \`${shown(program)}\` is a relative path`, hint);
}

/** Windows has drives, and other slashes. */
function isBare(program: string): boolean {
  return !program.includes("/") || /^[a-z]:[\\/]/i.test(program);
}

function split(text: string, fail: Fail): readonly string[] {
  try {
    return splitShellWords(text, { name: "`command`", hint: COMMAND_HINT });
  } catch (thrown) {
    throw fail((thrown as AppError).message, COMMAND_HINT);
  }
}

function checkPlaceholders(words: readonly string[], fail: Fail): void {
  const { known, unknown } = findPlaceholders(words);
  if (unknown !== undefined) {
    throw fail(`there is no placeholder \`${shown(unknown)}\``, PLACEHOLDER_HINT);
  }
  if (known.has("SOCKET") !== known.has("PORT")) return;
  const reason = known.has("PORT")
    ? "it has both `${SOCKET}` and `${PORT}`"
    : "nothing tells the engine where to listen";
  throw fail(reason, "Put `${SOCKET}`, a unix socket, or `${PORT}` into `command`, one of them.");
}

/** Names of files come from whoever packaged the model: in the text of a program they would be commands. */
function refuseProgramText(command: readonly string[], fail: Fail): void {
  const { known } = findPlaceholders(programTexts(command));
  const named = FROM_MODEL.find((name) => known.has(name));
  if (named === undefined) return;
  const hint = `Give it as an argument: \`["sh", "-c", "engine \\"$1\\"", "sh", "\${${named}}"]\`.`;
  throw fail(`\`\${${named}}\` stands in the text of a program`, hint);
}

/** Of models that the engine brings itself there are none. */
function refuseFiles(words: readonly string[], fail: Fail): void {
  const { known } = findPlaceholders(words);
  const named = (["MODEL", "MODEL_DIR"] as const).find((name) => known.has(name));
  if (named === undefined) return;
  const hint =
    "Leave it out, or say in `formats` which files it reads; `${MODEL_NAME}` is the name.";
  throw fail(`\`\${${named}}\` stands for files, and its \`models\` have none here`, hint);
}

/** As people write them, made whole. */
function readModels(value: unknown, fail: Fail): readonly string[] {
  if (value === undefined) return [];
  const hint = 'Write it as `models = ["me/thing"]`: what its own models are asked for by.';
  if (!isTexts(value, MAX_ENTRIES, MAX_TEXT) || value.length === 0) {
    throw fail("`models` is not a list of texts", hint);
  }
  const whole = value.map((name) => {
    try {
      return formatReference(parseReference(name));
    } catch {
      throw fail(`\`${shown(name)}\` is no name of a model`, hint);
    }
  });
  return [...new Set(whole)];
}

function readFormats(
  value: unknown,
  models: readonly string[],
  fail: Fail,
): readonly ModelFormat[] {
  const hint =
    'Write it as `formats = ["gguf"]`; a format may be one of your own. Or say with `models = ["NAME"]` what it brings itself.';
  if (value === undefined && models.length > 0) return [];
  if (value === undefined) throw fail("it does not say which `formats` it serves", hint);
  if (!isTexts(value, MAX_ENTRIES, MAX_TEXT) || value.length === 0) {
    throw fail("`formats` is not a list of texts", hint);
  }
  const formats = value.map((format) => format.toLowerCase());
  const wrong = formats.find((format) => !FORMAT.test(format));
  if (wrong === undefined) return [...new Set(formats)];
  throw fail(`\`${shown(wrong)}\` is no name of a format`, hint);
}

function readModes(value: unknown, fail: Fail): readonly Mode[] {
  if (value === undefined) return ["completion"];
  const hint = `Write it as a list of: ${MODES.join(", ")}.`;
  if (!isTexts(value, MAX_ENTRIES, MAX_TEXT) || value.length === 0) {
    throw fail("`modes` is not a list of texts", hint);
  }
  const wrong = value.find((mode) => !MODES.some((known) => known === mode));
  if (wrong !== undefined) throw fail(`\`${shown(wrong)}\` is no mode`, hint);
  return MODES.filter((mode) => value.includes(mode));
}

function readReady(value: unknown, fail: Fail): string {
  if (value === undefined) return "/health";
  const isPath = typeof value === "string" && /^\/[^\s#]*$/.test(value);
  if (isPath && value.length <= MAX_TEXT && !CONTROLS.test(value)) return value;
  throw fail("`ready` is not a path", 'Write it as `ready = "/health"`.');
}

/** Nobody waits for longer. Milliseconds. */
const MAX_TIMEOUT_MS = 24 * 3_600_000;

function readTimeout(value: unknown, fail: Fail): number | undefined {
  if (value === undefined) return undefined;
  const ms = typeof value === "string" ? orUndefined(() => parseDuration(value)) : undefined;
  if (ms !== undefined && ms > 0 && ms <= MAX_TIMEOUT_MS) return ms;
  throw fail("`ready_timeout` is not a time", 'Write it as `ready_timeout = "10m"`, at most 24h.');
}

function readMemory(value: unknown, fail: Fail): number | undefined {
  if (value === undefined) return undefined;
  const amount = typeof value === "string" ? orUndefined(() => parseBudget(value).each) : undefined;
  if (amount !== undefined && "bytes" in amount) return amount.bytes;
  throw fail("`memory` is not a size", 'Write it as `memory = "8GB"`.');
}

function orUndefined<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}

function readCwd(value: unknown, fail: Fail): string | undefined {
  if (value === undefined) return undefined;
  const [path = ""] = isTexts([value], 1, MAX_WORD) ? [value as string] : [];
  if (PATH.test(path)) return path;
  throw fail(
    "`cwd` is no absolute path",
    'Write it as `cwd = "/opt/engine"`, absolute or below `~/`.',
  );
}

function readServed(value: unknown, fail: Fail): string | undefined {
  if (value === undefined) return undefined;
  const isName = typeof value === "string" && value.trim() !== "" && value.length <= MAX_TEXT;
  if (isName && !CONTROLS.test(value)) return value;
  throw fail("`served_model` is no name of a model", 'Write it as `served_model = "NAME"`.');
}

function readEnv(value: unknown, fail: Fail): Readonly<Record<string, string>> {
  if (value === undefined) return {};
  const hint = 'Write it as `env = { NAME = "value" }`.';
  if (!isTable(value)) throw fail("`env` is not a table", hint);
  const entries = Object.entries(value);
  if (entries.length > MAX_ENTRIES) throw fail(`\`env\` has more than ${MAX_ENTRIES} names`, hint);
  return Object.fromEntries(
    entries.map(([name, content]) => {
      if (!VARIABLE.test(name)) throw fail(`\`${shown(name)}\` is no name of a variable`, hint);
      const isPlain = ["string", "number", "boolean"].includes(typeof content);
      const text = isPlain ? `${content as string | number | boolean}` : undefined;
      if (text !== undefined && text.length <= MAX_WORD && !text.includes("\0")) {
        return [name, text];
      }
      throw fail(`the variable \`${shown(name)}\` is not a text`, hint);
    }),
  );
}

function readReads(value: unknown, fail: Fail): readonly string[] {
  if (value === undefined) return [];
  const hint = 'Write it as `reads = ["/opt/engine"]`, absolute or below `~/`.';
  if (!isTexts(value, MAX_ENTRIES, MAX_WORD)) throw fail("`reads` is not a list of texts", hint);
  const wrong = value.find((path) => !PATH.test(path));
  if (wrong === undefined) return value;
  throw fail(`\`${shown(wrong)}\` in \`reads\` is no absolute path`, hint);
}

/** Systems end texts of programs at a NUL. */
function isTexts(value: unknown, max: number, length: number): value is readonly string[] {
  return (
    Array.isArray(value) &&
    value.length <= max &&
    value.every((text) => typeof text === "string" && text.length <= length && !text.includes("\0"))
  );
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function unreadable(name: string, reason: string, hint: string): AppError {
  const what = `cannot read \`[engines."${shown(name)}"]\` in config.toml`;
  return new AppError("usage", `${what}: ${reason}`, { hint });
}

function shown(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, " ").slice(0, MAX_SHOWN);
}
