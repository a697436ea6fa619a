/** Ollama's requests as engines take them. Pure. */
import { AppError } from "../../../errors.ts";
import type { ChatMessage } from "../chat.ts";
import { toImageParts } from "./images.ts";
import { toMessages } from "./messages.ts";
import { toResponseFormat, toSampling, toSchema } from "./options.ts";
import { type ReadPiece, readChat, readCompletion, readInfill } from "./pieces.ts";
import type { ChatInput, GenerateInput } from "./requests.ts";

export interface EngineRequest {
  readonly enginePath: string;
  readonly body: Readonly<Record<string, unknown>>;
  /** Of its answer. */
  readonly read: ReadPiece;
}

/** The only one of llama-server's own: OpenAI's API has no word for what comes after the answer. */
export const INFILL_PATH = "/infill";

/** @throws invalid_request naming the field */
export function toChatRequest(input: ChatInput, modelName: string): EngineRequest {
  const body = {
    ...chatBody(input, modelName, toMessages(input.messages ?? [])),
    ...(input.tools?.length ? { tools: input.tools.map(toTool) } : {}),
  };
  return { enginePath: "/v1/chat/completions", body, read: readChat };
}

/** @throws invalid_request naming the field */
export function toGenerateRequest(asked: GenerateInput, modelName: string): EngineRequest {
  if (asked.template) throw noTemplates();
  // As in messages: engines refuse halves of characters.
  const input = { ...asked, prompt: asked.prompt?.toWellFormed() };
  if (input.raw === true) return toRawRequest(input, modelName);
  if (input.suffix) return toInfillRequest(input, modelName);
  const { prompt, system, images } = input;
  const parts = toImageParts(images, "images");
  const text = prompt ?? "";
  const content = parts.length === 0 ? text : [...parts, { type: "text" as const, text }];
  const messages: ChatMessage[] = [{ role: "user", content }];
  if (system) messages.unshift({ role: "system", content: system });
  const body = chatBody(input, modelName, messages);
  return { enginePath: "/v1/chat/completions", body, read: readChat };
}

// --- internal ---

type Generation = Pick<
  ChatInput,
  "options" | "format" | "think" | "stream" | "logprobs" | "top_logprobs"
>;

function chatBody(
  input: Generation,
  modelName: string,
  messages: readonly ChatMessage[],
): Readonly<Record<string, unknown>> {
  const { options, format, think, logprobs, top_logprobs } = input;
  return {
    model: modelName,
    messages,
    ...streaming(input),
    ...toSampling(options),
    ...toResponseFormat(format),
    // Translated where every dialect's word for it is.
    ...(think === undefined || think === null ? {} : { think }),
    ...(logprobs === true ? { logprobs: true, top_logprobs: Math.trunc(top_logprobs ?? 0) } : {}),
  };
}

function streaming({ stream }: Generation): object {
  return stream === false
    ? { stream: false }
    : { stream: true, stream_options: { include_usage: true } };
}

/** Ollama's tools are OpenAI's, but that they may lack parameters. */
function toTool(tool: NonNullable<ChatInput["tools"]>[number]): object {
  const { description, parameters, ...rest } = tool.function;
  return {
    type: "function",
    function: {
      ...rest,
      ...(description ? { description } : {}),
      parameters: parameters ?? { type: "object", properties: {} },
    },
  };
}

function toRawRequest(input: GenerateInput, modelName: string): EngineRequest {
  const { prompt, options, format, system, images, suffix, logprobs, top_logprobs } = input;
  refuse("raw", { system, images: images?.length, suffix });
  const schema = toSchema(format);
  const body = {
    model: modelName,
    prompt,
    ...streaming(input),
    ...toSampling(options),
    // llama-server's word for it: OpenAI's completions have no formats.
    ...(schema === undefined
      ? {}
      : { json_schema: schema === "json" ? { type: "object" } : schema }),
    ...(logprobs === true ? { logprobs: Math.max(1, Math.trunc(top_logprobs ?? 0)) } : {}),
  };
  return { enginePath: "/v1/completions", body, read: readCompletion };
}

function toInfillRequest(input: GenerateInput, modelName: string): EngineRequest {
  const { prompt, suffix, system, images, options, format, logprobs } = input;
  refuse("suffix", { system, images: images?.length, format, logprobs });
  const { max_tokens, ...sampling } = toSampling(options);
  const body = {
    model: modelName,
    input_prefix: prompt,
    input_suffix: suffix,
    stream: input.stream !== false,
    ...sampling,
    ...(max_tokens === undefined ? {} : { n_predict: max_tokens ?? -1 }),
  };
  return { enginePath: INFILL_PATH, body, read: readInfill };
}

/** @throws invalid_request for the first of the fields that is said */
function refuse(field: string, others: Readonly<Record<string, unknown>>): void {
  const [found] = Object.entries(others).find(([, value]) => Boolean(value)) ?? [];
  if (found === undefined) return;
  throw new AppError(
    "invalid_request",
    `cannot answer the prompt: \`${field}\` does not go together with \`${found}\``,
    { hint: `Leave out one of them.` },
  );
}

function noTemplates(): AppError {
  return new AppError(
    "invalid_request",
    "cannot answer the prompt: `template` is in Ollama's template language, which is not understood",
    {
      hint: "Leave it out to use the model's own template, or write out the whole prompt and send it with `raw`.",
    },
  );
}
