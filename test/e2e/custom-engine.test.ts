import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI from "openai";
import type { WorkerStatus } from "../../src/api/engines.ts";
import type { ExplainResult } from "../../src/api/settings.ts";
import { startFakeRegistry } from "../fakes/registry.ts";
import { eventually } from "../helpers/eventually.ts";
import type { CliResult } from "../helpers/run-cli.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

/** An engine of somebody's own: it says its weights, word by word, or for ever if asked to. */
const ENGINE = `
const [where, model] = process.argv.slice(2);
const weights = await Bun.file(model).text();
const listen = /^\\d+$/.test(where) ? { hostname: "127.0.0.1", port: Number(where) } : { unix: where };
const event = (model, content) => \`data: \${JSON.stringify({ object: "chat.completion.chunk", model, choices: [{ index: 0, delta: { content }, finish_reason: null }] })}\\n\\n\`;
Bun.serve({ ...listen, idleTimeout: 0, async fetch(request) {
  if (request.method === "GET") return new Response(process.env.MOOD, { status: request.url.endsWith("/ready") ? 200 : 404 });
  const { model, stream, messages } = await request.json();
  const text = \`\${weights} \${process.argv.slice(4)} \${process.env.MOOD}\`;
  if (!stream) return Response.json({ object: "chat.completion", model, choices: [{ index: 0, message: { role: "assistant", content: \`\${text} \${model}\` }, finish_reason: "stop" }] });
  const isEndless = messages.at(-1).content === "for ever";
  return new Response(async function* () {
    try {
      do for (const word of text.split(" ")) { yield event(model, \`\${word} \`); await Bun.sleep(isEndless ? 10 : 0); } while (isEndless);
      yield "data: [DONE]\\n\\n";
    } finally { console.error("the answer has ended"); }
  }, { headers: { "content-type": "text/event-stream" } });
} });
`;

/** It exits at once, and never gets ready. */
const BROKEN = `
[engines.exits]
command = ["sh", "-c", "echo 'ValueError: wrong layer' >&2; exit 3", "\${PORT}"]
formats = ["exits"]
[engines.mute]
command = ["sh", "-c", "sleep 100", "\${SOCKET}"]
formats = ["mute"]
[engines.absent]
command = ["there-is-no-such-program", "\${PORT}"]
formats = ["absent"]
`;

async function customHome(): Promise<TugHome> {
  // A silent load is given up after five times as long.
  const home = await tugHome({ env: { TUG_SILENCE_TIMEOUT: "400ms" } });
  const script = join(home.path, "engine.ts");
  await writeFile(script, ENGINE);
  const table = (name: string, address: string): string =>
    `[engines.${name}]
command = [${JSON.stringify(process.execPath)}, ${JSON.stringify(script)}, "${address}", "\${MODEL}"]
formats = ["echo"]
ready = "/ready"
served_model = "inner"
env = { MOOD = "\${MODEL_NAME}-$\${x}" }
`;
  const files = join(home.path, "files");
  const own = `[engines.brings]
command = [${JSON.stringify(process.execPath)}, ${JSON.stringify(script)}, "\${SOCKET}", "net.bin"]
models = ["me/brought"]
cwd = ${JSON.stringify(files)}
ready = "/ready"
`;
  const text = table("by-port", "${PORT}") + table("by-socket", "${SOCKET}") + BROKEN + own;
  await writeFile(join(home.path, "config.toml"), text);
  await mkdir(files);
  await writeFile(join(files, "net.bin"), "one two");
  return home;
}

let home: TugHome;
beforeAll(async () => {
  home = await customHome();
  for (const format of ["echo", "exits", "mute", "absent", "nobodys"]) {
    const packaged = await packageAs(format);
    if (packaged.exitCode !== 0) throw new Error(packaged.stderr);
  }
  const { exitCode, stderr } = await home.tug(["start-runner"]);
  if (exitCode !== 0) throw new Error(stderr);
}, 240_000);
afterAll(async () => {
  await home?.[Symbol.asyncDispose]();
});

function packageAs(format: string): Promise<CliResult> {
  const file = join(home.path, "files/net.bin");
  return home.tug(["package", "--file", file, "--format-name", format, `me/${format}`]);
}

function openai(engine: string): OpenAI {
  const baseURL = `${home.url}/engines/${engine}/v1`;
  return new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
}

const asking = (content: string) => ({
  model: "me/echo",
  messages: [{ role: "user" as const, content }],
});

async function workers(): Promise<WorkerStatus[]> {
  return JSON.parse((await home.tug(["ps", "--json"])).stdout) as WorkerStatus[];
}

async function workerOf(engine: string): Promise<WorkerStatus | undefined> {
  return (await workers()).find((worker) => worker.backend_name === engine);
}

describe("a model of a format of one's own", () => {
  test("is listed, inspected, pushed and pulled", async () => {
    await using registry = await startFakeRegistry();
    const name = `${registry.host}/me/echo:v1`;

    const pushed = await home.tug(["push", "me/echo", name, "--insecure"]);
    await using other = await customHome();
    const pulled = await other.tug(["pull", name, "--insecure"]);
    const listed = await other.tug(["list", "--json"]);
    const inspected = await other.tug(["inspect", name]);

    expect([pushed.stderr, pushed.exitCode, pulled.exitCode]).toEqual([pushed.stderr, 0, 0]);
    expect(JSON.parse(listed.stdout)).toMatchObject([{ config: { format: "echo" } }]);
    expect(JSON.parse(inspected.stdout)).toMatchObject({ layers: [{ path: "net.bin" }] });
  });

  test("runs on the first engine of the file that serves it", async () => {
    const run = await home.tug(["run", "me/echo", "hi"]);

    expect(run).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining("one two  me/echo-${x}"),
    });
    expect(await workerOf("by-port")).toMatchObject({ state: "ready" });
  });

  test("of which no engine knows says so", async () => {
    const run = await home.tug(["run", "me/nobodys", "hi"]);

    expect(run.exitCode).toBe(1);
    expect(run.stderr).toContain("no engine offers completion for nobodys models");
  });
});

describe.each(["by-port", "by-socket"])("an engine of one's own, %s", (engine) => {
  test("answers, under the client's name of the model", async () => {
    const answer = await openai(engine).chat.completions.create(asking("hi"));

    expect(answer.choices[0]?.message.content).toBe("one two  me/echo-${x} inner");
    expect(answer.model).toBe("me/echo");
  });

  test("streams", async () => {
    const stream = await openai(engine).chat.completions.create({ ...asking("hi"), stream: true });
    const pieces: string[] = [];
    for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");

    expect(pieces.join("")).toBe("one two  me/echo-${x} ");
  });

  test("is told when its client leaves", async () => {
    const log = await logOf(engine);
    const before = await count(log);
    const controller = new AbortController();
    const stream = await openai(engine).chat.completions.create(
      { ...asking("for ever"), stream: true },
      { signal: controller.signal },
    );
    for await (const _chunk of stream) break;

    controller.abort();

    await eventually(async () => (await count(log)) > before);
    await eventually(async () => (await workerOf(engine))?.requests === 0);
  });

  test("that is killed is started again", async () => {
    await openai(engine).chat.completions.create(asking("hi"));
    const { pid } = (await workerOf(engine)) ?? {};

    process.kill(pid ?? 0, "SIGKILL");
    const answer = await openai(engine).chat.completions.create(asking("hi"));

    expect(answer.choices[0]?.message.content).toContain("one two");
    expect((await workerOf(engine))?.pid).not.toBe(pid);
  });

  test("is shown by ps and explain, with what it shares", async () => {
    await openai(engine).chat.completions.create(asking("hi"));
    const shares = engine === "by-port";

    const worker = await workerOf(engine);
    const explained = await home.tug(["explain", "me/echo", "--backend", engine, "--json"]);

    expect(worker).toMatchObject({ backend_name: engine, shares_network: shares, mismatches: [] });
    const { command, ...facts } = JSON.parse(explained.stdout) as ExplainResult;
    expect(facts).toMatchObject({ backend: engine, shares_network: shares });
    expect(command?.slice(1)).toEqual([
      join(home.path, "engine.ts"),
      shares ? "${PORT}" : "worker.sock",
      expect.stringMatching(/net\.bin$/),
    ]);
  });

  test("goes when it has been idle for long enough", async () => {
    await openai(engine).chat.completions.create({ ...asking("hi"), keep_alive: "1ms" } as never);

    await eventually(async () => (await workerOf(engine)) === undefined);
  });

  test("gets the flags of its owner, and nobody else's", async () => {
    const url = `${home.url}/engines/${engine}/_configure`;
    const body = JSON.stringify({ model: "me/echo", set: { runtime_flags: ["--stray"] } });
    const refused = await fetch(url, { method: "POST", body });

    const stored = await home.tug(["configure", "me/echo", "--", "--loud"]);
    const answer = await openai(engine).chat.completions.create(asking("hi"));
    await home.tug(["configure", "me/echo", "--unset", "runtime_flags"]);

    expect(refused.status).toBe(403);
    expect(stored).toMatchObject({ exitCode: 0 });
    expect(answer.choices[0]?.message.content).toContain("one two --loud ");
  });
});

describe("a model that its engine brings itself", () => {
  test("runs, without a file of it, where the engine is to start", async () => {
    const run = await home.tug(["run", "me/brought", "hi"]);

    expect(run).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("one two") });
    expect(await workerOf("brings")).toMatchObject({ model_name: "me/brought", state: "ready" });
  });

  test("is among the models of the APIs, and not of the store", async () => {
    const { data } = await openai("brings").models.list();
    const listed = await home.tug(["list", "--json"]);
    const inspected = await home.tug(["inspect", "me/brought:latest"]);
    const removed = await home.tug(["rm", "me/brought"]);

    expect(data.map(({ id }) => id)).toContain("docker.io/me/brought:latest");
    expect(listed.stdout).not.toContain("me/brought");
    expect(JSON.parse(inspected.stdout)).toMatchObject({ config: { format: "engine:brings" } });
    expect(removed).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("me/brought") });
  });

  test("is for no other engine, nor for what its own does not offer", async () => {
    const other = openai("by-port").chat.completions.create({
      ...asking("hi"),
      model: "me/brought",
    });
    const embedding = openai("brings").embeddings.create({ model: "me/brought", input: "hi" });
    const messages = await Promise.all(
      [other, embedding].map((asked) => asked.then(String, (error: Error) => error.message)),
    );

    expect(messages[0]).toContain("by-port does not read engine:brings models");
    expect(messages[1]).toContain("brings does not offer embedding");
  });
});

describe("an engine of one's own that", () => {
  test("exits at once: its last line, and where its log is", async () => {
    const run = await home.tug(["run", "me/exits", "hi"]);

    expect(run.exitCode).toBe(1);
    expect(run.stderr).toContain("the engine ended with exit code 3: ValueError: wrong layer");
    expect(run.stderr).toMatch(/worker-\d+\.log/);
  });

  test("is never ready is given up", async () => {
    const run = await home.tug(["run", "me/mute", "hi"]);

    expect(run.stderr).toContain("mute made no progress for 2 s");
    expect(await workerOf("mute")).toBeUndefined();
  });

  test("is not there: what to correct", async () => {
    const run = await home.tug(["run", "me/absent", "hi"]);

    expect(run.stderr).toContain("its program `there-is-no-such-program` is not on PATH");
    expect(run.stderr).toContain('`[engines."absent"]` in config.toml');
  });

  test("shares the network is named once in the runner's log, however often it is loaded", async () => {
    for (const _load of [1, 2]) {
      await openai("by-port").chat.completions.create(asking("hi"));
      await home.tug(["unload", "--all", "--wait"]);
    }

    const { stdout } = await home.tug(["logs", "--no-engines"]);

    expect(stdout.split("shares this machine's network backend=by-port")).toHaveLength(2);
  });

  test("cannot be understood keeps the runner from starting, not the rest from working", async () => {
    await using other = await tugHome();
    const table = '[engines.x]\ncommand = "a ${PORTS}"\nformats = ["echo"]\n';
    await writeFile(join(other.path, "config.toml"), table);

    const started = await other.tug(["start-runner"]);
    const listed = await other.tug(["list"]);

    expect(started.exitCode).not.toBe(0);
    expect(started.stderr).toContain("there is no placeholder `${PORTS}`");
    expect(listed.exitCode).toBe(0);
  });
});

/** Of the engine's only worker. */
async function logOf(engine: string): Promise<string> {
  await openai(engine).chat.completions.create(asking("hi"));
  const { pid } = (await workerOf(engine)) ?? {};
  for (const slot of [1, 2, 3, 4]) {
    const path = join(home.path, "logs", `worker-${slot}.log`);
    const text = await readFile(path, "utf8").catch(() => "");
    if (text.includes(`"pid":${pid},`) || text.includes(`"pid":${pid}}`)) return path;
  }
  throw new Error(`there is no log of ${engine}`);
}

/** Answers that the engine has seen the end of. */
async function count(log: string): Promise<number> {
  return (await readFile(log, "utf8")).split("the answer has ended").length - 1;
}
