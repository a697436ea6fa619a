import { describe, expect, test } from "bun:test";
import type { Context } from "hono";
import { AppError } from "../../src/errors.ts";
import type { ModelProfile } from "../../src/models/capabilities.ts";
import { createApp } from "../../src/server/app.ts";
import type { AppDeps, AppEnv } from "../../src/server/deps.ts";
import { fitInputs } from "../../src/server/routes/ollama/fit-inputs.ts";
import { FIRST_COMMENT_MS } from "../../src/server/inference.ts";
import { type Script, speaks, startFakeEngine } from "../fakes/engine.ts";
import { eventually } from "../helpers/eventually.ts";
import { countedLease, fakeDeps, fakePlan, fakeRuntime } from "./fake-deps.ts";
import { type EngineApp, engineApp, type EngineAppOptions } from "./engine-app.ts";

const MESSAGES = [{ role: "user", content: "hi" }];

interface Setup extends EngineApp {
  /** What the engine was asked. */
  asked(index?: number): Record<string, unknown>;
}

async function setUp(script: Script, options: EngineAppOptions = {}): Promise<Setup> {
  const it = await engineApp(script, options);
  return {
    ...it,
    asked: (index = 0) =>
      JSON.parse(it.engine.requests[index]?.body ?? "{}") as Record<string, unknown>,
  };
}

/** A whole answer of a chat. */
const says =
  (content: string): Script =>
  (exchange) =>
    exchange.json(200, {
      choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
      usage: { prompt_tokens: 4, completion_tokens: 1, total_tokens: 5 },
    });

/** Tokens are characters; embeddings tell how many there were. */
const embeds: Script = async (exchange) => {
  const body = JSON.parse(exchange.request.body) as {
    content?: string;
    add_special?: boolean;
    input?: (string | number[])[];
  };
  if (exchange.request.target === "/tokenize") {
    const tokens = Array.from(body.content ?? "", (char) => char.codePointAt(0));
    return exchange.json(200, { tokens: body.add_special === true ? [1, ...tokens, 2] : tokens });
  }
  const data = (body.input ?? []).map((one, index) => ({ index, embedding: [one.length, 0] }));
  return exchange.json(200, { data, usage: { prompt_tokens: 7 } });
};

function profileWith(
  ...capabilities: ModelProfile["capabilities"]
): NonNullable<AppDeps["profileOf"]> {
  return () => Promise.resolve({ capabilities, template: null, info: {}, projectorInfo: null });
}

async function linesOf(response: Response): Promise<Record<string, unknown>[]> {
  const text = await response.text();
  expect(text.endsWith("\n")).toBe(true);
  return text
    .trimEnd()
    .split("\n")
    .map((one) => JSON.parse(one) as Record<string, unknown>);
}

describe("POST /api/chat", () => {
  test("streams lines of JSON unless it is told not to", async () => {
    await using it = await setUp(speaks(["Par", "is"]));

    const response = await it.post("/api/chat", { model: "pebble", messages: MESSAGES });
    const lines = await linesOf(response);

    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    expect(lines.map((line) => line["message"])).toEqual([
      { role: "assistant", content: "Par" },
      { role: "assistant", content: "is" },
      { role: "assistant", content: "" },
    ]);
    expect(lines.map((line) => line["done"])).toEqual([false, false, true]);
    expect(lines.at(-1)).toMatchObject({ model: "pebble", done_reason: "stop" });
    expect(it.engine.requests[0]?.target).toBe("/v1/chat/completions");
    expect(it.asked()).toMatchObject({ model: "pebble", messages: MESSAGES, stream: true });
  });

  test("answers as a whole", async () => {
    await using it = await setUp(says("Paris"));

    const response = await it.post("/api/chat", {
      name: "pebble",
      messages: MESSAGES,
      stream: false,
      options: { temperature: 0, num_predict: 5, num_ctx: 512 },
      keep_alive: "10m",
      think: false,
    });

    expect(response.headers.get("content-type")).toBe("application/json");
    expect(await response.json()).toMatchObject({
      model: "pebble",
      message: { role: "assistant", content: "Paris" },
      done: true,
      done_reason: "stop",
      prompt_eval_count: 4,
      eval_count: 1,
    });
    expect(it.asked()).toMatchObject({
      temperature: 0,
      max_tokens: 5,
      chat_template_kwargs: { enable_thinking: false },
    });
    expect(it.runtime.acquired[0]?.plan.settings.contextTokens).toBe(512);
  });

  test("keeps a client that waits with empty lines", async () => {
    const gate = Promise.withResolvers<void>();
    await using it = await setUp(speaks(["Paris"]), { gate: () => gate.promise });

    const answer = it.post("/api/chat", { model: "pebble", messages: MESSAGES });
    await eventually(() => it.runtime.acquired.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    const response = await answer;
    gate.resolve();
    const lines = await linesOf(response);

    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    expect(lines[0]).toMatchObject({ message: { content: "" }, done: false });
    expect(lines.map((line) => (line["message"] as { content: string }).content).join("")).toBe(
      "Paris",
    );
  });

  test("that the engine breaks off ends with an error line", async () => {
    const seen = Promise.withResolvers<void>();
    await using it = await setUp(async (exchange) => {
      exchange.head(200, { "content-type": "text/event-stream" });
      await exchange.chunk('data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n');
      await seen.promise;
      exchange.die();
    });

    const response = await it.post("/api/chat", { model: "pebble", messages: MESSAGES });
    const reader = response.body?.getReader();
    const first = new TextDecoder().decode((await reader?.read())?.value);
    seen.resolve();
    const last = new TextDecoder().decode((await reader?.read())?.value);

    expect(JSON.parse(first)).toMatchObject({ message: { content: "a" }, done: false });
    expect(last).toMatch(/^\{"error":".*the connection to the engine broke.*"\}\n$/);
    expect(await reader?.read()).toMatchObject({ done: true });
  });

  test("of a client that leaves stops the engine", async () => {
    await using it = await setUp(async (exchange) => {
      exchange.head(200, { "content-type": "text/event-stream" });
      await exchange.chunk('data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n');
      await exchange.closed;
    });
    const client = new AbortController();

    const body = { model: "pebble", messages: MESSAGES };
    const response = await it.post("/api/chat", body, { signal: client.signal });
    await response.body?.getReader().read();
    client.abort();

    await eventually(() => it.engine.aborts === 1);
  });

  test("that the engine refuses is an error in Ollama's words", async () => {
    await using it = await setUp((exchange) =>
      exchange.json(400, { error: { code: 400, message: "bad schema", type: "x" } }),
    );

    const response = await it.post("/api/chat", { model: "pebble", messages: MESSAGES });

    expect(response.status).toBe(400);
    expect(await response.json()).toEqual({ error: "bad schema" });
  });

  test("to a model that cannot think refuses `think`", async () => {
    const deps = { profileOf: profileWith("completion") };
    await using it = await setUp(speaks(["no"]), { deps });

    const body = { model: "pebble", messages: MESSAGES, think: true };
    const refused = await it.post("/api/chat", body);
    const taken = await it.post("/api/chat", { ...body, think: false });

    expect(refused.status).toBe(400);
    expect(await refused.text()).toContain("does not support thinking");
    expect(taken.status).toBe(200);
  });

  test("to a model that can think tells the template how much", async () => {
    const deps = { profileOf: profileWith("completion", "thinking") };
    await using it = await setUp(says("hm"), { deps });

    const body = { model: "pebble", messages: MESSAGES, stream: false, think: "high" };
    const response = await it.post("/api/chat", body);

    expect(response.status).toBe(200);
    expect(it.asked()["chat_template_kwargs"]).toEqual({
      enable_thinking: true,
      reasoning_effort: "high",
    });
  });
});

describe("what a model is not for", () => {
  test.each([
    ["/api/chat", ["embedding"], {}],
    ["/api/generate", ["embedding"], {}],
    ["/api/embed", ["completion"], {}],
    ["/api/embed", ["completion"], { input: "x".repeat(5000) }],
    ["/api/embeddings", ["completion"], {}],
  ] as const)("POST %s to one for %p with %j loads nothing", async (path, able, body) => {
    const runtime = fakeRuntime({});
    const deps = fakeDeps({ runtime, profileOf: profileWith(...able) });

    const response = await createApp(deps).request(path, {
      method: "POST",
      body: JSON.stringify({ model: "pebble", ...body }),
    });

    expect(response.status).toBe(400);
    expect(await response.text()).toContain("it is for");
    expect(runtime.acquired).toEqual([]);
  });

  test("it can be unloaded for", async () => {
    const runtime = fakeRuntime({});
    const deps = { runtime, planner: leavingPlanner, profileOf: profileWith("embedding") };

    const response = await createApp(fakeDeps(deps)).request("/api/generate", {
      method: "POST",
      body: JSON.stringify({ model: "pebble", keep_alive: 0 }),
    });

    expect(response.status).toBe(200);
    expect(runtime.unloads).toHaveLength(1);
  });
});

/** As the real one refuses what is more than a model was trained for. */
const trainedPlanner: AppDeps["planner"] = () => ({
  plan: (request) => {
    if ((request.request?.context_size ?? 8192) <= 2048) return Promise.resolve(fakePlan(request));
    const details = { trained_context: 2048 };
    return Promise.reject(new AppError("invalid_request", "too large", { details }));
  },
});

describe("a context that the model does not have", () => {
  test.each([
    ["/api/chat", { messages: MESSAGES, stream: false }, says("ok")],
    ["/api/chat", {}, says("ok")],
    ["/api/embed", { input: "a" }, embeds],
    ["/api/embed", { input: "x".repeat(5000) }, embeds],
  ] as const)("POST %s with %j gets all it has", async (path, body, script) => {
    await using it = await setUp(script, { deps: { planner: trainedPlanner } });

    const options = { num_ctx: 32_768 };
    const response = await it.post(path, { model: "pebble", options, ...body });

    expect(response.status).toBe(200);
    const contexts = it.runtime.acquired.map(({ plan }) => plan.settings.contextTokens);
    expect(new Set(contexts)).toEqual(new Set([2048]));
  });

  test("is refused where the request does not say it", async () => {
    await using it = await setUp(says("ok"), { deps: { planner: trainedPlanner } });

    const response = await it.post("/api/chat", { model: "pebble", messages: MESSAGES });

    expect(response.status).toBe(400);
  });
});

function leavingPlanner(): ReturnType<AppDeps["planner"]> {
  return {
    plan: (request) => Promise.resolve({ ...fakePlan(request), keepAliveMs: 0 }),
  };
}

describe.each([
  ["/api/chat", { messages: [] }, { message: { role: "assistant", content: "" } }],
  ["/api/chat", {}, { message: { role: "assistant", content: "" } }],
  ["/api/generate", { prompt: "" }, { response: "" }],
  ["/api/generate", {}, { response: "" }],
])("POST %s with %j", (path, body, said) => {
  test("loads the model", async () => {
    const runtime = fakeRuntime({});

    const response = await createApp(fakeDeps({ runtime })).request(path, {
      method: "POST",
      body: JSON.stringify({ model: "pebble", ...body }),
    });

    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({
      model: "pebble",
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      ...said,
      done: true,
      done_reason: "load",
    });
    expect(runtime.leases[0]?.releases).toBe(1);
    expect(runtime.unloads).toEqual([]);
  });

  test("unloads it with a keep-alive of 0", async () => {
    const runtime = fakeRuntime({});
    const response = await createApp(fakeDeps({ runtime, planner: leavingPlanner })).request(path, {
      method: "POST",
      body: JSON.stringify({ model: "pebble", keep_alive: 0, ...body }),
    });

    expect(await response.json()).toMatchObject({ done: true, done_reason: "unload", ...said });
    expect(runtime.unloads).toHaveLength(1);
    expect(runtime.acquired).toEqual([]);
  });
});

test("a model of another format may think", async () => {
  const deps = fakeDeps();
  const resolve: AppDeps["resolve"] = async (...asked) => ({
    ...(await deps.resolve(...asked)),
    format: "safetensors",
  });
  const profileOf = profileWith("completion");
  await using it = await setUp(says("hm"), { deps: { resolve, profileOf } });

  const body = { model: "pebble", messages: MESSAGES, stream: false, think: true };

  expect((await it.post("/api/chat", body)).status).toBe(200);
});

describe("POST /api/generate", () => {
  test("answers a prompt", async () => {
    await using it = await setUp(says("Paris"));

    const body = { model: "pebble", prompt: "hi", system: "Be short.", stream: false };
    const answer = await (await it.post("/api/generate", body)).json();

    expect(answer).toMatchObject({ response: "Paris", done: true, done_reason: "stop" });
    expect(answer).not.toHaveProperty("context");
    expect(it.asked()["messages"]).toEqual([
      { role: "system", content: "Be short." },
      { role: "user", content: "hi" },
    ]);
  });

  test("asks for completions of a raw prompt", async () => {
    await using it = await setUp((exchange) =>
      exchange.json(200, { choices: [{ text: " upon", finish_reason: "length" }] }),
    );

    const body = { model: "pebble", prompt: "Once", raw: true, stream: false };
    const answer = await (await it.post("/api/generate", body)).json();

    expect(answer).toMatchObject({ response: " upon", done_reason: "length" });
    expect(it.engine.requests[0]?.target).toBe("/v1/completions");
  });

  test.each([[501], [404]])(
    "a suffix that the engine answers with %d is refused",
    async (status) => {
      await using it = await setUp((exchange) =>
        exchange.json(status, { error: { code: status, message: "not supported", type: "x" } }),
      );

      const response = await it.post("/api/generate", {
        model: "pebble",
        prompt: "a",
        suffix: "b",
      });

      expect(response.status).toBe(400);
      expect(await response.text()).toContain("does not support insert");
      expect(it.engine.requests[0]?.target).toBe("/infill");
    },
  );

  test("a suffix for a model that cannot fill in loads nothing", async () => {
    const deps = { profileOf: profileWith("completion") };
    await using it = await setUp(says("x"), { deps });

    const response = await it.post("/api/generate", { model: "pebble", prompt: "a", suffix: "b" });

    expect(response.status).toBe(400);
    expect(it.runtime.acquired).toEqual([]);
  });
});

describe("POST /api/embed", () => {
  test("answers each input with a vector of length 1", async () => {
    await using it = await setUp(embeds);

    const response = await it.post("/api/embed", { model: "pebble", input: ["ab", "c"] });

    expect(await response.json()).toEqual({
      model: "pebble",
      embeddings: [
        [1, 0],
        [1, 0],
      ],
      total_duration: 0,
      load_duration: expect.any(Number),
      prompt_eval_count: 7,
    });
    expect(it.runtime.acquired[0]?.plan.mode).toBe("embedding");
    expect(it.asked()).toEqual({ model: "pebble", input: ["ab", "c"], encoding_format: "float" });
  });

  test("cuts what is too long, and keeps the token that ends it", async () => {
    await using it = await setUp(embeds);

    await it.post("/api/embed", { model: "pebble", input: ["short", "x".repeat(5000)] });
    const asked = it.engine.requests.at(-1);

    const { input } = JSON.parse(asked?.body ?? "") as { input: [string, number[]] };
    expect(asked?.target).toBe("/v1/embeddings");
    expect(input[0]).toBe("short");
    expect(input[1]).toHaveLength(2048);
    expect(input[1].slice(0, 2)).toEqual([1, 120]);
    expect(input[1].slice(-2)).toEqual([120, 2]);
    expect(it.runtime.acquired).toHaveLength(2);
  });

  test("cuts nothing with `truncate: false`, and what the engine says is the client's fault", async () => {
    const message =
      "input (5002 tokens) is too large to process. increase the physical batch size (current batch size: 2048)";
    await using it = await setUp((exchange) =>
      exchange.json(500, { error: { code: 500, message, type: "server_error" } }),
    );

    const body = { model: "pebble", input: "x".repeat(5000), truncate: false };
    const response = await it.post("/api/embed", body);

    expect(response.status).toBe(400);
    expect(await response.text()).toContain("5002 tokens > 2048 maximum");
    expect(it.engine.requests.map(({ target }) => target)).toEqual(["/v1/embeddings"]);
  });

  test("measures nothing more for a client that has gone", async () => {
    const left = new AbortController();
    await using engine = await startFakeEngine((exchange) => {
      left.abort();
      return exchange.closed;
    });
    const lease = countedLease(engine.socket);
    const runtime = fakeRuntime({ acquire: () => Promise.resolve(lease) });
    const raw = new Request("http://localhost/api/embed", { signal: left.signal });
    const context = { c: { req: { raw } } as Context<AppEnv>, deps: fakeDeps({ runtime }) };
    const target = { modelName: "pebble", mode: "embedding", settings: {} } as const;

    const fitting = fitInputs(context, target, ["x".repeat(5000), "y".repeat(5000)]);

    expect(await fitting.catch((error: AppError) => error.code)).toBe("cancelled");
    expect(lease.releases).toBe(1);
  });

  test("an engine that knows no tokens gets the text as it is", async () => {
    await using it = await setUp((exchange) =>
      exchange.request.target === "/tokenize" ? exchange.die() : embeds(exchange),
    );

    const text = "x".repeat(5000);
    const response = await it.post("/api/embed", { model: "pebble", input: text });

    expect(response.status).toBe(200);
    expect(JSON.parse(it.engine.requests.at(-1)?.body ?? "")).toMatchObject({ input: [text] });
  });

  test.each([[{}], [{ input: "" }], [{ input: [] }]])("%j loads the model", async (body) => {
    await using it = await setUp(embeds);

    const response = await it.post("/api/embed", { model: "pebble", ...body });

    expect(await response.json()).toMatchObject({ embeddings: [], prompt_eval_count: 0 });
    expect(it.runtime.acquired).toHaveLength(1);
  });

  test("an answer without vectors is a 502", async () => {
    await using it = await setUp((exchange) => exchange.json(200, { data: "none" }));

    const response = await it.post("/api/embed", { model: "pebble", input: "a" });

    expect(response.status).toBe(502);
    expect(await response.text()).toContain("no vectors");
  });
});

describe("POST /api/embeddings", () => {
  test("answers one vector", async () => {
    await using it = await setUp(embeds);

    const response = await it.post("/api/embeddings", { model: "pebble", prompt: "abc" });

    expect(await response.json()).toEqual({ embedding: [1, 0] });
  });

  test("of nothing is empty", async () => {
    await using it = await setUp(embeds);

    const response = await it.post("/api/embeddings", { model: "pebble" });

    expect(await response.json()).toEqual({ embedding: [] });
  });
});

const CHAT = { model: "pebble", messages: MESSAGES };
const PROMPT = { model: "pebble", prompt: "hi" };

describe("a bad request", () => {
  test.each([
    ["/api/chat", "{", 400, "not JSON"],
    ["/api/chat", "", 400, "empty"],
    ["/api/chat", [], 400, "cannot read the request"],
    ["/api/chat", { messages: MESSAGES }, 400, "`model` is required"],
    ["/api/chat", { ...CHAT, model: 5 }, 400, "`model`"],
    ["/api/chat", { ...CHAT, model: "nobody/nothing" }, 404, "not found"],
    ["/api/chat", { ...CHAT, messages: "hi" }, 400, "`messages`"],
    ["/api/chat", { ...CHAT, messages: [{ content: "hi" }] }, 400, "`messages.0.role`"],
    ["/api/chat", { ...CHAT, messages: [{ role: "user", content: 5 }] }, 400, "messages.0.content"],
    ["/api/chat", { ...CHAT, messages: [{ role: "x", content: "" }] }, 400, "messages.0.role"],
    ["/api/chat", { ...CHAT, stream: "yes" }, 400, "`stream`"],
    ["/api/chat", { ...CHAT, think: "lots" }, 400, "`think`"],
    ["/api/chat", { ...CHAT, format: 7 }, 400, "`format`"],
    ["/api/chat", { ...CHAT, format: "yaml" }, 400, "`format`"],
    ["/api/chat", { ...CHAT, tools: {} }, 400, "`tools`"],
    ["/api/chat", { ...CHAT, tools: [{ type: "function" }] }, 400, "tools.0.function"],
    ["/api/chat", { ...CHAT, keep_alive: "soon" }, 400, "keep_alive"],
    ["/api/chat", { ...CHAT, options: { top_k: "many" } }, 400, "options.top_k"],
    ["/api/chat", { ...CHAT, options: { seed: 1e300 } }, 400, "options.seed"],
    ["/api/chat", { ...CHAT, logprobs: true, top_logprobs: 21 }, 400, "top_logprobs"],
    ["/api/generate", { ...PROMPT, prompt: ["hi"] }, 400, "`prompt`"],
    ["/api/generate", { ...PROMPT, template: "{{ .Prompt }}" }, 400, "`template`"],
    ["/api/generate", { ...PROMPT, images: ["%%%"] }, 400, "images[0]"],
    ["/api/generate", { ...PROMPT, raw: true, system: "x" }, 400, "`system`"],
    ["/api/generate", { ...PROMPT, context: "x" }, 400, "`context`"],
    ["/api/embed", { model: "pebble", input: 5 }, 400, "`input`"],
    ["/api/embed", { model: "pebble", input: ["a", 5] }, 400, "`input.1`"],
    ["/api/embed", { model: "pebble", input: "a", dimensions: -1 }, 400, "`dimensions`"],
    ["/api/embed", { input: "a" }, 400, "`model` is required"],
    ["/api/embeddings", { model: "pebble", prompt: ["a"] }, 400, "`prompt`"],
  ])("%s %j", async (...row) => {
    const [path, body, status, word] = row;
    const runtime = fakeRuntime({});
    const response = await createApp(fakeDeps({ runtime })).request(path, {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
    });

    expect(response.status).toBe(status);
    const { error, ...others } = (await response.json()) as { error: string };
    expect(error).toContain(word);
    expect(others).toEqual({});
    expect(runtime.acquired).toEqual([]);
  });

  test("with nesting or duplicate names is no trouble", async () => {
    await using it = await setUp(says("ok"));
    const deep = `${"[".repeat(50)}${"]".repeat(50)}`;
    const body = `{"model":"none","model":"pebble","stream":false,"x":${deep},"messages":[{"role":"user","content":"hi"}]}`;

    expect((await it.post("/api/chat", body)).status).toBe(200);
  });
});
