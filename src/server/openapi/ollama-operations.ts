/** The routes of Ollama's API. */
import {
  type Answer,
  BYTES,
  JSON_TYPE,
  LINES,
  NO_BODY,
  type Operation,
  type ParameterSchema,
} from "./operation.ts";

const STREAMED: Answer = {
  description: "A JSON value a line, or with `stream: false` one",
  types: [LINES, JSON_TYPE],
};

type Row = Omit<Operation, "tag" | "method">;

function post(row: Row): Operation {
  return { method: "post", tag: "Ollama", ...row };
}

function get(row: Row): Operation {
  return { method: "get", tag: "Ollama", ...row };
}

const ANSWERING: readonly Operation[] = [
  post({
    path: "/api/chat",
    name: "ollamaChat",
    summary: "Answer a chat, or load or unload a model",
    request: "OllamaChatRequest",
    isInference: true,
    answers: [STREAMED],
  }),
  post({
    path: "/api/generate",
    name: "ollamaGenerate",
    summary: "Answer a prompt, or load or unload a model",
    request: "OllamaGenerateRequest",
    isInference: true,
    answers: [STREAMED],
  }),
  post({
    path: "/api/embed",
    name: "ollamaEmbed",
    summary: "Turn texts into vectors",
    request: "OllamaEmbedRequest",
    isInference: true,
    answers: [{ description: "A vector a text, in order" }],
  }),
  post({
    path: "/api/embeddings",
    name: "ollamaEmbeddings",
    summary: "Turn a text into a vector",
    request: "OllamaEmbeddingsRequest",
    isInference: true,
    answers: [{ description: "The vector" }],
  }),
];

const READING: readonly Operation[] = [
  get({
    path: "/api/version",
    name: "ollamaVersion",
    summary: "The version of Ollama whose API this is",
    answers: [{ description: "`version`" }],
  }),
  get({
    path: "/api/tags",
    name: "ollamaTags",
    summary: "List the models on this machine",
    answers: [{ description: "`models`" }],
  }),
  get({
    path: "/api/ps",
    name: "ollamaPs",
    summary: "List the models in memory",
    answers: [{ description: "`models`" }],
  }),
  post({
    path: "/api/show",
    name: "ollamaShow",
    summary: "Describe a model",
    request: "OllamaShowRequest",
    answers: [{ description: "The model" }],
  }),
];

const CHANGING: readonly Operation[] = [
  post({
    path: "/api/copy",
    name: "ollamaCopy",
    summary: "Give a model another name",
    request: "OllamaCopyRequest",
    answers: [NO_BODY],
  }),
  {
    ...post({
      path: "/api/delete",
      name: "ollamaDelete",
      summary: "Remove a name, and with its last name the model",
      request: "OllamaDeleteRequest",
      answers: [NO_BODY],
    }),
    method: "delete",
  },
  post({
    path: "/api/pull",
    name: "ollamaPull",
    summary: "Fetch a model",
    request: "OllamaPullRequest",
    answers: [STREAMED],
  }),
  post({
    path: "/api/push",
    name: "ollamaPush",
    summary: "Send a model to the registry in its name",
    request: "OllamaPushRequest",
    answers: [STREAMED],
    failures: { 501: "Ollama's own library takes no pushes from others" },
  }),
  post({
    path: "/api/create",
    name: "ollamaCreate",
    summary: "Make a model from another one or from uploaded files",
    request: "OllamaCreateRequest",
    answers: [STREAMED],
    failures: { 501: "Nothing here quantises" },
  }),
  get({
    path: "/api/blobs/{digest}",
    name: "ollamaHasBlob",
    summary: "Whether a file is here; asked with HEAD",
    answers: [NO_BODY],
  }),
  post({
    path: "/api/blobs/{digest}",
    name: "ollamaUploadBlob",
    summary: "Upload a file",
    upload: BYTES,
    answers: [
      { status: 201, description: "Stored", types: [] },
      { description: "It was here", types: [] },
    ],
  }),
];

/** Of a path's parameter. */
export const DIGEST: ParameterSchema = {
  type: "string",
  description: "`sha256:` and 64 hexadecimal digits.",
};

export const OLLAMA_OPERATIONS: readonly Operation[] = [...ANSWERING, ...READING, ...CHANGING];
