import { describe, expect, test } from "bun:test";
import {
  engineLines,
  type LineFilter,
  type LineReader,
  LineSplitter,
  runnerLines,
} from "../../src/server/log-lines.ts";

const T1 = "2026-01-31T12:00:00.000Z";
const T2 = "2026-01-31T12:00:01.000Z";
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const header = (model: string, more: object = {}): string =>
  `# ${JSON.stringify({ time: T1, model, model_id: "sha256:1", backend: "b", pid: 7, ...more })}`;

function textsOf(reader: LineReader, lines: readonly string[]): string[] {
  return lines.flatMap((line) => reader.read(line)?.text ?? []);
}

function engineTexts(lines: readonly string[], filter: LineFilter = {}): string[] {
  return textsOf(engineLines(filter, "text"), lines);
}

describe("LineSplitter", () => {
  test("splitter: lines, however they come in pieces, also within a character", () => {
    const bytes = utf8("one\r\n\ntwö\nrest");
    const splitter = new LineSplitter();

    const lines = Array.from(bytes, (byte) => splitter.push(Uint8Array.of(byte))).flat();

    expect(lines).toEqual(["one", "", "twö"]);
    expect(splitter.end()).toEqual(["rest"]);
    expect(splitter.end()).toEqual([]);
  });

  test("splitter: a line without an end takes no more memory than its beginning", () => {
    const splitter = new LineSplitter({ maxBytes: 10 });
    const garbage = new Uint8Array(100_000).fill(0xff);

    for (let index = 0; index < 100; index += 1) expect(splitter.push(garbage)).toEqual([]);

    expect(splitter.push(utf8("\nnext\n"))).toEqual([
      `${"\uFFFD".repeat(10)} … (9999990 bytes more)`,
      "next",
    ]);
  });
});

describe("runnerLines", () => {
  const lines = [
    "no time",
    `[${T1}] info runtime: worker ready model=ai/a:latest backend=b`,
    "    a stack",
    `[${T2}] info runtime: worker ready model=ai/b backend=b`,
    `{"time":"${T2}","level":"info","message":"x","model":"docker.io/ai/a:latest"}`,
    `{"no":"time"}`,
    `{ no json`,
  ];

  test("runner lines: all of them as they are", () => {
    expect(textsOf(runnerLines({}), lines)).toEqual(lines);
  });

  test("runner lines: those since a time, with what belongs to them", () => {
    expect(textsOf(runnerLines({ sinceMs: Date.parse(T1) }), lines)).toEqual(lines.slice(1));
    expect(textsOf(runnerLines({ sinceMs: Date.parse(T2) }), lines)).toEqual(lines.slice(3));
  });

  test("runner lines: those about a model, whichever way it is named", () => {
    const about = [lines[1], lines[2], ...lines.slice(4)] as string[];

    for (const name of ["a", "ai/a", "docker.io/ai/a:latest"]) {
      expect(textsOf(runnerLines({ models: [name] }), lines)).toEqual(about);
    }
    expect(textsOf(runnerLines({ models: ["c", ""] }), lines)).toEqual([]);
  });
});

describe("engineLines", () => {
  test("engine lines: with the model's name, and when it was started", () => {
    expect(
      engineTexts([header("ai/a:latest"), `[${T2}] hello`, `[${T2}] `, `[${T2}] [x] y`]),
    ).toEqual([
      `[${T1}] a | engine started backend=b pid=7`,
      `[${T2}] a | hello`,
      `[${T2}] a | `,
      `[${T2}] a | [x] y`,
    ]);
  });

  test("engine lines: the header at the top of the next file is no start", () => {
    expect(engineTexts([header("ai/a", { continued: true }), `[${T2}] hello`])).toEqual([
      `[${T2}] a | hello`,
    ]);
  });

  test("engine lines: one of before there were times is shown without one", () => {
    expect(engineTexts(["old", `[${T1}] x`, "rest"])).toEqual([
      "[-] engine | old",
      `[${T1}] engine | x`,
      `[${T1}] engine | rest`,
    ]);
  });

  test("engine lines: an engine cannot write a header", () => {
    const said = `[${T2}] ${header("ai/other")}`;

    expect(engineTexts([header("ai/a"), said]).at(-1)).toStartWith(`[${T2}] a | # {`);
  });

  test("engine lines: those of a model by name or digest, and those since a time", () => {
    const lines = [
      header("ai/a"),
      `[${T1}] 1`,
      header("ai/b", { model_id: "sha256:2" }),
      `[${T2}] 2`,
    ];

    expect(engineTexts(lines, { models: ["sha256:1"] })).toHaveLength(2);
    expect(engineTexts(lines, { models: ["b:latest"] })).toHaveLength(2);
    expect(engineTexts(lines, { models: ["c"] })).toEqual([]);
    expect(engineTexts(lines, { sinceMs: Date.parse(T2) })).toEqual([`[${T2}] b | 2`]);
  });

  test("engine lines: as JSON, like the runner's", () => {
    const texts = textsOf(engineLines({}, "json"), [
      "old",
      header("ai/a"),
      `[${T2}] say "x"\u001B`,
    ]);

    expect(texts.map((text) => JSON.parse(text))).toEqual([
      { time: null, level: "info", scope: "engine", model: null, message: "old" },
      {
        time: T1,
        level: "info",
        scope: "engine",
        model: "ai/a",
        message: "engine started backend=b pid=7",
      },
      { time: T2, level: "info", scope: "engine", model: "ai/a", message: 'say "x"\u001B' },
    ]);
  });

  test("engine lines: a time that is none is text", () => {
    expect(engineTexts([`[9999-99-99] x`, `[2026-${"x".repeat(100)}] y`])).toEqual([
      "[-] engine | x",
      `[-] engine | [2026-${"x".repeat(100)}] y`,
    ]);
  });
});
