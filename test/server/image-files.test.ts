import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ImageFiles } from "../../src/server/image-files.ts";
import { FakeClock } from "../fakes/clock.ts";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const HOUR_MS = 3_600_000;
const PNG = Buffer.from("\x89PNG\r\n\x1a\nrest", "latin1");
const JPEG = Buffer.from("\xff\xd8\xff\xe0rest", "latin1");
const WEBP = Buffer.from("RIFF\x04\x00\x00\x00WEBPrest", "latin1");

let home: Awaited<ReturnType<typeof tempDir>>;
let directory: string;
let clock: FakeClock;
let files: ImageFiles;
beforeEach(async () => {
  home = await tempDir();
  directory = join(home.path, "images");
  clock = new FakeClock();
  files = new ImageFiles({ directory, clock, maxTotalBytes: 100 });
});
afterEach(async () => {
  await files.close();
  await home[Symbol.asyncDispose]();
});

describe("ImageFiles", () => {
  test("kept: under a name that nobody guesses, readable by nobody else, with its type", async () => {
    const names = [await files.keep(PNG), await files.keep(JPEG), await files.keep(WEBP)];

    expect(names[0]).toMatch(/^[\w-]{32}\.png$/);
    expect(new Set(names).size).toBe(3);
    expect(names.map((name) => files.find(name)?.type)).toEqual([
      "image/png",
      "image/jpeg",
      "image/webp",
    ]);
    const { path = "" } = files.find(names[0] ?? "") ?? {};
    expect(await readFile(path)).toEqual(PNG);
    expect((await stat(path)).mode & 0o077).toBe(0);
    expect((await stat(directory)).mode & 0o077).toBe(0);
  });

  test("kept: an hour, then it is gone, and no timer is left", async () => {
    const first = await files.keep(PNG);
    clock.advance(HOUR_MS / 2);
    const second = await files.keep(PNG);
    expect(clock.pending).toBe(1);

    clock.advance(HOUR_MS / 2);
    expect([files.find(first), files.find(second)]).toEqual([undefined, expect.anything()]);
    await eventually(async () => (await readdir(directory)).join() === second);
    clock.advance(HOUR_MS);

    expect(files.find(second)).toBeUndefined();
    expect(clock.pending).toBe(0);
    await eventually(async () => (await readdir(directory)).length === 0);
  });

  test("kept: the oldest go where there is no room, the newest stays however large it is", async () => {
    const first = await files.keep(Buffer.alloc(60));
    const second = await files.keep(Buffer.alloc(60));
    expect([files.find(first), files.find(second)]).toEqual([undefined, expect.anything()]);

    const large = await files.keep(Buffer.alloc(1000));

    expect([files.find(second), files.find(large)]).toEqual([undefined, expect.anything()]);
    await eventually(async () => (await readdir(directory)).join() === large);
  });

  test("kept: what a killed runner has left goes at the first picture, and all at the end", async () => {
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, "old.png"), PNG);

    const name = await files.keep(PNG);
    expect(await readdir(directory)).toEqual([name]);
    await files.close();

    expect(readdir(directory)).rejects.toThrow("ENOENT");
    expect([files.find(name), clock.pending]).toEqual([undefined, 0]);
  });

  test.each(["", "..", "../x", "old.png", "a/b", "__proto__"])("found: not %p", async (name) => {
    await files.keep(PNG);

    expect(files.find(name)).toBeUndefined();
  });
});
