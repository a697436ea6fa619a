import { describe, expect, test } from "bun:test";
import { Hono } from "hono";
import { AppError } from "../../src/errors.ts";
import type { AcquireRequest } from "../../src/runtime/supervisor.ts";
import { BodyBudget } from "../../src/server/body-budget.ts";
import type { AppEnv } from "../../src/server/deps.ts";
import { OPENAI } from "../../src/server/dialect.ts";
import { FIRST_COMMENT_MS, serveInference } from "../../src/server/inference.ts";
import type { InferenceFacts, InferenceObserver } from "../../src/server/observer.ts";
import { COMMENT_INTERVAL_MS } from "../../src/server/waiting-response.ts";
import { FakeClock } from "../fakes/clock.ts";
import {
  chatEvents,
  type Script,
  speaks,
  startFakeEngine,
  thinksForEver,
} from "../fakes/engine.ts";
import { eventually } from "../helpers/eventually.ts";
import { countedLease, type CountedLease, fakeDeps, fakeRuntime, rejection } from "./fake-deps.ts";
import { type EngineApp, engineApp, type EngineAppOptions } from "./engine-app.ts";

const CHAT = "/v1/chat/completions";
const DIED = new AppError("worker_failed", "cannot serve `pebble`: it was killed");
const TOO_LONG = {
  error: {
    code: 400,
    message:
      "request (1209 tokens) exceeds the available context size (256 tokens), try increasing it",
    type: "exceed_context_size_error",
    n_prompt_tokens: 1209,
    n_ctx: 256,
  },
};

interface Setup extends Omit<EngineApp, "post"> {
  readonly acquired: readonly AcquireRequest[];
  readonly leases: readonly CountedLease[];
  post(body?: object, init?: RequestInit): Promise<Response>;
}

async function setUp(script: Script, options: EngineAppOptions = {}): Promise<Setup> {
  const it = await engineApp(script, options);
  const { acquired, leases } = it.runtime;
  return {
    ...it,
    acquired,
    leases,
    post: (body, init) => it.post(CHAT, { model: "pebble", stream: true, ...body }, init),
  };
}

/** Each request gets the next script; the last one stays. */
function inTurn(...scripts: Script[]): Script {
  let turn = 0;
  return (exchange) => scripts[Math.min(turn++, scripts.length - 1)]?.(exchange);
}

const dies: Script = (exchange) => exchange.die();

/** A reader that gives the text of the next piece. */
function pieces(response: Response): { next(): Promise<string>; rest(): Promise<string> } {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  const next = async (): Promise<string> => {
    const piece = await reader?.read();
    return piece?.value === undefined ? "" : decoder.decode(piece.value, { stream: true });
  };
  return {
    next,
    async rest() {
      let text = "";
      for (let piece = await next(); piece !== ""; piece = await next()) text += piece;
      return text;
    },
  };
}

function fail(): never {
  throw new Error("observer");
}

/** The JSON of the only `data` event of a text. */
function eventOf(text: string): Record<string, unknown> {
  const events = text.split("\n\n").filter((part) => part.startsWith("data: "));
  expect(events).toHaveLength(1);
  return JSON.parse(events[0]?.slice("data: ".length) ?? "") as Record<string, unknown>;
}

describe("a long wait", () => {
  test("inference: a stream begins with comments, and goes on with the answer", async () => {
    const loaded = Promise.withResolvers<void>();
    await using it = await setUp(speaks(["Paris"]), {
      gate: ({ onProgress }) => {
        const bytes = { done_bytes: 42, total_bytes: 100 };
        onProgress?.({ type: "progress", id: "pebble", phase: "loading", ...bytes });
        return loaded.promise;
      },
    });

    const answer = it.post();
    await eventually(() => it.acquired.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    const response = await answer;
    const reader = pieces(response);
    const first = await reader.next();
    const place = { position: 3, waiting_for: "big", done_bytes: null, total_bytes: null };
    it.acquired[0]?.onProgress?.({ type: "progress", id: "pebble", phase: "waiting", ...place });
    it.clock.advance(COMMENT_INTERVAL_MS);
    const second = await reader.next();
    loaded.resolve();
    const rest = await reader.rest();

    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(first).toBe(": loading pebble 42%\n\n");
    expect(second).toBe(": waiting, 3rd in line, behind big\n\n");
    expect(rest).toBe(chatEvents(["Paris"]).join(""));
    expect(it.leases[0]?.releases).toBe(1);
    expect(it.clock.pending).toBe(0);
  });

  test("inference: a long prompt is waited for in the same way", async () => {
    const read = Promise.withResolvers<void>();
    await using it = await setUp(async (exchange) => {
      await read.promise;
      await speaks(["Paris"])(exchange);
    });

    const answer = it.post();
    await eventually(() => it.engine.requests.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    const reader = pieces(await answer);

    expect(await reader.next()).toBe(": pebble reads the prompt\n\n");
    read.resolve();
    expect(await reader.rest()).toContain('"content":"Paris"');
  });

  test("inference: who asked for no stream hears nothing before the answer, and no timer runs", async () => {
    const loaded = Promise.withResolvers<void>();
    await using it = await setUp((exchange) => exchange.json(200, { ok: true }), {
      gate: () => loaded.promise,
    });

    const answer = it.post({ stream: false });
    await eventually(() => it.acquired.length === 1);
    const timers = it.clock.pending;
    it.clock.advance(FIRST_COMMENT_MS + COMMENT_INTERVAL_MS);
    loaded.resolve();
    const response = await answer;

    expect(timers).toBe(0);
    expect(await response.text()).toBe('{"ok":true}');
  });

  test("inference: a quick answer has no comments and leaves no timer", async () => {
    await using it = await setUp(speaks(["Paris"]));

    const text = await (await it.post()).text();

    expect(text).toBe(chatEvents(["Paris"]).join(""));
    expect(it.clock.pending).toBe(0);
  });

  test("inference: a failure after the comments is an event, and the end", async () => {
    const loaded = Promise.withResolvers<never>();
    await using it = await setUp(thinksForEver, { gate: () => loaded.promise });

    const answer = it.post();
    await eventually(() => it.acquired.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    const reader = pieces(await answer);
    await reader.next();
    loaded.reject(new AppError("insufficient_memory", "cannot load `pebble`: too big"));
    const rest = await reader.rest();

    expect(eventOf(rest)).toMatchObject({
      error: { code: "insufficient_memory", message: "cannot load `pebble`: too big" },
    });
    expect(it.clock.pending).toBe(0);
  });

  test.each([
    ["the engine's own refusal", { error: { code: 400, message: "bad grammar" } }, "bad grammar"],
    [
      "a prompt that is too long",
      TOO_LONG,
      "prompt is too long: 1209 tokens > 256 maximum (maximum context length is 256 tokens)",
    ],
  ])("inference: after the comments %s is an event", async (_, refusal, message) => {
    const loaded = Promise.withResolvers<void>();
    await using it = await setUp((exchange) => exchange.json(400, refusal), {
      gate: () => loaded.promise,
    });

    const answer = it.post();
    await eventually(() => it.acquired.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    const reader = pieces(await answer);
    await reader.next();
    loaded.resolve();

    expect(JSON.stringify(eventOf(await reader.rest()))).toContain(message);
    expect(it.leases[0]?.releases).toBe(1);
  });

  test("inference: an engine that does not stream after the comments is an error event", async () => {
    const loaded = Promise.withResolvers<void>();
    await using it = await setUp((exchange) => exchange.json(200, { choices: [] }), {
      gate: () => loaded.promise,
    });

    const answer = it.post();
    await eventually(() => it.acquired.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    const reader = pieces(await answer);
    await reader.next();
    loaded.resolve();

    expect(eventOf(await reader.rest())).toMatchObject({ error: { code: "worker_failed" } });
    expect(it.leases[0]?.releases).toBe(1);
  });

  test("inference: a client that leaves while it hears comments gives up the wait", async () => {
    const gaveUp = Promise.withResolvers<string>();
    await using it = await setUp(thinksForEver, {
      gate: ({ signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            gaveUp.resolve("gave up");
            reject(new AppError("cancelled", "cancelled"));
          });
        }),
    });
    const client = new AbortController();

    const answer = it.post({}, { signal: client.signal });
    await eventually(() => it.acquired.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    await pieces(await answer).next();
    client.abort();

    expect(await gaveUp.promise).toBe("gave up");
    await eventually(() => it.clock.pending === 0);
    await eventually(() => it.listening.pendingRequests() === 0);
  });

  test("inference: a client that leaves a stream begun with comments stops the engine", async () => {
    await using it = await setUp(thinksForEver);
    const client = new AbortController();

    const answer = it.post({}, { signal: client.signal });
    await eventually(() => it.engine.requests.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    await pieces(await answer).next();
    client.abort();

    await eventually(() => it.engine.aborts === 1, 1000);
    await eventually(() => it.leases[0]?.releases === 1);
    expect(it.acquired).toHaveLength(1);
  });

  test("inference: the body is held until the answer begins, because another worker may need it", async () => {
    const bodies = new BodyBudget({ maxBytes: 50 });
    const loaded = Promise.withResolvers<void>();
    await using engine = await startFakeEngine(speaks(["Paris"]));
    const runtime = fakeRuntime({
      async acquire() {
        await loaded.promise;
        return countedLease(engine.socket);
      },
    });
    const clock = new FakeClock();
    const deps = fakeDeps({ runtime, clock });
    const route = { enginePath: CHAT, mode: "completion", dialect: OPENAI, bodies } as const;
    const app = new Hono<AppEnv>().post("/", (c) => serveInference(c, deps, route));
    const body = JSON.stringify({ model: "pebble", stream: true });

    const answer = app.request("/", { method: "POST", body });
    await eventually(() => runtime.acquired.length === 1);
    clock.advance(FIRST_COMMENT_MS);
    const response = await answer;
    using another = bodies.open();
    const isFull = await rejection(Promise.resolve().then(() => another.take(body.length)));
    loaded.resolve();
    await response.text();
    another.take(body.length);

    expect(isFull).toMatchObject({ code: "queue_full" });
  });

  test("inference: names in comments are one line, however they are written", async () => {
    const loaded = Promise.withResolvers<void>();
    await using it = await setUp(speaks([]), {
      gate: ({ onProgress }) => {
        const id = `/tmp/a\n\ndata: {"hacked":true}\n\n${"x".repeat(5000)}`;
        const bytes = { done_bytes: null, total_bytes: null };
        onProgress?.({ type: "progress", id, phase: "loading", ...bytes });
        return loaded.promise;
      },
    });

    const answer = it.post();
    await eventually(() => it.acquired.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    const comment = await pieces(await answer).next();
    loaded.resolve();

    expect(comment).toMatch(/^: loading \/tmp\/a [^\n]{0,120}\n\n$/);
  });
});

describe("a worker that dies", () => {
  test("inference: before a byte of the answer, the request goes to another one", async () => {
    await using it = await setUp(inTurn(dies, speaks(["Paris"])), { failure: DIED });

    const response = await it.post();

    expect(response.status).toBe(200);
    expect(await response.text()).toBe(chatEvents(["Paris"]).join(""));
    expect(it.acquired.map(({ reason }) => reason)).toEqual(["request", "retry"]);
    expect(it.engine.requests.map(({ body }) => body)).toEqual([
      '{"model":"pebble","stream":true}',
      '{"model":"pebble","stream":true}',
    ]);
    expect(it.leases.map(({ releases }) => releases)).toEqual([1, 1]);
  });

  test("inference: half an event has not been sent, so it does not keep from a second try", async () => {
    await using it = await setUp(
      inTurn(
        async (exchange) => {
          exchange.head(200, { "content-type": "text/event-stream" });
          await exchange.chunk('data: {"cho');
          exchange.die();
        },
        speaks(["Paris"]),
      ),
      { failure: DIED },
    );

    expect(await (await it.post()).text()).toBe(chatEvents(["Paris"]).join(""));
  });

  test("inference: without a stream the second try is as silent", async () => {
    await using it = await setUp(
      inTurn(dies, (exchange) => exchange.json(200, { ok: true })),
      { failure: DIED },
    );

    expect(await (await it.post({ stream: false })).json()).toEqual({ ok: true });
  });

  test("inference: comments are no bytes of the answer", async () => {
    const dying = Promise.withResolvers<void>();
    await using it = await setUp(
      inTurn(
        async (exchange) => {
          await dying.promise;
          exchange.die();
        },
        speaks(["Paris"]),
      ),
      { failure: DIED },
    );

    const answer = it.post();
    await eventually(() => it.engine.requests.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    const reader = pieces(await answer);
    await reader.next();
    dying.resolve();

    expect(await reader.rest()).toBe(chatEvents(["Paris"]).join(""));
  });

  test("inference: twice is once too often", async () => {
    await using it = await setUp(dies, { failure: DIED });

    const response = await it.post();

    expect(response.status).toBe(502);
    expect(await response.json()).toMatchObject({ error: { message: DIED.message } });
    expect(it.engine.requests).toHaveLength(2);
    expect(it.leases.map(({ releases }) => releases)).toEqual([1, 1]);
  });

  test("inference: one that was told to stop is not replaced", async () => {
    const failure = new AppError("shutting_down", "cannot serve `pebble`: its worker was stopped");
    await using it = await setUp(dies, { failure });

    expect((await it.post()).status).toBe(503);
    expect(it.engine.requests).toHaveLength(1);
  });

  test("inference: a load that fails is not tried again", async () => {
    await using it = await setUp(dies, { gate: () => Promise.reject(DIED) });

    expect((await it.post()).status).toBe(502);
    expect(it.acquired).toHaveLength(1);
  });

  test("inference: after a first event there is no second try", async () => {
    const seen = Promise.withResolvers<void>();
    await using it = await setUp(
      async (exchange) => {
        exchange.head(200, { "content-type": "text/event-stream" });
        await exchange.chunk("data: 1\n\n");
        await seen.promise;
        exchange.die();
      },
      { failure: DIED },
    );

    const reader = pieces(await it.post());
    await reader.next();
    seen.resolve();

    expect(eventOf(await reader.rest())).toMatchObject({ error: { code: "worker_failed" } });
    expect(it.engine.requests).toHaveLength(1);
  });
});

describe("what an engine refuses", () => {
  test.each([true, false])(
    "inference: a prompt larger than the context is a 400 with both numbers (stream: %p)",
    async (stream) => {
      await using it = await setUp((exchange) => exchange.json(400, TOO_LONG));

      const response = await it.post({ stream });

      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({
        error: {
          code: "context_length_exceeded",
          type: "invalid_request_error",
          message:
            "cannot answer with `pebble`: prompt is too long: 1209 tokens > 256 maximum (maximum context length is 256 tokens)",
          details: { prompt_tokens: 1209, context_tokens: 256 },
        },
      });
      expect(it.engine.requests).toHaveLength(1);
      expect(it.leases[0]?.releases).toBe(1);
    },
  );

  test.each([
    "This model's maximum context length is 256 tokens. However, your prompt contains at least 1209 input tokens, which exceeds this limit even without any output tokens.",
    "This model's maximum context length is 256 tokens. However, you requested 1209 tokens (1200 in the messages, 9 in the completion).",
    "The input (1209 tokens) is longer than the model's context length (256 tokens).",
  ])("inference: so is what other engines say: %s", async (message) => {
    await using it = await setUp((exchange) => exchange.json(400, { error: { message } }));

    expect(await (await it.post({ stream: false })).json()).toMatchObject({
      error: {
        code: "context_length_exceeded",
        details: { prompt_tokens: 1209, context_tokens: 256 },
      },
    });
  });

  test("inference: an engine that has not been told how tools are called is told by its owner", async () => {
    const message =
      '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set';
    await using it = await setUp((exchange) => exchange.json(400, { error: { message } }));

    expect(await (await it.post({ stream: false })).json()).toMatchObject({
      error: { param: "tools", hint: expect.stringContaining("-- --tool-call-parser hermes") },
    });
  });

  test("inference: an older engine gives the numbers in its sentence only", async () => {
    const { message } = TOO_LONG.error;
    await using it = await setUp((exchange) => exchange.json(400, { error: { message } }));

    expect(await (await it.post()).text()).toContain("1209 tokens > 256 maximum");
  });

  test.each([
    ["plain text", ["text/plain", "no such thing"], "the engine says: no such thing"],
    [
      "a page",
      ["text/html", "<html><style>p{}</style><h1>Bad\n Gateway</h1></html>"],
      "the engine says: Bad Gateway",
    ],
    ["nothing", ["text/plain", ""], "the engine answered 500"],
    ["a JSON list", ["application/json", "[1]"], "the engine says: [1]"],
    ["an endless text", ["text/plain", "y".repeat(300_000)], `the engine says: ${"y".repeat(200)}`],
  ] as const)(
    "inference: %s becomes JSON with the engine's status",
    async (_, [type, text], reason) => {
      await using it = await setUp(async (exchange) => {
        exchange.head(500, { "content-type": type });
        if (text !== "") await exchange.chunk(text);
        exchange.end();
      });

      const response = await it.post();

      expect(response.status).toBe(500);
      expect(response.headers.get("content-type")).toBe("application/json");
      expect(await response.json()).toMatchObject({
        error: { code: "worker_failed", message: `cannot answer with \`pebble\`: ${reason}` },
      });
      expect(it.leases[0]?.releases).toBe(1);
      expect(it.engine.requests).toHaveLength(1);
    },
  );

  test("inference: an engine that is still loading is asked again, and its 503 stays here", async () => {
    const loading = { error: { code: 503, message: "Loading model", type: "unavailable_error" } };
    await using it = await setUp(
      inTurn((exchange) => exchange.json(503, loading), speaks(["Paris"])),
    );
    await using never = await setUp((exchange) => exchange.json(503, loading));

    expect(await (await it.post()).text()).toContain("Paris");
    const response = await never.post();
    expect(response.status).toBe(502);
    expect(await response.text()).not.toContain("Loading model");
  });

  test("inference: an engine's own 503 for another reason passes", async () => {
    const error = { error: { code: 503, message: "no slot is free", type: "unavailable_error" } };
    await using it = await setUp((exchange) => exchange.json(503, error));

    const response = await it.post();

    expect(response.status).toBe(503);
    expect(await response.json()).toEqual({
      error: {
        message: "no slot is free",
        type: "server_error",
        param: null,
        code: "worker_failed",
      },
    });
  });
});

describe("x-request-id", () => {
  test.each([
    ["the client's own", "abc-123", /^abc-123$/],
    ["one made here for a long one", "a".repeat(129), /^[\da-f-]{36}$/],
    ["one made here for one with spaces", "a b", /^[\da-f-]{36}$/],
    ["one made here for none", undefined, /^[\da-f-]{36}$/],
  ])("inference: an answer has %s", async (_, own, expected) => {
    await using it = await setUp(speaks(["Paris"]));
    const headers = own === undefined ? {} : { "x-request-id": own };

    const response = await it.post({}, { headers });
    const failed = await it.post({ model: "nobody/nothing" }, { headers });

    expect(response.headers.get("x-request-id")).toMatch(expected);
    expect(failed.headers.get("x-request-id")).toMatch(expected);
    await response.text();
  });
});

describe("observers", () => {
  interface Seen {
    readonly facts: InferenceFacts[];
    readonly calls: string[];
  }

  function watch(): { seen: Seen; observer: InferenceObserver } {
    const seen: Seen = { facts: [], calls: [] };
    const decoder = new TextDecoder();
    const observer: InferenceObserver = {
      begin(facts) {
        seen.facts.push(facts);
        return {
          acquired: (lease) => void seen.calls.push(`acquired ${lease.workerId}`),
          responded: (status) => void seen.calls.push(`responded ${status}`),
          chunk: (bytes) => void seen.calls.push(`chunk ${decoder.decode(bytes)}`),
          ended: (error) => void seen.calls.push(`ended ${error?.code ?? "well"}`),
        };
      },
    };
    return { seen, observer };
  }

  test("inference: a good answer is seen from its beginning to its end", async () => {
    const { seen, observer } = watch();
    await using it = await setUp(speaks(["Paris"]), { deps: { observers: [observer] } });

    const text = await (await it.post({}, { headers: { "x-request-id": "r1" } })).text();
    await eventually(() => seen.calls.at(-1)?.startsWith("ended"));

    expect(seen.facts).toMatchObject([
      { id: "r1", dialect: "openai", path: CHAT, modelName: "pebble", isStream: true },
    ]);
    expect(seen.calls.slice(0, 2)).toEqual(["acquired 1", "responded 200"]);
    const chunks = seen.calls.filter((call) => call.startsWith("chunk "));
    expect(chunks.map((call) => call.slice("chunk ".length)).join("")).toBe(text);
    expect(seen.calls.filter((call) => call.startsWith("ended"))).toEqual(["ended well"]);
  });

  test("inference: a retry is seen as a second worker, and comments are not seen at all", async () => {
    const { seen, observer } = watch();
    const dying = Promise.withResolvers<void>();
    await using it = await setUp(
      inTurn(async (exchange) => {
        await dying.promise;
        exchange.die();
      }, speaks([])),
      { failure: DIED, deps: { observers: [observer] } },
    );

    const answer = it.post();
    await eventually(() => it.engine.requests.length === 1);
    it.clock.advance(FIRST_COMMENT_MS);
    const response = await answer;
    dying.resolve();
    await response.text();
    await eventually(() => seen.calls.at(-1) === "ended well");

    expect(seen.calls.slice(0, 3)).toEqual(["acquired 1", "responded 200", "acquired 1"]);
    expect(seen.calls.join("\n")).not.toContain("chunk :");
  });

  test("inference: what fails before its head is seen as its error, and only once", async () => {
    const { seen, observer } = watch();
    await using it = await setUp(dies, {
      gate: () => Promise.reject(new AppError("queue_full", "full")),
      deps: { observers: [observer] },
    });

    await (await it.post()).text();

    expect(seen.calls).toEqual(["ended queue_full"]);
  });

  test("inference: an engine's refusal is an answer", async () => {
    const { seen, observer } = watch();
    await using it = await setUp((exchange) => exchange.json(400, { error: { message: "no" } }), {
      deps: { observers: [observer] },
    });

    await (await it.post({ stream: false })).text();

    expect(seen.calls).toEqual([
      "acquired 1",
      "responded 400",
      'chunk {"error":{"message":"no","type":"invalid_request_error","param":null,"code":"invalid_request"}}',
      "ended well",
    ]);
  });

  test("inference: a client that leaves ends it as cancelled", async () => {
    const { seen, observer } = watch();
    await using it = await setUp(thinksForEver, { deps: { observers: [observer] } });
    const client = new AbortController();

    const answer = it.post({}, { signal: client.signal }).catch(() => "left");
    await eventually(() => it.engine.requests.length === 1);
    client.abort();
    await answer;

    await eventually(() => seen.calls.length === 2);
    expect(seen.calls).toEqual(["acquired 1", "ended cancelled"]);
  });

  test("inference: an observer that throws breaks nothing, and others see everything", async () => {
    const { seen, observer } = watch();
    const broken: InferenceObserver = {
      begin: () => ({ acquired: fail, responded: fail, chunk: fail, ended: fail }),
    };
    const blind: InferenceObserver = { begin: fail };
    const observers = [broken, blind, observer];
    await using it = await setUp(speaks(["Paris"]), { deps: { observers } });

    expect(await (await it.post()).text()).toContain("Paris");
    await eventually(() => seen.calls.at(-1) === "ended well");
  });

  test("inference: a model that does not exist is not seen, and neither is a preload", async () => {
    const { seen, observer } = watch();
    await using it = await setUp(speaks([]), { deps: { observers: [observer] } });

    await (await it.post({ model: "nobody/nothing" })).text();
    await (await it.post({}, { headers: { "x-preload-only": "true" } })).text();

    expect(seen.facts).toEqual([]);
  });
});
