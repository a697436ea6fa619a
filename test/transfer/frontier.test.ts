import { describe, expect, test } from "bun:test";
import type { PartialBlob } from "../../src/store/store.ts";
import { Frontier } from "../../src/transfer/frontier.ts";
import { failureOf } from "../store/failure-of.ts";
import { idOf } from "./transfer-setup.ts";

/** A partial blob on a disk that does with each piece what it is told. */
function partialOn(hashNext: () => Promise<{ start: number; end: number } | undefined>) {
  return { blob: idOf(new Uint8Array()), canHash: true, hashNext } as unknown as PartialBlob;
}

describe("Frontier", () => {
  test("frontier: a disk that keeps nothing is not written to for ever", async () => {
    let calls = 0;
    const partial = partialOn(() => {
      calls += 1;
      return Promise.resolve({ start: 0, end: 10 });
    });

    const failure = await failureOf(new Frontier(partial, new AbortController().signal).settle());

    expect(failure).toMatchObject({ code: "insufficient_storage" });
    expect(calls).toBeLessThan(200);
  });

  test("frontier: a file that cannot be read is a failure for who waits, not before", async () => {
    const partial = partialOn(() => Promise.reject(new Error("EIO")));
    const frontier = new Frontier(partial, new AbortController().signal);

    frontier.advance();
    await Bun.sleep(0);

    expect((await failureOf(frontier.settle())).message).toBe("EIO");
  });

  test("frontier: long hashing lets others have their turn, and ends when it is to", async () => {
    const leaving = new AbortController();
    const partial = partialOn(() => {
      const until = performance.now() + 1;
      while (performance.now() < until);
      return Promise.resolve({ start: 0, end: 0 });
    });
    const frontier = new Frontier(partial, leaving.signal);
    setTimeout(() => leaving.abort(), 5);

    expect((await failureOf(frontier.settle())).name).toBe("AbortError");
  });
});
