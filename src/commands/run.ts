import { isAbsolute, resolve } from "node:path";
import type { ChatRequest } from "../api/chat.ts";
import type { LoadRequest } from "../api/engines.ts";
import type { Client } from "../client/client.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { printJson } from "../terminal/json.ts";
import { createProgress } from "../terminal/progress.ts";
import { type ArgumentValues, type CommandContext, JSON_FLAG, defineCommand } from "./command.ts";
import { parseContext } from "./package.ts";
import { readPipedInput } from "./piped-input.ts";

const ARGS = {
  model: { type: "positional", description: "A model's name, or the path of a .gguf file" },
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
  "keep-alive": {
    type: "string",
    valueHint: "TIME",
    description: "How long it stays loaded: `5m`, 0, or -1 for ever",
  },
  reasoning: { type: "boolean", negatable: true, description: "Let the model think first, or not" },
  detach: { type: "boolean", alias: "d", description: "Only load the model" },
  verbose: { type: "boolean", description: "Say on stderr how long it took" },
  json: { ...JSON_FLAG, description: "Print one object: text, usage, timings" },
} as const;

type Args = ArgumentValues<typeof ARGS>;

export const command = defineCommand({
  args: ARGS,
  details:
    "Text piped to stdin is added to the prompt. In the chat, /? lists the commands and /bye leaves.",
  async run(context) {
    const { args, config, paths, signal } = context;
    const sampling = parseSampling(args);
    const model = toModelName(args.model, config.host.value !== "");
    const load = toLoadRequest(args, model);
    const prompt = args.detach === true ? undefined : await readPrompt(args, signal);
    const client = await connect("inference", { config, paths, signal });
    if (args.detach !== true && prompt === undefined)
      return await chat(context, { client, load, sampling });
    await loadModel(client, load, { signal, quiet: args.json === true });
    if (prompt === undefined) return 0;
    return await answer(context, {
      client,
      load,
      request: toChatRequest({ args, load, sampling, prompt }),
    });
  },
});

interface Sampling {
  readonly temperature?: number;
  readonly max_tokens?: number;
  readonly top_p?: number;
  readonly seed?: number;
}

/** @throws usage, naming the flag and what it takes */
export function parseSampling(
  args: Pick<Args, "temperature" | "max-tokens" | "top-p" | "seed">,
): Sampling {
  const temperature = parseNumber("--temperature", args.temperature, { min: 0, max: 100 });
  const maxTokens = parseNumber("--max-tokens", args["max-tokens"], {
    min: 1,
    max: 2 ** 31 - 1,
    whole: true,
  });
  const topP = parseNumber("--top-p", args["top-p"], { min: 0, max: 1 });
  const seed = parseNumber("--seed", args.seed, { min: -1, max: 2 ** 32 - 1, whole: true });
  return {
    ...(temperature === undefined ? {} : { temperature }),
    ...(maxTokens === undefined ? {} : { max_tokens: maxTokens }),
    ...(topP === undefined ? {} : { top_p: topP }),
    ...(seed === undefined ? {} : { seed }),
  };
}

/** A path of a .gguf file becomes absolute; everything else is a name. */
export function toModelName(typed: string, isRemote: boolean): string {
  const isPath =
    /\.gguf$/i.test(typed) &&
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

function toLoadRequest(args: Args, model: string): LoadRequest {
  return {
    model,
    ...(args["ctx-size"] === undefined ? {} : { context_size: parseContext(args["ctx-size"]) }),
    ...(args["keep-alive"] === undefined ? {} : { keep_alive: args["keep-alive"] }),
  };
}

/** Undefined: there is none, and somebody is there to chat. */
async function readPrompt(args: Args, signal: AbortSignal): Promise<string | undefined> {
  const words = args.prompt.join(" ").trim();
  if (words === "-") return requirePrompt(await readPipedInput({ wait: "end", signal }));
  if (process.stdin.isTTY === true) return words === "" ? undefined : words;
  const piped = await readPipedInput({ wait: words === "" ? "end" : "briefly", signal });
  return requirePrompt([words, piped].filter((part) => part.trim() !== "").join("\n\n"));
}

function requirePrompt(text: string): string {
  if (text.trim() !== "") return text;
  throw new AppError(
    "usage",
    "there is no prompt, and stdin is neither a terminal nor does it hold one",
    {
      hint: "Write the prompt behind the model's name, or pipe it in.",
    },
  );
}

function toChatRequest(options: {
  args: Args;
  load: LoadRequest;
  sampling: Sampling;
  prompt: string;
}): ChatRequest {
  const { args, load, sampling, prompt } = options;
  const system =
    args.system === undefined ? [] : [{ role: "system" as const, content: args.system }];
  return {
    model: load.model,
    messages: [...system, { role: "user", content: prompt }],
    ...sampling,
    ...(args.reasoning === undefined
      ? {}
      : { chat_template_kwargs: { enable_thinking: args.reasoning } }),
    ...(load.keep_alive === undefined ? {} : { keep_alive: load.keep_alive }),
    ...(load.context_size === undefined ? {} : { context_size: load.context_size }),
  };
}

/** Shows on stderr what there is to wait for: an engine's download, then the load. */
async function loadModel(
  client: Client,
  load: LoadRequest,
  options: { signal: AbortSignal; quiet: boolean },
): Promise<void> {
  using progress = createProgress({ quiet: options.quiet || process.stderr.isTTY !== true });
  await client.load(load, { signal: options.signal, onProgress: progress.onProgress });
  progress.finish();
}

async function answer(
  { args, signal }: CommandContext<typeof ARGS>,
  options: { client: Client; load: LoadRequest; request: ChatRequest },
): Promise<number> {
  const { client, request } = options;
  const { streamAnswer, collectAnswer, renderTimings } = await import("../chat/answer.ts");
  if (args.json === true) {
    const { content, reasoning, usage, timings, finishReason } = await collectAnswer(
      client.chat(request, { signal }),
    );
    await printJson({
      model: args.model,
      text: content,
      reasoning: reasoning || null,
      usage,
      timings,
      finish_reason: finishReason,
    });
    return 0;
  }
  const result = await streamAnswer(client.chat(request, { signal }), {
    output: process.stdout,
    errors: process.stderr,
    markdown: process.stdout.isTTY === true,
    reasoning: args.reasoning !== false,
  });
  if (args.verbose === true) process.stderr.write(renderTimings(result));
  return 0;
}

async function chat(
  { args, paths, signal }: CommandContext<typeof ARGS>,
  options: { client: Client; load: LoadRequest; sampling: Sampling },
): Promise<number> {
  const { runChat } = await import("../chat/repl.ts");
  return await runChat({
    client: options.client,
    model: options.load.model,
    load: options.load,
    settings: {
      system: args.system,
      sampling: options.sampling,
      reasoning: args.reasoning,
      verbose: args.verbose === true,
    },
    input: process.stdin,
    output: process.stdout,
    errors: process.stderr,
    historyFile: paths.historyFile,
    chatsDirectory: paths.chats,
    signal,
  });
}
