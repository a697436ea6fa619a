import { describe, expect, test } from "bun:test";
import type { RequestRecord } from "../../src/api/requests.ts";
import { Client } from "../../src/client/client.ts";
import {
  clearRequests,
  findRequest,
  followRequests,
  listRequests,
  replayRequest,
} from "../../src/client/requests.ts";
import { AppError } from "../../src/errors.ts";

const signal = new AbortController().signal;

/** A client of a server that answers like this, and what it was asked. */
function setUp(answer: (path: string) => Response) {
  const asked: { path: string; init: RequestInit | undefined }[] = [];
  const client = new Client({
    kind: "socket",
    target: "test",
    fetch: (path, init) => {
      asked.push({ path, init });
      return Promise.resolve(answer(path));
    },
  });
  return { client, asked };
}

const record = (overrides: Partial<RequestRecord> = {}) =>
  ({
    id: "r1",
    method: "POST",
    url: "/v1/chat/completions",
    request: '{"model":"pebble","seed":1}',
    request_cut: false,
    media_cut: 0,
    ...overrides,
  }) as RequestRecord;

const events = (...data: string[]) =>
  new Response(data.map((one) => `data: ${one}\n\n`).join(""), {
    headers: { "content-type": "text/event-stream" },
  });

describe("recorded requests", () => {
  test("are asked for by model and number", async () => {
    const { client, asked } = setUp(() => Response.json([]));

    await listRequests(client, { model: "a/b&c", limit: 3 }, { signal });
    await listRequests(client, {}, { signal });

    expect(asked.map(({ path }) => path)).toEqual([
      "/engines/requests?model=a%2Fb%26c&limit=3",
      "/engines/requests",
    ]);
  });

  test("are found by ids with any characters, and forgotten", async () => {
    const { client, asked } = setUp((path) =>
      Response.json(path.endsWith("s") ? { removed: 2 } : record()),
    );

    await findRequest(client, "a/b?c", { signal });
    const removed = await clearRequests(client, { signal });

    expect(asked[0]?.path).toBe("/engines/requests/a%2Fb%3Fc");
    expect(removed).toBe(2);
  });

  test("are followed, without the event that only says hello", async () => {
    const { client, asked } = setUp(() => events("{}", '{"id":"1"}', '{"id":"2"}'));

    const query = { model: "m", includeExisting: true };
    const seen = await Array.fromAsync(followRequests(client, query, { signal }), ({ id }) => id);

    expect(seen).toEqual(["1", "2"]);
    expect(asked[0]?.path).toBe("/engines/requests?model=m&include_existing=true");
    expect(new Headers(asked[0]?.init?.headers).get("accept")).toBe("text/event-stream");
  });
});

describe("replayRequest", () => {
  test("sends the same again, to another model if one is named", async () => {
    const { client, asked } = setUp(() => Response.json({ ok: true }));

    const same = await Array.fromAsync(replayRequest(client, record(), { signal }));
    await Array.fromAsync(replayRequest(client, record(), { model: "other", signal }));

    expect(same).toEqual([{ ok: true }]);
    expect(asked.map(({ path, init }) => [path, init?.method, init?.body])).toEqual([
      ["/v1/chat/completions", "POST", '{"model":"pebble","seed":1}'],
      ["/v1/chat/completions", "POST", '{"model":"other","seed":1}'],
    ]);
  });

  test("gives the events of a stream, and the lines of Ollama's", async () => {
    const streamed = setUp(() => events('{"a":1}', '{"a":2}', "[DONE]"));
    const lines = setUp(
      () =>
        new Response('{"a":1}\n{"a":2}\n', { headers: { "content-type": "application/x-ndjson" } }),
    );

    expect(await Array.fromAsync(replayRequest(streamed.client, record(), { signal }))).toEqual([
      { a: 1 },
      { a: 2 },
    ]);
    expect(await Array.fromAsync(replayRequest(lines.client, record(), { signal }))).toEqual([
      { a: 1 },
      { a: 2 },
    ]);
  });

  test.each([
    ["media that was not kept", { media_cut: 1 }, "images, sounds or files"],
    ["a body that was cut", { request_cut: true }, "too long"],
    ["a body that is no JSON", { request: "nonsense" }, "no JSON object"],
    ["a body that is no object", { request: "[1]" }, "no JSON object"],
    ["another machine's address", { url: "http://evil.example/v1" }, "none of this runner"],
    ["an address without a scheme", { url: "//evil.example/v1" }, "none of this runner"],
  ])("refuses %s", async (_, overrides, reason) => {
    const { client, asked } = setUp(() => Response.json({}));

    const replaying = Array.fromAsync(replayRequest(client, record(overrides), { signal }));
    const error = await replaying.catch((thrown: unknown) => thrown as AppError);

    expect(error).toBeInstanceOf(AppError);
    expect((error as AppError).message).toContain(reason);
    expect(asked).toEqual([]);
  });
});
