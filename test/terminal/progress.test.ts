import { describe, expect, test } from "bun:test";
import { createProgress, rateOf, type ProgressUpdate } from "../../src/terminal/progress.ts";
import { eventually } from "../helpers/eventually.ts";
import { Emulator } from "./emulator.ts";
import { memoryStream, type MemoryStream } from "./streams.ts";

const DIGEST = `sha256:${"0123456789ab".padEnd(64, "0")}`;

function progress(
  id: string,
  phase: string,
  [done, total]: readonly [number | null, number | null],
): ProgressUpdate {
  return { type: "progress", id, phase, done_bytes: done, total_bytes: total };
}

function screen(stream: MemoryStream): string[] {
  return new Emulator(stream.columns).write(stream.text).lines;
}

describe("createProgress on a pipe", () => {
  test("progress: one line a phase, and warnings", () => {
    const stream = memoryStream();
    using display = createProgress({ stream });

    display.listener(progress(DIGEST, "downloading", [0, 3_000_000]));
    display.listener(progress(DIGEST, "downloading", [1_000_000, 3_000_000]));
    display.listener({ type: "warning", message: "odd\u001B[2J" });
    display.listener(progress(DIGEST, "verifying", [null, null]));

    expect(stream.text).toBe(
      "downloading 0123456789ab (3.00MB)\nwarning: odd[2J\nverifying 0123456789ab\n",
    );
  });

  test("progress: quiet shows warnings only, at a terminal too", () => {
    const stream = memoryStream({ isTTY: true });
    using display = createProgress({ stream, quiet: true });

    display.listener(progress("a", "copying", [0, 1]));
    display.listener({ type: "warning", message: "odd" });

    expect(stream.text).toContain("odd\n");
    expect(stream.text).not.toContain("copying");
  });
});

describe("createProgress at a terminal", () => {
  test("progress: a line has a bar, the rate and the time left", () => {
    const stream = memoryStream({ isTTY: true, columns: 120 });
    let now = 0;
    using display = createProgress({ stream, now: () => now });

    display.listener(progress("a", "copying", [0, 100_000_000]));
    now = 1000;
    display.listener(progress("a", "copying", [50_000_000, 100_000_000]));

    expect(screen(stream)).toEqual([
      `⠹ copying a ${"█".repeat(12)}${"░".repeat(12)} 50% 50.00MB/100.00MB 50.00MB/s 1s`,
    ]);
  });

  test("progress: where little room is, bars are shorter, all the same and of one length", () => {
    const stream = memoryStream({ isTTY: true, columns: 80 });
    let now = 0;
    using display = createProgress({ stream, now: () => now });
    const bars = (): number[] => screen(stream).map((line) => line.replaceAll(/[^█░]/g, "").length);

    display.listener(progress(DIGEST, "downloading", [0, 5_000_000_000]));
    display.listener(progress("b", "downloading", [0, 5_000_000_000]));
    now = 1000;
    display.listener(progress(DIGEST, "downloading", [123_000_000, 5_000_000_000]));
    const [cells = 0] = bars();
    now = 9000;
    display.listener(progress(DIGEST, "downloading", [123_000_001, 5_000_000_000]));

    expect(cells).toBeGreaterThanOrEqual(8);
    expect(bars()).toEqual([cells, cells, cells]);
    expect(screen(stream)[0]).toContain(" 2% 123.00MB/5.00GB ");
  });

  test("progress: it draws at most ten times a second", () => {
    const stream = memoryStream({ isTTY: true });
    let now = 0;
    using display = createProgress({ stream, now: () => now });

    for (; now < 1000; now += 1) display.listener(progress("a", "copying", [now, 1000]));

    expect(stream.text.split("copying").length - 1).toBe(10);
  });

  test("progress: each id has its line, and the last state stays", () => {
    const stream = memoryStream({ isTTY: true });
    const display = createProgress({ stream });

    display.listener(progress("a", "copying", [5, 10]));
    display.listener(progress("b", "copying", [10, 10]));
    display.finish();

    expect(screen(stream)[0]).toStartWith("  copying a");
    expect(screen(stream)[1]).toBe("✓ copying b 10B");
    expect(stream.text).toEndWith("\n");
  });

  test("progress: a transient one leaves nothing", () => {
    const stream = memoryStream({ isTTY: true });
    const display = createProgress({ stream, transient: true });

    display.listener(progress("a", "loading", [null, null]));
    display.finish();
    display.listener(progress("a", "loading", [null, null]));

    expect(screen(stream)).toEqual([]);
  });

  test("progress: a warning stays above the lines", () => {
    const stream = memoryStream({ isTTY: true });
    using display = createProgress({ stream });

    display.listener(progress("a", "copying", [1, 2]));
    display.listener({ type: "warning", message: "odd" });

    expect(Bun.stripANSI(screen(stream)[0] ?? "")).toBe("warning: odd");
    expect(screen(stream)[1]).toContain("copying a");
  });

  test("progress: more lines than rows never scroll the live part away", () => {
    const stream = memoryStream({ isTTY: true, rows: 5 });
    let now = 0;
    using display = createProgress({ stream, now: () => now });

    for (let index = 0; index < 6; index += 1)
      display.listener(progress(`f${index}`, "copying", [0, 2]));
    now = 200;
    display.listener(progress("f0", "copying", [2, 2]));

    // Complete again, which has been said.
    display.listener(progress("f0", "copying", [2, 2]));
    display.finish();

    const lines = screen(stream).map((line) => line.replace(/^\S? *(?:copying )?(\S+).*/, "$1"));
    expect(lines).toEqual(["f0", "f1", "f2", "and", "total"]);
    expect(screen(stream)[3]).toBe("  and 3 more");
  });

  test("progress: a line under several says how far all of them are", () => {
    const stream = memoryStream({ isTTY: true, columns: 120 });
    let now = 0;
    using display = createProgress({ stream, now: () => now });

    display.listener(progress("list", "resolving", [null, null]));
    // Half of it was there before: that says nothing of the rate.
    display.listener(progress("a", "downloading", [50_000_000, 100_000_000]));
    expect(stream.text).not.toContain("total");
    display.listener(progress("b", "downloading", [0, 100_000_000]));
    now = 1000;
    display.listener(progress("a", "downloading", [60_000_000, 100_000_000]));
    display.listener(progress("b", "downloading", [20_000_000, 100_000_000]));
    now = 1200;
    display.listener(progress("b", "downloading", [26_000_000, 100_000_000]));

    const lines = screen(stream);
    expect(lines.map((line) => line.slice(2, 20).trimEnd())).toEqual([
      "resolving   list",
      "downloading a    █",
      "downloading b    █",
      "total            █",
    ]);
    expect(lines[3]).toEndWith("43% 86.00MB/200.00MB 30.00MB/s 4s");
  });

  test("progress: without every size the total promises no end", () => {
    const stream = memoryStream({ isTTY: true });
    const display = createProgress({ stream });

    display.listener(progress("a", "downloading", [1_000_000, 2_000_000]));
    display.listener(progress("b", "downloading", [1_000_000, null]));
    display.finish();

    expect(screen(stream)[2]).toBe("  total         2.00MB");
  });

  test("progress: what left the screen still counts, and is counted once when it goes on", () => {
    const stream = memoryStream({ isTTY: true, rows: 5, columns: 120 });
    let now = 0;
    using display = createProgress({ stream, now: () => now });

    for (const id of ["a", "b", "c", "d"])
      display.listener(progress(id, "downloading", [0, 1_000_000]));
    now = 200;
    display.listener(progress("a", "downloading", [1_000_000, 1_000_000]));
    expect(screen(stream).at(-1)).toContain("25% 1.00MB/4.00MB");

    now = 400;
    display.listener(progress("a", "verifying", [500_000, 1_000_000]));
    expect(screen(stream).at(-1)).toContain("12% 500.00kB/4.00MB");
  });

  test("progress: a line never fills the terminal, however narrow", () => {
    const stream = memoryStream({ isTTY: true, columns: 20 });
    using display = createProgress({ stream });

    display.listener(progress("日本語日本語日本語日本語", "copying", [1, 2]));

    expect(Bun.stringWidth(screen(stream)[0] ?? "")).toBeLessThan(20);
  });

  test("progress: it goes on drawing while nothing arrives", async () => {
    const stream = memoryStream({ isTTY: true });
    using display = createProgress({ stream });

    display.listener(progress("a", "loading", [null, null]));

    await eventually(() => stream.text.split("loading").length > 3);
  });
});

describe("rateOf", () => {
  test("progress: the rate is unknown until there is some time to measure", () => {
    const line = {
      id: "a",
      phase: "p",
      doneBytes: 0,
      totalBytes: 1,
      samples: [{ at: 0, done: 0 }],
    };

    expect(rateOf(line)).toBeNull();
    line.samples.push({ at: 500, done: 100 });
    expect(rateOf(line)).toBe(200);
  });
});
