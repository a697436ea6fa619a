import { describe, expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { toJsonLine } from "../src/log.ts";
import { tempDir } from "./helpers/temp-dir.ts";

const TIME = new Date("2026-01-31T12:00:00.000Z");
const parsed = (text: string): unknown => JSON.parse(toJsonLine("info", text, TIME));

describe("toJsonLine", () => {
  test.each([
    [
      "pairs become members, numbers and booleans too",
      "runtime: worker ready model=ai/m pid=12 ms=-0.5 force=true",
      { scope: "runtime", message: "worker ready", model: "ai/m", pid: 12, ms: -0.5, force: true },
    ],
    [
      "a reason is a sentence, whatever it holds",
      "runtime: worker failed worker=1 reason=cannot load `m`: exit=1 and more",
      {
        scope: "runtime",
        message: "worker failed",
        worker: 1,
        reason: "cannot load `m`: exit=1 and more",
      },
    ],
    [
      "a JSON value stays whole",
      'runtime: engine spawned pid=3 argv=["--a b=c","d"] last=x',
      { scope: "runtime", message: "engine spawned", pid: 3, argv: ["--a b=c", "d"], last: "x" },
    ],
    [
      "what only begins like JSON is text",
      "server: said text={no json other=1",
      { scope: "server", message: "said", text: "{no json", other: 1 },
    ],
    [
      "a value may have spaces",
      "runtime: worker ready model=/my models/a b.gguf worker=2",
      { scope: "runtime", message: "worker ready", model: "/my models/a b.gguf", worker: 2 },
    ],
    [
      "a model is a name, also one of digits, and an id keeps its zeros",
      "runtime: loaded model=123 id=007 big=12345678901234567890",
      { scope: "runtime", message: "loaded", model: "123", id: "007", big: "12345678901234567890" },
    ],
    [
      "no pair takes the place of the line's own members",
      "server: odd level=9 time=x message=y",
      { scope: "server", message: "odd", level_: 9, time_: "x", message_: "y" },
    ],
    ["no scope, no pairs", "Something happened", { message: "Something happened" }],
    ["nothing", "", { message: "" }],
    [
      "what every object has is a name like others",
      "a: b constructor=1",
      { scope: "a", message: "b", constructor: 1 },
    ],
  ])("json line: %s", (_, text, expected) => {
    expect(parsed(text)).toMatchObject({ time: TIME.toISOString(), level: "info", ...expected });
  });

  test("json line: newlines and control characters do not break the line", () => {
    const line = toJsonLine("error", "server: failed reason=a\nb\u001B[31m\u0000", TIME);

    expect(line.includes("\n")).toBe(false);
    expect(JSON.parse(line)).toMatchObject({ reason: "a\nb\u001B[31m\u0000" });
  });

  test("json line: thousands of pairs take no time to speak of", () => {
    const text = `a: b ${Array.from({ length: 20_000 }, (_, index) => `k${index}={`).join(" ")}`;
    const start = performance.now();

    const { k0, k31 } = JSON.parse(toJsonLine("info", text, TIME)) as Record<string, string>;

    expect(k0).toBe("{");
    expect(k31).toBe(text.slice(text.indexOf("k31=") + 4));
    expect(performance.now() - start).toBeLessThan(1000);
  });
});

describe("log", () => {
  test("log: as json there is one object a line and nothing else", async () => {
    const { stderr, lines } = await logging(
      { format: "json" },
      'log.info("a: b c=1\\nd");log.warn("x")',
    );

    expect(stderr).toBe("");
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { level: "info", scope: "a", message: "b", c: "1\nd" },
      { level: "warn", message: "x" },
    ]);
  });

  test("log: as text each line has its time and level", async () => {
    const { lines } = await logging({ timestamps: true }, 'log.info("a: b c=1");log.debug("no")');

    expect(lines).toEqual([expect.stringMatching(/^\[\d{4}-.+Z\] info a: b c=1$/)]);
  });

  test("log: as text nothing that was said looks like a line of its own, or steers a terminal", async () => {
    const script =
      'log.warn("a: b reason=said\\r\\n[2026-01-31T12:00:00.000Z] error c: forged\\r\\u001b[2J\\u009b1m\\tend")';

    const { lines } = await logging({ timestamps: true }, script);

    expect(lines).toEqual([
      expect.stringMatching(/^\[\d{4}-.+Z\] warn a: b reason=said$/),
      "  [2026-01-31T12:00:00.000Z] error c: forged",
      "  \ufffd[2J\ufffd1m\tend",
    ]);
  });

  test("log: its file is kept within its limit, and what was before as .1", async () => {
    const script = 'for (let i = 0; i < 25; i++) log.info("a: line n=" + i);';

    const { lines, previous } = await logging({ format: "json", maxBytes: 800 }, script);

    const numbers = [...previous, ...lines].map((line) => (JSON.parse(line) as { n: number }).n);
    expect(numbers).toEqual(Array.from(numbers, (_, index) => 25 - numbers.length + index));
    expect(numbers.at(-1)).toBe(24);
    expect(previous.length).toBe(10);
    expect(lines.length).toBe(5);
  });

  test("log: a file that stderr is not is left alone", async () => {
    const script = 'for (let i = 0; i < 25; i++) log.info("a: line n=" + i);';

    const { lines, other } = await logging({ maxBytes: 100, isOther: true }, script);

    expect(lines.length).toBe(25);
    expect(other).toBe("precious");
  });
});

// --- internal ---

interface Logged {
  readonly lines: string[];
  readonly previous: string[];
  /** What came on stdout, where nothing belongs. */
  readonly stderr: string;
  readonly other: string;
}

async function linesOf(name: string): Promise<string[]> {
  const text = await readFile(name, "utf8").catch(() => "");
  return text.split("\n").filter((line) => line !== "");
}

/** Runs the script in a process whose stderr is a file, as the runner's is. */
async function logging(
  {
    isOther = false,
    ...options
  }: { format?: "json"; timestamps?: boolean; maxBytes?: number; isOther?: boolean },
  script: string,
): Promise<Logged> {
  await using directory = await tempDir();
  const path = join(directory.path, "runner.log");
  const other = join(directory.path, "other.log");
  await writeFile(other, "precious");
  const settings = { level: "info", timestamps: true, file: isOther ? other : path, ...options };
  const source = `import { configureLog, flushLog, log } from ${JSON.stringify(join(import.meta.dir, "../src/log.ts"))};
configureLog(${JSON.stringify(settings)});
${script}
await flushLog();`;
  const file = openSync(path, "a");
  const child = Bun.spawn([process.execPath, "-e", source], {
    stdio: ["ignore", "pipe", file],
    env: { ...process.env, NODE_ENV: "production" },
  });
  closeSync(file);
  const stdout = await child.stdout.text();
  await child.exited;
  return {
    lines: await linesOf(path),
    previous: await linesOf(`${path}.1`),
    stderr: stdout,
    other: await readFile(other, "utf8"),
  };
}
