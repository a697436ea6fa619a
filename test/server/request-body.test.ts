import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { parseBody, readBody } from "../../src/server/request-body.ts";
import { rejection } from "./fake-deps.ts";

const Body = v.looseObject({ model: v.string() });

function request(body: RequestInit["body"], headers: Record<string, string> = {}): Request {
  return new Request("http://localhost/", { method: "POST", body: body ?? null, headers });
}

function streamed(...chunks: string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
      controller.close();
    },
  });
}

describe("readBody", () => {
  test("body: a declared length beyond the bound is refused before it is read", async () => {
    const big = request("x", { "content-length": "11" });

    expect(await rejection(readBody(big, { maxBytes: 10 }))).toMatchObject({
      code: "request_too_large",
    });
  });

  test("body: a body of unknown length is refused when it grows beyond the bound", async () => {
    expect(
      await rejection(readBody(request(streamed("12345", "678901")), { maxBytes: 10 })),
    ).toMatchObject({
      code: "request_too_large",
    });
  });

  test("body: a length that Transfer-Encoding overrides is not believed", async () => {
    const lying = request(streamed("12345", "678901"), {
      "content-length": "1",
      "transfer-encoding": "chunked",
    });

    expect(await rejection(readBody(lying, { maxBytes: 10 }))).toMatchObject({
      code: "request_too_large",
    });
  });

  test("body: chunks are joined", async () => {
    const bytes = await readBody(request(streamed("12", "345")), { maxBytes: 5 });

    expect(new TextDecoder().decode(bytes)).toBe("12345");
  });
});

describe("parseBody", () => {
  test("body: the bytes are kept as they came", async () => {
    const text = '{ "model": "p", "x": 1.0 }';

    const { value, bytes } = await parseBody(request(text), Body);

    expect(value).toEqual({ model: "p", x: 1 });
    expect(new TextDecoder().decode(bytes)).toBe(text);
  });

  test("body: bytes that are not UTF-8 are not JSON", async () => {
    expect(
      await rejection(parseBody(request(new Uint8Array([0x22, 0xff, 0x22])), Body)),
    ).toMatchObject({
      code: "invalid_request",
    });
  });

  test("body: what is shown of a wrong value is short", async () => {
    const text = JSON.stringify({ model: { x: 1 }, y: "z".repeat(1000) });

    const error = await parseBody(request(text), Body).catch((thrown: Error) => thrown);

    expect((error as Error).message).toBe(
      "cannot read the request: `model` must be string, not Object",
    );
  });
});
