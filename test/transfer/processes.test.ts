import { describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { BlobId } from "../../src/store/store.ts";
import { eventually } from "../helpers/eventually.ts";
import { type BlobServer, blobServer } from "./blob-server.ts";
import { idOf, randomBytes, type Setup, transferSetup } from "./transfer-setup.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const PROGRAM = join(import.meta.dir, "..", "fakes", "fetch-process.ts");

/** Starts another process that fetches a blob into the store. */
function startFetch(setup: Setup, blob: BlobId, server: BlobServer) {
  const child = Bun.spawn(
    [process.execPath, PROGRAM, setup.store.root, server.url, blob.digest, `${blob.size}`],
    { stdout: "pipe", stderr: "inherit" },
  );
  return {
    /** What it said, once it has ended by itself. */
    output: async (): Promise<string> => {
      const text = await child.stdout.text();
      expect(await child.exited).toBe(0);
      return text;
    },
    /** SIGKILL. */
    kill: async (): Promise<void> => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

describe("processes", () => {
  test("processes: one that is killed again and again gets on, and fetches little twice", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(16 * MIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 4 * MIB }));
    for (let kill = 1; kill <= 4; kill += 1) {
      const child = startFetch(setup, idOf(bytes), server);
      await eventually(() => server.sentBytes > kill * 3 * MIB);
      await child.kill();
    }

    const last = await startFetch(setup, idOf(bytes), server).output();

    const path = setup.store.blobPath(idOf(bytes).digest);
    expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
    expect(last).toContain("fetched");
    // What was on its way, and half a piece a connection.
    expect(server.sentBytes).toBeLessThan(bytes.length * 1.25);
    expect(await setup.leftovers()).toEqual([".done"]);
  }, 30_000);

  test("processes: two that want the same blob fetch it once", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 4 * MIB }));
    const phases: string[] = [];
    const done: number[] = [];
    const other = startFetch(setup, idOf(bytes), server);
    await eventually(() => server.sentBytes > 500 * KIB);

    const fetched = await setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onPhase: (phase) => phases.push(phase),
      onBytes: (count) => done.push(count),
    });

    expect(await other.output()).toContain(`fetched ${bytes.length}`);
    expect([fetched, server.requests.length]).toEqual([0, 1]);
    expect(phases).toEqual(["waiting"]);
    expect(Math.max(...done)).toBeGreaterThan(500 * KIB);
  }, 30_000);

  test("processes: one that waits takes over where the other died", async () => {
    await using setup = await transferSetup();
    const bytes = randomBytes(4 * MIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 8 * MIB }));
    const phases: string[] = [];
    const other = startFetch(setup, idOf(bytes), server);
    await eventually(() => server.sentBytes > 2 * MIB);
    const fetching = setup.fetch(idOf(bytes), {
      sources: [server.source()],
      onPhase: (phase) => phases.push(phase),
    });
    await eventually(() => phases.includes("waiting"));

    await other.kill();

    expect(await fetching).toBeLessThan(3 * MIB);
    expect(phases).toEqual(["waiting", "downloading"]);
    expect(await setup.store.hasBlob(idOf(bytes).digest)).toBe(true);
  }, 30_000);

  test("processes: two stores of one process that share a directory do not meet either", async () => {
    await using setup = await transferSetup();
    await using other = await transferSetup({ root: setup.store.root });
    const bytes = randomBytes(2 * MIB);
    await using server = await blobServer(bytes, () => ({ bytesPerSecond: 16 * MIB }));

    const fetched = await Promise.all(
      [setup, other].map((one) => one.fetch(idOf(bytes), { sources: [server.source()] })),
    );

    expect(fetched.filter((count) => count > 0)).toHaveLength(1);
  });
});
