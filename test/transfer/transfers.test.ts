import { describe, expect, spyOn, test } from "bun:test";
import { readFile, stat, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import type { BlobSource } from "../../src/http/blob-source.ts";
import { eventually } from "../helpers/eventually.ts";
import { failureOf } from "../store/failure-of.ts";
import { blobServer } from "./blob-server.ts";
import { idOf, randomBytes, transferSetup } from "./transfer-setup.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

describe("one blob", () => {
  test("transfer: a blob comes into the store, verified and read-only", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(3 * MIB + 17);
    await using server = await blobServer(bytes);
    const phases: string[] = [];
    const done: number[] = [];

    const fetched = await setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onPhase: (phase) => phases.push(phase),
      onBytes: (count) => done.push(count),
    });

    const path = setup.store.blobPath(idOf(bytes).digest);
    expect(fetched).toBeGreaterThanOrEqual(bytes.length);
    expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
    expect((await stat(path)).mode & 0o777).toBe(0o444);
    expect(phases).toEqual(["downloading"]);
    expect([done[0], done.at(-1)]).toEqual([0, bytes.length]);
    expect(await setup.leftovers()).toEqual([".done"]);
  });

  test("transfer: what is there already costs nothing", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(100 * KIB);
    await using server = await blobServer(bytes);
    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    const again = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect([again, server.requests.length]).toEqual([0, 1]);
  });

  test("transfer: an empty blob needs no network", async () => {
    await using setup = await transferSetup();
    const empty = new Uint8Array();

    expect(await setup.fetch(idOf(empty), { sources: [] })).toBe(0);
    expect(await setup.store.hasBlob(idOf(empty).digest)).toBe(true);
  });

  test("transfer: a fast source is asked once", async () => {
    await using setup = await transferSetup({ fastBytesPerSecond: 0 });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes);

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(server.requests).toMatchObject([{ index: 0, start: 0, end: bytes.length }]);
  });

  test("transfer: a small blob uses one connection, however slow", async () => {
    await using setup = await transferSetup({ largeBytes: MIB });
    const bytes = randomBytes(256 * KIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 2 * MIB }));

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(server.requests).toHaveLength(1);
  });
});

describe("connections", () => {
  test("transfer: a source that limits each connection is asked over eight", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(8 * MIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 4 * MIB }));
    const began = performance.now();

    const fetched = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(server.mostAtOnce).toBeGreaterThanOrEqual(8);
    // One connection takes two seconds.
    expect(performance.now() - began).toBeLessThan(1200);
    expect(fetched).toBeLessThan(bytes.length * 1.2);
  });

  test("transfer: all blobs together use no more connections than they may", async () => {
    await using setup = await transferSetup({ connections: 3 });
    const blobs = [1, 2, 3, 4].map((seed) => randomBytes(512 * KIB, seed));
    let open = 0;
    let most = 0;
    const counted = (source: BlobSource): BlobSource => ({
      host: source.host,
      open: async (range, options) => {
        open += 1;
        most = Math.max(most, open);
        try {
          return await source.open(range, options);
        } finally {
          open -= 1;
        }
      },
    });
    const servers = await Promise.all(
      blobs.map((bytes) => blobServer(bytes, () => ({ bytesPerSecond: 4 * MIB }))),
    );

    await Promise.all(
      blobs.map((bytes, index) =>
        setup.fetch(idOf(bytes), {
          sources: servers.slice(index, index + 1).map((one) => counted(one.source())),
        }),
      ),
    );

    expect(most).toBeLessThanOrEqual(3);
    for (const server of servers) await server[Symbol.asyncDispose]();
  });

  test("transfer: a server that refuses more than two connections is left with two", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(4 * MIB);
    let refusals = 0;
    await using server = await blobServer(bytes, ({ atOnce }) => {
      if (atOnce <= 2) return { bytesPerSecond: 8 * MIB };
      refusals += 1;
      return { status: 429 };
    });

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(await setup.store.hasBlob(idOf(bytes).digest)).toBe(true);
    // It takes a few to find out, but not eight at every look.
    expect(refusals).toBeLessThan(20);
  });

  test("transfer: a refusal that takes a while is one, whatever the others fetch meanwhile", async () => {
    await using setup = await transferSetup({ longestSpanBytes: 64 * MIB });
    const bytes = randomBytes(8 * MIB);
    let refusals = 0;
    await using server = await blobServer(bytes, ({ atOnce }) => {
      if (atOnce <= 1) return { bytesPerSecond: 8 * MIB };
      refusals += 1;
      return { status: 429, before: () => Bun.sleep(12) };
    });

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    // The second connection's, and perhaps some of the first one's when its range ends before the server sees it leave.
    expect(refusals).toBeLessThan(6);
  });

  test("transfer: what a slow connection has left is fetched over another one", async () => {
    await using setup = await transferSetup({ stallMs: 20_000 });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes, ({ index }) =>
      index === 1 ? { bytesPerSecond: 10 * KIB } : { bytesPerSecond: 8 * MIB },
    );
    const began = performance.now();

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    // The slow one alone would take 25 seconds for a range.
    expect(performance.now() - began).toBeLessThan(8000);
  });

  test("transfer: a connection that stands still is left to others long before it counts as dead", async () => {
    await using setup = await transferSetup({ stallMs: 20_000 });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes, ({ index }) =>
      index === 2 ? { stallAfter: 20 * KIB } : { bytesPerSecond: 8 * MIB },
    );
    const began = performance.now();

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(performance.now() - began).toBeLessThan(8000);
  });
});

describe("servers that misbehave", () => {
  test("transfer: a server without ranges is read from the beginning, over one connection", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, () => ({
      isRangeless: true,
      bytesPerSecond: 16 * MIB,
    }));

    const fetched = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect([fetched, server.requests.length]).toEqual([bytes.length, 1]);
  });

  test("transfer: a server without ranges that breaks off is read on behind what is there", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, ({ index }) => ({
      isRangeless: true,
      ...(index === 0 ? { cutAfter: MIB } : {}),
    }));
    const done: number[] = [];

    await setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onBytes: (count) => done.push(count),
    });

    expect(server.requests).toHaveLength(2);
    // It never goes back.
    expect(done).toEqual(done.toSorted((a, b) => a - b));
  });

  test("transfer: connections that break off go on where they were, and no byte comes twice", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, () => ({ cutAfter: 300 * KIB }));

    const fetched = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(fetched).toBe(bytes.length);
    expect(server.requests.length).toBeGreaterThanOrEqual(7);
  });

  test("transfer: a source that stands still is asked again", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(MIB);
    await using server = await blobServer(bytes, ({ index }) =>
      index === 0 ? { stallAfter: 300 * KIB } : {},
    );

    const fetched = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(fetched).toBe(bytes.length);
    expect(server.requests[1]?.start).toBe(300 * KIB);
  });

  test("transfer: a burst of failures passes", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(MIB);
    const statuses = [503, 429, 502, 500];
    await using server = await blobServer(bytes, ({ index }) => {
      const status = statuses[index];
      return status === undefined ? {} : { status };
    });

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(server.requests).toHaveLength(5);
  });

  test("transfer: a source that fails for good says so, and leaves nothing behind", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(MIB);
    await using server = await blobServer(bytes, () => ({ status: 503 }));

    const failure = await failureOf(setup.fetch(idOf(bytes), { sources: [server.source()] }));

    expect(failure.code).toBe("registry_unavailable");
    expect(server.requests).toHaveLength(5);
    expect(await setup.leftovers()).toEqual([]);
  });

  test("transfer: an answer that ends early is asked for again where it ended", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(MIB);
    await using server = await blobServer(bytes, ({ index }) => ({
      surplus: index < 2 ? -300 * KIB : 0,
      isRangeless: index === 2,
    }));

    const fetched = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(server.requests.map(({ start }) => start)).toEqual([0, 724 * KIB, 724 * KIB]);
    expect(fetched).toBe(724 * KIB + bytes.length);
  });

  test("transfer: more bytes than asked for are cut off", async () => {
    await using setup = await transferSetup({ longestSpanBytes: 128 * KIB });
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, () => ({
      surplus: MIB,
      bytesPerSecond: 8 * MIB,
    }));

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(await setup.store.hasBlob(idOf(bytes).digest)).toBe(true);
  });

  test.each([
    ["another range", "bytes 7-1000/1048576"],
    ["another size", "bytes 0-1048575/2000000"],
    ["nonsense", "bytes of some kind"],
  ])("transfer: an answer with %s is not believed", async (_name, contentRange) => {
    await using setup = await transferSetup();
    const bytes = randomBytes(MIB);
    await using liar = await blobServer(bytes, () => ({ contentRange }));
    await using server = await blobServer(bytes);

    const failure = await failureOf(setup.fetch(idOf(bytes), { sources: [liar.source()] }));
    await setup.fetch(idOf(bytes), { sources: [liar.source(), server.source()] });

    expect(failure.code).toBe("registry_unavailable");
    expect(await setup.leftovers()).toEqual([".done"]);
  });
});

describe("sources", () => {
  test.each([404, 401, 403])("transfer: after a %d the next source is asked", async (status) => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(MIB);
    await using empty = await blobServer(bytes, () => ({ status }));
    await using server = await blobServer(bytes);

    await setup.fetch(idOf(bytes), { sources: [empty.source(), server.source()] });

    expect([empty.requests.length, server.requests.length]).toEqual([1, 1]);
  });

  test("transfer: the last source's refusal is the failure", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(MIB);
    await using first = await blobServer(bytes, () => ({ status: 503 }));
    await using last = await blobServer(bytes, () => ({ status: 404 }));

    const failure = await failureOf(
      setup.fetch(idOf(bytes), { sources: [first.source(), last.source()] }),
    );

    expect(failure.code).toBe("not_found");
    expect(await setup.leftovers()).toEqual([]);
  });

  test("transfer: without any source there is nothing to fetch from", async () => {
    await using setup = await transferSetup();

    const failure = await failureOf(setup.fetch(idOf(randomBytes(10)), { sources: [] }));

    expect(failure).toMatchObject({ code: "not_found" });
  });

  test("transfer: a source that dies amid the blob is taken over from by the next", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(2 * MIB);
    await using dying = await blobServer(bytes, ({ index }) =>
      index === 0 ? { cutAfter: MIB } : { status: 403 },
    );
    await using server = await blobServer(bytes);

    await setup.fetch(idOf(bytes), { sources: [dying.source(), server.source()] });

    expect(server.requests).toMatchObject([{ index: 0, end: bytes.length }]);
    // What was sent last before the end may have been lost on the way.
    expect(server.requests[0]?.start).toBeGreaterThan(MIB / 2);
  });
});

describe("together", () => {
  test("transfer: two who want the same blob at once fetch it once", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 16 * MIB }));
    const fetch = () => setup.fetch(idOf(bytes), { sources: [server.source()] });

    const fetched = await Promise.all([fetch(), fetch(), fetch()]);

    expect(fetched.filter((count) => count > 0)).toHaveLength(1);
    expect(server.sentBytes).toBeLessThan(bytes.length * 1.3);
  });

  test("transfer: one who leaves does not take the blob from the other, also the one who came first", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 4 * MIB }));
    const leaving = new AbortController();
    const phases: string[] = [];
    const first = failureOf(
      setup.fetch(idOf(bytes), { sources: [server.source()], signal: leaving.signal }),
    );
    await eventually(() => server.requests.length > 0);
    const second = setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onPhase: (phase) => phases.push(phase),
    });
    await eventually(() => phases.length > 0);

    leaving.abort();

    expect((await first).name).toBe("AbortError");
    expect(await second).toBeGreaterThanOrEqual(bytes.length);
    expect(await setup.store.hasBlob(idOf(bytes).digest)).toBe(true);
  });

  test("transfer: the refusal of one's source is made good by the other's", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(MIB);
    const { promise, resolve } = Promise.withResolvers<void>();
    await using refusing = await blobServer(bytes, () => ({ status: 401, before: () => promise }));
    await using server = await blobServer(bytes);
    const first = setup.fetch(idOf(bytes), { sources: [refusing.source()] });
    await eventually(() => refusing.requests.length > 0);
    const phases: string[] = [];
    const second = setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onPhase: (phase) => phases.push(phase),
    });
    await eventually(() => phases.length > 0);

    resolve();
    await Promise.all([first, second]);

    expect(await setup.store.hasBlob(idOf(bytes).digest)).toBe(true);
  });
});

describe("limits", () => {
  test("transfer: bytes come no faster than they may, over all connections", async () => {
    await using setup = await transferSetup({ bytesPerSecond: 4 * MIB });
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes);
    const began = performance.now();

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    // Less the burst that is allowed, and the last chunk, after which nobody waits.
    expect(performance.now() - began).toBeGreaterThan(250);
    // The limit is no slowness of the source, which more connections would help.
    expect(server.requests).toHaveLength(1);
  });

  test("transfer: of blobs that begin together and have no room together, one is refused", async () => {
    await using setup = await transferSetup();
    const { bavail, bsize } = await statfs(tmpdir());
    const size = Math.ceil(bavail * bsize * 0.6);
    const gate = Promise.withResolvers<void>();
    await using server = await blobServer(new Uint8Array(10), ({ index }) => {
      if (index > 0) gate.resolve();
      return { status: 404, before: () => gate.promise };
    });

    const outcomes = await Promise.all(
      [1, 2].map(async (seed) => {
        const blob = { ...idOf(randomBytes(10, seed)), size };
        const failure = await failureOf(setup.fetch(blob, { sources: [server.source()] }));
        gate.resolve();
        return failure;
      }),
    );

    expect(
      outcomes.filter((it) => "code" in it && it.code === "insufficient_storage"),
    ).toHaveLength(1);
  });

  test("transfer: of large blobs that begin together, two are hashed in threads", async () => {
    await using setup = await transferSetup({ threadedBytes: 1 });
    await using transaction = await setup.store.begin();
    const opened = spyOn(transaction, "openPartial");
    const { signal } = new AbortController();

    await Promise.all(
      [1, 2, 3, 4].map(async (seed) => {
        const bytes = randomBytes(100_000, seed);
        await using server = await blobServer(bytes, () => ({
          before: () => eventually(() => opened.mock.calls.length === 4),
        }));
        await setup.transfers.fetch(transaction, idOf(bytes), {
          signal,
          sources: [server.source()],
        });
      }),
    );

    const isThreaded = opened.mock.calls.map(([, options]) => options?.isThreaded);
    expect(isThreaded).toEqual([true, true, false, false]);
  });

  test("transfer: a blob that has no room is refused before the first byte, with numbers", async () => {
    await using setup = await transferSetup();
    await using server = await blobServer(new Uint8Array(10));
    const blob = { ...idOf(randomBytes(10)), size: 2 ** 52 };

    const failure = await failureOf(setup.fetch(blob, { sources: [server.source()] }));

    expect(failure).toMatchObject({
      code: "insufficient_storage",
      details: { neededBytes: 2 ** 52, freeBytes: expect.any(Number) },
    });
    expect(server.requests).toHaveLength(0);
    expect(await setup.leftovers()).toEqual([]);
  });

  test("transfer: who has given up already fetches nothing", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(10);
    await using server = await blobServer(bytes);

    const failure = await failureOf(
      setup.fetch(idOf(bytes), { sources: [server.source()], signal: AbortSignal.abort() }),
    );

    expect([failure.name, server.requests.length]).toEqual(["AbortError", 0]);
  });
});
