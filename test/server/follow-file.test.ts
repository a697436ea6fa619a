import { describe, expect, test } from "bun:test";
import {
  appendFile,
  copyFile,
  readFile,
  rename,
  rm,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { FileFollower } from "../../src/server/follow-file.ts";
import { tempDir } from "../helpers/temp-dir.ts";

interface Rig extends AsyncDisposable {
  readonly path: string;
  readonly follower: FileFollower;
  /** All that is there now; `|` where another file begins. */
  read(): Promise<string>;
}

async function rig(options: { sinceMs?: number } = {}): Promise<Rig> {
  const directory = await tempDir();
  const path = join(directory.path, "a.log");
  const follower = new FileFollower(path, options);
  return {
    path,
    follower,
    async read() {
      const parts: Uint8Array[] = [];
      for (;;) {
        const chunk = await follower.read();
        if (chunk === "end") return Buffer.concat(parts).toString();
        parts.push(chunk === "next" ? Buffer.from("|") : chunk);
      }
    },
    async [Symbol.asyncDispose]() {
      await follower[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

/** As the runner does it with its own log. */
async function copyAway(path: string): Promise<void> {
  await copyFile(path, `${path}.1.tmp`);
  await rename(`${path}.1.tmp`, `${path}.1`);
  await truncate(path);
}

describe("FileFollower", () => {
  test("gives the whole file in bounded chunks, and then what is added", async () => {
    await using at = await rig();
    const text = "line\n".repeat(50_000);
    await writeFile(at.path, text);

    const first = await at.follower.read();
    const whole = await at.read();
    await appendFile(at.path, "more\n");

    expect(first.length).toBe(64 * 1024);
    expect(first.length + whole.length).toBe(text.length);
    expect(await at.read()).toBe("more\n");
    expect(await at.read()).toBe("");
  });

  test("takes a missing file for an empty one until it is there", async () => {
    await using at = await rig();

    const before = await at.read();
    await writeFile(at.path, "one\n");

    expect([before, await at.read()]).toEqual(["", "one\n"]);
  });

  test("begins with the file before", async () => {
    await using at = await rig();
    await writeFile(`${at.path}.1`, "old\n");
    await writeFile(at.path, "new\n");

    expect(await at.read()).toBe("old\n|new\n");
  });

  test("leaves the file before out if it is too old", async () => {
    await using at = await rig({ sinceMs: Date.parse("2026-01-01") });
    await writeFile(`${at.path}.1`, "old\n");
    await utimes(`${at.path}.1`, new Date("2025-01-01"), new Date("2025-01-01"));
    await writeFile(at.path, "new\n");

    expect(await at.read()).toBe("new\n");
  });

  test("follows a file that is renamed, with what was added before that", async () => {
    await using at = await rig();
    await writeFile(at.path, "one\n");
    const before = await at.read();

    await appendFile(at.path, "two\n");
    await rename(at.path, `${at.path}.1`);
    const between = await at.read();
    await writeFile(at.path, "three\n");

    expect([before, between, await at.read()]).toEqual(["one\n", "two\n", "|three\n"]);
  });

  test("follows a file that is copied and emptied, however much is in it again", async () => {
    for (const more of ["3\n", "a longer line than there was before\n"]) {
      await using at = await rig();
      await writeFile(at.path, "one\n");
      const before = await at.read();

      await appendFile(at.path, "two\n");
      await copyAway(at.path);
      await appendFile(at.path, more);

      expect([before, await at.read()]).toEqual(["one\n", `two\n|${more}`]);
    }
  });

  test("follows one rotation after the other", async () => {
    for (const rotate of [copyAway, (path: string) => rename(path, `${path}.1`)]) {
      await using at = await rig();
      let seen = "";
      for (let round = 0; round < 20; round += 1) {
        await appendFile(at.path, `${round} `);
        if (round % 2 === 0) seen += await at.read();
        await appendFile(at.path, `${round}b `);
        await rotate(at.path);
        seen += await at.read();
      }

      const expected = Array.from({ length: 20 }, (_, round) => `${round} ${round}b `).join("");
      expect(seen.replaceAll("|", "")).toBe(expected);
    }
  });

  test("goes on in a file that somebody has emptied or replaced", async () => {
    await using at = await rig();
    await writeFile(at.path, "a long first line\n");
    await at.read();

    await writeFile(at.path, "two\n");
    const emptied = await at.read();
    await rm(at.path);
    await writeFile(at.path, "three\n");

    expect([emptied, (await at.read()).replace("|", "")]).toEqual(["two\n", "three\n"]);
    expect(await readFile(at.path, "utf8")).toBe("three\n");
  });
});
