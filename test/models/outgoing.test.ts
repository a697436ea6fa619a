import { describe, expect, test } from "bun:test";
import type { Progress, Warning } from "../../src/api/progress.ts";
import { type OutgoingBlob, sendBlobs } from "../../src/models/outgoing.ts";
import type { Repository } from "../../src/oci/registry.ts";
import { blobOf, memorySource, noise } from "../oci/upload-helpers.ts";
import { failureOf } from "../store/failure-of.ts";

const NEVER = new AbortController().signal;

function blobs(...sizes: number[]): OutgoingBlob[] {
  return sizes.map((size) => {
    const bytes = noise(size, size);
    return { ...blobOf(bytes), source: memorySource(bytes) };
  });
}

/** A repository of which only uploads are asked. */
function repositoryWith(upload: Repository["upload"]): Repository {
  return { upload } as Repository;
}

const SILENT = { signal: NEVER, onProgress: undefined, verb: "push" } as const;

describe("sendBlobs", () => {
  test("sends five at once and the largest first", async () => {
    const order: number[] = [];
    let [active, most] = [0, 0];
    const repository = repositoryWith(async ({ size }) => {
      order.push(size);
      active += 1;
      most = Math.max(most, active);
      await new Promise((resolve) => setImmediate(resolve));
      active -= 1;
      return "uploaded";
    });

    await sendBlobs(repository, blobs(3, 1, 8, 2, 7, 4, 6, 5), SILENT);

    expect(most).toBe(5);
    expect(order).toEqual([8, 7, 6, 5, 4, 3, 2, 1]);
  });

  test("sends a digest once, and counts what was sent and what was there", async () => {
    const repository = repositoryWith(async ({ size }) => {
      if (size === 10) return "present";
      return size === 20 ? "mounted" : "uploaded";
    });

    const sent = await sendBlobs(repository, [...blobs(10, 20, 30), ...blobs(30)], SILENT);

    expect(sent).toEqual({ uploadedBytes: 30, reusedBytes: 30 });
  });

  test.each([
    ["push", "uploading", "pushed"],
    ["copy", "copying", "copied"],
  ] as const)("tells of a %s by digest: %s, then %s", async (verb, working, done) => {
    const events: (Progress | Warning)[] = [];
    const [blob] = blobs(10);
    const repository = repositoryWith(async (_blob, _source, { onBytes }) => {
      onBytes?.(4);
      return "uploaded";
    });

    await sendBlobs(repository, blobs(10), {
      signal: NEVER,
      onProgress: (event) => events.push(event),
      verb,
    });

    const common = { type: "progress", id: blob?.digest, total_bytes: 10 };
    expect(events).toEqual([
      { ...common, phase: working, done_bytes: 4 },
      { ...common, phase: done, done_bytes: 10 },
    ] as Progress[]);
  });

  test("disposes of the sources, also of the one that fails", async () => {
    const disposed: number[] = [];
    const sources = blobs(10, 20).map((blob) => ({
      ...blob,
      source: { ...blob.source, [Symbol.dispose]: () => void disposed.push(blob.size) },
    }));
    const repository = repositoryWith(async ({ size }) => {
      if (size === 10) throw new Error("no");
      return "uploaded";
    });

    const failure = await failureOf(sendBlobs(repository, sources, SILENT));

    expect(failure.message).toBe("no");
    expect(disposed.toSorted((a, b) => a - b)).toEqual([10, 20]);
  });
});
