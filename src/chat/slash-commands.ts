/** A submitted line becomes an action. Pure. */
import type { SamplingParameters } from "./session.ts";

export type ParameterName = keyof SamplingParameters;

export type Action =
  | { readonly kind: "message"; readonly text: string }
  | { readonly kind: "exit" }
  | { readonly kind: "help"; readonly topic: HelpTopic }
  | { readonly kind: "clear" }
  | { readonly kind: "show" }
  | { readonly kind: "retry" }
  | { readonly kind: "undo" }
  | { readonly kind: "save"; readonly name: string }
  /** Without a name: list what was saved. */
  | { readonly kind: "load"; readonly name: string | undefined }
  /** An empty text takes the system message away. */
  | { readonly kind: "set-system"; readonly text: string }
  /** Without a value: back to the model's own. */
  | {
      readonly kind: "set-parameter";
      readonly name: ParameterName;
      readonly value: number | readonly string[] | undefined;
    }
  | { readonly kind: "set-context"; readonly tokens: number }
  | { readonly kind: "set-verbose"; readonly verbose: boolean }
  | { readonly kind: "set-reasoning"; readonly reasoning: "on" | "off" | "show" | "hide" }
  /** What was typed makes no sense; the text says so to the person. */
  | { readonly kind: "problem"; readonly message: string };

export type HelpTopic = "general" | "shortcuts" | "files" | "set";

interface NumberParameter {
  readonly min: number;
  readonly max: number;
  readonly isWhole?: true;
  readonly help: string;
}

/** 2^31 - 1: what llama.cpp's signed 32-bit fields hold. */
const INT32_MAX = 2_147_483_647;
/** llama.cpp reads a seed as unsigned; -1 means a random one. */
const SEED_MAX = 4_294_967_295;
const STOP_LIMIT = 16;

/** Ranges are llama-server's where it has one. */
export const NUMBER_PARAMETERS = {
  temperature: { min: 0, max: 10, help: "randomness; 0 always takes the likeliest word" },
  top_p: { min: 0, max: 1, help: "keep the likeliest words up to this probability in sum" },
  top_k: { min: 0, max: INT32_MAX, isWhole: true, help: "keep this many likeliest words; 0 all" },
  min_p: { min: 0, max: 1, help: "drop words less likely than this part of the likeliest" },
  repeat_penalty: { min: 0, max: 10, help: "above 1 discourages repetition" },
  seed: { min: -1, max: SEED_MAX, isWhole: true, help: "same seed, same answer; -1 random" },
  max_tokens: { min: -1, max: INT32_MAX, isWhole: true, help: "longest answer; -1 no limit" },
} as const satisfies Partial<Record<ParameterName, NumberParameter>>;

/** The commands, in the order of the help. */
export const COMMANDS = [
  { name: "/set", usage: "/set …", help: "change settings; `/? set` lists them" },
  { name: "/show", usage: "/show", help: "show the model and the settings" },
  { name: "/clear", usage: "/clear", help: "forget the conversation" },
  { name: "/retry", usage: "/retry", help: "answer the last message again" },
  { name: "/undo", usage: "/undo", help: "take the last message and its answer back" },
  { name: "/save", usage: "/save NAME", help: "save the conversation" },
  { name: "/load", usage: "/load [NAME]", help: "load a conversation, or list the saved ones" },
  { name: "/help", usage: "/?, /help [shortcuts|files|set]", help: "this help" },
  { name: "/bye", usage: "/bye, /exit", help: "leave" },
] as const;

/**
 * @param options.isLiteral the line was pasted or quoted with `"""`: it is a message whatever it begins with
 */
export function parseInput(line: string, options: { isLiteral: boolean }): Action {
  const text = line.trim();
  if (options.isLiteral || !isCommand(text)) return { kind: "message", text: line };
  const { head, rest } = splitWord(text);
  const simple = SIMPLE_COMMANDS[head];
  if (simple !== undefined) {
    if (rest === "") return simple;
    return problem(`${head} takes nothing after it`);
  }
  const parse = COMMAND_PARSERS[head];
  if (parse !== undefined) return parse(rest);
  return problem(`Unknown command: ${head}. Type /? for help.`);
}

/** The one command that a typed beginning can mean, or undefined. */
export function completeCommand(text: string): string | undefined {
  if (!/^\/\w+$/.test(text)) return undefined;
  const names = ["/bye", "/exit", ...COMMANDS.map(({ name }) => name)];
  const fitting = [...new Set(names)].filter((name) => name.startsWith(text));
  return fitting.length === 1 ? fitting[0] : undefined;
}

// --- internal ---

const SIMPLE_COMMANDS: Readonly<Record<string, Action | undefined>> = {
  "/bye": { kind: "exit" },
  "/exit": { kind: "exit" },
  "/clear": { kind: "clear" },
  "/show": { kind: "show" },
  "/retry": { kind: "retry" },
  "/undo": { kind: "undo" },
};

const COMMAND_PARSERS: Readonly<Record<string, ((rest: string) => Action) | undefined>> = {
  "/?": parseHelp,
  "/help": parseHelp,
  "/set": parseSet,
  "/save": (rest) => withName(rest, "/save", (name) => ({ kind: "save", name })),
  "/load": (rest) =>
    rest === ""
      ? { kind: "load", name: undefined }
      : withName(rest, "/load", (name) => ({ kind: "load", name })),
};

const SET_PARSERS: Readonly<Record<string, ((rest: string) => Action) | undefined>> = {
  system: (rest) => ({ kind: "set-system", text: unquote(rest) }),
  parameter: parseParameter,
  num_ctx: parseContext,
  verbose: (rest) => withNothing(rest, { kind: "set-verbose", verbose: true }),
  quiet: (rest) => withNothing(rest, { kind: "set-verbose", verbose: false }),
  reasoning: parseReasoning,
};

/** A first word with a second slash is a path, such as `/tmp/cat.png what is this?`. */
function isCommand(text: string): boolean {
  return text.startsWith("/") && !/^\/\S*[/\\]/.test(text);
}

function splitWord(text: string): { head: string; rest: string } {
  const [, head = "", rest = ""] = /^(\S*)\s*([\s\S]*)$/.exec(text) ?? [];
  return { head, rest: rest.trim() };
}

function problem(message: string): Action {
  return { kind: "problem", message };
}

function withNothing(rest: string, action: Action): Action {
  return rest === "" ? action : problem(`\`${rest}\` is not understood here`);
}

function withName(rest: string, command: string, create: (name: string) => Action): Action {
  if (rest === "") return problem(`${command} needs a name`);
  // A separator in a name would leave the directory of saved chats.
  if (!/^[\p{L}\p{N}][\p{L}\p{N}\p{M} ._-]{0,99}$/u.test(rest))
    return problem(
      `\`${rest}\` is not a name: use letters, digits, spaces, \`.\`, \`_\` and \`-\``,
    );
  return create(rest);
}

function parseHelp(rest: string): Action {
  const topics: Readonly<Record<string, HelpTopic>> = {
    shortcut: "shortcuts",
    shortcuts: "shortcuts",
    file: "files",
    files: "files",
    set: "set",
    "/set": "set",
  };
  return { kind: "help", topic: topics[rest] ?? "general" };
}

function parseSet(rest: string): Action {
  if (rest === "") return { kind: "help", topic: "set" };
  const { head, rest: value } = splitWord(rest);
  const parse = SET_PARSERS[head];
  return parse === undefined
    ? problem(`Unknown /set option: ${head}. Type /? set for the options.`)
    : parse(value);
}

/** `"""…"""` and `"…"` around a system message are not part of it. */
function unquote(text: string): string {
  const triple = /^"""([\s\S]*)"""$/.exec(text)?.[1];
  return (triple ?? /^"([^"]*)"$/.exec(text)?.[1] ?? text).trim();
}

function parseReasoning(rest: string): Action {
  if (rest === "on" || rest === "off" || rest === "show" || rest === "hide")
    return { kind: "set-reasoning", reasoning: rest };
  return problem("Use /set reasoning on, off, show or hide");
}

function parseContext(rest: string): Action {
  const tokens = /^\d{1,10}$/.test(rest) ? Number(rest) : 0;
  if (tokens < 1 || tokens > INT32_MAX)
    return problem(`\`${rest}\` is not a number of tokens: use a whole number above 0`);
  return { kind: "set-context", tokens };
}

function parseParameter(rest: string): Action {
  const { head: name, rest: value } = splitWord(rest);
  if (name === "num_ctx") return parseContext(value);
  if (name === "stop") return parseStop(value);
  if (!Object.hasOwn(NUMBER_PARAMETERS, name)) {
    const known = [...Object.keys(NUMBER_PARAMETERS), "num_ctx", "stop"].join(", ");
    return problem(`Unknown parameter: ${name || "(none)"}. Known: ${known}.`);
  }
  const key = name as keyof typeof NUMBER_PARAMETERS;
  if (value === "" || value === "default")
    return { kind: "set-parameter", name: key, value: undefined };
  return parseNumber(key, value);
}

function parseNumber(name: keyof typeof NUMBER_PARAMETERS, text: string): Action {
  const rule: NumberParameter = NUMBER_PARAMETERS[name];
  const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
  const fits = value >= rule.min && value <= rule.max && (!rule.isWhole || Number.isInteger(value));
  if (fits) return { kind: "set-parameter", name, value };
  const kind = rule.isWhole ? "a whole number" : "a number";
  return problem(
    `\`${text}\` is not a value of ${name}: use ${kind} from ${rule.min} to ${rule.max}`,
  );
}

/** Words, or texts in double quotes with JSON's escapes, such as `"\n\n"`. */
function parseStop(rest: string): Action {
  if (rest === "" || rest === "default")
    return { kind: "set-parameter", name: "stop", value: undefined };
  const words = rest.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? [];
  if (words.length > STOP_LIMIT) return problem(`stop takes at most ${STOP_LIMIT} texts`);
  return { kind: "set-parameter", name: "stop", value: words.map(unescapeWord) };
}

function unescapeWord(word: string): string {
  if (!word.startsWith('"')) return word;
  try {
    return String(JSON.parse(word));
  } catch {
    return word;
  }
}
