/** What many routes have in common: errors, headers, keys. */
import { ERROR_CODES } from "../../errors.ts";

const MESSAGE = { type: "string", description: "`cannot <verb> <object>: <reason>`." };

/** @see ../dialect.ts */
export const ERROR_SCHEMAS = {
  OpenaiError: {
    type: "object",
    properties: {
      error: {
        type: "object",
        properties: {
          message: MESSAGE,
          type: { type: "string" },
          param: { type: ["string", "null"], description: "The field that is wrong." },
          code: { type: "string", enum: Object.keys(ERROR_CODES) },
          hint: { type: "string", description: "What to do." },
          details: { type: "object" },
        },
        required: ["message", "type", "param", "code"],
      },
    },
    required: ["error"],
  },
  AnthropicError: {
    type: "object",
    properties: {
      type: { const: "error" },
      error: {
        type: "object",
        properties: { type: { type: "string" }, message: MESSAGE },
        required: ["type", "message"],
      },
    },
    required: ["type", "error"],
  },
  OllamaError: { type: "object", properties: { error: MESSAGE }, required: ["error"] },
} as const;

/** Of requests that need a worker. */
export const HEADERS = {
  KeepAlive: header("X-Keep-Alive", "As `keep_alive`, which goes before it."),
  ContextSize: header("X-Context-Size", "As `context_size`, which goes before it."),
  Think: header("X-Think", "Whether the model thinks first: `true`, `false`, or a level."),
  RequestId: header("X-Request-Id", "Answered as it is; made where it is missing."),
} as const;

export const SECURITY_SCHEMES = {
  bearer: { type: "http", scheme: "bearer" },
  apiKey: { type: "apiKey", in: "header", name: "x-api-key" },
} as const;

export const TAGS = [
  { name: "OpenAI", description: "Chats, completions, embeddings, responses." },
  { name: "Anthropic", description: "Messages." },
  { name: "Ollama", description: "The whole of its `/api`." },
  { name: "Models", description: "Models on this machine; Docker Model Runner's, and more." },
  { name: "Engines", description: "Engines, settings, models in memory." },
  { name: "Runner", description: "The runner, its logs and keys." },
] as const;

// --- internal ---

function header(name: string, description: string): object {
  return { name, in: "header", schema: { type: "string", description } };
}
