import { describe, expect, test } from "bun:test";
import { urlSource } from "../../src/http/blob-source.ts";
import { createHttp } from "../../src/http/http.ts";
import { isTransient } from "../../src/http/retry.ts";
import { type RawAnswer, serveRaw } from "../fakes/raw-http.ts";
import { failureOf } from "./failure-of.ts";

const signal = new AbortController().signal;
const http = createHttp({ offline: false, caBundle: "", isInsecure: () => false });
const BYTES = Buffer.from("0123456789");

async function serving(answer: RawAnswer) {
  const server = await serveRaw(async () => answer);
  const url = `http://127.0.0.1:${server.port}/file?token=secret`;
  return {
    requests: server.requests,
    url,
    source: urlSource(http, url, { authorization: "Bearer t" }),
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

function partial(
  contentRange: string | undefined,
  body: Uint8Array = BYTES.subarray(2, 5),
): RawAnswer {
  return {
    status: 206,
    headers: contentRange === undefined ? {} : { "content-range": contentRange },
    body,
  };
}

describe("urlSource", () => {
  test.each([
    [{ etag: 'W/"a"', "last-modified": "Sat, 01 Jan 2022 00:00:00 GMT" }, '"a"'],
    [{ "last-modified": "Sat, 01 Jan 2022 00:00:00 GMT" }, "Sat, 01 Jan 2022 00:00:00 GMT"],
    [{}, undefined],
  ])("%j tells which version of the file it is", async (headers, version) => {
    await using whole = await serving({ status: 200, headers, body: BYTES });
    await using part = await serving({
      ...partial("bytes 2-4/10"),
      headers: { "content-range": "bytes 2-4/10", ...headers },
    });

    for (const { source } of [whole, part]) {
      const answer = await source.open({ start: 2, end: 5 }, { signal });
      await answer.body.cancel();
      expect(answer.version).toBe(version);
    }
  });

  test("a range is asked for inclusively, with the credential", async () => {
    await using server = await serving(partial("bytes 2-4/10"));

    const { body, ...answer } = await server.source.open({ start: 2, end: 5 }, { signal });

    expect(answer).toEqual({ start: 2, isRanged: true, totalBytes: 10 });
    expect(await new Response(body).text()).toBe("234");
    expect(server.requests[0]?.headers).toMatchObject({
      range: "bytes=2-4",
      authorization: "Bearer t",
    });
    expect(server.source.host).toBe(new URL(server.url).host);
  });

  test("a range to the end has no end", async () => {
    await using server = await serving(partial("bytes 2-4/*"));

    const { totalBytes } = await server.source.open(
      { start: 2, end: Number.POSITIVE_INFINITY },
      { signal },
    );

    expect(server.requests[0]?.headers["range"]).toBe("bytes=2-");
    expect(totalBytes).toBeUndefined();
  });

  test("a server that ignores ranges sends everything from the beginning", async () => {
    await using server = await serving({ status: 200, body: BYTES });

    const { body, ...answer } = await server.source.open({ start: 2, end: 5 }, { signal });

    expect(answer).toEqual({ start: 0, isRanged: false, totalBytes: 10 });
    expect(await new Response(body).text()).toBe("0123456789");
  });

  test("of an empty file no range is asked for", async () => {
    await using server = await serving({ status: 200, body: new Uint8Array() });

    const { body } = await server.source.open({ start: 0, end: 0 }, { signal });

    expect(server.requests[0]?.headers["range"]).toBeUndefined();
    expect(await new Response(body).text()).toBe("");
  });

  test.each([
    ["another start", "bytes 3-5/10"],
    ["more than was asked for", "bytes 2-5/10"],
    ["an end before its start", "bytes 2-1/10"],
    ["another length than announced", "bytes 2-3/10"],
    ["more than there is", "bytes 2-4/4"],
    ["another unit", "lines 2-4/10"],
    ["nonsense", "bytes two-four/10"],
    ["an absurd number", "bytes 2-4/99999999999999999999"],
    ["nothing", undefined],
  ])("206 with %s is a passing failure", async (_what, contentRange) => {
    await using server = await serving(partial(contentRange));

    const error = await failureOf(server.source.open({ start: 2, end: 5 }, { signal }));

    expect(error.code).toBe("registry_unavailable");
    expect(error.details?.["reason"]).toBe("range");
    expect(isTransient(error)).toBe(true);
  });

  test("416: the file ends before the range", async () => {
    await using server = await serving({ status: 416 });

    const error = await failureOf(server.source.open({ start: 20, end: 30 }, { signal }));

    expect(error.message).toEndWith("it has fewer than 20 bytes");
    expect(isTransient(error)).toBe(false);
  });

  test("a success without the file is a failure", async () => {
    await using server = await serving({ status: 204 });

    const error = await failureOf(server.source.open({ start: 0, end: 5 }, { signal }));

    expect(error.message).toEndWith("it answered with status 204");
  });

  test.each([
    [401, "unauthorized", false],
    [403, "forbidden", false],
    [404, "not_found", false],
    [410, "not_found", false],
    [408, "timed_out", true],
    [429, "too_many_requests", true],
    [500, "registry_unavailable", true],
    [503, "registry_unavailable", true],
    [418, "registry_unavailable", false],
    [501, "registry_unavailable", false],
  ] as const)("status %p is %s; passing: %p", async (status, code, isPassing) => {
    await using server = await serving({ status, headers: { "retry-after": "7" } });

    const error = await failureOf(server.source.open({ start: 0, end: 5 }, { signal }));

    expect(error.code).toBe(code);
    expect(isTransient(error)).toBe(isPassing);
    expect(error.details).toMatchObject({ status, retry_after_ms: 7000 });
    expect(error.message).toContain("/file`: ");
    expect(error.message).not.toContain("secret");
  });

  test("how long a limited server wants to be left alone is said", async () => {
    await using server = await serving({ status: 429, headers: { "retry-after": "600" } });

    const error = await failureOf(server.source.open({ start: 0, end: 5 }, { signal }));

    expect(error.hint).toBe("Try again in 10 minutes.");
  });
});
