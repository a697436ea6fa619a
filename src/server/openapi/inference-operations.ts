/** The routes that answer from a model: OpenAI's and Anthropic's. */
import { PATHS as MESSAGES_PATHS } from "../routes/anthropic.ts";
import { PLAIN_PREFIXES, V1_PREFIXES } from "../routes/engine-paths.ts";
import { IMAGE_FILES } from "../routes/images.ts";
import { MISSING } from "../routes/not-installed.ts";
import { PREFIXES as RESPONSES_PATHS } from "../routes/responses.ts";
import { type Answer, EVENTS, flag, JSON_TYPE, type Operation, text } from "./operation.ts";

const ALL_PREFIXES = [...V1_PREFIXES, ...PLAIN_PREFIXES];
const UNTOUCHED = "Fields that are not named here reach the engine as they are.";

const COMPLETION: Answer = {
  description: "The answer, or with `stream` its events",
  types: [JSON_TYPE, EVENTS],
};

const PICTURES: Answer = {
  description: "`data`, a member a picture; or with `stream` its events",
  types: [JSON_TYPE, EVENTS],
};

const CHAT_OPERATIONS: readonly Operation[] = [
  {
    method: "post",
    path: "/chat/completions",
    prefixes: V1_PREFIXES,
    name: "createChatCompletion",
    tag: "OpenAI",
    summary: "Answer a chat",
    description: UNTOUCHED,
    request: "ChatCompletionsRequest",
    isInference: true,
    answers: [COMPLETION],
  },
  {
    method: "post",
    path: "/chat/completions/input_tokens",
    prefixes: V1_PREFIXES,
    name: "countChatTokens",
    tag: "OpenAI",
    summary: "Count the tokens of a chat without answering it",
    request: "InputTokensRequest",
    isInference: true,
    answers: [{ description: "`input_tokens`" }],
  },
  {
    method: "post",
    path: "/completions",
    prefixes: V1_PREFIXES,
    name: "createCompletion",
    tag: "OpenAI",
    summary: "Continue a text",
    description: UNTOUCHED,
    request: "CompletionsRequest",
    isInference: true,
    answers: [COMPLETION],
  },
  {
    method: "post",
    path: "/generate",
    name: "generate",
    tag: "OpenAI",
    summary: "Continue a text, as `/v1/completions` does",
    request: "CompletionsRequest",
    isInference: true,
    answers: [COMPLETION],
  },
];

const VECTOR_OPERATIONS: readonly Operation[] = [
  {
    method: "post",
    path: "/embeddings",
    prefixes: [...V1_PREFIXES, ""],
    name: "createEmbeddings",
    tag: "OpenAI",
    summary: "Turn texts into vectors",
    request: "EmbeddingsRequest",
    isInference: true,
    answers: [{ description: "A vector a text, in order" }],
  },
  {
    method: "post",
    path: "/rerank",
    prefixes: ALL_PREFIXES,
    name: "rerank",
    tag: "OpenAI",
    summary: "Order documents by how well they answer a question",
    request: "RerankRequest",
    isInference: true,
    answers: [{ description: "Scores, the best first" }],
  },
  {
    method: "post",
    path: "/score",
    prefixes: ALL_PREFIXES,
    name: "score",
    tag: "OpenAI",
    summary: "Score how well texts fit another",
    request: "ScoreRequest",
    isInference: true,
    answers: [{ description: "A score a text, in order" }],
  },
];

const IMAGE_OPERATIONS: readonly Operation[] = [
  {
    method: "post",
    path: "/images/generations",
    prefixes: V1_PREFIXES,
    name: "createImage",
    tag: "OpenAI",
    summary: "Draw pictures",
    request: "ImageGenerationRequest",
    isInference: true,
    answers: [PICTURES],
  },
  {
    method: "post",
    path: "/images/edits",
    prefixes: V1_PREFIXES,
    name: "createImageEdit",
    tag: "OpenAI",
    summary: "Change a picture, or a part of it",
    description: "Also as `multipart/form-data`, with `image` and `mask` as files.",
    request: "ImageEditRequest",
    isInference: true,
    answers: [PICTURES],
  },
  {
    method: "get",
    path: `${IMAGE_FILES}/{name}`,
    name: "getImageFile",
    tag: "OpenAI",
    summary: "A picture that was answered as a URL",
    answers: [{ description: "The picture", types: ["image/png", "image/jpeg", "image/webp"] }],
    failures: { 404: "It was kept for an hour, or until the runner left" },
  },
];

const TOKEN_OPERATIONS: readonly Operation[] = [
  {
    method: "post",
    path: "/tokenize",
    prefixes: ALL_PREFIXES,
    name: "tokenize",
    tag: "OpenAI",
    summary: "Turn a text into tokens",
    request: "TokenizeRequest",
    isInference: true,
    answers: [{ description: "`tokens` and their `count`" }],
  },
  {
    method: "post",
    path: "/detokenize",
    prefixes: ALL_PREFIXES,
    name: "detokenize",
    tag: "OpenAI",
    summary: "Turn tokens into a text",
    request: "DetokenizeRequest",
    isInference: true,
    answers: [{ description: "The text" }],
  },
];

const OPENAI_MODELS: readonly Operation[] = [
  {
    method: "get",
    path: "/models",
    prefixes: V1_PREFIXES,
    name: "listOpenaiModels",
    tag: "OpenAI",
    summary: "List the models on this machine",
    answers: [{ description: "All of them, on one page" }],
  },
  {
    method: "get",
    path: "/models/{name}",
    prefixes: V1_PREFIXES,
    name: "getOpenaiModel",
    tag: "OpenAI",
    summary: "Describe a model",
    answers: [{ description: "The model" }],
  },
];

const NO_ENGINE: readonly Operation[] = Object.entries(MISSING).map(([path, { task }]) => ({
  method: "post",
  path,
  prefixes: V1_PREFIXES,
  name: path
    .slice(1)
    .replace(/^(\w+)\/(\w)/, (_, noun: string, verb: string) => noun + verb.toUpperCase()),
  tag: "OpenAI",
  summary: `Refused: there is no engine yet to ${task}`,
  answers: [],
  failures: { 501: "No engine for it is installed; the body is not read" },
}));

const STORED: readonly Operation[] = [
  {
    method: "get",
    path: "/{id}",
    prefixes: RESPONSES_PATHS,
    name: "getResponse",
    tag: "OpenAI",
    summary: "A response that was kept",
    query: {
      stream: flag("Its events, of one that was begun with `background` and `stream`"),
      starting_after: { type: "integer", description: "The number of the last event known" },
    },
    answers: [{ description: "The response, or its events", types: [JSON_TYPE, EVENTS] }],
  },
  {
    method: "delete",
    path: "/{id}",
    prefixes: RESPONSES_PATHS,
    name: "deleteResponse",
    tag: "OpenAI",
    summary: "Forget a response; one that is being made is cancelled",
    answers: [{ description: "Gone" }],
  },
  {
    method: "post",
    path: "/{id}/cancel",
    prefixes: RESPONSES_PATHS,
    name: "cancelResponse",
    tag: "OpenAI",
    summary: "Cancel a response in the background",
    answers: [{ description: "The response as far as it came" }],
  },
  {
    method: "get",
    path: "/{id}/input_items",
    prefixes: RESPONSES_PATHS,
    name: "listInputItems",
    tag: "OpenAI",
    summary: "The conversation that a response answers",
    query: {
      order: { type: "string", enum: ["asc", "desc"], description: "Default: desc." },
      limit: { type: "integer", minimum: 1, maximum: 100, description: "Default: 20." },
      after: text("The id of the last item known"),
    },
    answers: [{ description: "A page of items" }],
  },
];

const RESPONSES: readonly Operation[] = [
  {
    method: "post",
    path: "",
    prefixes: RESPONSES_PATHS,
    name: "createResponse",
    tag: "OpenAI",
    summary: "Answer, and keep the answer to go on from",
    request: "ResponsesRequest",
    isInference: true,
    answers: [
      { description: "The response, or with `stream` its events", types: [JSON_TYPE, EVENTS] },
    ],
  },
  {
    method: "post",
    path: "/input_tokens",
    prefixes: RESPONSES_PATHS,
    name: "countResponseTokens",
    tag: "OpenAI",
    summary: "Count the tokens of a request for a response",
    request: "ResponsesRequest",
    isInference: true,
    answers: [{ description: "`input_tokens`" }],
  },
  {
    method: "post",
    path: "/compact",
    prefixes: RESPONSES_PATHS,
    name: "compactResponse",
    tag: "OpenAI",
    summary: "Refused: no engine here compacts a conversation",
    answers: [],
    failures: { 501: "Not supported; the body is not read" },
  },
  ...STORED,
];

/** Anthropic's own paths are whole: they share no prefixes with the others. */
const ANTHROPIC: readonly Operation[] = [
  {
    method: "post",
    path: "",
    prefixes: MESSAGES_PATHS,
    name: "createMessage",
    tag: "Anthropic",
    summary: "Answer messages",
    request: "MessagesRequest",
    isInference: true,
    answers: [
      { description: "The message, or with `stream` its events", types: [JSON_TYPE, EVENTS] },
    ],
  },
  {
    method: "post",
    path: "/count_tokens",
    prefixes: MESSAGES_PATHS,
    name: "countMessageTokens",
    tag: "Anthropic",
    summary: "Count the tokens of messages",
    request: "CountTokensRequest",
    isInference: true,
    answers: [{ description: "`input_tokens`" }],
  },
  {
    method: "get",
    path: "/anthropic/v1/models",
    name: "listAnthropicModels",
    tag: "Anthropic",
    summary: "List the models on this machine",
    answers: [{ description: "All of them, on one page" }],
  },
  {
    method: "get",
    path: "/anthropic/v1/models/{name}",
    name: "getAnthropicModel",
    tag: "Anthropic",
    summary: "Describe a model",
    answers: [{ description: "The model" }],
  },
];

export const INFERENCE_OPERATIONS: readonly Operation[] = [
  ...CHAT_OPERATIONS,
  ...VECTOR_OPERATIONS,
  ...IMAGE_OPERATIONS,
  ...TOKEN_OPERATIONS,
  ...OPENAI_MODELS,
  ...RESPONSES,
  ...NO_ENGINE,
  ...ANTHROPIC,
];
