import { describe, expect, test } from "bun:test";
import { Client } from "../../src/client/client.ts";

const SIGNAL = { signal: new AbortController().signal };

/** A client whose requests end here, and what it asked for. */
function recorded(answer: () => Response = () => Response.json([])): {
  client: Client;
  paths: string[];
} {
  const paths: string[] = [];
  const client = new Client({
    kind: "remote",
    target: "http://h",
    fetch: (path, init) => {
      paths.push(`${init?.method} ${path}`);
      return Promise.resolve(answer());
    },
  });
  return { client, paths };
}

describe("names in routes", () => {
  test.each([
    ["purge", "/models/purge:latest"],
    ["me/export", "/models/me/export:latest"],
    ["me/model:v1", "/models/me/model:v1"],
    ["localhost:5000/me/model", "/models/localhost:5000/me/model:latest"],
    ["eaabd86dc398", "/models/eaabd86dc398"],
  ])("%p can be taken for no other route", async (name, path) => {
    const { client, paths } = recorded();

    await client.remove(name, { ...SIGNAL, force: false });

    expect(decodeURIComponent(paths[0] ?? "")).toBe(`DELETE ${path}?force=false`);
  });

  test.each(["", ".", "..", "purge/", "x/../purge", "../models/purge", "/"])(
    "%p is no name, and nothing is asked",
    async (name) => {
      const { client, paths } = recorded();

      const failure = await client
        .remove(name, { ...SIGNAL, force: false })
        .catch((error: { code: string }) => error.code);

      expect([failure, paths]).toEqual(["invalid_reference", []]);
    },
  );
});

describe("errors", () => {
  test.each([
    [
      400,
      "request (2060 tokens) exceeds the available context size (2048 tokens), try increasing it",
      "invalid_request",
      "the conversation (2060 tokens) does not fit into the context of 2048 tokens",
    ],
    [
      500,
      "image input is not supported - hint: mmproj",
      "unsupported_model",
      "this model cannot read images",
    ],
    [500, "something else", "worker_failed", "something else"],
  ] as const)(
    "an engine's %d is said in words a person can use",
    async (...[status, said, code, message]) => {
      const { client } = recorded(() => Response.json({ error: { message: said } }, { status }));

      expect(client.listModels(SIGNAL)).rejects.toMatchObject({ code, message });
    },
  );

  test("a page that is not ours is quoted briefly, with where it came from", () => {
    const { client } = recorded(() => new Response("<html>".repeat(100), { status: 502 }));

    expect(client.listModels(SIGNAL)).rejects.toMatchObject({
      code: "internal",
      message: expect.stringMatching(/^http:\/\/h answered 502: <html>.{1,200}$/),
    });
  });
});
