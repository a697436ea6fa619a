import { describe, expect, spyOn, test } from "bun:test";
import type { RequestRecord } from "../../src/api/requests.ts";
import { parseArguments } from "../../src/commands/arguments.ts";
import type { ArgumentDefinitions, Command } from "../../src/commands/command.ts";
import { command as replayCommand } from "../../src/commands/replay.ts";
import { command as requestsCommand } from "../../src/commands/requests.ts";
import { type Config, loadConfig } from "../../src/config.ts";
import type { AppError } from "../../src/errors.ts";
import { resolvePaths } from "../../src/paths.ts";

const RECORD: Partial<RequestRecord> = {
  id: "r1",
  model: "pebble",
  model_id: `sha256:${"a".repeat(64)}`,
  method: "POST",
  url: "/v1/chat/completions",
  request: '{"model":"pebble","messages":[{"role":"user","content":"Where is it?"}]}',
  request_cut: false,
  media_cut: 0,
  response: '{"choices":[{"message":{"content":"In Paris."}}]}',
  started_at: "2027-01-15T08:09:10.000Z",
  status_code: 200,
  duration_ms: 1200,
  first_token_ms: 100,
  input_tokens: 3,
  output_tokens: 4,
  error: null,
};

const ANSWER = ["In ", "Rome."].map(
  (content) => `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`,
);

const stream = (text: string) =>
  new Response(text, { headers: { "content-type": "text/event-stream" } });

/** A runner with one record, and what it was asked. */
function startRunner() {
  const asked: string[] = [];
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      asked.push(`${request.method} ${pathname}${search} ${await request.text()}`.trim());
      if (pathname === "/v1/chat/completions") return stream(`${ANSWER.join("")}data: [DONE]\n\n`);
      if (request.method === "DELETE") return Response.json({ removed: 1 });
      if (request.headers.get("accept") === "text/event-stream") {
        return stream(`data: {}\n\ndata: ${JSON.stringify(RECORD)}\n\n`);
      }
      if (pathname.endsWith("/r1")) return Response.json(RECORD);
      return Response.json([{ count: 1, model: "pebble", config: {}, records: [RECORD] }]);
    },
  });
  const config: Config = {
    ...loadConfig("/nowhere/config.toml", {}),
    host: { value: `http://127.0.0.1:${server.port}`, source: "--host" },
  };
  return { asked, config, [Symbol.asyncDispose]: () => server.stop(true) };
}

/** What the command writes to stdout. */
async function run<T extends ArgumentDefinitions>(
  command: Command<T>,
  config: Config,
  words: readonly string[],
): Promise<string> {
  const written: string[] = [];
  const write = spyOn(process.stdout, "write").mockImplementation(((
    text: string,
    done?: () => void,
  ) => {
    written.push(text);
    done?.();
    return true;
  }) as never);
  try {
    const args = parseArguments(command.args, words);
    const { signal } = new AbortController();
    await command.run({ args, config, paths: resolvePaths({ TUG_HOME: "/nowhere" }), signal });
  } finally {
    write.mockRestore();
  }
  return written.join("");
}

describe("tug requests", () => {
  test("shows a table", async () => {
    await using it = startRunner();

    const text = await run(requestsCommand, it.config, ["--model", "pebble", "--limit", "5"]);

    expect(text.split("\n")[0]).toMatch(
      /^ID +MODEL +STARTED +STATUS +TOOK +FIRST +TOKENS +PROMPT$/,
    );
    expect(text.split("\n")[1]).toMatch(/^r1 +pebble +.* +200 +1\.2s +100ms +3\+4 +Where is it\?$/);
    expect(it.asked).toEqual(["GET /engines/requests?model=pebble&limit=5"]);
  });

  test("shows one whole", async () => {
    await using it = startRunner();

    const text = await run(requestsCommand, it.config, ["r1"]);

    expect(text).toContain("status_code: 200\n");
    expect(text).toEndWith("\n> Where is it?\n\nIn Paris.\n");
  });

  test("follows in lines, or in lines of JSON", async () => {
    await using it = startRunner();

    const lines = await run(requestsCommand, it.config, ["-f", "--include-existing"]);
    const json = await run(requestsCommand, it.config, ["-f", "--json"]);

    expect(lines).toBe("08:09:10 r1 pebble 200 1.2s 3+4 Where is it?\n");
    expect(JSON.parse(json)).toMatchObject({ id: "r1" });
    expect(it.asked[0]).toBe("GET /engines/requests?include_existing=true");
  });

  test("prints what the runner says as JSON, and forgets", async () => {
    await using it = startRunner();

    const all = JSON.parse(await run(requestsCommand, it.config, ["--json"])) as unknown;
    const one = JSON.parse(await run(requestsCommand, it.config, ["r1", "--json"])) as unknown;
    const cleared = await run(requestsCommand, it.config, ["--clear"]);

    expect(all).toMatchObject([{ count: 1, records: [{ id: "r1" }] }]);
    expect(one).toMatchObject({ id: "r1" });
    expect(cleared).toBe("1 forgotten\n");
  });

  test.each([
    [["--include-existing"]],
    [["r1", "--clear"]],
    [["-f", "--clear"]],
    [["--limit", "many"]],
  ])("refuses %j", async (words) => {
    await using it = startRunner();

    const error = await run(requestsCommand, it.config, words).catch((thrown: unknown) => thrown);

    expect((error as AppError).code).toBe("usage");
    expect(it.asked).toEqual([]);
  });
});

describe("tug replay", () => {
  test("shows the new answer", async () => {
    await using it = startRunner();

    expect(await run(replayCommand, it.config, ["r1"])).toBe("In Rome.\n");
    expect(it.asked[1]).toBe(`POST /v1/chat/completions ${RECORD.request}`);
  });

  test("asks another model, and shows what differs", async () => {
    await using it = startRunner();

    const text = await run(replayCommand, it.config, ["r1", "--model", "other", "--diff"]);

    expect(text).toContain("- In Paris.");
    expect(text).toContain("+ In Rome.");
    expect(it.asked[1]).toContain('"model":"other"');
  });

  test("prints both answers as JSON", async () => {
    await using it = startRunner();

    const text = await run(replayCommand, it.config, ["r1", "--json"]);

    expect(JSON.parse(text)).toMatchObject({
      id: "r1",
      model: "pebble",
      recorded: "In Paris.",
      replayed: "In Rome.",
      same: false,
    });
  });
});
