/** The server of ONNX models by itself, on a socket of its own, with requests that nobody should send. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { join } from "node:path";
import { scriptedDecoder } from "../../backends/onnx/tiny-model.ts";
import { type EngineProcess, spawnEngine } from "../../src/runtime/process.ts";
import { eventually } from "../helpers/eventually.ts";
import { tinyEncoder, writeFiles } from "../helpers/onnx-models.ts";
import { PYTHON_PROBLEM } from "../helpers/pypi.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { describeIf } from "../helpers/test-if.ts";
import { tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const INSTALL_TIMEOUT_MS = 240_000;
const CHAT = "/v1/chat/completions";
const MESSAGES = [{ role: "user", content: "hi" }];
const LONG = { messages: MESSAGES, stream: true };
const HOSTILE: readonly unknown[] = [
  true,
  false,
  -1,
  0,
  1.5,
  1e308,
  2 ** 53,
  -(2 ** 70),
  "",
  "x",
  "\u0000",
  "\ud800",
  [],
  [null],
  [[]],
  [{}],
  [-1],
  [2 ** 60],
  ["a", 5],
  {},
  { a: 1 },
  [{ role: 5 }],
  [true],
  [{ role: "user" }],
  [{ role: "user", content: 5 }],
  [{ role: "user", content: [null] }],
  [{ role: "user", content: { type: "text" } }],
  Array.from({ length: 3000 }, () => "a"),
  { include_usage: "yes" },
  { messages: [] },
];

interface Served extends AsyncDisposable {
  readonly process: EngineProcess;
  readonly home: string;
  said(): string;
  post(path: string, body: unknown, signal?: AbortSignal): Promise<Response>;
  get(path: string): Promise<Response>;
  /** What is answered to these bytes; empty if nothing is. */
  raw(bytes: string): Promise<string>;
}

describeIf(PYTHON_PROBLEM === undefined, PYTHON_PROBLEM ?? "")("the server of ONNX models", () => {
  let home: Awaited<ReturnType<typeof tugHome>>;
  let command: readonly string[];
  beforeAll(async () => {
    home = await tugHome();
    const install = ["install-runner", "--backend", "onnx"];
    const { exitCode, stderr } = await home.tug(install, { timeoutMs: INSTALL_TIMEOUT_MS });
    if (exitCode !== 0) throw new Error(stderr);
    const parent = join(home.path, "backends", "onnx");
    const version = readdirSync(parent).find((name) => name.endsWith("-cpu")) ?? "";
    const directory = join(parent, version);
    const facts = await readFile(join(directory, "install.json"), "utf8");
    const said = (JSON.parse(facts) as { command: string[] }).command;
    command = said.map((word) => word.replace("{directory}", directory));
  }, INSTALL_TIMEOUT_MS);
  afterAll(async () => {
    await home[Symbol.asyncDispose]();
  });

  /** Serves an endless text, or vectors. */
  async function serve(mode: string, ...options: readonly string[]): Promise<Served> {
    const script = { pieces: ["on ", "and "], isEndless: true, context: 100_000 };
    return serveFiles(mode === "completion" ? scriptedDecoder(script) : tinyEncoder(), {
      mode,
      options,
    });
  }

  /** @throws what it said before it ended, if it never gets ready */
  async function serveFiles(
    files: Readonly<Record<string, string | Uint8Array>>,
    { mode, options = [] }: { readonly mode: string; readonly options?: readonly string[] },
  ): Promise<Served> {
    const directory = await tempDir();
    const model = join(directory.path, "m");
    const own = join(directory.path, "run");
    const user = join(directory.path, "user");
    await mkdir(own);
    await mkdir(user);
    await writeFiles(model, files);
    const socket = join(own, "e.sock");
    const output: Uint8Array[] = [];
    const args = ["--socket", socket, "--model", model, "--mode", mode, "--name", "me/m"];
    const child = spawnEngine({
      command: [...command, ...args, "--threads", "1", ...options],
      env: { HOME: user, XDG_CACHE_HOME: "" },
      directory: own,
      onOutput: (chunk) => Promise.resolve(void output.push(chunk)),
    });
    const send = (path: string, init: RequestInit) =>
      fetch(`http://engine${path}`, { unix: socket, keepalive: false, ...init });
    const said = (): string => Buffer.concat(output).toString();
    let hasEnded = false;
    void child.exited.then(() => (hasEnded = true));
    // There is a file a moment before anybody listens.
    await eventually(async () => hasEnded || (await send("/health", {})).ok);
    if (hasEnded) {
      await directory[Symbol.asyncDispose]();
      throw new Error(said());
    }
    return {
      process: child,
      home: user,
      said,
      post: (path, body, signal) =>
        send(path, {
          method: "POST",
          body: typeof body === "string" ? body : JSON.stringify(body),
          signal: signal ?? null,
        }),
      get: (path) => send(path, {}),
      raw: (bytes) => exchange(socket, bytes),
      [Symbol.asyncDispose]: async () => {
        child.kill();
        await child.exited;
        await directory[Symbol.asyncDispose]();
      },
    };
  }

  test("says what it serves", async () => {
    await using it = await serve("completion", "--parallel", "3");

    expect(await (await it.get("/health")).json()).toEqual({
      status: "ok",
      parallel: 3,
      context: 100_000,
      asked_context: -1,
    });
    expect(await (await it.get("/v1/models")).json()).toMatchObject({ data: [{ id: "me/m" }] });
    expect(it.said()).toMatch(/^serve: loaded in \d+\.\d s\n$/);
  });

  test.each([
    ["a graph elsewhere", "../../etc/passwd", "names a graph that is not there"],
    ["a graph by its whole path", "/etc/passwd", "names a graph that is not there"],
    ["a graph that is missing", "other.onnx", "names a graph that is not there"],
  ])("%s is not opened", async (_, filename, reason) => {
    const files = scriptedDecoder({ pieces: ["a"] });
    const config = JSON.parse(String(files["genai_config.json"])) as {
      model: { decoder: { filename: string } };
    };
    config.model.decoder.filename = filename;
    const changed = { ...files, "genai_config.json": JSON.stringify(config) };

    const failure = await serveFiles(changed, { mode: "completion" }).catch(String);

    expect(failure).toContain(reason);
  });

  test.each(["[]", "{", "null"])(
    "a configuration that is %s is an error in words",
    async (text) => {
      const files = { ...scriptedDecoder({ pieces: ["a"] }), "genai_config.json": text };

      const failure = await serveFiles(files, { mode: "completion" }).catch(String);

      expect(failure).toContain("its `genai_config.json` is no JSON object");
    },
  );

  test("habits of a model that are no numbers are none", async () => {
    const files = scriptedDecoder({ pieces: ["a"], layout: "optimum" });
    const habits = { temperature: null, top_p: null, top_k: "50", do_sample: "yes" };
    const changed = {
      ...files,
      "generation_config.json": JSON.stringify({ ...habits, eos_token_id: 2 }),
    };
    await using it = await serveFiles(changed, { mode: "completion" });

    const response = await it.post(CHAT, { messages: MESSAGES });

    expect([response.status, await response.text()]).toEqual([200, expect.stringContaining('"a"')]);
  });

  test("many texts of all lengths are embedded as each alone, in their order", async () => {
    await using it = await serve("embedding");
    const texts = Array.from({ length: 70 }, (_, at) => "ab".repeat(1 + ((at * 37) % 60)));
    const embed = async (input: unknown): Promise<number[][]> => {
      const response = await it.post("/v1/embeddings", { input });
      const { data } = (await response.json()) as { data: { embedding: number[] }[] };
      return data.map(({ embedding }) => embedding);
    };

    const all = await embed(texts);

    expect(all).toHaveLength(70);
    for (const at of [0, 15, 16, 17, 40, 69]) {
      const [alone = []] = await embed(texts[at]);
      expect(all[at]?.map((value) => value.toFixed(4))).toEqual(
        alone.map((value) => value.toFixed(4)),
      );
    }
  });

  test("hostile values of any member are refused or taken, and never its own failure", async () => {
    await using it = await serve("completion", "--context", "64");
    const members =
      `messages prompt n response_format tools tool_choice stream stream_options max_tokens temperature top_p
      max_completion_tokens top_k seed stop chat_template_kwargs model logprobs unknown`.split(
        /\s+/,
      );
    const seen = new Set<number>();
    for (const member of members) {
      const answers = HOSTILE.map(async (value) => {
        const path = member === "prompt" ? "/v1/completions" : CHAT;
        const response = await it.post(path, {
          messages: MESSAGES,
          max_tokens: 2,
          [member]: value,
        });
        await firstPiece(response);
        return response.status;
      });
      for (const status of await Promise.all(answers)) seen.add(status);
    }

    // What went wrong in it, it says.
    expect(it.said()).toMatch(/^serve: loaded[^\n]+\n$/);
    expect(seen).toEqual(new Set([200, 400]));
  });

  test("hostile values of what is embedded, too", async () => {
    await using it = await serve("embedding");
    const seen = new Set<number>();
    for (const member of ["input", "dimensions", "encoding_format", "model"]) {
      for (const value of HOSTILE) {
        const { status } = await it.post("/v1/embeddings", { input: "a", [member]: value });
        seen.add(status);
      }
    }

    // What went wrong in it, it says.
    expect(it.said()).toMatch(/^serve: loaded[^\n]+\n$/);
    expect(seen).toEqual(new Set([200, 400]));
  });

  test.each(["", "x", "[]", "5", "null", "NaN", "\u0000", "[", '{"a":'])(
    "a body like %p is no request",
    async (body) => {
      await using it = await serve("embedding");

      const response = await it.post("/v1/embeddings", body);

      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ error: { type: "invalid_request_error" } });
    },
  );

  test("a body of brackets that are too deep is no request", async () => {
    await using it = await serve("embedding");

    expect((await it.post("/v1/embeddings", "[".repeat(100_000))).status).toBe(400);
  });

  test("what is no HTTP, or too much of it, is refused", async () => {
    await using it = await serve("embedding");

    expect(await it.raw("nonsense\r\n\r\n")).toStartWith("HTTP/1.1 400");
    expect(await it.raw(head(`GET /${"a".repeat(70_000)} HTTP/1.1`))).toStartWith("HTTP/1.1 431");
    const post = "POST /v1/embeddings HTTP/1.1";
    expect(await it.raw(head(post, "Content-Length: 99999999999"))).toStartWith("HTTP/1.1 413");
    expect(await it.raw(head(post, "Transfer-Encoding: chunked"))).toStartWith("HTTP/1.1 411");
    expect(await it.raw(head("GET /v1/embeddings HTTP/1.1"))).toStartWith("HTTP/1.1 405");
    expect(await it.raw(head("GET /v1/chat/completions HTTP/1.1"))).toStartWith("HTTP/1.1 404");
    expect(await it.raw(head("GET /health?a=b HTTP/1.1"))).toStartWith("HTTP/1.1 200");
  });

  test("several take turns", async () => {
    await using it = await serve("completion");
    const stop = new AbortController();
    const all = await Promise.all([0, 1, 2].map(() => it.post(CHAT, LONG, stop.signal)));
    const readers = all.map((response) => response.body?.getReader());

    // None of them ends, and each goes on.
    for (let round = 0; round < 5; round += 1) {
      const pieces = await Promise.all(readers.map(async (reader) => reader?.read()));
      expect(pieces.map((piece) => piece?.done)).toEqual([false, false, false]);
    }
    stop.abort();
  });

  test("who waits for a place gets that of who has left", async () => {
    await using it = await serve("completion", "--parallel", "1");
    const stop = new AbortController();
    const first = await it.post(CHAT, LONG, stop.signal);
    expect(await firstPiece(first)).toContain("data: ");
    const second = it.post(CHAT, { messages: MESSAGES, max_tokens: 2 });

    stop.abort();

    expect(await (await second).json()).toMatchObject({
      choices: [{ message: { content: "on and " }, finish_reason: "length" }],
    });
  });

  test("ends at once when it is told to, whatever it is at", async () => {
    await using it = await serve("completion");
    const response = await it.post(CHAT, LONG);
    expect(await firstPiece(response)).toContain("data: ");

    const begun = performance.now();
    await it.process.terminate();

    expect(performance.now() - begun).toBeLessThan(2000);
  });

  test.each(["completion", "embedding"])("%s: reports to nobody", async (mode) => {
    await using it = await serve(mode);
    const more = { messages: MESSAGES, max_tokens: 2, input: "a" };
    const response = await it.post(mode === "completion" ? CHAT : "/v1/embeddings", more);

    expect(response.status).toBe(200);
    // Where its maker's library would keep the number of this machine, and what is still to be sent.
    expect(readdirSync(it.home)).toEqual([]);
  });
});

function exchange(socket: string, bytes: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const connection = createConnection(socket, () => connection.write(bytes));
  let answer = "";
  connection.on("data", (data) => (answer += data.toString()));
  connection.on("error", () => resolve(answer));
  connection.on("close", () => resolve(answer));
  return promise;
}

async function firstPiece(response: Response): Promise<string> {
  const { value } = (await response.body?.getReader().read()) ?? {};
  return new TextDecoder().decode(value);
}

function head(line: string, ...lines: readonly string[]): string {
  return [line, "Host: x", ...lines, "", ""].join("\r\n");
}
