/**
 * Every call that the `docker model` CLI makes, with the bodies and headers it sends, against a real runner, and whether
 * its Go types take the answers. In the order of a user's day: each call may build on those before it.
 *
 * @see https://github.com/docker/model-runner cmd/cli/desktop/desktop.go (the functions named in the table)
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import {
  CHAT,
  CONFIGS,
  DF,
  MODEL,
  OPENAI_MODEL,
  OPENAI_MODELS,
  PS,
  readProgress,
  REMOVED,
  REQUESTS,
  STATUS,
  unreadable,
  UNLOADED,
  VERSION,
} from "../helpers/docker-cli-types.ts";
import { eventually } from "../helpers/eventually.ts";
import { goSlice, type GoType } from "../helpers/go-json.ts";
import { QUESTION } from "../helpers/pebble.ts";
import { toolCallPiece, writeScriptedModel } from "../helpers/scripted-model.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const AGENT = { "user-agent": "docker-model-cli/v1.0.12" };
const JSON_BODY = { ...AGENT, "content-type": "application/json" };
const TOOL = {
  type: "function",
  function: {
    name: "web_search",
    description: "Search the web",
    parameters: { type: "object", properties: { query: { type: "string" } }, required: ["query"] },
  },
};

let home: TugHome;
let registry: FakeRegistry;
beforeAll(async () => {
  registry = await startFakeRegistry();
  home = await tugHome({ engine: true });
  const path = join(home.path, "searching.gguf");
  const pieces = [
    "<think>\n",
    "Hm.",
    "\n</think>\n\n",
    toolCallPiece("web_search", { query: "x" }),
  ];
  await writeScriptedModel(path, { pieces, afterTool: ["Found", " it."] });
  await home.tug(["package", "--gguf", path, "me/searching"]);
  const { exitCode, stderr } = await home.tug(["start-runner"]);
  if (exitCode !== 0) throw new Error(`the runner does not start:\n${stderr}`);
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
});

interface Call {
  /** The CLI's function, and the command that calls it. */
  readonly source: string;
  readonly method?: "GET" | "POST" | "DELETE";
  readonly path: string | (() => string);
  readonly body?: object | (() => object);
  readonly headers?: Readonly<Record<string, string>>;
  /** 200 unless given. */
  readonly status?: number;
  readonly type?: GoType;
  readonly check?: (answer: unknown, text: string) => void;
}

const PRELOAD = { ...JSON_BODY, "x-preload-only": "true" };
const chat = (prompt: string) => ({
  model: "ai/pebble",
  messages: [{ role: "user", content: prompt }],
  stream: true,
});

const CALLS: readonly Call[] = [
  { source: "ServerVersion (version)", path: "/version", type: VERSION },
  { source: "Status (status), first", path: "/models", type: goSlice(MODEL) },
  { source: "Status (status), then", path: "/engines/status", type: STATUS },
  { source: "PS (ps), nothing running", path: "/engines/ps", type: PS, check: isEmpty },
  { source: "ShowConfigs (configure show), none", path: "/engines/_configure", check: isEmpty },
  {
    source: "Inspect (run, inspect), a model that is not here",
    path: "/models/me/absent",
    status: 404,
  },
  {
    source: "Pull (run, pull, compose up)",
    method: "POST",
    path: "/models/create",
    body: { from: "ai/pebble" },
    check: pulled,
  },
  {
    source: "Pull, again",
    method: "POST",
    path: "/models/create",
    body: { from: "ai/pebble" },
    check: (_, text) => expect(readProgress(text).last.message).toStartWith("Using cached model: "),
  },
  {
    source: "Pull, a model that its registry has not",
    method: "POST",
    path: "/models/create",
    body: () => ({ from: `${registry.host}/me/none` }),
    status: 404,
  },
  {
    source: "Pull, no name",
    method: "POST",
    path: "/models/create",
    body: { from: "" },
    status: 400,
  },
  { source: "List (list)", path: "/models", type: goSlice(MODEL), check: hasPebble },
  { source: "Inspect (inspect)", path: "/models/ai/pebble", type: MODEL },
  { source: "Inspect (inspect), short name", path: "/models/pebble", type: MODEL },
  { source: "ListOpenAI (list --openai)", path: "/engines/v1/models", type: OPENAI_MODELS },
  {
    source: "InspectOpenAI (inspect --openai)",
    path: "/engines/v1/models/ai/pebble",
    type: OPENAI_MODEL,
  },
  { source: "InspectOpenAI, absent", path: "/engines/v1/models/me/absent", status: 404 },
  {
    source: "Preload (run --detach)",
    method: "POST",
    path: "/engines/v1/chat/completions",
    headers: PRELOAD,
    body: { model: "ai/pebble", messages: [], stream: false },
    check: (_, text) => expect(text).toBe(""),
  },
  {
    source: "PS (ps)",
    path: "/engines/ps",
    type: PS,
    check: (rows) =>
      expect(rows).toMatchObject([{ backend_name: "llama.cpp", mode: "completion" }]),
  },
  {
    source: "ChatWithMessagesContext (run)",
    method: "POST",
    path: "/engines/v1/chat/completions",
    body: chat(QUESTION),
    check: (_, text) => expect(readChat(text).content).toContain("Paris"),
  },
  {
    source: "ChatWithMessagesContext (run --websearch)",
    method: "POST",
    path: "/engines/v1/chat/completions",
    body: { ...chat("Search."), model: "me/searching", tools: [TOOL] },
    check: (_, text) =>
      expect(readChat(text)).toEqual({
        content: "",
        reasoning: "Hm.\n",
        calls: ['web_search {"query":"x"}'],
      }),
  },
  {
    source: "ChatWithMessagesContext, the tool's result",
    method: "POST",
    path: "/engines/v1/chat/completions",
    body: () => ({
      model: "me/searching",
      messages: [
        { role: "user", content: "Search." },
        {
          role: "assistant",
          tool_calls: [
            {
              id: "1",
              type: "function",
              index: 0,
              function: { name: "web_search", arguments: '{"query":"x"}' },
            },
          ],
        },
        { role: "tool", content: "Found.", tool_call_id: "1" },
      ],
      stream: true,
      tools: [TOOL],
    }),
    check: (_, text) => expect(readChat(text).content).toBe("Found it."),
  },
  {
    source: "bench: a whole answer",
    method: "POST",
    path: "/engines/v1/chat/completions",
    body: { ...chat(QUESTION), stream: false },
    type: CHAT,
  },
  {
    source: "ChatWithMessagesContext, absent model",
    method: "POST",
    path: "/engines/v1/chat/completions",
    body: { ...chat("hi"), model: "me/absent" },
    status: 404,
  },
  {
    source: "ConfigureBackend (configure, /set num_ctx)",
    method: "POST",
    path: "/engines/_configure",
    body: { model: "ai/pebble", "context-size": 1024 },
    status: 202,
    check: (_, text) => expect(text).toBe(""),
  },
  {
    source: "ConfigureBackend (configure --think=false --keep-alive 1h -- --top-k 7)",
    method: "POST",
    path: "/engines/_configure",
    body: {
      model: "ai/pebble",
      mode: "completion",
      "runtime-flags": ["--top-k", "7"],
      keep_alive: "1h0m0s",
      llamacpp: { "reasoning-budget": 0 },
    },
    status: 202,
  },
  {
    source: "ConfigureBackend (compose up)",
    method: "POST",
    path: "/engines/_configure",
    body: { model: "ai/pebble", "raw-runtime-flags": "--temp 0.5", "context-size": 2048 },
    status: 202,
  },
  {
    source: "ConfigureBackend, a flag that is refused",
    method: "POST",
    path: "/engines/_configure",
    body: { model: "ai/pebble", "runtime-flags": ["--model", "/etc/passwd"] },
    status: 400,
  },
  {
    source: "ShowConfigs (configure show MODEL)",
    path: "/engines/_configure?model=ai%2Fpebble",
    type: CONFIGS,
    check: (rows) => {
      const configs = rows as { Mode: string; Config: object }[];
      expect(configs.map(({ Mode }) => Mode)).toContain("completion");
      // Each call added to those before it.
      expect(Object.assign({}, ...configs.map(({ Config }) => Config))).toMatchObject({
        "context-size": 2048,
        keep_alive: "1h0m0s",
        llamacpp: { "reasoning-budget": 0 },
      });
    },
  },
  { source: "ShowConfigs (configure show)", path: "/engines/_configure", type: CONFIGS },
  {
    source: "Tag (tag)",
    method: "POST",
    path: "/models/ai/pebble/tag?repo=index.docker.io/me/tagged&tag=v1",
    status: 201,
  },
  {
    source: "Tag, absent model",
    method: "POST",
    path: "/models/me/absent/tag?repo=me/x&tag=v1",
    status: 404,
  },
  {
    source: "Tag, for the registry",
    method: "POST",
    path: () => `/models/me/searching/tag?repo=${registry.host}/me/pushed&tag=v1`,
    status: 201,
  },
  {
    source: "Push (push)",
    method: "POST",
    path: () => `/models/${registry.host}/me/pushed:v1/push`,
    check: (_, text) => {
      const { problems, layers, last, modes } = readProgress(text);
      expect([problems, modes]).toEqual([[], ["push"]]);
      expect(last).toEqual({ type: "success", message: "Model pushed successfully" });
      expect(Object.values(layers).every(({ size, current }) => size === current)).toBe(true);
      expect(Object.keys(layers)).not.toBeEmpty();
    },
  },
  { source: "Push, absent", method: "POST", path: "/models/me/absent/push", status: 404 },
  {
    source: "Remove (rm), of the pushed one",
    method: "DELETE",
    path: () => `/models/${registry.host}/me/pushed:v1?force=false`,
    type: REMOVED,
    check: (events) => expect(events).toEqual([{ Untagged: `${registry.host}/me/pushed:v1` }]),
  },
  {
    source: "Inspect (inspect --remote)",
    path: () => `/models/${registry.host}/me/pushed:v1?remote=true`,
    type: MODEL,
  },
  {
    source: "Pull, with a token",
    method: "POST",
    path: "/models/create",
    body: () => ({ from: `${registry.host}/me/pushed:v1`, "bearer-token": "t" }),
    check: (_, text) => expect(readProgress(text)).toMatchObject({ problems: [], modes: ["pull"] }),
  },
  {
    source: "RepackageModel (package --from --context-size)",
    method: "POST",
    path: "/models/me/searching/repackage",
    body: { target: "me/repackaged", context_size: 512 },
    status: 201,
  },
  {
    source: "RepackageModel, absent",
    method: "POST",
    path: "/models/me/absent/repackage",
    body: { target: "me/x" },
    status: 404,
  },
  { source: "ExportModel, absent", path: "/models/me/absent/export", status: 404 },
  { source: "DF (df)", path: "/engines/df", type: DF, check: isUsed },
  {
    source: "Unload (unload MODEL)",
    method: "POST",
    path: "/engines/unload",
    body: { all: false, backend: "", models: ["ai/pebble"] },
    type: UNLOADED,
    check: (result) => expect(result).toMatchObject({ unloaded_runners: 1 }),
  },
  {
    source: "Remove (rm), one tag of two",
    method: "DELETE",
    path: "/models/me/tagged:v1?force=false",
    type: REMOVED,
    check: (events) => expect(events).toEqual([{ Untagged: "docker.io/me/tagged:v1" }]),
  },
  {
    source: "Remove (rm), the last tag",
    method: "DELETE",
    path: "/models/me/repackaged?force=false",
    type: REMOVED,
    check: (events) =>
      expect(events).toMatchObject([
        { Untagged: "docker.io/me/repackaged:latest" },
        { Deleted: expect.stringMatching(/^sha256:/) },
      ]),
  },
  {
    source: "Remove, absent",
    method: "DELETE",
    path: "/models/me/absent?force=false",
    status: 404,
  },
  {
    source: "InstallBackend (install-runner --backend), unknown",
    method: "POST",
    path: "/engines/install-backend",
    body: { backend: "nosuch" },
    status: 404,
  },
  {
    source: "UninstallBackend (uninstall-runner --backend), unknown",
    method: "POST",
    path: "/engines/uninstall-backend",
    body: { backend: "nosuch" },
    status: 404,
  },
  {
    source: "Requests (requests), over TCP without a key",
    path: "/engines/requests?model=ai%2Fpebble",
    headers: { ...AGENT, accept: "application/json" },
    status: 404,
    check: (_, text) => expect(text).toContain("tug requests"),
  },
  {
    source: "Requests (requests --follow), over TCP without a key",
    path: "/engines/requests?include_existing=true",
    headers: { ...AGENT, accept: "text/event-stream", "cache-control": "no-cache" },
    status: 404,
    check: (_, text) => expect(text).toContain("prompts are private"),
  },
  {
    source: "Logs (logs), over TCP without a key",
    path: "/logs?follow=false&no-engines=false",
    status: 403,
    check: (_, text) => expect(text).toContain("no-engines=true"),
  },
  {
    source: "Logs (logs --no-engines)",
    path: "/logs?follow=false&no-engines=true",
    check: (_, text) => expect(text).toContain("runner:"),
  },
  {
    source: "Unload (purge), first",
    method: "POST",
    path: "/engines/unload",
    body: { all: true, backend: "", models: null },
    type: UNLOADED,
  },
];

describe("docker model", () => {
  test.each(CALLS.map((call) => [call.source, call] as const))("%s", async (_source, call) => {
    const response = await send(call);
    const text = await response.text();

    const shown = `${response.status} ${text.slice(0, 500)}`;
    expect(response.status, shown).toBe(call.status ?? 200);
    if (response.status >= 400) expect(messageOf(text), shown).not.toBe("");
    const answer: unknown = call.type === undefined ? undefined : JSON.parse(text);
    if (call.type !== undefined) expect(unreadable(call.type, answer)).toEqual([]);
    call.check?.(answer ?? safeJson(text), text);
  });

  test.each([
    [
      "a row of `configure show`, sent back",
      { Model: "ai/pebble", Mode: "completion", Config: { "context-size": 1024 } },
      202,
    ],
    ["our spelling", { model: "ai/pebble", context_size: 1024 }, 202],
    ["members that nobody knows", { model: "ai/pebble", "of-a-newer-client": { a: [1] } }, 202],
    ["no model", { "context-size": 1024 }, 400],
    ["an empty model", { model: "" }, 400],
    ["a model that is not here", { model: "me/absent", "context-size": 1024 }, 404],
    ["a mode that is none", { model: "ai/pebble", mode: "video-generation" }, 400],
    ["a context that no model has", { model: "ai/pebble", "context-size": 1e12 }, 400],
    ["a fraction of a token", { model: "ai/pebble", "context-size": 1.5 }, 400],
    ["flags that are no list", { model: "ai/pebble", "runtime-flags": "--temp 1" }, 400],
    ["flags that are no texts", { model: "ai/pebble", "runtime-flags": [1] }, 400],
    ["a flag with a file", { model: "ai/pebble", "raw-runtime-flags": "--log-file /tmp/x" }, 400],
    ["a keep-alive that is no duration", { model: "ai/pebble", keep_alive: "soon" }, 400],
    ["a list", [1], 400],
    ["a megabyte and more", { model: "ai/pebble", "raw-runtime-flags": "x".repeat(2 ** 20) }, 413],
  ] as const)("ConfigureBackend: %s", async (_name, body, status) => {
    const response = await send({ source: "", method: "POST", path: "/engines/_configure", body });
    const text = await response.text();

    expect(response.status, text.slice(0, 300)).toBe(status);
    if (status !== 202) expect(messageOf(text)).not.toBe("");
  });

  test.each([
    "/models/create",
    "/engines/unload",
    "/engines/_configure",
    "/engines/install-backend",
    "/models/ai/pebble/repackage",
  ])("%s: what is no JSON object is a 400", async (path) => {
    const headers = JSON_BODY;
    for (const body of ["{", "null", "[]", '"x"', "\u0000", '{"model": "\xff']) {
      const bytes = Buffer.from(body, "latin1");
      const response = await ask(path, { method: "POST", headers, body: bytes });
      expect([body, response.status]).toEqual([body, 400]);
      expect(messageOf(await response.text())).not.toBe("");
    }
  });

  test("ExportModel, LoadModel, Tag (package): what goes out comes in again, in Docker's layout", async () => {
    const { id } = (await (await ask("/models/me/searching")).json()) as { id: string };
    const exported = await ask("/models/me/searching/export");
    expect(exported.headers.get("content-type")).toBe("application/x-tar");
    const archive = join(home.path, "exported.tar");
    await Bun.write(archive, await exported.bytes());
    await ask("/models/me/searching?force=true", { method: "DELETE" });
    expect((await ask(`/models/${id}`)).status).toBe(200); // The tag in the registry's name is left.
    await ask(`/models/${id}?force=true`, { method: "DELETE" });
    expect((await ask(`/models/${id}`)).status).toBe(404);
    const layout = join(home.path, "layout");
    run("mkdir", layout);
    run("tar", "-xf", archive, "-C", layout);
    run("tar", "-cf", archive, "-C", layout, "blobs", "manifest.json");

    const headers = { ...AGENT, "content-type": "application/x-tar" };
    const loaded = await ask("/models/load", { method: "POST", headers, body: Bun.file(archive) });
    const message = readProgress(await loaded.text());
    const tagged = await ask(`/models/${id}/tag?repo=index.docker.io/me/again&tag=latest`, {
      method: "POST",
    });

    expect(loaded.status).toBe(200);
    expect(message).toMatchObject({
      problems: [],
      last: { type: "success", message: "Model loaded successfully" },
    });
    expect(tagged.status).toBe(201);
    expect(await (await ask("/models/me/again")).json()).toMatchObject({ id });
  });

  test("Requests over the socket: what was asked, and events as it is asked", async () => {
    const unix = join(home.path, "run", "runner.sock");
    const listed = await fetch("http://localhost/engines/requests", { unix, headers: AGENT });
    const rows: unknown = await listed.json();
    expect(unreadable(REQUESTS, rows)).toEqual([]);
    expect(rows).not.toBeEmpty();

    const controller = new AbortController();
    const stream = await fetch("http://localhost/engines/requests?include_existing=true", {
      unix,
      headers: { ...AGENT, accept: "text/event-stream" },
      signal: controller.signal,
    });
    let seen = "";
    const reading = (async () => {
      for await (const chunk of stream.body ?? []) seen += Buffer.from(chunk).toString();
    })().catch(() => undefined);
    await ask("/engines/v1/chat/completions", {
      method: "POST",
      headers: JSON_BODY,
      body: JSON.stringify({ ...chat("Now?"), stream: false }),
    });
    await eventually(() => seen.includes("event: new_request"));
    controller.abort();
    await reading;

    expect(seen).toStartWith("event: connected\n");
    expect(seen).toContain("event: existing_request\n");
  });

  test("the prefix of Docker Desktop is in front of any of them", async () => {
    expect((await ask("/exp/vDD4.40/engines/status")).status).toBe(200);
    expect((await ask("/exp/vDD4.40/models/ai/pebble")).status).toBe(200);
    const answer = await ask("/exp/vDD4.40/engines/v1/chat/completions", {
      method: "POST",
      headers: JSON_BODY,
      body: JSON.stringify(chat(QUESTION)),
    });
    expect(readChat(await answer.text()).content).toContain("Paris");
  });

  test("Purge (purge), at last", async () => {
    const unloaded = await send({
      source: "Unload",
      method: "POST",
      path: "/engines/unload",
      body: { all: true, backend: "", models: null },
    });
    const purged = await ask("/models/purge", { method: "DELETE" });

    expect([unloaded.status, purged.status, await purged.text()]).toEqual([200, 200, ""]);
    expect(await (await ask("/models")).json()).toEqual([]);
  });
});

function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = (init.headers as Record<string, string> | undefined) ?? AGENT;
  // A proxy of the environment has no way to this loopback.
  return fetch(`${home.url}${path}`, { ...init, headers, proxy: false });
}

function send({ method = "GET", path, body, headers }: Call): Promise<Response> {
  const value = typeof body === "function" ? body() : body;
  return ask(typeof path === "function" ? path() : path, {
    method,
    headers: headers ?? (value === undefined ? AGENT : JSON_BODY),
    ...(value === undefined ? {} : { body: JSON.stringify(value) }),
  });
}

/** As the CLI reads a stream: lines that begin with `data: `, until `[DONE]`. */
function readChat(text: string): { content: string; reasoning: string; calls: string[] } {
  let content = "";
  let reasoning = "";
  const calls: { name: string; input: string }[] = [];
  const lines = text.split("\n").filter((line) => line.startsWith("data: "));
  expect(lines.at(-1)).toBe("data: [DONE]");
  for (const line of lines.slice(0, -1)) {
    const chunk = JSON.parse(line.slice("data: ".length)) as {
      choices: { delta: Delta }[];
    };
    expect(unreadable(CHAT, chunk)).toEqual([]);
    const delta = chunk.choices[0]?.delta;
    content += delta?.content ?? "";
    reasoning += delta?.reasoning_content ?? "";
    for (const { index, function: called } of delta?.tool_calls ?? []) {
      const call = (calls[index] ??= { name: "", input: "" });
      call.name += called.name ?? "";
      call.input += called.arguments ?? "";
    }
  }
  return { content, reasoning, calls: calls.map(({ name, input }) => `${name} ${input}`) };
}

interface Delta {
  readonly content?: string | null;
  readonly reasoning_content?: string | null;
  readonly tool_calls?: readonly {
    readonly index: number;
    readonly function: { readonly name?: string; readonly arguments?: string };
  }[];
}

/** What a person reads in an error; all are JSON. */
function messageOf(text: string): string {
  return (JSON.parse(text) as { error: { message: string } }).error.message;
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isEmpty(answer: unknown): void {
  expect(answer).toEqual([]);
}

function isUsed(usage: unknown): void {
  expect((usage as { models_disk_usage: number }).models_disk_usage).toBeGreaterThan(1_000_000);
}

function hasPebble(models: unknown): void {
  expect((models as { tags: string[] }[]).flatMap(({ tags }) => tags)).toContain(
    "docker.io/ai/pebble:latest",
  );
}

function pulled(_: unknown, text: string): void {
  const { problems, last } = readProgress(text);
  expect(problems).toEqual([]);
  expect(last.type).toBe("success");
}

function run(...command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command);
  expect(stderr.toString(), command.join(" ")).toBe("");
  expect(exitCode).toBe(0);
}
