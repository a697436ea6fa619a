import { describe, expect, test } from "bun:test";
import { appendFile, mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LogFile } from "../../src/runtime/log-file.ts";
import { createLogReader, type LogQuery } from "../../src/server/log-reader.ts";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const at = (seconds: number): string =>
  new Date(Date.parse("2026-01-31T12:00:00Z") + seconds * 1000).toISOString();
const runner = (seconds: number, text: string): string => `[${at(seconds)}] info ${text}\n`;
const engine = (seconds: number, text: string): string => `[${at(seconds)}] ${text}\n`;
const header = (seconds: number, model: string): string =>
  `# ${JSON.stringify({ time: at(seconds), model, model_id: "i", backend: "b", pid: 1 })}\n`;

const ALL: LogQuery = { follow: false, engines: true };

function open(
  directory: string,
  query: Partial<LogQuery> = {},
  { signal = new AbortController().signal, hasRunnerLog = true } = {},
): ReadableStream<Uint8Array> {
  const reader = createLogReader({ directory, hasRunnerLog, format: "text", pollMs: 5 });
  return reader.read({ ...ALL, ...query }, signal);
}

async function textOf(directory: string, query: Partial<LogQuery> = {}): Promise<string> {
  return new Response(open(directory, query)).text();
}

/** What was said, without the times. */
async function saidIn(directory: string, query: Partial<LogQuery> = {}): Promise<string[]> {
  const lines = (await textOf(directory, query)).split("\n").slice(0, -1);
  return lines.map((line) => line.replace(/^\[[^\]]*\] (?:info )?/, ""));
}

async function sample(directory: string): Promise<void> {
  await writeFile(join(directory, "runner.log.1"), runner(0, "first"));
  await writeFile(join(directory, "runner.log"), runner(3, "x: y model=ai/a") + runner(9, "last"));
  await writeFile(
    join(directory, "worker-1.log"),
    header(1, "ai/a") + engine(2, "a2") + engine(6, "a6"),
  );
  await writeFile(join(directory, "worker-2.log.1"), header(1, "ai/b") + engine(4, "b4"));
  await writeFile(join(directory, "worker-2.log"), header(5, "ai/c") + engine(7, "c7 no end"));
  await writeFile(join(directory, "worker-x.log"), engine(5, "not a log"));
  await writeFile(join(directory, "other.txt"), engine(5, "not a log"));
}

describe("log reader", () => {
  test("log reader: everything that was said, by time", async () => {
    await using directory = await tempDir();
    await sample(directory.path);

    expect(await saidIn(directory.path)).toEqual([
      "first",
      "a | engine started backend=b pid=1",
      "b | engine started backend=b pid=1",
      "a | a2",
      "x: y model=ai/a",
      "b | b4",
      "c | engine started backend=b pid=1",
      "a | a6",
      "c | c7 no end",
      "last",
    ]);
  });

  test("log reader: without engines, about a model, since a time, the last lines", async () => {
    await using directory = await tempDir();
    await sample(directory.path);
    const { path } = directory;
    const sinceMs = Date.parse(at(6));

    expect(await saidIn(path, { engines: false })).toEqual(["first", "x: y model=ai/a", "last"]);
    expect(await saidIn(path, { models: ["a"] })).toEqual([
      "a | engine started backend=b pid=1",
      "a | a2",
      "x: y model=ai/a",
      "a | a6",
    ]);
    expect(await saidIn(path, { sinceMs })).toEqual(["a | a6", "c | c7 no end", "last"]);
    expect(await saidIn(path, { tail: 2 })).toEqual(["c | c7 no end", "last"]);
    expect(await saidIn(path, { tail: 100 })).toHaveLength(10);
    expect(await saidIn(path, { tail: 0 })).toEqual([]);
    expect(await saidIn(path, { tail: 1, models: ["a"], sinceMs: 0 })).toEqual(["a | a6"]);
  });

  test("log reader: a directory that is empty or missing has nothing to say", async () => {
    await using directory = await tempDir();

    expect(await textOf(directory.path)).toBe("");
    expect(await textOf(join(directory.path, "missing"))).toBe("");
  });

  test("log reader: lines of any length and any bytes, and many of them", async () => {
    await using directory = await tempDir();
    const garbage = Buffer.alloc(3_000_000, 0x80);
    await writeFile(join(directory.path, "worker-1.log"), header(0, "ai/a"));
    await appendFile(join(directory.path, "worker-1.log"), garbage);
    const many = Array.from({ length: 50_000 }, (_, index) => runner(index, `line ${index}`));
    await writeFile(join(directory.path, "runner.log"), many.join(""));

    const lines = await saidIn(directory.path);

    expect(lines).toHaveLength(50_002);
    expect(lines.at(-1)).toBe("line 49999");
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThan(20_000);
    expect(await saidIn(directory.path, { tail: 49_000 })).toEqual(lines.slice(-49_000));
  });

  test("log reader: a file that cannot be read is an error, not an empty log", async () => {
    await using directory = await tempDir();
    await mkdir(join(directory.path, "runner.log"));

    expect(await textOf(directory.path).catch((thrown: Error) => thrown.message)).toContain(
      "EISDIR",
    );
  });
});

/** Collects what a stream gives until it ends. */
function collect(stream: ReadableStream<Uint8Array>): { text: string; done: boolean } {
  const state = { text: "", done: false };
  void (async () => {
    const decoder = new TextDecoder();
    for await (const bytes of stream) state.text += decoder.decode(bytes, { stream: true });
    state.done = true;
  })();
  return state;
}

describe("log reader: following", () => {
  test("log reader: goes on with what is added, through rotations, and with new engines", async () => {
    await using directory = await tempDir();
    const stop = new AbortController();
    const path = join(directory.path, "runner.log");
    await writeFile(path, runner(0, "r0") + runner(1, "r1"));
    const seen = collect(open(directory.path, { follow: true, tail: 1 }, { signal: stop.signal }));
    await eventually(() => seen.text.includes("r1"));

    await appendFile(path, "[2026-01-31T12:00:02Z] info half");
    await using file = new LogFile(join(directory.path, "worker-1.log"), { maxBytes: 300 });
    await file.begin({ model: "ai/m", model_id: "i", backend: "b", pid: 7 });
    await eventually(() => seen.text.includes("engine started"));
    const beforeEnd = seen.text;
    await appendFile(path, " whole\n");
    await rename(path, `${path}.1`);
    await writeFile(path, runner(3, "r3"));
    for (const word of ["one", "two", "three", "four"]) {
      await file.write(new TextEncoder().encode(`${word}\n`));
      await eventually(() => seen.text.includes(`m | ${word}\n`));
    }
    await eventually(() => seen.text.includes("r3"));
    stop.abort();
    await eventually(() => seen.done);

    expect(beforeEnd).not.toContain("half");
    expect(seen.text).not.toContain("r0");
    expect(seen.text).toContain("half whole\n");
    expect(seen.text.match(/engine started/g)).toHaveLength(1);
  });

  test("log reader: what was said before the end is given, also half a line", async () => {
    await using directory = await tempDir();
    const stop = new AbortController();
    await writeFile(join(directory.path, "runner.log"), runner(0, "r0"));
    const seen = collect(open(directory.path, { follow: true }, { signal: stop.signal }));
    await eventually(() => seen.text.includes("r0"));

    await appendFile(join(directory.path, "runner.log"), "[2026-01-31T12:00:02Z] info stopping");
    stop.abort();
    await eventually(() => seen.done);

    expect(seen.text).toEndWith("info stopping\n");
  });

  test("log reader: ends for a reader that leaves", async () => {
    await using directory = await tempDir();
    await writeFile(join(directory.path, "runner.log"), runner(0, "r0"));
    const reader = open(directory.path, { follow: true }).getReader();
    await reader.read();

    await reader.cancel();

    expect((await reader.read()).done).toBe(true);
  });

  test("log reader: the log of an old runner is not that of one at a terminal", async () => {
    await using directory = await tempDir();
    await sample(directory.path);

    const stream = open(directory.path, {}, { hasRunnerLog: false });

    expect(await new Response(stream).text()).not.toContain("first");
  });
});
