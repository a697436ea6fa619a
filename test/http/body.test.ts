import { describe, expect, test } from "bun:test";
import { isTransient } from "../../src/http/retry.ts";
import { discard, readBounded } from "../../src/http/body.ts";
import { createHttp } from "../../src/http/http.ts";
import { ConnectionCut, type RawAnswer, serveRaw } from "../fakes/raw-http.ts";
import { failureOf, rejectionOf } from "./failure-of.ts";

const signal = new AbortController().signal;
const http = createHttp({ offline: false, caBundle: "", isInsecure: () => false });

async function serving(answer: RawAnswer): Promise<AsyncDisposable & { readonly url: string }> {
  const server = await serveRaw(async () => answer);
  return { url: `http://127.0.0.1:${server.port}/`, [Symbol.asyncDispose]: () => server.stop() };
}

async function cut(): Promise<void> {
  throw new ConnectionCut();
}

async function* then(bytes: string, next: () => Promise<void>): AsyncGenerator<Uint8Array> {
  yield Buffer.from(bytes);
  await next();
}

describe("readBounded", () => {
  test("a body of exactly the limit is read", async () => {
    await using server = await serving({ status: 200, body: Buffer.from("12345") });

    const response = await http.send(server.url, { signal });

    expect(Buffer.from(await readBounded(response, { maxBytes: 5, signal })).toString()).toBe(
      "12345",
    );
  });

  test("an announced length over the limit is refused before a byte is read", async () => {
    await using server = await serving({ status: 200, body: Buffer.from("123456") });
    const response = await http.send(server.url, { signal });

    const error = await failureOf(readBounded(response, { maxBytes: 5, signal }));

    expect(error.code).toBe("request_too_large");
    expect(error.message).toMatch(
      /^cannot read the answer of `127\.0\.0\.1:\d+`: it is larger than 5 bytes$/,
    );
  });

  test("a body without a length is counted", async () => {
    const body = new ReadableStream<Uint8Array>({ pull: (it) => it.enqueue(new Uint8Array(1000)) });

    const error = await failureOf(readBounded(new Response(body), { maxBytes: 5000, signal }));

    expect(error.code).toBe("request_too_large");
  });

  test("a cut connection is a passing failure", async () => {
    await using server = await serving({
      status: 200,
      headers: { "content-length": "100" },
      body: then("12345", cut),
    });
    const response = await http.send(server.url, { signal });

    const error = await failureOf(readBounded(response, { maxBytes: 500, signal }));

    expect(error.code).toBe("registry_unavailable");
    expect(error.details).toEqual({ reason: "closed" });
  });

  test("so does one that breaks in a way that nobody has a name for", async () => {
    const body = new ReadableStream<Uint8Array>({ pull: (it) => it.error(new TypeError("raw")) });

    const error = await failureOf(readBounded(new Response(body), { maxBytes: 500, signal }));

    expect(error.details).toEqual({ reason: "closed" });
    expect(isTransient(error)).toBe(true);
  });

  test("a body that stalls is given up", async () => {
    const body = new ReadableStream<Uint8Array>({ start: (it) => it.enqueue(new Uint8Array(5)) });

    const error = await failureOf(
      readBounded(new Response(body), { maxBytes: 500, signal, stallMs: 20 }),
    );

    expect(error.code).toBe("registry_unavailable");
    expect(error.details).toEqual({ reason: "stalled" });
  });

  test("an abort ends it with the signal's reason, and lets go of the body", async () => {
    const controller = new AbortController();
    const { promise, resolve } = Promise.withResolvers<void>();
    const body = new ReadableStream<Uint8Array>({ cancel: () => resolve() });
    const reading = readBounded(new Response(body), { maxBytes: 5, signal: controller.signal });

    controller.abort(new Error("enough"));

    expect(await rejectionOf(reading)).toHaveProperty("message", "enough");
    await promise;
  });

  test("no body is an empty one", async () => {
    const bytes = await readBounded(new Response(null, { status: 204 }), { maxBytes: 5, signal });

    expect(bytes).toHaveLength(0);
  });
});

test("discard: a body that is in use already is no failure", async () => {
  const response = new Response("text");
  const reader = response.body?.getReader();

  await discard(response);

  expect(await reader?.read()).toMatchObject({ done: false });
});
