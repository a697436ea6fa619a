import { describe, expect, test } from "bun:test";
import type { ModelProfile } from "../../src/models/capabilities.ts";
import { cutEmbeddings } from "../../src/server/routes/embeddings.ts";
import { speaks } from "../fakes/engine.ts";
import { fakePlan } from "./fake-deps.ts";
import { errorOf, openaiSetup, says } from "./openai-setup.ts";

const QUESTION = [{ role: "user", content: "Why?" }];
const VECTORS = {
  object: "list",
  model: "pebble",
  data: [
    { object: "embedding", index: 0, embedding: [3, 4, 12] },
    { object: "embedding", index: 1, embedding: [0, 0, 1] },
  ],
  usage: { prompt_tokens: 2, total_tokens: 2 },
};
const RANKING = {
  model: "engine",
  object: "list",
  usage: { prompt_tokens: 9, total_tokens: 9 },
  results: [
    { index: 1, relevance_score: -1.5 },
    { index: 0, relevance_score: 0.25 },
    { index: 2, relevance_score: 7 },
  ],
};
const EMBEDDING: ModelProfile = {
  capabilities: ["embedding"],
  info: { "general.architecture": "bert", "bert.pooling_type": 1 },
  template: null,
  projectorInfo: null,
};

const embeds = (): Promise<ModelProfile> => Promise.resolve(EMBEDDING);
const isDamaged = (): Promise<never> => Promise.reject(new Error("damaged"));
const renames = () => ({
  plan: (request: Parameters<typeof fakePlan>[0]) =>
    Promise.resolve({ ...fakePlan(request), servedModel: "sha256:abc" }),
});

describe("embeddings", () => {
  test.each(["/v1", "/engines/v1", "/engines/llama.cpp/v1", ""])(
    "openai: %s/embeddings reaches the engine byte for byte, in embedding mode",
    async (prefix) => {
      await using it = await openaiSetup(says(VECTORS));
      const body = '{ "model":"pebble", "input":["a","b"], "encoding_format":"base64", "x":1.0 }';

      const response = await it.post(`${prefix}/embeddings`, body);

      expect(await response.json()).toEqual(VECTORS);
      expect(it.engine.requests[0]).toMatchObject({ target: "/v1/embeddings", body });
      expect(it.runtime.acquired[0]?.plan.mode).toBe("embedding");
    },
  );

  test.each([
    ["a text", "a"],
    ["tokens", [1, 2, 3]],
    ["several of them", [[1], [2, 3]]],
  ])("openai: the input may be %s", async (_, input) => {
    await using it = await openaiSetup(says(VECTORS));

    expect((await it.post("/v1/embeddings", { model: "pebble", input })).status).toBe(200);
  });

  test.each([
    ["dimensions", { dimensions: 0 }],
    ["dimensions", { dimensions: 1.5 }],
    ["dimensions", { dimensions: "4" }],
    ["encoding_format", { encoding_format: "hex" }],
    ["input", { input: undefined }],
    ["input", { input: [] }],
    ["input.0", { input: [{ text: "a" }] }],
    ["input", { input: 7 }],
    ["model", { model: undefined }],
    ["model", { model: "" }],
    ["model", { model: ["pebble"] }],
  ])("openai: a wrong `%s` is named: %j", async (param, wrong) => {
    await using it = await openaiSetup(says(VECTORS));

    const response = await it.post("/v1/embeddings", { model: "pebble", input: "a", ...wrong });

    expect(response.status).toBe(400);
    expect(await errorOf(response)).toMatchObject({
      param,
      code: "invalid_request",
      type: "invalid_request_error",
      message: expect.stringContaining(`\`${param}\``),
    });
    expect(it.engine.requests).toHaveLength(0);
  });

  test("openai: fewer dimensions are cut here and have length 1 again", async () => {
    await using it = await openaiSetup(says(VECTORS));

    const response = await it.post("/v1/embeddings", {
      model: "pebble",
      input: ["a", "b"],
      dimensions: 2,
    });

    expect(await response.json()).toMatchObject({
      data: [{ embedding: [0.6, 0.8] }, { embedding: [0, 0] }],
      usage: VECTORS.usage,
    });
    expect(it.sent).toEqual({ model: "pebble", input: ["a", "b"], encoding_format: "float" });
  });

  test("openai: cut embeddings come as base64, too", () => {
    const { data } = cutEmbeddings(VECTORS, { dimensions: 2, format: "base64" }) as {
      data: { embedding: string }[];
    };
    const bytes = Buffer.from(data[0]?.embedding ?? "", "base64");

    expect([bytes.length, bytes.readFloatLE(0), bytes.readFloatLE(4)]).toEqual([
      8,
      Math.fround(0.6),
      Math.fround(0.8),
    ]);
  });

  test("openai: more dimensions than the model has are refused", async () => {
    await using it = await openaiSetup(says(VECTORS));

    const response = await it.post("/v1/embeddings", {
      model: "pebble",
      input: "a",
      dimensions: 4,
    });

    expect(response.status).toBe(400);
    expect(await errorOf(response)).toMatchObject({ param: "dimensions" });
    expect(it.runtime.leases[0]?.releases).toBe(1);
  });

  test("openai: an answer without vectors is no reason for a 500", () => {
    expect(
      cutEmbeddings({ data: [null, { embedding: "x" }] }, { dimensions: 1, format: "float" }),
    ).toEqual({ data: [null, { embedding: "x" }] });
  });
});

describe("rerank", () => {
  const paths = [
    "/v1",
    "/engines/v1",
    "/engines/llama.cpp/v1",
    "",
    "/engines",
    "/engines/llama.cpp",
  ];

  test.each(paths)("openai: %s/rerank gives the best first", async (prefix) => {
    await using it = await openaiSetup(says(RANKING));

    const response = await it.post(`${prefix}/rerank`, {
      model: "pebble",
      query: "q",
      documents: ["a", { text: "b" }, "c"],
      top_n: 2,
      return_documents: true,
      keep_alive: "1m",
    });

    expect(await response.json()).toEqual({
      model: "pebble",
      object: "list",
      usage: RANKING.usage,
      results: [
        { index: 2, relevance_score: 7, document: { text: "c" } },
        { index: 0, relevance_score: 0.25, document: { text: "a" } },
      ],
    });
    expect(it.engine.requests[0]?.target).toBe("/v1/rerank");
    expect(it.sent).toEqual({ model: "pebble", query: "q", documents: ["a", "b", "c"] });
    expect(it.runtime.acquired[0]?.plan.mode).toBe("reranking");
  });

  test.each(paths)("openai: %s/score gives a score a text, in their order", async (prefix) => {
    await using it = await openaiSetup(says(RANKING));

    const response = await it.post(`${prefix}/score`, {
      model: "pebble",
      text_1: ["q"],
      text_2: ["a", "b", "c"],
    });

    expect(await response.json()).toEqual({
      id: expect.stringMatching(/^score-/),
      object: "list",
      created: expect.any(Number),
      model: "pebble",
      data: [0.25, -1.5, 7].map((score, index) => ({ index, object: "score", score })),
      usage: RANKING.usage,
    });
  });

  test.each([
    ["/rerank", "documents", { documents: [] }],
    ["/rerank", "documents.0", { documents: [5] }],
    ["/rerank", "documents", { documents: "a" }],
    ["/rerank", "query", { query: "" }],
    ["/rerank", "query", { query: null }],
    ["/rerank", "top_n", { top_n: 0 }],
    ["/rerank", "top_n", { top_n: "2" }],
    ["/rerank", "return_documents", { return_documents: 1 }],
    ["/score", "text_1", { text_1: ["a", "b"] }],
    ["/score", "text_2", { text_2: [] }],
    ["/score", "text_2", { text_2: undefined }],
  ])("openai: %s names a wrong `%s`: %j", async (path, param, wrong) => {
    await using it = await openaiSetup(says(RANKING));
    const right = { model: "pebble", query: "q", documents: ["a"], text_1: "a", text_2: "b" };

    const response = await it.post(path, { ...right, ...wrong });

    expect(response.status).toBe(400);
    expect(await errorOf(response)).toMatchObject({ param });
  });

  test.each([
    ["no results", { object: "list" }],
    ["a document that was not sent", { results: [{ index: 5, relevance_score: 1 }] }],
    ["no object", { results: [null] }],
  ])("openai: an engine that ranks %s has failed", async (_, answer) => {
    await using it = await openaiSetup(says(answer));

    const response = await it.post("/rerank", { model: "pebble", query: "q", documents: ["a"] });

    expect(response.status).toBe(502);
    expect(it.runtime.leases.every(({ releases }) => releases === 1)).toBe(true);
  });
});

describe("tokens", () => {
  test.each(["/v1", "/engines/llama.cpp/v1", "", "/engines", "/engines/llama.cpp"])(
    "openai: %s/tokenize counts, too",
    async (prefix) => {
      await using it = await openaiSetup(says({ tokens: [1, 2, 3] }));

      const response = await it.post(`${prefix}/tokenize`, { model: "pebble", prompt: "abc" });

      expect(await response.json()).toEqual({ tokens: [1, 2, 3], count: 3 });
      expect(it.engine.requests[0]?.target).toBe("/tokenize");
      expect(it.sent).toMatchObject({ content: "abc", add_special: false, parse_special: true });
    },
  );

  test("openai: a text comes back in both servers' words", async () => {
    await using it = await openaiSetup(says({ content: "abc" }));

    const response = await it.post("/v1/detokenize", { model: "pebble", tokens: [1, 2] });

    expect(await response.json()).toEqual({ content: "abc", prompt: "abc" });
    expect(it.sent).toEqual({ model: "pebble", tokens: [1, 2] });
  });

  test("openai: a model for embeddings tokenizes on the worker that it has anyway", async () => {
    await using it = await openaiSetup(says({ tokens: [] }), { profileOf: embeds });

    await it.post("/tokenize", { model: "pebble", content: "" });

    expect(it.runtime.acquired[0]?.plan.mode).toBe("embedding");
  });

  test("openai: a model whose file cannot be read is the engine's to judge", async () => {
    await using it = await openaiSetup(says({ tokens: [] }), { profileOf: isDamaged });

    expect((await it.post("/tokenize", { model: "pebble", content: "" })).status).toBe(200);
  });

  test.each([
    ["/tokenize", "content", {}],
    ["/tokenize", "content", { content: 5 }],
    ["/tokenize", "with_pieces", { content: "a", with_pieces: "yes" }],
    ["/detokenize", "tokens", {}],
    ["/detokenize", "tokens", { tokens: "1" }],
    ["/detokenize", "tokens.0", { tokens: [-1] }],
    ["/detokenize", "tokens.1", { tokens: [1, 1.5] }],
    ["/detokenize", "tokens.0", { tokens: [1e12] }],
    ["/v1/chat/completions/input_tokens", "messages", {}],
    ["/v1/chat/completions/input_tokens", "messages", { messages: [] }],
  ])("openai: %s names a wrong `%s`: %j", async (path, param, wrong) => {
    await using it = await openaiSetup(says({}));

    const response = await it.post(path, { model: "pebble", ...wrong });

    expect(response.status).toBe(400);
    expect(await errorOf(response)).toMatchObject({ param });
  });

  test("openai: a token that the model does not have is the request's fault", async () => {
    const message = "vector::_M_range_check: __n (which is 99) >= this->size() (which is 9)";
    await using it = await openaiSetup(says({ error: { code: 500, message } }, 500));

    const response = await it.post("/detokenize", { model: "pebble", tokens: [99] });

    expect(response.status).toBe(400);
    expect(await errorOf(response)).toMatchObject({
      param: "tokens",
      message: "cannot answer with `pebble`: it has no such token",
    });
  });

  test("openai: the tokens of a chat are counted by the engine", async () => {
    await using it = await openaiSetup(says({ input_tokens: 9 }));
    const body = { model: "pebble", messages: QUESTION };

    const response = await it.post("/engines/v1/chat/completions/input_tokens", body);

    expect(await response.json()).toEqual({ input_tokens: 9 });
    expect(it.engine.requests[0]?.target).toBe("/v1/chat/completions/input_tokens");
  });
});

describe("what there is no engine for", () => {
  test.each([
    ["/v1/images/variations", "vary images"],
    ["/engines/llama.cpp/v1/audio/transcriptions", "transcribe audio"],
    ["/v1/audio/translations", "transcribe audio"],
    ["/v1/audio/speech", "speak"],
  ])("openai: %s says so", async (path, task) => {
    await using it = await openaiSetup(says({}));
    const form = new FormData();
    form.set("file", new Blob(["x".repeat(100_000)]), "a.wav");

    const response = await fetch(`${it.listening.endpoint}${path}`, { method: "POST", body: form });

    expect(response.status).toBe(501);
    expect(await errorOf(response)).toMatchObject({
      code: "not_supported",
      message: `cannot ${task}: no engine for it is installed`,
    });
  });
});

describe("chats", () => {
  test("openai: a chat without a word about thinking is passed byte for byte", async () => {
    await using it = await openaiSetup(says({}));
    const body = '{"model":"pebble", "messages":[{"role":"user","content":"\\u00e9"}],"seed":1.0}';

    await it.post("/v1/chat/completions", body);

    expect(it.engine.requests[0]?.body).toBe(body);
  });

  test.each<[object, Record<string, string>, object]>([
    [{ think: false }, {}, { enable_thinking: false }],
    [{ reasoning_effort: "none" }, {}, { enable_thinking: false }],
    [{ reasoning: { enabled: false } }, {}, { enable_thinking: false }],
    [{}, { "x-think": "off" }, { enable_thinking: false }],
    [{ reasoning_effort: "low" }, {}, { enable_thinking: true, reasoning_effort: "low" }],
  ])("openai: %j %j reaches the template, on the same worker", async (said, headers, kwargs) => {
    await using it = await openaiSetup(says({}));

    const body = { model: "pebble", messages: QUESTION, ...said };
    const response = await it.post("/v1/chat/completions", body, { headers });

    expect(response.status).toBe(200);
    expect(it.sent["chat_template_kwargs"]).toEqual(kwargs);
    expect(it.runtime.acquired[0]?.plan.settings).toEqual({
      contextTokens: undefined,
      runtimeFlags: [],
    });
  });

  test.each<[string, object, Record<string, string>]>([
    ["context_size", { context_size: 64 }, {}],
    ["num_ctx", { num_ctx: 64 }, {}],
    ["X-Context-Size", {}, { "x-context-size": "64" }],
  ])("openai: %s decides the context", async (_, said, headers) => {
    await using it = await openaiSetup(says({}));

    await it.post("/v1/completions", { model: "pebble", prompt: "a", ...said }, { headers });

    expect(it.runtime.acquired[0]?.plan.settings.contextTokens).toBe(64);
  });

  test.each<[string, object, Record<string, string>]>([
    ["messages", { messages: [] }, {}],
    ["messages", { messages: "x" }, {}],
    ["messages.0.role", { messages: [{ content: "x" }] }, {}],
    ["tools", { tools: "x" }, {}],
    ["tools.0.type", { tools: [{}] }, {}],
    ["stream", { stream: "yes" }, {}],
    ["think", { think: 5 }, {}],
    ["reasoning_effort", { reasoning_effort: "banana" }, {}],
    ["X-Think", {}, { "x-think": "banana" }],
    ["num_ctx", { num_ctx: "big" }, {}],
  ])("openai: a wrong `%s` is named: %j %j", async (param, wrong, headers) => {
    await using it = await openaiSetup(says({}));

    const body = { model: "pebble", messages: QUESTION, ...wrong };
    const response = await it.post("/v1/chat/completions", body, { headers });

    expect(response.status).toBe(400);
    expect(await errorOf(response)).toMatchObject({ param });
    expect(it.runtime.acquired).toHaveLength(0);
  });

  test.each([
    ["a header of nonsense", { "x-context-size": "many" }],
    ["an empty header", { "x-context-size": "" }],
    ["a keep-alive of nonsense", { "x-keep-alive": "soon" }],
  ])("openai: %s is refused", async (_, headers: Record<string, string>) => {
    await using it = await openaiSetup(says({}));

    const body = { model: "pebble", messages: QUESTION };

    expect((await it.post("/v1/chat/completions", body, { headers })).status).toBe(400);
  });

  test("openai: a model for embeddings does not chat, and nothing is loaded to find out", async () => {
    await using it = await openaiSetup(says({}), { profileOf: embeds });

    const body = { model: "pebble", messages: QUESTION, stream: true };
    const response = await it.post("/v1/chat/completions", body);

    expect(response.status).toBe(400);
    expect(await errorOf(response)).toMatchObject({
      param: "model",
      message: expect.stringMatching(/: it is for embeddings, not for chat$/),
    });
    expect(it.runtime.acquired).toHaveLength(0);
  });

  test("openai: an engine that knows the model by another name is asked by that", async () => {
    await using it = await openaiSetup(speaks(["hi"]), { planner: renames });

    const body = { model: "pebble", messages: QUESTION, stream: true, x: [1] };
    await (await it.post("/v1/chat/completions", body)).text();

    expect(it.sent).toEqual({ ...body, model: "sha256:abc" });
  });

  test.each([
    "Failed to parse tools: Missing tool function: {}",
    "Failed to load image or audio file",
    "error: cannot make GET request",
  ])("openai: an engine's 500 for a wrong request is a 400: %s", async (message) => {
    await using it = await openaiSetup(
      says({ error: { code: 500, message, type: "server_error" } }, 500),
    );

    const response = await it.post("/v1/chat/completions", { model: "pebble", messages: QUESTION });

    expect(response.status).toBe(400);
    expect(await errorOf(response)).toEqual({
      message,
      type: "invalid_request_error",
      param: null,
      code: "invalid_request",
    });
  });

  test("openai: an engine's own trouble stays one", async () => {
    await using it = await openaiSetup(says({ error: { code: 500, message: "oops" } }, 500));

    const response = await it.post("/v1/chat/completions", { model: "pebble", messages: QUESTION });

    expect(response.status).toBe(500);
    expect(await errorOf(response)).toMatchObject({ type: "server_error", code: "worker_failed" });
  });

  test("openai: /generate completes a text", async () => {
    await using it = await openaiSetup(says({ object: "text_completion" }));

    const response = await it.post("/generate", { model: "pebble", prompt: "Once" });

    expect(await response.json()).toEqual({ object: "text_completion" });
    expect(it.engine.requests[0]?.target).toBe("/v1/completions");
  });
});
