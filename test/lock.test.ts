import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { acquireLock, tryLock } from "../src/lock.ts";
import { tempDir } from "./helpers/temp-dir.ts";
import { failureOf } from "./store/failure-of.ts";
import { startStoreProcess } from "./store/store-process.ts";

describe("tryLock", () => {
  test("lock: one of two holders in a process gets it, the other when the first lets go", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "lock");
    const first = tryLock(path);

    expect(tryLock(path)).toBeUndefined();
    first?.[Symbol.dispose]();
    first?.[Symbol.dispose]();
    using second = tryLock(path);
    expect(second).toBeDefined();
  });

  test("lock: a look at it by its own process does not lose it to another", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "lock");
    using _held = tryLock(path);
    tryLock(path);

    const other = Bun.spawn([process.execPath, "-e", PROBE, path], { stdout: "pipe" });

    expect(await other.stdout.text()).toBe("busy");
  });

  test("lock: another process's lock counts, and is free once that process is killed", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "lock");
    await using holder = await startStoreProcess("lock", path);

    expect(tryLock(path)).toBeUndefined();
    await holder.kill();
    using lock = tryLock(path);
    expect(lock).toBeDefined();
  });

  test("lock: a file that is missing is not created where that is not wanted", async () => {
    await using directory = await tempDir();

    tryLock(join(directory.path, "lock"), { create: false })?.[Symbol.dispose]();

    expect(await readdir(directory.path)).toEqual([]);
  });

  test("lock: a file that its holder removes during a look at it is locked by nobody", async () => {
    await using directory = await tempDir();
    const churn = Bun.spawn([process.execPath, "-e", CHURN, directory.path], { stdin: "pipe" });
    let looks = 0;
    for (const until = Date.now() + 500; Date.now() < until;) {
      for (const name of await readdir(directory.path)) {
        if (name.includes("-")) continue;
        looks += 1;
        tryLock(join(directory.path, name), { create: false })?.[Symbol.dispose]();
      }
    }
    churn.kill();
    await churn.exited;

    expect(looks).toBeGreaterThan(0);
  });

  test("lock: a place that cannot be written is said to be so", async () => {
    await using directory = await tempDir();

    expect(() => tryLock(join(directory.path, "no", "such", "lock"))).toThrow(
      expect.objectContaining({ code: "forbidden" }),
    );
  });
});

describe("acquireLock", () => {
  test("lock: whoever waits gets it when it becomes free", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "lock");
    const first = tryLock(path);

    const second = acquireLock(path);
    first?.[Symbol.dispose]();

    (await second)[Symbol.dispose]();
    expect(tryLock(path)).toBeDefined();
  });

  test("lock: the wait is bounded, and its end has a hint", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "lock");
    using _held = tryLock(path);

    expect(await failureOf(acquireLock(path, { waitMs: 20 }))).toMatchObject({
      code: "conflict",
      hint: expect.any(String),
    });
  });

  test("lock: the wait can be cancelled", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "lock");
    using _held = tryLock(path);

    expect(await failureOf(acquireLock(path, { signal: AbortSignal.abort() }))).toMatchObject({
      name: "AbortError",
    });
  });
});

const PROBE = `
  import { tryLock } from ${JSON.stringify(join(import.meta.dir, "../src/lock.ts"))};
  process.stdout.write(tryLock(process.argv.at(-1)) === undefined ? "busy" : "free");
`;

/** Takes locks and removes their files, each with a name of its own, as pins do. */
const CHURN = `
  import { rmSync } from "node:fs";
  import { tryLock } from ${JSON.stringify(join(import.meta.dir, "../src/lock.ts"))};
  for (let number = 0; number < 1e6; number += 1) {
    const path = process.argv.at(-1) + "/" + number;
    tryLock(path)?.[Symbol.dispose]();
    rmSync(path, { force: true });
  }
`;
