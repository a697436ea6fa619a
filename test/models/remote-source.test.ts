import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import type { BlobSource, ByteRange } from "../../src/http/blob-source.ts";
import { RemoteSource } from "../../src/models/remote-source.ts";
import { blobOf, noise } from "../oci/upload-helpers.ts";
import { failureOf } from "../store/failure-of.ts";

const NEVER = new AbortController().signal;
const BYTES = noise(10_000);
const BLOB = blobOf(BYTES);

interface FakeSource extends BlobSource {
  readonly asked: ByteRange[];
  /** Answers that were neither read to their end nor left. */
  readonly open_: () => number;
}

interface FakeOptions {
  /** It ends after so many bytes, or fails with the error. The first answers only. */
  readonly cuts?: readonly (number | Error)[];
  readonly ignoresRanges?: boolean;
  readonly totalBytes?: number;
  /** What `open` throws, one after the other. */
  readonly failures?: readonly AppError[];
  readonly neverSends?: boolean;
  /** The first answer sends nothing from this byte on. */
  readonly stallsAt?: number;
}

function fakeSource(host: string, options: FakeOptions = {}): FakeSource {
  const { cuts = [], ignoresRanges = false, failures = [] } = options;
  const asked: ByteRange[] = [];
  let open = 0;
  let answers = 0;
  return {
    host,
    asked,
    open_: () => open,
    open: async (range) => {
      asked.push(range);
      const failure = failures[asked.length - 1];
      if (failure !== undefined) throw failure;
      const cut = cuts[answers];
      answers += 1;
      open += 1;
      const start = ignoresRanges ? 0 : range.start;
      let at = start;
      const body = new ReadableStream<Uint8Array>(
        {
          pull(controller) {
            if (options.neverSends === true || (asked.length === 1 && at === options.stallsAt))
              return new Promise(() => {});
            const limit = typeof cut === "number" ? start + cut : BYTES.length;
            if (at >= limit) {
              open -= 1;
              return controller.close();
            }
            if (cut instanceof Error && at > start) {
              open -= 1;
              throw cut;
            }
            const piece = BYTES.slice(at, Math.min(at + 700, limit));
            at += piece.length;
            controller.enqueue(piece);
          },
          cancel() {
            open -= 1;
          },
        },
        { highWaterMark: 0 },
      );
      return { start, isRanged: !ignoresRanges, totalBytes: options.totalBytes, body };
    },
  };
}

function remote(sources: readonly BlobSource[], stallMs = 10_000): RemoteSource {
  return new RemoteSource({ ...BLOB, sources, signal: NEVER, stallMs, wait: async () => {} });
}

async function readSpans(source: RemoteSource, ...spans: [number, number][]): Promise<Buffer[]> {
  const read: Buffer[] = [];
  for (const [start, end] of spans)
    read.push(Buffer.from(await new Response(source.open(start, end)).bytes()));
  return read;
}

const PASSING = new AppError("registry_unavailable", "cannot reach it: it is restarting");
const GONE = new AppError("not_found", "cannot read it: it is not there");

describe("RemoteSource", () => {
  test("reads one span after the other from one answer", async () => {
    const source = fakeSource("a");

    const read = await readSpans(remote([source]), [0, 1000], [1000, 7777], [7777, 10_000]);

    expect(Buffer.compare(Buffer.concat(read), BYTES)).toBe(0);
    expect(source.asked).toEqual([{ start: 0, end: 10_000 }]);
  });

  test("asks nothing before it is read, and leaves the answer when it is disposed", async () => {
    const source = fakeSource("a");
    const reading = remote([source]);
    expect(source.asked).toHaveLength(0);
    await readSpans(reading, [0, 10]);
    expect(source.open_()).toBe(1);

    reading[Symbol.dispose]();

    expect(source.open_()).toBe(0);
  });

  test("goes back and forth by new ranges", async () => {
    const source = fakeSource("a");

    const [first, second] = await readSpans(remote([source]), [5000, 6000], [100, 200]);

    expect(Buffer.compare(first ?? Buffer.of(), BYTES.subarray(5000, 6000))).toBe(0);
    expect(Buffer.compare(second ?? Buffer.of(), BYTES.subarray(100, 200))).toBe(0);
    expect(source.asked.map(({ start }) => start)).toEqual([5000, 100]);
  });

  test("goes on where an answer was cut off, without a word to whoever reads", async () => {
    const source = fakeSource("a", { cuts: [1234, new Error("reset"), 5000] });

    const [read] = await readSpans(remote([source]), [0, 10_000]);

    expect(Buffer.compare(read ?? Buffer.of(), BYTES)).toBe(0);
    expect(source.asked.map(({ start }) => start)).toEqual([0, 1234, 1934, 6934]);
  });

  test("skips what a server sends that knows no ranges", async () => {
    const source = fakeSource("a", { ignoresRanges: true, cuts: [3000] });

    const read = await readSpans(remote([source]), [0, 2000], [2000, 10_000]);

    expect(Buffer.compare(Buffer.concat(read), BYTES)).toBe(0);
    expect(source.asked).toHaveLength(2);
  });

  test("takes the next source for what the first does not have, and asks it no more", async () => {
    const mirror = fakeSource("mirror", { failures: [GONE] });
    const origin = fakeSource("origin", { cuts: [100] });

    const [read] = await readSpans(remote([mirror, origin]), [0, 10_000]);

    expect(Buffer.compare(read ?? Buffer.of(), BYTES)).toBe(0);
    expect(mirror.asked).toHaveLength(1);
    expect(origin.asked).toHaveLength(2);
  });

  test("passes over a source whose blob has another size", async () => {
    const mirror = fakeSource("mirror", { totalBytes: 9_999 });
    const origin = fakeSource("origin", { totalBytes: 10_000 });

    const [read] = await readSpans(remote([mirror, origin]), [0, 10_000]);

    expect(Buffer.compare(read ?? Buffer.of(), BYTES)).toBe(0);
    expect(mirror.open_()).toBe(0);
  });

  test("leaves an answer that stalls", async () => {
    const mirror = fakeSource("mirror", { neverSends: true });
    const origin = fakeSource("origin");
    let asked = 0;
    const either: BlobSource = {
      host: "either",
      open: (range, options) => {
        asked += 1;
        return (asked === 1 ? mirror : origin).open(range, options);
      },
    };

    const [read] = await readSpans(remote([either], 5), [0, 10_000]);

    expect(Buffer.compare(read ?? Buffer.of(), BYTES)).toBe(0);
    expect(mirror.open_()).toBe(0);
  });

  test("tries again where trying may help", async () => {
    const source = fakeSource("a", { failures: [PASSING, PASSING] });

    const [read] = await readSpans(remote([source]), [0, 10_000]);

    expect(read).toHaveLength(10_000);
  });

  test.each([
    ["passes, as often as bearable", PASSING, 5],
    ["is for good, once", GONE, 1],
  ])("fails with the error that %s", async (_name, error, times) => {
    const source = fakeSource("a", { failures: Array.from({ length: 9 }, () => error) });

    const failure = await failureOf(readSpans(remote([source]), [0, 10]));

    expect(failure).toBe(error);
    expect(source.asked).toHaveLength(times);
  });

  test("fails where there is no source", async () => {
    const failure = await failureOf(readSpans(remote([]), [0, 10]));

    expect(failure.code).toBe("not_found");
  });

  test("that is left amid a piece does not lose it for the next reader", async () => {
    const source = fakeSource("a", { stallsAt: 700 });
    const reading = remote([source]);
    const reader = reading.open(0, 5000).getReader();
    await reader.read();
    const pending = reader.read();
    await new Promise((resolve) => setImmediate(resolve));
    await reader.cancel();
    await pending;

    const [read] = await readSpans(reading, [700, 5000]);

    expect(Buffer.compare(read ?? Buffer.of(), BYTES.subarray(700, 5000))).toBe(0);
    // The one that was left does not come back.
    expect(source.asked.map(({ start }) => start)).toEqual([0, 700]);
    expect(source.open_()).toBe(1);
  });
});
