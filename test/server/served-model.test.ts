import { describe, expect, test } from "bun:test";

import type { WorkerPlan } from "../../src/runtime/planner.ts";
import { renamed, servedModelOf, toEngineBody } from "../../src/server/served-model.ts";
import { chatEvents, type Script, speaks } from "../fakes/engine.ts";
import { type EngineApp, engineApp } from "./engine-app.ts";
import { fakePlan } from "./fake-deps.ts";

const SERVED = "default_model";
const ASKED = "pebble";
const HELLO = { model: ASKED, messages: [{ role: "user", content: "hello" }] };

/** An engine that knows its model by a name of its own, and has two paths. */
function mlxLike(script: Script, plan: Partial<WorkerPlan> = {}): Promise<EngineApp> {
  const enginePaths = ["/v1/chat/completions", "/v1/completions"];
  return engineApp(script, {
    deps: {
      planner: () => ({
        plan: (request) =>
          Promise.resolve({ ...fakePlan(request), servedModel: SERVED, enginePaths, ...plan }),
      }),
    },
  });
}

/** The JSON of the events of a stream, with `[DONE]` as it is. */
function eventsOf(text: string): unknown[] {
  const data = Array.from(text.matchAll(/^data: (.*)$/gm), ([, found = ""]) => found);
  return data.map((one) => (one === "[DONE]" ? one : (JSON.parse(one) as unknown)));
}

/** Streams these events, and closes the connection as an HTTP/1.0 server ends an answer. */
function streams(events: readonly string[]): Script {
  return async (exchange) => {
    exchange.head(200, { "content-type": "text/event-stream" });
    for (const event of events) await exchange.chunk(event);
    exchange.end();
  };
}

const whole: Script = (exchange) =>
  exchange.json(200, {
    id: "chatcmpl-1",
    model: SERVED,
    object: "chat.completion",
    created: 1,
    choices: [
      { index: 0, finish_reason: "stop", message: { role: "assistant", content: "Paris" } },
    ],
    usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
  });

function bodyOf({ engine }: EngineApp): Record<string, unknown> {
  return JSON.parse(engine.requests[0]?.body ?? "") as Record<string, unknown>;
}

describe("toEngineBody", () => {
  test("served model: the engine is told its own name, and the rest as it is", () => {
    expect(toEngineBody(HELLO, { servedModel: SERVED })).toEqual({ ...HELLO, model: SERVED });
  });

  test("served model: where there is nothing to change, it is the same body", () => {
    const named = { ...HELLO, model: SERVED };

    expect(toEngineBody(HELLO, {})).toBe(HELLO);
    expect(toEngineBody(named, { servedModel: SERVED })).toBe(named);
  });

  test("served model: fields that the engine refuses are left out", () => {
    const engineFields = new Set(["model", "messages"]);

    expect(toEngineBody({ ...HELLO, top_k: 3 }, { servedModel: SERVED, engineFields })).toEqual({
      ...HELLO,
      model: SERVED,
    });
  });
});

describe("renamed", () => {
  test("served model: what names no model is not given a name", () => {
    const translation = renamed(ASKED);

    expect(translation.whole({ object: "list" } as never, { waitedMs: 0 })).toEqual({
      object: "list",
    });
  });
});

describe("an engine with a name of its own for its model", () => {
  test("served model: a whole answer bears the name that the client used", async () => {
    await using it = await mlxLike(whole);

    const response = await it.post("/v1/chat/completions", HELLO);
    const answer = (await response.json()) as Record<string, unknown>;

    expect(response.status).toBe(200);
    expect(answer).toMatchObject({ model: ASKED, choices: [{ message: { content: "Paris" } }] });
    expect(bodyOf(it)["model"]).toBe(SERVED);
  });

  test("served model: so does every event of a stream", async () => {
    await using it = await mlxLike(speaks(["Pa", "ris"]));

    const response = await it.post("/v1/chat/completions", { ...HELLO, stream: true });
    const events = eventsOf(await response.text());

    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(events.at(-1)).toBe("[DONE]");
    expect(events.slice(0, -1).map((event) => (event as { model: string }).model)).toEqual(
      Array.from({ length: chatEvents(["Pa", "ris"]).length - 1 }, () => ASKED),
    );
    expect(bodyOf(it)["model"]).toBe(SERVED);
  });

  test.each([false, true])(
    "served model: a refusal passes with its status (stream: %p)",
    async (stream) => {
      await using it = await mlxLike((exchange) =>
        exchange.json(400, { error: { message: "no such role", type: "invalid_request_error" } }),
      );

      const response = await it.post("/v1/chat/completions", { ...HELLO, stream });

      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ error: { message: "no such role" } });
    },
  );

  test("served model: an error in mid-stream ends it, once", async () => {
    const [first = ""] = chatEvents([]);
    await using it = await mlxLike(
      streams([first, 'data: {"error":{"message":"it broke"}}\n\n', "data: [DONE]\n\n"]),
    );

    const response = await it.post("/v1/chat/completions", { ...HELLO, stream: true });
    const events = eventsOf(await response.text());

    expect(events).toHaveLength(2);
    expect(events[1]).toMatchObject({ error: { message: expect.stringContaining("it broke") } });
  });

  test("served model: a stream that ends in the middle is not taken for a whole one", async () => {
    await using it = await mlxLike(streams(chatEvents(["Pa", "ris"]).slice(0, 2)));

    const response = await it.post("/v1/chat/completions", { ...HELLO, stream: true });
    const events = eventsOf(await response.text());

    expect(events).not.toContain("[DONE]");
    expect(events.at(-1)).toMatchObject({
      error: { message: expect.stringContaining("the engine broke it off") },
    });
  });

  test("served model: one that ends without `[DONE]` after its last word is whole", async () => {
    await using it = await mlxLike(streams(chatEvents(["Paris"]).slice(0, -1)));

    const response = await it.post("/v1/chat/completions", { ...HELLO, stream: true });

    expect(eventsOf(await response.text()).at(-1)).toBe("[DONE]");
  });

  test.each([
    ["/v1/messages", { ...HELLO, max_tokens: 5 }],
    ["/api/chat", { ...HELLO, stream: false }],
  ] as const)("served model: %s answers with the name that the client used", async (path, body) => {
    await using it = await mlxLike(whole);

    const response = await it.post(path, body);
    const answer = (await response.json()) as Record<string, unknown>;

    expect(response.status).toBe(200);
    expect(String(answer["model"])).toStartWith(ASKED);
    expect(bodyOf(it)["model"]).toBe(SERVED);
  });
});

describe("a path that the engine lacks", () => {
  test.each([
    ["/v1/embeddings", { model: ASKED, input: "a" }],
    ["/engines/v1/embeddings", { model: ASKED, input: "a" }],
    ["/rerank", { model: ASKED, query: "a", documents: ["b"] }],
    ["/tokenize", { model: ASKED, content: "a" }],
    ["/api/embed", { model: ASKED, input: "a" }],
    ["/v1/messages/count_tokens", { ...HELLO }],
  ] as const)("served model: %s is 501, and nothing is loaded", async (path, body) => {
    await using it = await mlxLike(whole);

    const response = await it.post(path, body);
    const text = await response.text();

    expect(response.status).toBe(501);
    expect(text).toContain("its engine, llama.cpp, has nothing for it");
    expect(it.runtime.acquired).toEqual([]);
  });

  test("served model: a stream for it is refused as well, in the dialect's words", async () => {
    const enginePaths = ["/v1/completions"];
    await using it = await mlxLike(whole, { enginePaths });
    const stream = true;

    const [openai, anthropic, ollama] = await Promise.all([
      it.post("/v1/chat/completions", { ...HELLO, stream }),
      it.post("/v1/messages", { ...HELLO, stream, max_tokens: 5 }),
      it.post("/api/chat", { ...HELLO, stream }),
    ]);

    expect([openai?.status, anthropic?.status, ollama?.status]).toEqual([501, 501, 501]);
    expect(await openai?.json()).toMatchObject({ error: { code: "not_supported" } });
    expect(await anthropic?.json()).toMatchObject({ type: "error" });
    expect(await ollama?.json()).toMatchObject({ error: expect.any(String) });
  });
});

describe("the name that an engine knows its model by", () => {
  test.each([
    [{ servedModel: "x" }, { served_model: "told" }, "told"],
    [{ servedModel: "x" }, { served_model: "" }, "x"],
    [{ servedModel: "x" }, { served_model: 5 }, "x"],
    [{ servedModel: "x" }, undefined, "x"],
    [{}, { served_model: "told" }, undefined],
  ])("of %p with the report %p is %p", (plan, report, name) => {
    expect(servedModelOf(plan, report)).toBe(name);
  });
});
