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

  test("body: one that does not come is let go of", async () => {
    let isCancelled = false;
    const stalled = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new TextEncoder().encode("1")),
      cancel: () => void (isCancelled = true),
    });

    expect(await rejection(readBody(request(stalled), { timeoutMs: 1 }))).toMatchObject({
      code: "timed_out",
    });
    expect(isCancelled).toBe(true);
  });

  test("body: what is too large is not read to its end", async () => {
    let pulls = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        pulls += 1;
        controller.enqueue(new Uint8Array(1000));
      },
    });

    const error = await rejection(readBody(request(endless), { maxBytes: 10_000 }));

    expect(error).toMatchObject({ code: "request_too_large" });
    expect(pulls).toBeLessThan(20);
  });

  test("body: a connection that breaks in the middle is a client that left", async () => {
    const broken = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.error(new Error("reset")),
    });

    expect(await rejection(readBody(request(broken)))).toMatchObject({ code: "cancelled" });
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

  test("body: what is nested too deep is refused before it is parsed", async () => {
    const deep = `{"model":"p","x":${"[".repeat(100_000)}${"]".repeat(100_000)}}`;

    expect(await rejection(parseBody(request(deep), Body))).toMatchObject({
      code: "invalid_request",
      message: expect.stringContaining("nested"),
    });
  });

  test("body: of two members with one name the last counts, as for engines", async () => {
    const { value } = await parseBody(request('{"model":"a","model":"b"}'), Body);

    expect(value.model).toBe("b");
  });

  test("body: a field that is wrong is named beside the message, too", async () => {
    const error = await rejection(parseBody(request("{}"), Body));

    expect(error).toMatchObject({ details: { param: "model" } });
  });

  test("body: of many wrong members only the first is looked at", async () => {
    let looked = 0;
    const Member = v.pipe(
      v.any(),
      v.check(() => {
        looked += 1;
        return false;
      }, "is wrong"),
    );
    const text = JSON.stringify({ list: Array.from({ length: 1000 }, () => 1) });

    const error = await rejection(parseBody(request(text), v.object({ list: v.array(Member) })));

    expect(error).toMatchObject({ details: { param: "list.0" } });
    expect(looked).toBe(1);
  });

  test("body: what is shown of a wrong value is short", async () => {
    const text = JSON.stringify({ model: { x: 1 }, y: "z".repeat(1000) });

    const error = await parseBody(request(text), Body).catch((thrown: Error) => thrown);

    expect((error as Error).message).toBe(
      "cannot read the request: `model` must be string, not Object",
    );
  });
});
