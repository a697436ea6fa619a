import { describe, expect, test } from "bun:test";
import type { AppError } from "../../src/errors.ts";
import type { BlobSource } from "../../src/http/blob-source.ts";
import { readOn } from "../../src/models/read-on.ts";

const BYTES = Uint8Array.from({ length: 1000 }, (_, index) => index % 251);
const signal = AbortSignal.timeout(10_000);

interface Answer {
  /** Bytes until it is cut; all unless given. */
  readonly cutAfter?: number;
  /** Starts at the beginning, whatever is asked for. */
  readonly ignoresRange?: boolean;
  readonly total?: number;
  readonly version?: string;
}

function sourceOf(answers: readonly Answer[]): BlobSource & { asked: number[] } {
  const asked: number[] = [];
  return {
    host: "source.example",
    asked,
    open({ start }) {
      const answer = answers[asked.length] ?? answers.at(-1) ?? {};
      asked.push(start);
      const from = answer.ignoresRange === true ? 0 : start;
      const sent = BYTES.subarray(from, answer.cutAfter ?? BYTES.length);
      let isSent = false;
      const body = new ReadableStream<Uint8Array>({
        pull(controller) {
          if (isSent && answer.cutAfter !== undefined) return controller.error(new Error("reset"));
          if (isSent) return controller.close();
          isSent = true;
          if (sent.length > 0) controller.enqueue(sent);
        },
      });
      const isRanged = answer.ignoresRange !== true;
      const { total: totalBytes, version } = answer;
      return Promise.resolve({ start: from, isRanged, totalBytes, version, body });
    },
  };
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return new Uint8Array(Buffer.concat(parts));
}

describe("readOn", () => {
  test("goes on where it was cut", async () => {
    const source = sourceOf([{ cutAfter: 300 }, { cutAfter: 700 }, {}]);
    expect(await collect(readOn(source, { size: 1000, signal }))).toEqual(BYTES);
    expect(source.asked).toEqual([0, 300, 700]);
  });

  test("two versions of a file are never put together", async () => {
    const source = sourceOf([
      { cutAfter: 300, version: "a" },
      { cutAfter: 500 },
      { cutAfter: 600, version: "a" },
      { version: "b" },
    ]);
    const reading = collect(readOn(source, { size: 1000, signal }));
    const failure = await reading.catch((error: unknown) => error);
    expect((failure as AppError).message).toEndWith("the file was changed while it was read");
    expect((failure as AppError).details?.["permanent"]).toBe(true);
    expect(source.asked).toEqual([0, 300, 500, 600]);
  });

  test("skips what a server that knows no ranges sends again", async () => {
    const source = sourceOf([{ cutAfter: 300 }, { ignoresRange: true }]);
    expect(await collect(readOn(source, { size: 1000, signal }))).toEqual(BYTES);
  });

  test("learns the size from the source, and tells it", async () => {
    const sizes: number[] = [];
    const source = sourceOf([{ total: 1000 }]);
    const chunks = readOn(source, { size: undefined, signal, onSize: (size) => sizes.push(size) });
    expect(await collect(chunks)).toEqual(BYTES);
    expect(sizes).toEqual([1000]);
  });

  test("more than was announced is refused", async () => {
    const failure = await collect(readOn(sourceOf([{}]), { size: 500, signal })).catch(
      (error: unknown) => error,
    );
    expect((failure as AppError).message).toContain("sends more than 500 bytes");
  });

  test("is given up when nothing comes again and again", async () => {
    const source = sourceOf([{ cutAfter: 300 }]);
    const failure = await collect(readOn(source, { size: 1000, signal })).catch(
      (error: unknown) => error,
    );
    expect((failure as AppError).code).toBe("registry_unavailable");
    expect(source.asked.length).toBe(6);
  });
});
