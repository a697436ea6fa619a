import { describe, expect } from "bun:test";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { readlink, realpath } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { dirname, join } from "node:path";

import { ANSWERS } from "../../../backends/transformers/answers.ts";
import { type EngineProcess, spawnEngine } from "../../../src/runtime/process.ts";
import { eventually } from "../../helpers/eventually.ts";
import { isAlive } from "../../helpers/processes.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { isLinux, testIf } from "../../helpers/test-if.ts";

const PYTHON = Bun.which("python3");
const LAUNCHER = join(import.meta.dir, "../../../backends/python/launch.py");
const ENGINE = join(import.meta.dir, "../../fakes/python-engine.py");
const MIB = 1024 * 1024;

const python = testIf(PYTHON !== null, "there is no python3");
const pythonOnLinux = testIf(
  PYTHON !== null && isLinux,
  "processes are looked up in Linux's /proc",
);

interface Launched extends AsyncDisposable {
  readonly process: EngineProcess;
  readonly socket: string;
  /** What the engine has said, a line each. */
  said(): readonly string[];
  /** The number that it said after a word. */
  number(word: string): Promise<number>;
  /** Resolves when it is reached through the socket. */
  ready(): Promise<void>;
  /** Through the socket. */
  send(path: string, init?: RequestInit): Promise<Response>;
  /** To the engine's own port. */
  tell(path: string): Promise<Response>;
}

const WARM_UP = ["--warm-up", "/v1/completions", '{"prompt":"a"}'];

/** Starts the launcher with the stand-in engine. */
async function launch(
  behaviours: readonly string[] = [],
  options: readonly string[] = [],
): Promise<Launched> {
  const directory = await tempDir();
  const socket = join(directory.path, "e.sock");
  const launcher = [LAUNCHER, "--socket", socket, "--ready", "/health", ...options];
  const output: Uint8Array[] = [];
  const child = spawnEngine({
    command: [PYTHON ?? "", ...launcher, "--", ENGINE, "{port}", ...behaviours],
    env: { PYTHONDONTWRITEBYTECODE: "1" },
    directory: directory.path,
    onOutput: (chunk) => Promise.resolve(void output.push(chunk)),
    graceMs: 5000,
  });
  const said = (): readonly string[] => Buffer.concat(output).toString().split("\n");
  const number = (word: string): Promise<number> =>
    eventually(() =>
      Number(
        said()
          .find((line) => line.startsWith(`${word} `))
          ?.split(" ")[1],
      ),
    );
  const send: Launched["send"] = (path, init) =>
    fetch(`http://engine${path}`, { unix: socket, keepalive: false, ...init });
  return {
    process: child,
    socket,
    said,
    number,
    // There is a file a moment before anybody listens.
    ready: async () => void (await eventually(async () => (await send("/health")).ok)),
    send,
    tell: async (path) =>
      fetch(`http://127.0.0.1:${await number("port")}${path}`, { method: "POST" }),
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await child.exited;
      await directory[Symbol.asyncDispose]();
    },
  };
}

async function modelDirectory(files: Readonly<Record<string, string>>) {
  const directory = await tempDir();
  for (const [name, content] of Object.entries(files))
    writeFileSync(join(directory.path, name), content);
  return directory;
}

/** A reader that gives the text of the next piece; empty at the end. */
function pieces(response: Response): () => Promise<string> {
  const reader = response.body?.getReader();
  return async () => new TextDecoder().decode((await reader?.read())?.value);
}

async function leave(it: Launched): Promise<void> {
  const controller = new AbortController();
  const { signal } = controller;
  const response = await it.send("/endless", { signal });
  await pieces(response)();
  controller.abort();
}

describe("before the engine is ready", () => {
  python("launch: there is no socket until the engine says that it is well", async () => {
    await using it = await launch(["unwell"]);
    await it.number("port");

    const asked = await fetch(`http://127.0.0.1:${await it.number("port")}/health`);
    const before = existsSync(it.socket);
    await it.tell("/well");
    await it.ready();

    expect(asked.status).toBe(503);
    expect(before).toBe(false);
    expect((await it.send("/health")).status).toBe(200);
  });

  python("launch: there is no socket until the first request is answered", async () => {
    await using it = await launch(["slow-first"], WARM_UP);
    await eventually(() => it.said().includes('first {"prompt":"a"}'));

    const before = existsSync(it.socket);
    await it.tell("/go");
    await it.ready();

    expect(before).toBe(false);
    expect((await it.send("/health")).status).toBe(200);
  });

  python(
    "launch: a question that the engine leaves unanswered is asked again",
    async () => {
      await using it = await launch(["mute"]);

      await eventually(() => it.said().includes("mute"));
      await it.ready();

      expect((await it.send("/health")).status).toBe(200);
    },
    15_000,
  );

  python("launch: it ends as an engine that ends before it is ready", async () => {
    await using exits = await launch(["exits"], WARM_UP);
    await using killed = await launch(["killed"], WARM_UP);

    expect(await exits.process.exited).toMatchObject({ exitCode: 3, signal: null });
    expect(await killed.process.exited).toMatchObject({ exitCode: null, signal: "SIGKILL" });
    expect([existsSync(exits.socket), existsSync(killed.socket)]).toEqual([false, false]);
  });

  python("launch: it ends as an engine that dies of its first request", async () => {
    await using it = await launch(["dies-first"], WARM_UP);

    const facts = await it.process.exited;

    expect(facts).toMatchObject({ exitCode: 7, signal: null, stderrTail: "KeyError: 'lm_head'\n" });
  });

  for (const [behaviour, reason] of [
    ["refuses-first", "the engine answered its first request with status 500"],
    ["drops-first", "the engine did not answer its first request"],
    ["sick-first", "the engine is not well any more while it answers its first request"],
  ] as const) {
    python(`launch: an engine that ${behaviour} is ended, with the reason`, async () => {
      await using it = await launch([behaviour], WARM_UP);
      const engine = await it.number("pid");

      const facts = await it.process.exited;

      expect(facts).toMatchObject({ exitCode: 1, signal: null, stderrTail: `launch: ${reason}\n` });
      expect(existsSync(it.socket)).toBe(false);
      expect(await isAlive(engine)).toBe(false);
    });
  }

  python("launch: a socket that cannot be made ends the engine, with the reason", async () => {
    await using directory = await tempDir();
    await using it = await launch([], ["--socket", directory.path]);
    const engine = await it.number("pid");

    const { exitCode, stderrTail } = await it.process.exited;

    expect(exitCode).toBe(1);
    expect(stderrTail).toMatch(/^launch: \[Errno \d+\] .+\n$/);
    expect(await isAlive(engine)).toBe(false);
  });

  python("launch: files of what is linked give way to others", async () => {
    await using model = await modelDirectory({
      "config.json": '{"architectures":["A"],"kept":1}',
      "weights.bin": "w",
    });
    const template = join(import.meta.dir, "launch.test.ts");
    await using it = await launch(
      [],
      ["--link", "m", model.path, "--template", template, "--config", '{"architectures":["B"]}'],
    );
    await it.ready();

    const laid = join(dirname(it.socket), "m");
    expect(readdirSync(laid).toSorted()).toEqual([
      "chat_template.jinja",
      "config.json",
      "weights.bin",
    ]);
    expect(await readlink(join(laid, "chat_template.jinja"))).toBe(template);
    expect(await readlink(join(laid, "weights.bin"))).toBe(join(model.path, "weights.bin"));
    expect(JSON.parse(readFileSync(join(laid, "config.json"), "utf8"))).toEqual({
      architectures: ["B"],
      kept: 1,
    });
    // What is packaged is never written to.
    expect(readFileSync(join(model.path, "config.json"), "utf8")).toContain('"A"');
  });

  const HERMES = '{"bos_token":"<s>","chat_template":"<|im_start|><tool_call> arguments"}';
  for (const [what, files, isTold] of [
    ["a template in the tokenizer's file", { "tokenizer_config.json": HERMES }, true],
    ["a list of templates", { "tokenizer_config.json": `{"chat_template":[${HERMES}]}` }, true],
    ["a template of its own", { "chat_template.jinja": "<|im_start|><tool_call>arguments" }, true],
    [
      "one that says it itself",
      {
        "tokenizer_config.json":
          '{"response_template":{},"chat_template":"<tool_call>arguments<|im_start|>"}',
      },
      false,
    ],
    [
      "another way of calling",
      { "chat_template.jinja": "<|im_start|><tool_call>arguments<function=" },
      false,
    ],
    ["no template", {}, false],
    ["no JSON", { "tokenizer_config.json": "{" }, false],
    ["no object", { "tokenizer_config.json": "[1]" }, false],
  ] as const) {
    python(
      `launch: how answers are read is told where a model calls tools so: ${what}`,
      async () => {
        await using model = await modelDirectory(files);
        const answers = JSON.stringify(ANSWERS);
        await using it = await launch([], ["--link", "m", model.path, "--answers", answers]);
        await it.ready();

        const path = join(dirname(it.socket), "m", "tokenizer_config.json");
        const told = existsSync(path) ? readFileSync(path, "utf8") : "";
        expect(told.includes('"response_template": {"defaults"')).toBe(isTold);
        if (isTold && told.includes("bos_token")) expect(told).toContain("<s>");
      },
    );
  }

  python("launch: a link lies beside the socket, where the engine runs", async () => {
    await using it = await launch([], ["--link", "model", import.meta.dir]);
    await it.ready();

    expect(await readlink(join(dirname(it.socket), "model"))).toBe(import.meta.dir);
    expect(it.said()).toContain(`in ${await realpath(dirname(it.socket))}`);
  });

  python("launch: a directory that is not there is the reason", async () => {
    await using it = await launch([], ["--socket", "/nonexistent/e.sock"]);

    const { exitCode, stderrTail } = await it.process.exited;

    expect(exitCode).toBe(1);
    expect(stderrTail).toBe("launch: [Errno 2] No such file or directory: '/nonexistent'\n");
  });

  python("launch: a socket that a former engine left in its place is no obstacle", async () => {
    await using first = await launch();
    await first.ready();
    first.process.kill();
    await first.process.exited;
    expect(existsSync(first.socket)).toBe(true);

    await using second = await launch([], ["--socket", first.socket]);
    await second.number("port");

    await eventually(async () => (await first.send("/health")).status === 200);
  });

  python("launch: wrong arguments are refused before anything is started", async () => {
    const runs = [
      ["--", ENGINE],
      ["--socket", "/s", "--ready", "/health", "--"],
      ["--socket", "/s", "--ready", "/health", "--grace", "soon", "--", ENGINE],
      ["--socket", "/s", "--ready", "/health", "--unknown", "x", "--", ENGINE],
    ].map((args) => Bun.spawnSync([PYTHON ?? "", LAUNCHER, ...args]));

    expect(runs.map(({ exitCode }) => exitCode)).toEqual(runs.map(() => 2));
    expect(runs.map(({ stdout }) => stdout.toString())).toEqual(runs.map(() => ""));
    expect(runs.every(({ stderr }) => stderr.toString().includes("error: "))).toBe(true);
  });
});

describe("between client and engine", () => {
  python("launch: pieces pass as they come", async () => {
    await using it = await launch();
    await it.ready();

    const next = pieces(await it.send("/pieces"));
    const first = await next();
    await it.tell("/go");
    const second = await next();
    const third = await next();

    expect([first, second, third]).toEqual(["one", "two", ""]);
  });

  python("launch: 20 MB pass both ways, byte for byte", async () => {
    await using it = await launch();
    await it.ready();
    const body = crypto.getRandomValues(new Uint8Array(64 * 1024));
    const sent = Buffer.concat(Array.from({ length: 320 }, () => body));

    const response = await it.send("/echo", { method: "POST", body: sent });
    const echoed = Buffer.from(await response.arrayBuffer());

    expect(sent.length).toBe(20 * MIB);
    expect(echoed.equals(sent)).toBe(true);
  });

  python("launch: fifty requests at once each get their own answer", async () => {
    await using it = await launch();
    await it.ready();
    const bodies = Array.from({ length: 50 }, (_, index) => `${index} `.repeat(1000));

    const answers = await Promise.all(
      bodies.map(async (body) => (await it.send("/echo", { method: "POST", body })).text()),
    );

    expect(answers).toEqual(bodies);
  });

  python("launch: a client that leaves in mid-stream is gone for the engine, too", async () => {
    await using it = await launch();
    await it.ready();

    await leave(it);
    await eventually(() => it.said().includes("left"));

    expect((await it.send("/health")).status).toBe(200);
  });

  pythonOnLinux("launch: clients that leave cost no files and are not complained of", async () => {
    await using it = await launch();
    await it.ready();
    const open = (): number => readdirSync(`/proc/${it.process.pid}/fd`).length;
    const before = open();

    for (let round = 0; round < 20; round += 1) await leave(it);
    await eventually(() => open() <= before);
    it.process.kill();

    expect((await it.process.exited).stderrTail).toBe("");
  });

  pythonOnLinux("launch: a client that does not read costs no memory", async () => {
    await using it = await launch();
    await it.ready();
    const memory = (): number =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${it.process.pid}/status`, "utf8"))?.[1]);
    const before = memory();

    const clients = await Promise.all(Array.from({ length: 5 }, () => deafClient(it.socket)));
    // Time enough for whatever was going to pile up.
    await (await it.send("/big")).arrayBuffer();
    const after = memory();
    for (const client of clients) client.destroy();

    // Of 100 MiB that the engine has for them.
    expect(after - before).toBeLessThan(8 * 1024);
  });
});

describe("the end", () => {
  python("launch: SIGTERM before the engine is ready ends both", async () => {
    await using it = await launch(["unwell"]);
    await it.number("port");

    await it.process.terminate();

    expect(await it.process.exited).toMatchObject({ signal: "SIGTERM", stderrTail: "" });
  });

  python(
    "launch: an engine ends its answer, which reaches its client, and then itself",
    async () => {
      await using it = await launch(["graceful"]);
      await it.ready();
      const next = pieces(await it.send("/pieces"));
      await next();

      const ending = it.process.terminate();
      const rest = await next();
      await ending;

      expect(rest).toBe("two");
      expect(await it.process.exited).toMatchObject({ exitCode: 0, signal: null, stderrTail: "" });
    },
  );

  python("launch: an engine that ignores SIGTERM is killed after the grace", async () => {
    await using it = await launch(["stubborn"], ["--grace", "0.1"]);
    await it.ready();
    const startMs = performance.now();

    await it.process.terminate();

    expect(await it.process.exited).toMatchObject({ signal: "SIGKILL" });
    expect(performance.now() - startMs).toBeLessThan(4000);
  });

  python("launch: a client that does not read does not hold up the end", async () => {
    await using it = await launch();
    await it.ready();
    const client = await deafClient(it.socket);

    await it.process.terminate();
    client.destroy();

    expect(await it.process.exited).toMatchObject({ signal: "SIGTERM" });
  });

  pythonOnLinux("launch: it ends as an engine that is killed while it serves", async () => {
    await using it = await launch();
    await it.ready();

    process.kill(await it.number("pid"), "SIGKILL");

    expect(await it.process.exited).toMatchObject({ exitCode: null, signal: "SIGKILL" });
  });

  pythonOnLinux("launch: an engine does not outlive its launcher", async () => {
    await using it = await launch(["stubborn"]);
    await it.ready();
    const engine = await it.number("pid");

    process.kill(it.process.pid, "SIGKILL");
    await it.process.exited;

    await eventually(async () => !(await isAlive(engine)));
    expect(engine).not.toBe(it.process.pid);
  });
});

// --- internal ---

/** Asks for 20 MiB and reads nothing; resolves when its own end is full. */
async function deafClient(socket: string): Promise<Socket> {
  const client = createConnection(socket);
  client.pause();
  await once(client, "connect");
  client.write("GET /big HTTP/1.1\r\nHost: engine\r\n\r\n");
  // The answer has begun when there is something to read.
  await once(client, "readable");
  return client;
}
