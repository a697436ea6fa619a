import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import type { AcquireRequest } from "../../src/runtime/supervisor.ts";
import { FIRST_COMMENT_MS } from "../../src/server/inference.ts";
import {
  type EngineRequest,
  type FakeEngine,
  type Script,
  speaks,
  speaksForEver,
  thinksForEver,
} from "../fakes/engine.ts";
import { eventually } from "../helpers/eventually.ts";
import { type CountedLease, fakeDeps } from "./fake-deps.ts";
import { type EngineApp, engineApp, type EngineAppOptions } from "./engine-app.ts";

const HI = [{ role: "user", content: "hi" }];
const WHOLE = {
  choices: [{ message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 9, completion_tokens: 1 },
};

interface Setup extends Omit<EngineApp, "post"> {
  readonly acquired: readonly AcquireRequest[];
  readonly leases: readonly CountedLease[];
  post(body: object | string, init?: PostInit): Promise<Response>;
}

interface PostInit extends RequestInit {
  readonly path?: string;
}

async function setUp(script: Script, options: EngineAppOptions = {}): Promise<Setup> {
  const it = await engineApp(script, options);
  const { acquired, leases } = it.runtime;
  return {
    ...it,
    acquired,
    leases,
    post(body, { path = "/v1/messages", ...init } = {}) {
      const whole = { model: "pebble", max_tokens: 16, messages: HI };
      return it.post(path, typeof body === "string" ? body : { ...whole, ...body }, init);
    },
  };
}

const answersWhole: Script = (exchange) => exchange.json(200, WHOLE);
const counts: Script = (exchange) => exchange.json(200, { input_tokens: 15 });

async function errorOf(response: Response): Promise<{ type: string; message: string }> {
  const body = (await response.json()) as {
    type: string;
    error: { type: string; message: string };
  };
  expect(body.type).toBe("error");
  return body.error;
}

function sentTo({ requests }: FakeEngine): {
  request: EngineRequest;
  body: Record<string, unknown>;
} {
  const request = requests.at(-1);
  if (request === undefined) throw new Error("the engine was not asked");
  return { request, body: JSON.parse(request.body) as Record<string, unknown> };
}

describe("POST messages", () => {
  test.each(["/v1/messages", "/anthropic/v1/messages", "/engines/v1/messages"])(
    "%s answers a whole message",
    async (path) => {
      await using setup = await setUp(answersWhole);

      const response = await setup.post({}, { path });

      expect(response.status).toBe(200);
      expect(response.headers.get("content-type")).toBe("application/json");
      expect(await response.json()).toMatchObject({
        type: "message",
        model: "pebble",
        content: [{ type: "text", text: "Hello" }],
        usage: { input_tokens: 9, output_tokens: 1 },
      });
      expect(sentTo(setup.engine)).toMatchObject({
        request: { target: "/v1/chat/completions" },
        body: { model: "pebble", messages: HI, max_tokens: 16 },
      });
    },
  );

  test("goes to the engine that the path names", async () => {
    await using setup = await setUp(answersWhole);

    await setup.post({}, { path: "/engines/llama.cpp/v1/messages" });

    expect(setup.acquired[0]?.plan.backend).toBe("llama.cpp");
  });

  test("streams events", async () => {
    await using setup = await setUp(speaks(["Hel", "lo"]));

    const response = await setup.post({ stream: true });
    const text = await response.text();

    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect([...text.matchAll(/^event: (\w+)$/gm)].map(([, name]) => name)).toEqual([
      "message_start",
      "ping",
      "content_block_start",
      "content_block_delta",
      "content_block_delta",
      "content_block_stop",
      "message_delta",
      "message_stop",
    ]);
    expect(setup.leases.map(({ releases }) => releases)).toEqual([1]);
  });

  test("keep_alive and context_size are the worker's", async () => {
    let asked: unknown;
    const { planner } = fakeDeps();
    await using setup = await setUp(answersWhole, {
      deps: {
        planner: () => ({
          plan: async (request) => {
            asked = request.request;
            return (await planner()).plan(request);
          },
        }),
      },
    });

    await setup.post({ keep_alive: "7m", context_size: 512 });

    expect(asked).toMatchObject({ keep_alive: "7m", context_size: 512 });
  });

  test("has both names of the request's id, also when it fails", async () => {
    await using setup = await setUp(answersWhole);

    const headers = { "x-request-id": "mine" };
    const good = await setup.post({}, { headers });
    const bad = await setup.post("{", { headers });

    expect([good.headers.get("request-id"), good.headers.get("x-request-id")]).toEqual([
      "mine",
      "mine",
    ]);
    expect(bad.headers.get("request-id")).toBe("mine");
  });
});

describe("POST count_tokens", () => {
  test.each([
    "/v1/messages/count_tokens",
    "/anthropic/v1/messages/count_tokens",
    "/engines/v1/messages/count_tokens",
    "/engines/llama.cpp/v1/messages/count_tokens",
  ])("%s counts what would be asked", async (path) => {
    await using setup = await setUp(counts);

    const response = await setup.post({ system: "Be kind.", max_tokens: undefined }, { path });

    expect(await response.json()).toEqual({ input_tokens: 15 });
    expect(sentTo(setup.engine)).toMatchObject({
      request: { target: "/v1/chat/completions/input_tokens" },
      body: { messages: [{ role: "system", content: "Be kind." }, ...HI] },
    });
    expect(setup.leases.map(({ releases }) => releases)).toEqual([1]);
  });

  test("fails where the engine gives no number", async () => {
    await using setup = await setUp((exchange) => exchange.json(200, { tokens: "many" }));

    const response = await setup.post({}, { path: "/v1/messages/count_tokens" });

    expect(response.status).toBe(502);
    expect(await errorOf(response)).toMatchObject({ type: "api_error" });
  });
});

function image(source: object): object {
  return { type: "image", source };
}

describe("a wrong request", () => {
  const TOO_DEEP = `{"model":"pebble","max_tokens":1,"messages":${"[".repeat(5000)}`;
  const cases: [string, object | string, string][] = [
    ["no JSON", "{", "JSON"],
    ["nothing", "", "empty"],
    ["a list", "[]", "object"],
    ["a text", '"hi"', "object"],
    ["nesting without an end", TOO_DEEP, "cannot read the request"],
    ["no model", { model: undefined }, "`model` is required"],
    ["a model that is no name", { model: 7 }, "`model`"],
    ["no max_tokens", { max_tokens: undefined }, "`max_tokens` is required"],
    ["max_tokens as text", { max_tokens: "16" }, "`max_tokens`"],
    ["a negative limit", { max_tokens: -1 }, "`max_tokens` must be at least 0"],
    ["half a token", { max_tokens: 1.5 }, "`max_tokens` must be a whole number"],
    ["nothing in a stream", { max_tokens: 0, stream: true }, "`max_tokens`"],
    ["no messages", { messages: [] }, "`messages` must have"],
    ["messages that are none", { messages: "hi" }, "`messages`"],
    ["a role that is none", { messages: [{ role: "tool", content: "a" }] }, "`messages.0.role`"],
    ["no content", { messages: [{ role: "user" }] }, "`messages.0.content`"],
    ["stream as text", { stream: "yes" }, "`stream`"],
    ["a hot model", { temperature: 1.5 }, "`temperature` must be at most 1"],
    ["a part of a candidate", { top_k: 0.5 }, "`top_k`"],
    ["an empty stop sequence", { stop_sequences: [" "] }, "`stop_sequences.0`"],
    [
      "too many stop sequences",
      { stop_sequences: Array.from({ length: 8193 }, () => "a") },
      "`stop_sequences` must have at most 8192",
    ],
    [
      "a tool of the host",
      { tools: [{ type: "web_search_20250305", name: "web_search" }] },
      "web_search_20250305",
    ],
    ["a tool without a schema", { tools: [{ name: "a" }] }, "`tools.0.input_schema`"],
    [
      "a tool whose schema is no object's",
      { tools: [{ name: "a", input_schema: { type: "string" } }] },
      "`tools.0.input_schema.type`",
    ],
    [
      "a name that is none",
      { tools: [{ name: "a b", input_schema: { type: "object" } }] },
      "`tools.0.name`",
    ],
    ["a choice that is none", { tool_choice: { type: "some" } }, "`tool_choice.type`"],
    ["thinking without a budget", { thinking: { type: "enabled" } }, "`thinking.budget_tokens`"],
    ["an effort that is none", { output_config: { effort: "huge" } }, "`output_config.effort`"],
    ["a context that is none", { context_size: "big" }, "`context_size`"],
    ["a duration that is none", { keep_alive: "soon" }, "keep_alive"],
  ];
  test.each(cases)("with %s is told what", async (_, body, reason) => {
    await using setup = await setUp(answersWhole);

    const response = await setup.post(body);

    expect(response.status).toBe(400);
    const error = await errorOf(response);
    expect(error.type).toBe("invalid_request_error");
    expect(error.message).toContain(reason);
    expect(error.message.length).toBeLessThan(600);
    expect(setup.engine.requests).toEqual([]);
  });

  const blocks: [string, object, string][] = [
    ["an image elsewhere", image({ type: "url", url: "https://example.com/a.png" }), "data:"],
    ["a file elsewhere", image({ type: "file", file_id: "f1" }), "file"],
    ["a PDF", { type: "document", source: { type: "base64", data: "" } }, "base64"],
    ["a search of the host", { type: "web_search_tool_result" }, "web_search_tool_result"],
    ["text without text", { type: "text" }, "text"],
    ["no type", {}, "type"],
  ];
  test.each(blocks)("with a block of %s is told which", async (_, block, reason) => {
    await using setup = await setUp(answersWhole);

    const response = await setup.post({ messages: [{ role: "user", content: [block] }] });

    expect(response.status).toBe(400);
    const { message } = await errorOf(response);
    expect(message).toContain("messages.0.content");
    expect(message).toContain(reason);
  });
});

describe("GET /anthropic/v1/models", () => {
  const PEBBLE = {
    type: "model",
    id: "docker.io/ai/pebble:latest",
    display_name: "docker.io/ai/pebble:latest",
    created_at: "2023-11-14T22:13:20.000Z",
    max_input_tokens: null,
    max_tokens: null,
  };

  test("lists them on one page", async () => {
    await using setup = await setUp(answersWhole);

    const response = await fetch(`${setup.listening.endpoint}/anthropic/v1/models?limit=1`);

    expect(await response.json()).toEqual({
      data: [PEBBLE],
      first_id: PEBBLE.id,
      last_id: PEBBLE.id,
      has_more: false,
    });
  });

  test.each([
    ["ai/pebble", 200, PEBBLE],
    ["gone", 404, { type: "error", error: { type: "not_found_error" } }],
  ])("%p gives %d", async (name, status, body) => {
    await using setup = await setUp(answersWhole);

    const response = await fetch(`${setup.listening.endpoint}/anthropic/v1/models/${name}`);

    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject(body);
  });
});

describe("what is not there", () => {
  test("a model: says how to give it a name", async () => {
    await using setup = await setUp(answersWhole);

    const response = await setup.post({ model: "claude-sonnet-4" });

    expect(response.status).toBe(404);
    const { type, message } = await errorOf(response);
    expect(type).toBe("not_found_error");
    expect(message).toContain('`"claude-sonnet-4" = "MODEL"` under `[aliases]`');
  });

  test("an engine", async () => {
    await using setup = await setUp(answersWhole);

    const response = await setup.post({}, { path: "/engines/none/v1/messages" });

    expect(response.status).toBe(404);
    expect(await errorOf(response)).toMatchObject({ type: "not_found_error" });
  });

  test.each(["GET", "DELETE"])("the method %s", async (method) => {
    await using setup = await setUp(answersWhole);

    const response = await fetch(`${setup.listening.endpoint}/v1/messages`, { method });

    expect(response.status).toBe(405);
    expect(await errorOf(response)).toMatchObject({ type: "invalid_request_error" });
  });
});

describe("an engine that fails", () => {
  test("by refusing, is quoted in the API's words", async () => {
    const error = { code: 400, message: "the schema is wrong", type: "invalid_request_error" };
    await using setup = await setUp((exchange) => exchange.json(400, { error }));

    const response = await setup.post({});

    expect(response.status).toBe(400);
    expect(await errorOf(response)).toEqual({
      type: "invalid_request_error",
      message: "the schema is wrong",
    });
  });

  test("because the prompt is too long, says how long", async () => {
    const error = {
      code: 400,
      message: "request (1209 tokens) exceeds the available context size (256 tokens)",
      type: "exceed_context_size_error",
      n_prompt_tokens: 1209,
      n_ctx: 256,
    };
    await using setup = await setUp((exchange) => exchange.json(400, { error }));

    const response = await setup.post({ stream: true });

    expect(response.status).toBe(400);
    expect((await errorOf(response)).message).toContain("1209 tokens");
  });

  test("by dying twice, gives a 502", async () => {
    const failure = new AppError("worker_failed", "cannot serve `pebble`: it was killed");
    await using setup = await setUp((exchange) => exchange.die(), { failure });

    const response = await setup.post({});

    expect(response.status).toBe(502);
    expect(await errorOf(response)).toMatchObject({ type: "api_error" });
    expect(setup.leases.map(({ releases }) => releases)).toEqual([1, 1]);
  });

  test("in the middle of a stream, ends it with an error event", async () => {
    const failure = new AppError("worker_failed", "cannot serve `pebble`: it was killed");
    const seen = Promise.withResolvers<undefined>();
    await using setup = await setUp(
      async (exchange) => {
        exchange.head(200, { "content-type": "text/event-stream" });
        await exchange.chunk('data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n');
        await seen.promise;
        exchange.die();
      },
      { failure },
    );

    const response = await setup.post({ stream: true });
    seen.resolve(undefined);
    const text = await response.text();

    expect(response.status).toBe(200);
    expect(text).toContain('"text":"Hel"');
    expect(text).toEndWith(
      `event: error\ndata: {"type":"error","error":{"type":"api_error","message":"cannot serve \`pebble\`: it was killed"}}\n\n`,
    );
  });
});

describe("a client of a stream", () => {
  test("that cannot be translated is told so once, and the engine goes on for nobody", async () => {
    await using setup = await setUp(async (exchange) => {
      exchange.head(200, { "content-type": "text/event-stream" });
      await exchange.chunk('data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n');
      await exchange.chunk('data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n');
      await exchange.closed;
    });

    const text = await (await setup.post({ stream: true })).text();

    expect(text.split("event: error")).toHaveLength(2);
    expect(text).toContain("it calls a tool without a name");
    await eventually(() => setup.engine.aborts === 1);
    expect(setup.leases.map(({ releases }) => releases)).toEqual([1]);
  });

  test("that waits for a worker is pinged", async () => {
    const gate = Promise.withResolvers<undefined>();
    await using setup = await setUp(speaks(["Hello"]), { gate: () => gate.promise });

    const asked = setup.post({ stream: true });
    await eventually(() => setup.acquired.length === 1);
    setup.clock.advance(FIRST_COMMENT_MS);
    const response = await asked;
    gate.resolve(undefined);

    expect(await response.text()).toStartWith('event: ping\ndata: {"type":"ping"}\n\n');
  });

  test.each([
    ["in the middle", speaksForEver, true],
    ["before the first byte", thinksForEver, false],
  ])("that leaves %s frees the worker", async (_, script, hasBegun) => {
    await using setup = await setUp(script);
    const controller = new AbortController();

    const asked = setup.post({ stream: true }, { signal: controller.signal });
    if (hasBegun) await (await asked).body?.getReader().read();
    await eventually(() => setup.engine.requests.length === 1);
    controller.abort();
    await asked.catch(() => undefined);

    await eventually(() => setup.engine.aborts === 1);
    await eventually(() => setup.leases[0]?.releases === 1);
    expect(setup.leases).toHaveLength(1);
  });
});
