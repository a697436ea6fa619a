import { describe, expect, test } from "bun:test";
import { truncateSync, utimesSync } from "node:fs";
import {
  appendFile,
  chmod,
  link,
  mkdir,
  readdir,
  readFile,
  rename,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import type { AdoptResult } from "../../src/api/models.ts";
import type { Progress, Warning } from "../../src/api/progress.ts";
import { type AdoptOptions, adoptCaches, createAdoptedFinder } from "../../src/models/adopt.ts";
import { MIN_ADOPTED_BYTES } from "../../src/models/adopt-scan.ts";
import { type Digest, digestOf, hexOf } from "../../src/oci/digest.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "../store/failure-of.ts";
import { isRoot, isWindows, testIf } from "../helpers/test-if.ts";

interface Machine extends AsyncDisposable {
  readonly home: string;
  readonly indexFile: string;
  readonly events: (Progress | Warning)[];
  /** Writes a file below the home directory. */
  put(path: string, bytes: Uint8Array): Promise<string>;
  adopt(options?: Partial<AdoptOptions>): Promise<AdoptResult>;
  find(digest: string, size?: number): string | undefined;
  warnings(): string[];
  /** Names of files that were read. */
  read(): string[];
}

/** Its environment keeps the tests away from the caches of the machine they run on. */
async function machine(env: Record<string, string> = {}): Promise<Machine> {
  const directory = await tempDir();
  const home = directory.path;
  const indexFile = join(home, "tug", "cache", "adopted.json");
  const events: (Progress | Warning)[] = [];
  const places = {
    env: { OLLAMA_MODELS: join(home, ".ollama", "models"), ...env },
    home,
    platform: "linux",
    indexFile,
  } as const;
  return {
    home,
    indexFile,
    events,
    async put(path, bytes) {
      const absolute = join(home, path);
      await mkdir(dirname(absolute), { recursive: true });
      await writeFile(absolute, bytes);
      return absolute;
    },
    adopt: (options) =>
      adoptCaches({
        ...places,
        signal: new AbortController().signal,
        onProgress: (event) => void events.push(event),
        ...options,
      }),
    find: (digest, size = MIN_ADOPTED_BYTES) => createAdoptedFinder(places)({ digest, size })?.path,
    warnings: () => events.flatMap((event) => (event.type === "warning" ? [event.message] : [])),
    read: () => [
      ...new Set(events.flatMap((event) => (event.type === "progress" ? [event.id] : []))),
    ],
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

/** As large as files must be to count. */
function weights(seed: number): { bytes: Uint8Array; digest: Digest; hex: string } {
  const bytes = new Uint8Array(MIN_ADOPTED_BYTES).fill(seed);
  const digest = digestOf(bytes);
  return { bytes, digest, hex: hexOf(digest) };
}

const OLLAMA_BLOBS = ".ollama/models/blobs";
const HUB = ".cache/huggingface/hub";

describe("adoptCaches", () => {
  test("finds what each program has", async () => {
    await using here = await machine();
    const [a, b, c, d] = [weights(1), weights(2), weights(3), weights(4)];
    const ollama = await here.put(`${OLLAMA_BLOBS}/sha256-${a.hex}`, a.bytes);
    const hub = await here.put(`${HUB}/models--org--repo/blobs/${b.hex}`, b.bytes);
    const studio = await here.put(".lmstudio/models/org/repo/m.gguf", c.bytes);
    const llama = await here.put(".cache/llama.cpp/org_repo_m.gguf", d.bytes);

    const result = await here.adopt();

    const size = MIN_ADOPTED_BYTES;
    expect(result).toEqual({
      files: [
        { path: ollama, digest: a.digest, size, program: "ollama" },
        { path: hub, digest: b.digest, size, program: "huggingface" },
        { path: studio, digest: c.digest, size, program: "lmstudio" },
        { path: llama, digest: d.digest, size, program: "llamacpp" },
      ],
      bytes: 4 * size,
    });
    expect(here.find(c.digest)).toBe(studio);
    expect(here.find(d.digest)).toBe(llama);
    expect(here.warnings()).toEqual([]);
  });

  test("a machine with none of them has nothing", async () => {
    await using here = await machine();

    expect(await here.adopt()).toEqual({ files: [], bytes: 0 });
    expect(here.warnings()).toEqual([]);
  });

  test("reads only files whose names are not their digests, and those once", async () => {
    await using here = await machine();
    const [a, b] = [weights(1), weights(2)];
    await here.put(`${OLLAMA_BLOBS}/sha256-${a.hex}`, a.bytes);
    await here.put(".lmstudio/models/org/repo/m.gguf", b.bytes);
    const first = await here.adopt();
    expect(here.read()).toEqual(["m.gguf"]);
    here.events.length = 0;

    const second = await here.adopt();

    expect(here.read()).toEqual([]);
    expect(second).toEqual(first);
  });

  test.each([
    ["grew", async (path: string) => appendFile(path, "x")],
    ["was touched", async (path: string) => utimes(path, 1, 1)],
    [
      "was replaced by another one of its size and time",
      async (path: string) => {
        const { atime, mtime } = await stat(path);
        await writeFile(`${path}.new`, weights(9).bytes);
        await utimes(`${path}.new`, atime, mtime);
        await rename(`${path}.new`, path);
      },
    ],
  ])("a file that %s is read again", async (_, change) => {
    await using here = await machine();
    const path = await here.put(".lmstudio/models/m.gguf", weights(1).bytes);
    await here.adopt();
    await change(path);
    here.events.length = 0;

    const { files } = await here.adopt();

    expect(here.read()).toEqual(["m.gguf"]);
    expect(files[0]?.digest).toBe(digestOf(await readFile(path)));
  });

  test("a dry run reads nothing and remembers nothing", async () => {
    await using here = await machine();
    const [a, b] = [weights(1), weights(2)];
    await here.put(`${OLLAMA_BLOBS}/sha256-${a.hex}`, a.bytes);
    await here.put(".lmstudio/models/m.gguf", b.bytes);

    const { files, bytes } = await here.adopt({ dryRun: true });

    expect(files.map(({ digest }) => digest)).toEqual([a.digest, null]);
    expect(bytes).toBe(2 * MIN_ADOPTED_BYTES);
    expect(here.read()).toEqual([]);
    expect(await Bun.file(here.indexFile).exists()).toBe(false);
  });

  test("leaves out what is incomplete, small, no weights, or not called by a SHA-256", async () => {
    await using here = await machine();
    const { bytes, hex } = weights(1);
    const repository = `${HUB}/models--org--repo`;
    await here.put(`${OLLAMA_BLOBS}/sha256-${hex}-partial`, bytes);
    await here.put(`${OLLAMA_BLOBS}/sha256-${hex}-partial-0`, bytes);
    await here.put(`${OLLAMA_BLOBS}/sha256-${hex.toUpperCase()}`, bytes);
    await here.put(`${OLLAMA_BLOBS}/sha256-123456`, bytes);
    await here.put(`${OLLAMA_BLOBS}/sha256-${"0".repeat(64)}`, bytes.subarray(1));
    await here.put(`.ollama/models/other/sha256-${hex}`, bytes);
    await here.put(`${repository}/blobs/${hex}.incomplete`, bytes);
    await here.put(`${repository}/blobs/${"a".repeat(40)}`, bytes);
    await here.put(`${repository}/refs/${hex}`, bytes);
    await here.put(`${HUB}/datasets--org--data/blobs/${hex}`, bytes);
    await here.put(".lmstudio/models/m.gguf.part", bytes);
    await here.put(".lmstudio/models/readme.md", bytes);
    await here.put(".lmstudio/models/.hidden/m.gguf", bytes);
    await here.put(".cache/llama.cpp/m.gguf.downloadInProgress", bytes);

    expect((await here.adopt()).files).toEqual([]);
  });

  test("reads the weights of a Hugging Face cache without symbolic links", async () => {
    await using here = await machine();
    const { bytes, digest } = weights(1);
    await here.put(`${HUB}/models--org--repo/snapshots/abc/sub/m.safetensors`, bytes);

    expect((await here.adopt()).files.map((file) => file.digest)).toEqual([digest]);
  });

  testIf(!isWindows, "symbolic links need a privilege")(
    "follows no symbolic link but the place itself",
    async () => {
      await using here = await machine();
      const [inside, outside] = [weights(1), weights(2)];
      const real = await here.put(`disk/models/blobs/sha256-${inside.hex}`, inside.bytes);
      await here.put("secret/out.gguf", outside.bytes);
      await mkdir(join(here.home, ".ollama"));
      await symlink(join(here.home, "disk/models"), join(here.home, ".ollama/models"));
      await mkdir(join(here.home, ".lmstudio/models"), { recursive: true });
      await symlink(join(here.home, "secret"), join(here.home, ".lmstudio/models/dir"));
      await symlink(join(here.home, "secret/out.gguf"), join(here.home, ".lmstudio/models/m.gguf"));
      await symlink(".", join(here.home, ".lmstudio/models/loop"));
      await symlink(
        join(here.home, "secret/out.gguf"),
        join(here.home, `disk/models/blobs/sha256-${outside.hex}`),
      );

      const { files } = await here.adopt();

      expect(files.map(({ path }) => path)).toEqual([real]);
      expect(here.find(outside.digest)).toBeUndefined();
    },
  );

  test("two names of one file are one file, and are read once", async () => {
    await using here = await machine();
    const { bytes } = weights(1);
    const path = await here.put(".lmstudio/models/a.gguf", bytes);
    await link(path, join(here.home, ".lmstudio/models/b.gguf"));

    expect((await here.adopt()).files.map((file) => file.path)).toEqual([path]);
    expect(here.read()).toEqual(["a.gguf"]);
  });

  test("bytes that two programs have count once", async () => {
    await using here = await machine();
    const { bytes, hex } = weights(1);
    await here.put(`${OLLAMA_BLOBS}/sha256-${hex}`, bytes);
    await here.put(`${HUB}/models--org--repo/blobs/${hex}`, bytes);

    const result = await here.adopt();

    expect(result.files).toHaveLength(2);
    expect(result.bytes).toBe(MIN_ADOPTED_BYTES);
  });

  testIf(!isRoot && !isWindows, "root may read everything")(
    "leaves out what may not be read, with a warning",
    async () => {
      await using here = await machine();
      const { bytes, digest } = weights(1);
      const closed = await here.put(".lmstudio/models/closed/m.gguf", bytes);
      const unreadable = await here.put(".lmstudio/models/unreadable.gguf", weights(2).bytes);
      await here.put(".lmstudio/models/open/m.gguf", bytes);
      await chmod(dirname(closed), 0o000);
      await chmod(unreadable, 0o000);

      const { files } = await here.adopt();
      await chmod(dirname(closed), 0o700);

      expect(files.map((file) => file.digest)).toEqual([digest]);
      expect(here.warnings()).toEqual([
        `left out \`${dirname(closed)}\`: permission denied`,
        `left out \`${unreadable}\`: permission denied`,
      ]);
    },
  );

  test("looks no deeper than eight directories", async () => {
    await using here = await machine();
    const deep = `.lmstudio/models${"/d".repeat(8)}`;
    const path = await here.put(`${deep}/m.gguf`, weights(1).bytes);
    await here.put(`${deep}/d/m.gguf`, weights(2).bytes);

    expect((await here.adopt()).files.map((file) => file.path)).toEqual([path]);
  });

  test("stops where a place has too much in it, and says so", async () => {
    await using here = await machine();
    await here.put(".lmstudio/models/a/m.gguf", weights(1).bytes);
    await here.put(".lmstudio/models/b/m.gguf", weights(2).bytes);

    const { files } = await here.adopt({ limits: { maxEntries: 3 } });

    expect(files).toHaveLength(1);
    expect(here.warnings()).toEqual([
      `left out a part of \`${join(here.home, ".lmstudio", "models")}\`: it has more than 3 files and directories`,
    ]);
  });

  test("remembers only so many files, and says so", async () => {
    await using here = await machine();
    const path = await here.put(".lmstudio/models/a.gguf", weights(1).bytes);
    await here.put(".lmstudio/models/b.gguf", weights(2).bytes);

    const { files } = await here.adopt({ limits: { maxFiles: 1 } });

    expect(files.map((file) => file.path)).toEqual([path]);
    expect(here.warnings()).toEqual(["left out 1 files: 1 are remembered"]);
    expect(here.read()).toEqual(["a.gguf"]);
  });

  test("a file that changes while it is read is left out, with a warning", async () => {
    await using here = await machine();
    const path = await here.put(".lmstudio/models/m.gguf", weights(1).bytes);
    const warnings: string[] = [];

    const { files } = await here.adopt({
      onProgress: (event) => {
        if (event.type === "warning") warnings.push(event.message);
        else if (event.done_bytes === MIN_ADOPTED_BYTES) utimesSync(path, 1, 1);
      },
    });

    expect(files).toEqual([]);
    expect(warnings).toEqual([`left out \`${path}\`: it changed while it was read`]);
  });

  test("an interruption keeps what was read, and what was known of the others", async () => {
    await using here = await machine();
    const [a, c] = [weights(1), weights(3)];
    // More than is read at once.
    const b = new Uint8Array(3 * 1024 * 1024);
    const last = await here.put(".lmstudio/models/c.gguf", c.bytes);
    await here.adopt();
    const first = await here.put(".lmstudio/models/a.gguf", a.bytes);
    await here.put(".lmstudio/models/b.gguf", b);
    const stop = new AbortController();

    const interrupted = here.adopt({
      signal: stop.signal,
      onProgress: (event) => {
        if (event.type === "progress" && event.id === "b.gguf") stop.abort();
      },
    });

    expect((await failureOf(interrupted)).name).toBe("AbortError");
    expect(here.find(a.digest)).toBe(first);
    expect(here.find(digestOf(b), b.length)).toBeUndefined();
    expect(here.find(c.digest)).toBe(last);
  });

  test("forgets what is gone", async () => {
    await using here = await machine();
    const path = await here.put(".lmstudio/models/m.gguf", weights(1).bytes);
    await here.adopt();
    await rename(path, join(here.home, "elsewhere"));

    expect((await here.adopt()).files).toEqual([]);
    expect(JSON.parse(await readFile(here.indexFile, "utf8"))).toEqual({ version: 1, files: [] });
  });

  test("leaves no temporary files behind", async () => {
    await using here = await machine();
    await here.adopt();
    await here.adopt();

    expect(await readdir(dirname(here.indexFile))).toEqual(["adopted.json"]);
  });

  test("writes nothing into other programs' directories", async () => {
    await using here = await machine();
    const path = await here.put(".lmstudio/models/m.gguf", weights(1).bytes);
    await chmod(path, 0o640);
    const before = await stat(path);

    await here.adopt();

    const after = await stat(path);
    expect([after.mode, after.mtimeMs, after.ctimeMs, after.ino]).toEqual([
      before.mode,
      before.mtimeMs,
      before.ctimeMs,
      before.ino,
    ]);
    expect(await readdir(dirname(path))).toEqual(["m.gguf"]);
  });
});

describe("createAdoptedFinder", () => {
  test("looks by itself where names are digests", async () => {
    await using here = await machine();
    const [a, b] = [weights(1), weights(2)];
    const ollama = await here.put(`${OLLAMA_BLOBS}/sha256-${a.hex}`, a.bytes);
    const hub = await here.put(`${HUB}/models--org--repo/blobs/${b.hex}`, b.bytes);

    expect(here.find(a.digest)).toBe(ollama);
    expect(here.find(b.digest)).toBe(hub);
    expect(await Bun.file(here.indexFile).exists()).toBe(false);
  });

  test("finds nothing of another size, nor what is too small to look for", async () => {
    await using here = await machine();
    const { bytes, digest, hex } = weights(1);
    await here.put(`${OLLAMA_BLOBS}/sha256-${hex}`, bytes);

    expect(here.find(digest, MIN_ADOPTED_BYTES + 1)).toBeUndefined();
    expect(here.find(digest, MIN_ADOPTED_BYTES - 1)).toBeUndefined();
  });

  test.each([[""], ["sha256:abc"], [`sha256:${"../".repeat(21)}x`], [`sha512:${"a".repeat(64)}`]])(
    "%j is no digest to look for",
    async (digest) => {
      await using here = await machine();

      expect(here.find(digest)).toBeUndefined();
    },
  );

  test("a remembered file that has changed is not found", async () => {
    await using here = await machine();
    const { bytes, digest } = weights(1);
    const path = await here.put(".lmstudio/models/m.gguf", bytes);
    await here.adopt();
    await utimes(path, 1, 1);

    expect(here.find(digest)).toBeUndefined();
  });

  test("of two remembered files of a digest the one that is still there is found", async () => {
    await using here = await machine();
    const { bytes, digest } = weights(1);
    const first = await here.put(".lmstudio/models/a.gguf", bytes);
    const second = await here.put(".lmstudio/models/b.gguf", bytes);
    await here.adopt();
    expect(here.find(digest)).toBe(first);

    await writeFile(first, "gone");

    expect(here.find(digest)).toBe(second);
  });

  test.each([
    ["is cut off", '{"version":1,"files":['],
    ["is of another version", '{"version":2,"files":[]}'],
    ["is no object", "[]"],
    ["is empty", ""],
    ["holds something else", '{"version":1,"files":{"a":1}}'],
    [
      "has entries that are none",
      JSON.stringify({
        version: 1,
        files: [
          null,
          7,
          {},
          {
            path: "/etc/passwd",
            digest: "sha256:x",
            size: 1,
            modified_ns: "1",
            inode: "1",
            program: "ollama",
          },
          {
            path: 7,
            digest: weights(1).digest,
            size: 1,
            modified_ns: "1",
            inode: "1",
            program: "ollama",
          },
          {
            path: "/x",
            digest: weights(1).digest,
            size: -0.5,
            modified_ns: "1",
            inode: "1",
            program: "ollama",
          },
          {
            path: "/x",
            digest: weights(1).digest,
            size: 1,
            modified_ns: 1,
            inode: "1",
            program: "ollama",
          },
          {
            path: "/x",
            digest: weights(1).digest,
            size: 1,
            modified_ns: "1",
            inode: "1",
            program: "vim",
          },
        ],
      }),
    ],
  ])("an index that %s counts as none, and is replaced", async (_, text) => {
    await using here = await machine();
    const { bytes, digest } = weights(1);
    const path = await here.put(".lmstudio/models/m.gguf", bytes);
    await here.put("tug/cache/adopted.json", new TextEncoder().encode(text));
    expect(here.find(digest)).toBeUndefined();

    await here.adopt();

    expect(here.find(digest)).toBe(path);
  });

  test("an index that is a directory, or absurdly large, is not read", async () => {
    await using here = await machine();
    await mkdir(here.indexFile, { recursive: true });
    expect(here.find(weights(1).digest)).toBeUndefined();

    await using there = await machine();
    const huge = await there.put("tug/cache/adopted.json", new Uint8Array(1));
    truncateSync(huge, 17 * 1024 * 1024);

    expect(there.find(weights(1).digest)).toBeUndefined();
  });
});
