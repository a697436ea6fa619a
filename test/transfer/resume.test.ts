import { describe, expect, test } from "bun:test";
import { readFile, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import { DOCKER_CONFIG_V01, DOCKER_GGUF, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import type { BlobId, Transaction } from "../../src/store/store.ts";
import { eventually } from "../helpers/eventually.ts";
import { testIf } from "../helpers/test-if.ts";
import { failureOf } from "../store/failure-of.ts";
import { commitSample } from "../store/sample-model.ts";
import { CAN_MOUNT, smallDisk } from "../store/small-disk.ts";
import { type BlobServer, blobServer } from "./blob-server.ts";
import { idOf, randomBytes, type Setup, transferSetup } from "./transfer-setup.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const WEEK_MS = 7 * 24 * 60 * 60 * 1000;

/** Fetches over one connection until so many bytes are there, and gives up then. */
async function interrupt(setup: Setup, blob: BlobId, options: { server: BlobServer; at: number }) {
  const leaving = new AbortController();
  const failure = await failureOf(
    setup.fetch(blob, {
      sources: [options.server.source()],
      signal: leaving.signal,
      onBytes: (done) => {
        if (done >= options.at) leaving.abort();
      },
    }),
  );
  expect(failure.name).toBe("AbortError");
}

/** Inverts a byte of a file. */
async function flip(path: string, offset: number): Promise<void> {
  const bytes = await readFile(path);
  bytes[offset] = (bytes[offset] ?? 0) ^ 0xff;
  await writeFile(path, bytes);
}

describe("what an interrupted fetch leaves", () => {
  test("resume: no byte that was there is fetched again", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes);
    await interrupt(setup, idOf(bytes), { server, at: 2 * MIB });
    expect(await setup.leftovers()).toContain(".part");
    const done: number[] = [];

    const fetched = await setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onBytes: (count) => done.push(count),
    });

    expect(done[0]).toBeGreaterThanOrEqual(2 * MIB);
    expect(fetched).toBe(bytes.length - (done[0] ?? 0));
    expect(await setup.leftovers()).toEqual([".done"]);
  });

  test("resume: over many connections there are gaps, and only they are fetched", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(8 * MIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 8 * MIB }));
    await interrupt(setup, idOf(bytes), { server, at: 4 * MIB });
    const known = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(known).toBeLessThan(4 * MIB + 8 * 256 * KIB);
    const path = setup.store.blobPath(idOf(bytes).digest);
    expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
  });

  test("resume: bytes that the disk changed are found, and only their piece is fetched again", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes);
    await interrupt(setup, idOf(bytes), { server, at: 3 * MIB });
    const phases: string[] = [];
    const done: number[] = [];
    await flip(setup.partial(idOf(bytes), "part"), MIB + 7);

    const fetched = await setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onPhase: (phase) => phases.push(phase),
      onBytes: (count) => done.push(count),
    });

    const again = fetched - (bytes.length - (done[0] ?? 0));
    expect(again).toBeGreaterThan(0);
    expect(again).toBeLessThanOrEqual(128 * KIB);
    expect(phases).toEqual(["downloading"]);
  });

  test("resume: a file without its journal, or cut short, or of another kind, is not believed", async () => {
    const spoilers: readonly ((part: string, journal: string) => Promise<unknown>)[] = [
      (_part, journal) => truncate(journal, 0),
      (part) => truncate(part, 100 * KIB),
      (part) => writeFile(part, randomBytes(9 * MIB, 7)),
      (_part, journal) => writeFile(journal, randomBytes(10 * KIB, 7)),
      (_part, journal) => flip(journal, 300),
    ];
    for (const spoil of spoilers) {
      await using setup = await transferSetup({ largeBytes: Infinity });
      const bytes = randomBytes(4 * MIB);
      await using server = await blobServer(bytes);
      await interrupt(setup, idOf(bytes), { server, at: 2 * MIB });
      await spoil(setup.partial(idOf(bytes), "part"), setup.partial(idOf(bytes), "journal"));

      await setup.fetch(idOf(bytes), { sources: [server.source()] });

      const path = setup.store.blobPath(idOf(bytes).digest);
      expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
    }
  });

  test("resume: a torn journal line costs one piece, and those after it count", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes);
    await interrupt(setup, idOf(bytes), { server, at: 2 * MIB });
    const journal = setup.partial(idOf(bytes), "journal");
    await truncate(journal, (await stat(journal)).size - 5);
    await interrupt(setup, idOf(bytes), { server, at: 3 * MIB });
    const done: number[] = [];

    await setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onBytes: (count) => done.push(count),
    });

    expect(done[0]).toBeGreaterThanOrEqual(3 * MIB);
  });

  test("resume: a blob that was fetched for a model that never came stays for a week", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(100 * KIB);
    await using server = await blobServer(bytes);
    await setup.fetch(idOf(bytes), { sources: [server.source()] });
    const other = await aModel(setup);

    await setup.store.remove(other, { force: false });
    const isKept = await setup.store.hasBlob(idOf(bytes).digest);
    const again = await setup.fetch(idOf(bytes), { sources: [server.source()] });
    await age(join(setup.store.root, "ingest", `${idOf(bytes).digest.slice(7)}.done`));
    await setup.store.remove(await aModel(setup), { force: false });

    expect([isKept, again]).toEqual([true, 0]);
    expect(await setup.store.hasBlob(idOf(bytes).digest)).toBe(false);
    expect(await setup.leftovers()).toEqual([]);
  });

  test("resume: a blob that belongs to a model goes with it at once", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(100 * KIB);
    await using server = await blobServer(bytes);
    const model = await commitModel(setup, idOf(bytes), (transaction) =>
      setup.transfers.fetch(transaction, idOf(bytes), {
        sources: [server.source()],
        signal: new AbortController().signal,
      }),
    );

    await setup.store.remove(model, { force: false });

    expect(await setup.leftovers()).toEqual([]);
    expect(await setup.store.prune({ all: false, dryRun: true })).toMatchObject({ blobs: 0 });
  });
});

describe("sweeps", () => {
  test("sweep: a partial blob stays for a week, and goes when somebody prunes", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes);
    const part = setup.partial(idOf(bytes), "part");
    await interrupt(setup, idOf(bytes), { server, at: 2 * MIB });

    await setup.store.remove(await aModel(setup), { force: false });
    const afterRemove = await Bun.file(part).exists();
    const usage = await setup.store.usage();
    const pruned = await setup.store.prune({ all: false, dryRun: false });

    expect(afterRemove).toBe(true);
    expect(usage.reclaimableBytes).toBeGreaterThanOrEqual(2 * MIB);
    expect(usage.reclaimableBytes).toBe(pruned.freedBytes);
    expect(pruned.ingests).toBe(1);
    expect(await setup.leftovers()).toEqual([]);
  });

  test("sweep: what a pull has claimed and not yet gone on with stays, however thorough", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes);
    await interrupt(setup, idOf(bytes), { server, at: 2 * MIB });
    const part = setup.partial(idOf(bytes), "part");
    {
      await using transaction = await setup.store.begin();
      await transaction.claim(idOf(bytes));
      await setup.store.prune({ all: true, dryRun: false });
      expect(await Bun.file(part).exists()).toBe(true);
    }

    await setup.store.prune({ all: true, dryRun: false });

    expect(await setup.leftovers()).toEqual([]);
  });

  test("sweep: an old partial blob goes by itself", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes);
    await interrupt(setup, idOf(bytes), { server, at: 2 * MIB });
    await age(setup.partial(idOf(bytes), "part"));
    await age(setup.partial(idOf(bytes), "journal"));

    await setup.store.remove(await aModel(setup), { force: false });

    expect(await setup.leftovers()).toEqual([]);
  });

  test("sweep: a partial blob of a blob that is there by now goes by itself", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes);
    await interrupt(setup, idOf(bytes), { server, at: 2 * MIB });
    const model = await commitModel(setup, idOf(bytes), (transaction) =>
      transaction.writeBlob(bytes),
    );

    await setup.store.remove(await aModel(setup), { force: false });

    expect(await setup.leftovers()).toEqual([]);
    expect((await setup.store.list()).map(({ digest }) => String(digest))).toEqual([model]);
  });

  test("sweep: what is being fetched stays, also when somebody prunes", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 16 * MIB }));
    let done = 0;
    const fetching = setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onBytes: (count) => (done = count),
    });
    await eventually(() => done > 0);

    const report = await setup.store.prune({ all: true, dryRun: false });
    const fetched = await fetching;

    expect(report).toMatchObject({ ingests: 0, freedBytes: 0 });
    expect(fetched).toBe(bytes.length);
    expect(server.requests).toHaveLength(1);
  });
});

describe("repair", () => {
  test("repair: a byte that was changed on the way is found, and stays the only thing that changes", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, ({ index }) =>
      index === 0 ? { flip: 300 * KIB } : {},
    );
    const phases: string[] = [];

    const fetched = await setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onPhase: (phase) => phases.push(phase),
    });

    const path = setup.store.blobPath(idOf(bytes).digest);
    expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
    expect(phases).toEqual(["downloading", "repairing"]);
    // It is in the second range of 256 KiB.
    expect(fetched).toBeLessThanOrEqual(bytes.length + 2 * 256 * KIB);
  });

  test("repair: the range where a connection broke off is looked at first", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, ({ index }) =>
      index === 0 ? { stallAfter: 1900 * KIB, flip: 1800 * KIB } : {},
    );

    const fetched = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(fetched).toBeLessThanOrEqual(bytes.length + 2 * 256 * KIB);
  });

  test("repair: several wrong ranges are all found", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(2 * MIB);
    const flips = [100 * KIB, 900 * KIB, 2000 * KIB];
    await using server = await blobServer(bytes, ({ index }) =>
      index < 3 ? { flip: flips[index] ?? 0, cutAfter: 1000 * KIB } : {},
    );

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    const path = setup.store.blobPath(idOf(bytes).digest);
    expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
  });

  test("repair: a mirror that has other bytes is made good by the registry", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(2 * MIB);
    await using mirror = await blobServer(bytes, () => ({ flip: 5 }));
    await using server = await blobServer(bytes);

    await setup.fetch(idOf(bytes), { sources: [mirror.source(), server.source()] });

    expect(server.sentBytes).toBeLessThanOrEqual(256 * KIB);
  });

  test("repair: a source with other bytes is refused after one more pass, and the next attempt starts anew", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(2 * MIB);
    let isBad = true;
    await using server = await blobServer(bytes, () => (isBad ? { flip: 5 } : {}));

    const failure = await failureOf(setup.fetch(idOf(bytes), { sources: [server.source()] }));
    const sent = server.sentBytes;
    isBad = false;
    const fetched = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    const wrong = bytes.slice();
    wrong[5] = (wrong[5] ?? 0) ^ 0xff;
    expect(failure).toMatchObject({ code: "digest_mismatch" });
    expect(failure.message).toContain(idOf(bytes).digest);
    expect(failure.message).toContain(idOf(wrong).digest);
    expect(sent).toBe(2 * bytes.length);
    expect(fetched).toBe(bytes.length);
  });

  test("repair: a server without ranges can be asked as well", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, ({ index }) => ({
      isRangeless: true,
      ...(index === 0 ? { flip: 300 * KIB } : {}),
    }));

    await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(await setup.store.hasBlob(idOf(bytes).digest)).toBe(true);
  });

  test("repair: an interrupted repair goes on in the next attempt", async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    const bytes = randomBytes(2 * MIB);
    let isDown = true;
    await using server = await blobServer(bytes, ({ index }) => {
      if (index === 0) return { flip: 1900 * KIB };
      return isDown ? { status: 403 } : {};
    });

    const failure = await failureOf(setup.fetch(idOf(bytes), { sources: [server.source()] }));
    isDown = false;
    const fetched = await setup.fetch(idOf(bytes), { sources: [server.source()] });

    expect(failure.code).toBe("forbidden");
    expect(fetched).toBeLessThanOrEqual(bytes.length);
    expect(await setup.store.hasBlob(idOf(bytes).digest)).toBe(true);
  });
});

testIf(CAN_MOUNT, "mounting is not allowed here")(
  "resume: a disk that fills up amid the blob is said in words, and what came is kept",
  async () => {
    await using setup = await transferSetup({ largeBytes: Infinity });
    await using disk = await smallDisk(join(setup.store.root, ".."));
    const bytes = randomBytes(2 * MIB);
    const ballast = join(disk.path, "ballast");
    await using server = await blobServer(bytes, ({ index }) => ({
      before: () => (index === 0 ? writeFile(ballast, new Uint8Array(3 * MIB)) : undefined),
    }));
    await using small = await transferSetup({ largeBytes: Infinity, root: join(disk.path, "s") });

    const failure = await failureOf(small.fetch(idOf(bytes), { sources: [server.source()] }));
    await truncate(ballast, 0);
    const fetched = await small.fetch(idOf(bytes), { sources: [server.source()] });

    expect(failure.code).toBe("insufficient_storage");
    expect(fetched).toBeGreaterThan(0);
    expect(fetched).toBeLessThan(bytes.length);
  },
);

/** Another model, whose removal sweeps the store. @returns its name */
async function aModel(setup: Setup): Promise<string> {
  return (await commitSample(setup.store, { name: "other" })).digest;
}

/** A model of one layer, which is there already or is brought by `bring`. @returns its digest */
async function commitModel(
  setup: Setup,
  blob: BlobId,
  bring: (transaction: Transaction) => Promise<unknown>,
): Promise<string> {
  await using transaction = await setup.store.begin();
  await bring(transaction);
  const config = await transaction.writeBlob(encodeCanonical({ config: { format: "gguf" } }));
  const manifest = encodeCanonical({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: DOCKER_CONFIG_V01, ...config },
    layers: [{ mediaType: DOCKER_GGUF, ...blob }],
  });
  return (await transaction.commit(manifest)).digest;
}

async function age(path: string): Promise<void> {
  const then = new Date(Date.now() - WEEK_MS - 1000);
  await utimes(path, then, then);
}
