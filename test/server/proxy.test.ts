import { describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { AppError } from "../../src/errors.ts";
import { requestHeaders, responseHeaders } from "../../src/server/proxy.ts";
import {
  type Exchange,
  type Script,
  speaks,
  speaksForEver,
  thinksForEver,
} from "../fakes/engine.ts";
import { eventually } from "../helpers/eventually.ts";
import { type FakeRuntime, fakeRuntime } from "./fake-deps.ts";
import { type EngineApp, engineApp, type EngineAppOptions } from "./engine-app.ts";

const CHAT = "/v1/chat/completions";

interface Setup extends Omit<EngineApp, "post"> {
  post(body?: object, init?: RequestInit): Promise<Response>;
}

async function setUp(script: Script, options: EngineAppOptions = {}): Promise<Setup> {
  const it = await engineApp(script, options);
  return {
    ...it,
    post: (body, init) => it.post(CHAT, { model: "pebble", stream: true, ...body }, init),
  };
}

async function released(runtime: FakeRuntime): Promise<number> {
  await eventually(() => (runtime.leases[0]?.releases ?? 0) > 0);
  return runtime.leases[0]?.releases ?? 0;
}

describe("proxyToWorker", () => {
  test("proxy: a streamed answer arrives byte for byte", async () => {
    await using it = await setUp(speaks(["The", " capital", " é", " 🦆"]));

    const response = await it.post();
    const text = await response.text();

    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(text).toContain('"content":" 🦆"');
    expect(text).toEndWith("data: [DONE]\n\n");
    expect(await released(it.runtime)).toBe(1);
  });

  test("proxy: an event arrives before the engine has written the next one", async () => {
    const goOn = Promise.withResolvers<void>();
    await using it = await setUp(async (exchange) => {
      exchange.head(200, { "content-type": "text/event-stream" });
      await exchange.chunk("data: 1\n\n");
      await goOn.promise;
      await exchange.chunk("data: 2\n\n");
      exchange.end();
    });

    const reader = (await it.post()).body?.getReader();
    const first = await reader?.read();
    goOn.resolve();
    const second = await reader?.read();

    expect(new TextDecoder().decode(first?.value)).toBe("data: 1\n\n");
    expect(new TextDecoder().decode(second?.value)).toBe("data: 2\n\n");
  });

  test("proxy: the engine gets the body byte for byte, on its own path, with the query", async () => {
    await using it = await setUp((exchange) => exchange.json(200, { ok: true }));
    const body = '{ "model":"pebble",  "seed":1.0, "x":"\\u00e9" }';

    const response = await fetch(`${it.listening.endpoint}/engines/llama.cpp/v1/completions?a=b`, {
      method: "POST",
      body,
    });

    expect(await response.json()).toEqual({ ok: true });
    expect(it.engine.requests[0]).toMatchObject({
      method: "POST",
      target: "/v1/completions?a=b",
      body,
    });
    expect(await released(it.runtime)).toBe(1);
  });

  test("proxy: an engine's own error keeps its status and words, in OpenAI's shape", async () => {
    const error = { error: { code: 400, message: "bad grammar", type: "invalid_request_error" } };
    await using it = await setUp((exchange) => exchange.json(400, error));

    const response = await it.post();

    expect(response.status).toBe(400);
    expect(await response.json()).toEqual({
      error: { ...error.error, code: "invalid_request", param: null },
    });
  });

  test("proxy: a compressed answer stays compressed", async () => {
    const packed = gzipSync("data: hello\n\n");
    await using it = await setUp(async (exchange) => {
      exchange.head(200, { "content-type": "text/event-stream", "content-encoding": "gzip" });
      await exchange.chunk(packed);
      exchange.end();
    });

    const response = await it.post({}, { decompress: false } as RequestInit);

    expect(response.headers.get("content-encoding")).toBe("gzip");
    expect(Buffer.from(await response.arrayBuffer())).toEqual(packed);
  });

  test("proxy: an answer without a body releases the worker", async () => {
    await using it = await setUp((exchange) => {
      exchange.head(204, { "content-length": "0" });
      exchange.end();
    });

    const response = await it.post();

    expect(response.status).toBe(204);
    expect(await released(it.runtime)).toBe(1);
  });
});

describe("a client that leaves", () => {
  test("proxy: leaving before the first token reaches the engine and releases the worker", async () => {
    await using it = await setUp(thinksForEver);
    const client = new AbortController();

    const answer = it.post({}, { signal: client.signal }).catch((error: Error) => error.name);
    await eventually(() => it.engine.requests.length === 1);
    client.abort();

    expect(await answer).toBe("AbortError");
    await eventually(() => it.engine.aborts === 1, 1000);
    expect(await released(it.runtime)).toBe(1);
  });

  test("proxy: leaving in the middle of an answer reaches the engine and releases the worker", async () => {
    await using it = await setUp(speaksForEver);
    const client = new AbortController();

    const response = await it.post({}, { signal: client.signal });
    await response.body?.getReader().read();
    client.abort();

    await eventually(() => it.engine.aborts === 1, 1000);
    expect(await released(it.runtime)).toBe(1);
    await eventually(() => it.listening.pendingRequests() === 0);
  });

  test("proxy: leaving while the model loads gives up the wait", async () => {
    const gaveUp = Promise.withResolvers<string>();
    const runtime = fakeRuntime({
      acquire: ({ signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            gaveUp.resolve("gave up");
            reject(new AppError("cancelled", "cancelled"));
          });
        }),
    });
    await using it = await setUp(thinksForEver, { deps: { runtime } });
    const client = new AbortController();

    const answer = it.post({}, { signal: client.signal }).catch(() => "left");
    await eventually(() => runtime.acquired.length === 1);
    client.abort();

    expect(await gaveUp.promise).toBe("gave up");
    expect(await answer).toBe("left");
  });

  test("proxy: a client that does not read stops the engine instead of filling memory", async () => {
    const exchanges: Exchange[] = [];
    await using it = await setUp((exchange) => {
      exchanges.push(exchange);
      return speaksForEver(exchange);
    });

    const response = await it.post();
    const reader = response.body?.getReader();
    await reader?.read();
    const before = await settled(() => exchanges[0]?.writtenBytes ?? 0);

    expect(before).toBeLessThan(24 * 1024 * 1024);
    await reader?.cancel();
    expect(await released(it.runtime)).toBe(1);
  });
});

describe("an engine that dies", () => {
  const failure = new AppError("worker_failed", "cannot run `pebble`: out of memory", {
    hint: "Use a smaller model.",
  });

  test("proxy: death before the first byte is a 502 with the engine's reason", async () => {
    await using it = await setUp((exchange) => exchange.die(), { failure });

    const response = await it.post();

    expect(response.status).toBe(502);
    expect(await response.json()).toEqual({
      error: {
        message: "cannot run `pebble`: out of memory",
        type: "server_error",
        param: null,
        code: "worker_failed",
        hint: "Use a smaller model.",
      },
    });
    expect(await released(it.runtime)).toBe(1);
  });

  test("proxy: death between headers and first byte is a 502 too", async () => {
    await using it = await setUp(
      (exchange) => {
        exchange.head(200, { "content-type": "text/event-stream" });
        exchange.die();
      },
      { failure },
    );

    const response = await it.post();

    expect(response.status).toBe(502);
    expect(await released(it.runtime)).toBe(1);
  });

  test("proxy: a worker that cannot be reached is a 502 that names the model", async () => {
    const runtime = fakeRuntime({ socket: "/nowhere/engine.sock" });
    await using it = await setUp(thinksForEver, { deps: { runtime } });

    const response = await it.post();

    expect(response.status).toBe(502);
    expect(await response.text()).toContain("cannot answer with `pebble`: ");
    expect(await released(runtime)).toBe(1);
  });

  test.each([
    ["between two events", "data: 1\n\n", "data: 1\n\n"],
    ["in the middle of an event", 'data: 1\n\ndata: {"cho', "data: 1\n\n"],
    ["in the middle of an event's end", "data: 1\n\ndata: 2\n", "data: 1\n\n"],
  ])("proxy: death %s ends the stream with an error event", async (_, sent, kept) => {
    const seen = Promise.withResolvers<void>();
    await using it = await setUp(
      async (exchange) => {
        exchange.head(200, { "content-type": "text/event-stream" });
        await exchange.chunk(sent);
        await seen.promise;
        exchange.die();
      },
      { failure },
    );

    const text = await readAll(await it.post(), seen.resolve);

    const [event = "", rest] = text.slice(kept.length).split("\n\n");
    expect(text).toStartWith(kept);
    expect(rest).toBe("");
    expect(JSON.parse(event.replace("data: ", "")).error).toMatchObject({
      code: "worker_failed",
      message: "cannot run `pebble`: out of memory",
    });
    expect(await released(it.runtime)).toBe(1);
  });

  test("proxy: death in the middle of a JSON answer is not taken for its end", async () => {
    const seen = Promise.withResolvers<void>();
    await using it = await setUp(
      async (exchange) => {
        exchange.head(200, { "content-type": "application/json", "content-length": "1000" });
        await exchange.chunk('{"choices":');
        await seen.promise;
        exchange.die();
      },
      { failure },
    );

    const response = await it.post({ stream: false });
    const outcome = await readAll(response, seen.resolve).catch((error: Error) => error);

    expect(outcome).toBeInstanceOf(Error);
    expect(await released(it.runtime)).toBe(1);
  });
});

describe("header policy", () => {
  test("proxy: connection-level fields and credentials stay here", () => {
    const headers = requestHeaders(
      new Headers({
        connection: "close, X-Named",
        "x-named": "1",
        te: "trailers",
        "accept-encoding": "gzip",
        expect: "100-continue",
        authorization: "Bearer secret",
        cookie: "a=b",
        host: "localhost:12434",
        "content-length": "5",
        "content-type": "application/json",
        "x-request-id": "7",
      }),
    );

    expect(Object.fromEntries(headers)).toEqual({
      "content-type": "application/json",
      "x-request-id": "7",
    });
  });

  test("proxy: a malformed Connection field is no reason to fail", () => {
    const headers = requestHeaders(new Headers({ connection: "a b, (, x-ok", "x-ok": "1" }));

    expect(Object.fromEntries(headers)).toEqual({ "content-type": "application/json" });
  });

  test("proxy: the engine's CORS and connection fields do not reach the client", () => {
    const headers = responseHeaders(
      new Headers({
        "access-control-allow-origin": "*",
        "access-control-allow-headers": "x",
        "keep-alive": "timeout=5",
        server: "llama.cpp",
        "content-type": "text/plain",
        "content-length": "3",
      }),
    );

    expect(Object.fromEntries(headers)).toEqual({
      "content-length": "3",
      "content-type": "text/plain",
    });
  });
});

/** @param onFirst called when the first bytes have arrived */
async function readAll(response: Response, onFirst: () => void): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of response.body ?? []) {
    text += decoder.decode(bytes, { stream: true });
    onFirst();
  }
  return text;
}

/** The value once it has stood still for a while. */
async function settled(read: () => number): Promise<number> {
  let last = -1;
  let still = 0;
  return eventually(() => {
    still = read() === last ? still + 1 : 0;
    last = read();
    return still >= 5 ? last : 0;
  });
}
