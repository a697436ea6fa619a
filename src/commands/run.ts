import { isAbsolute, resolve } from "node:path";
import type { ChatEvent, ChatMessage, ChatRequest } from "../api/chat.ts";
import type { LoadRequest } from "../api/engines.ts";
import type { Client } from "../client/client.ts";
import { connect } from "../client/connect.ts";
import { type ChatSettings, type Session, createSession, toRequest } from "../chat/session.ts";
import { parseDuration } from "../config.ts";
import { AppError } from "../errors.ts";
import { printJson } from "../terminal/json.ts";
import { type ArgumentValues, type CommandContext, JSON_FLAG, defineCommand } from "./command.ts";
import { ensureModel } from "./ensure-model.ts";
import { loadModel } from "./load-model.ts";
import { parseContext } from "./package.ts";
import { readPipedInput } from "./piped-input.ts";

const ARGS = {
  model: {
    type: "positional",
    description: "A model's name (pulled if it is not here), or the path of a .gguf file",
  },
  prompt: {
    type: "positional",
    rest: true,
    required: false,
    description: "The question; without one you chat; `-` reads it from stdin to the end",
  },
  system: { type: "string", valueHint: "TEXT", description: "System message" },
  temperature: {
    type: "string",
    valueHint: "T",
    description: "0 always takes the likeliest token",
  },
  "max-tokens": { type: "string", valueHint: "N", description: "Longest answer, in tokens" },
  "top-p": {
    type: "string",
    valueHint: "P",
    description: "Sample from the likeliest tokens of this total probability",
  },
  seed: { type: "string", valueHint: "N", description: "Makes sampling repeatable" },
  "ctx-size": {
    type: "string",
    valueHint: "N",
    description: "Context to load the model with, in tokens",
  },
  backend: {
    type: "string",
    valueHint: "NAME",
    description: "The engine (the one that fits the model unless given)",
  },
  "keep-alive": {
    type: "string",
    valueHint: "TIME",
    description: "How long it stays loaded: `5m`, 0, or -1 for ever",
  },
  reasoning: { type: "boolean", negatable: true, description: "Let the model think first, or not" },
  output: {
    type: "string",
    valueHint: "FILE",
    description: "Where a picture goes, of a model that draws; `-` is stdout",
  },
  detach: { type: "boolean", alias: "d", description: "Only load the model" },
  verbose: { type: "boolean", description: "Say on stderr how long it took" },
  json: { ...JSON_FLAG, description: "Print one object: text, usage, timings" },
} as const;

const SILENT_NOTE =
  "note: stdin is open but silent and was left out; give `-` as the prompt to wait for it\n";

type Args = ArgumentValues<typeof ARGS>;
type Context = CommandContext<typeof ARGS>;
type Content = ChatMessage["content"];

export const command = defineCommand({
  args: ARGS,
  details:
    "Text piped to stdin is added to the prompt; `@FILE` in it includes a text or an image. In the chat, /? lists the commands and /bye leaves. A model that draws writes a PNG to stdout if that is piped, else a file of this directory.",
  async run(context) {
    const { args, config, paths, signal } = context;
    const settings = parseSettings(args);
    const typed = toModelName(args.model, config.host.value !== "");
    const prompt = args.detach === true ? undefined : await readPrompt(args, signal);
    const quiet = args.json === true;
    // Before the runner: for a model that cannot be had it need not start.
    const store = await connect("models", { config, paths, signal });
    const model = await ensureModel(typed, store, { config, paths, signal, quiet });
    const client = await connect("inference", { config, paths, signal });
    if (await isDrawing(model, store, context)) {
      return draw(context, client, { model, settings, prompt });
    }
    const session = createSession(model, settings);
    if (args.detach !== true && prompt === undefined) return chat(context, client, session);
    const load = toLoadRequest(session.model, settings);
    await loadModel(client, load, { signal, quiet });
    return prompt === undefined ? 0 : answer(context, client, toRequest(session, prompt));
  },
});

/** @throws usage, naming the flag and what it takes */
export function parseSettings(args: Omit<Args, "model" | "prompt">): ChatSettings {
  return {
    parameters: withoutUndefined({
      temperature: parseNumber("--temperature", args.temperature, { min: 0, max: 100 }),
      max_tokens: parseNumber("--max-tokens", args["max-tokens"], {
        min: 1,
        max: 2 ** 31 - 1,
        whole: true,
      }),
      top_p: parseNumber("--top-p", args["top-p"], { min: 0, max: 1 }),
      seed: parseNumber("--seed", args.seed, { min: -1, max: 2 ** 32 - 1, whole: true }),
    }),
    system: args.system,
    contextSize: args["ctx-size"] === undefined ? undefined : parseContext(args["ctx-size"]),
    backend: args.backend,
    keepAlive: parseKeepAlive(args["keep-alive"]),
    think: args.reasoning,
    showReasoning: args.reasoning !== false,
    verbose: args.verbose === true,
  };
}

/** A path of a .gguf file becomes absolute; everything else is a name or an address. */
export function toModelName(typed: string, isRemote: boolean): string {
  const isPath =
    /\.gguf$/i.test(typed) &&
    !/^[a-z]+:\/\//i.test(typed) &&
    (/^\.{1,2}[/\\]/.test(typed) || isAbsolute(typed) || !/^[^/]+\.[^/]+\//.test(typed));
  if (!isPath) return typed;
  if (!isRemote) return resolve(typed);
  throw new AppError("usage", `cannot run the file \`${typed}\` on another machine's runner`, {
    hint: "Package it there with `tug package --gguf FILE NAME`, or leave out `--host`.",
  });
}

// --- internal ---

function parseNumber(
  flag: string,
  text: string | undefined,
  bounds: { min: number; max: number; whole?: true },
): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim() === "" ? Number.NaN : Number(text);
  const fits =
    value >= bounds.min &&
    value <= bounds.max &&
    (bounds.whole !== true || Number.isInteger(value));
  if (fits) return value;
  throw new AppError("usage", `\`${text}\` is not a value of \`${flag}\``, {
    hint: `Give a ${bounds.whole === true ? "whole " : ""}number from ${bounds.min} to ${bounds.max}.`,
  });
}

type Defined<T> = { readonly [K in keyof T]?: Exclude<T[K], undefined> };

function withoutUndefined<T extends object>(object: T): Defined<T> {
  return Object.fromEntries(
    Object.entries(object).filter(([, value]) => value !== undefined),
  ) as Defined<T>;
}

/** Checked here, so that a typing error costs no load. */
function parseKeepAlive(text: string | undefined): string | undefined {
  if (text !== undefined) parseDuration(text);
  return text;
}

function toLoadRequest(model: string, settings: ChatSettings): LoadRequest {
  const { backend, contextSize: context_size, keepAlive: keep_alive } = settings;
  return { model, ...withoutUndefined({ backend, context_size, keep_alive }) };
}

/** Undefined: there is none, and somebody is there to chat. */
async function readPrompt(args: Args, signal: AbortSignal): Promise<Content | undefined> {
  const words = args.prompt.join(" ").trim();
  if (words === "-") return requirePrompt(await readPipedInput({ wait: "end", signal }));
  if (process.stdin.isTTY && words === "") return undefined;
  if (words === "") return requirePrompt(await readPipedInput({ wait: "end", signal }));
  const { expandMessage } = await import("../chat/attachments.ts");
  const { content } = await expandMessage(words, { signal, isMarkedOnly: true });
  if (process.stdin.isTTY) return requireContent(content);
  const piped = await readPipedInput({ wait: "briefly", signal });
  if (piped === undefined) process.stderr.write(SILENT_NOTE);
  const isEmpty = piped === undefined || piped.trim() === "";
  return requireContent(isEmpty ? content : append(content, piped));
}

/** A file that was included may be empty. */
function requireContent(content: Content): Content {
  return typeof content === "string" ? requirePrompt(content) : content;
}

/** Piped text is taken as it is: an `@name` in a diff is no file to include. */
function append(content: Content, piped: string): Content {
  if (typeof content === "string") return `${content}\n\n${piped}`;
  return [...content, { type: "text", text: piped }];
}

function requirePrompt(text: string | undefined): string {
  if (text !== undefined && text.trim() !== "") return text;
  throw new AppError(
    "usage",
    "there is no prompt, and stdin is neither a terminal nor does it hold one",
    { hint: "Write the prompt behind the model's name, or pipe it in." },
  );
}

/** @throws usage (a file for a picture, of a model that writes) */
async function isDrawing(
  model: string,
  store: Client,
  { args: { output }, signal }: Context,
): Promise<boolean> {
  const { drawsPictures } = await import("./run-picture.ts");
  if (await drawsPictures(model, store, signal)) return true;
  if (output === undefined) return false;
  throw new AppError("usage", `cannot write a picture with \`${model}\`: it draws none`, {
    hint: "Leave out `--output`; what it answers goes to stdout.",
  });
}

interface Drawing {
  readonly model: string;
  readonly settings: ChatSettings;
  readonly prompt: Content | undefined;
}

async function draw(
  { args, config, paths, signal }: Context,
  client: Client,
  { model, settings, prompt }: Drawing,
): Promise<number> {
  const { runPicture, toDrawRequest } = await import("./run-picture.ts");
  if (args.detach !== true && prompt === undefined) {
    const { runDrawing } = await import("../chat/draw-repl.ts");
    return runDrawing({
      connect: (ending) => connect("inference", { config, paths, signal: ending }),
      request: toDrawRequest(model, settings),
      input: process.stdin,
      output: process.stdout,
      errors: process.stderr,
      historyFile: paths.historyFile,
      signal,
    });
  }
  const { output, json } = args;
  return runPicture({ client, model, settings, prompt, output, json: json === true, signal });
}

async function answer(
  { args, signal }: Context,
  client: Client,
  request: ChatRequest,
): Promise<number> {
  if (args.json === true) {
    await printJson(await collect(args.model, client.chat(request, { signal })));
    return 0;
  }
  const { streamAnswer } = await import("../chat/answer.ts");
  const { outcome } = await streamAnswer({
    client,
    request,
    signal,
    markdown: process.stdout.isTTY,
    verbose: args.verbose === true,
    ...(args.reasoning === undefined ? {} : { showReasoning: args.reasoning }),
  });
  return outcome === "interrupted" ? 130 : 0;
}

/** The one object of `--json`. */
async function collect(model: string, events: AsyncIterable<ChatEvent>): Promise<unknown> {
  const text = { content: "", reasoning: "" };
  for await (const event of events) {
    if (event.kind !== "done") {
      text[event.kind] += event.text;
      continue;
    }
    const { finishReason: finish_reason, usage, timings } = event;
    return {
      model,
      text: text.content,
      reasoning: text.reasoning || null,
      finish_reason,
      usage,
      timings,
    };
  }
  throw new AppError("worker_failed", "the answer was cut off");
}

async function chat(
  { config, paths, signal }: Context,
  client: Client,
  session: Session,
): Promise<number> {
  const { runChat } = await import("../chat/repl.ts");
  const { reconnecting } = await import("../client/reconnect.ts");
  return runChat({
    client: reconnecting(client, (ending) =>
      connect("inference", { config, paths, signal: AbortSignal.any([signal, ending]) }),
    ),
    model: session.model,
    settings: session.settings,
    input: process.stdin,
    output: process.stdout,
    errors: process.stderr,
    historyFile: paths.historyFile,
    chatsDirectory: paths.chats,
    markdown: process.stdout.isTTY,
    signal,
  });
}
