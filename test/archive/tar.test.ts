import { describe, expect, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { AppError } from "../../src/errors.ts";
import { TAR_END, encodeTarHeader, paddingOf, readTar } from "../../src/archive/tar.ts";
import { paxRecord, tar } from "../helpers/tar.ts";
import { tempDir } from "../helpers/temp-dir.ts";

interface Read {
  readonly name: string;
  readonly kind: string;
  readonly text: string;
}

async function readAll(chunks: AsyncIterable<Uint8Array>): Promise<Read[]> {
  const entries: Read[] = [];
  for await (const { name, kind, body } of readTar(chunks)) {
    const parts: Uint8Array[] = [];
    for await (const part of body) parts.push(part);
    entries.push({ name, kind, text: Buffer.concat(parts).toString() });
  }
  return entries;
}

/** The archive cut into pieces of that many bytes. */
async function* cut(archive: Uint8Array, bytes: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < archive.length; start += bytes) {
    yield archive.subarray(start, start + bytes);
  }
}

function encode(files: Readonly<Record<string, string>>): Buffer {
  const parts = Object.entries(files).flatMap(([name, text]) => {
    const body = Buffer.from(text);
    const header = encodeTarHeader({ name, size: body.length, kind: "file" });
    return [header, body, new Uint8Array(paddingOf(body.length))];
  });
  return Buffer.concat([...parts, TAR_END]);
}

async function* endlessZeros(): AsyncGenerator<Uint8Array> {
  for (;;) yield new Uint8Array(1024 * 1024);
}

async function failure(archive: Uint8Array): Promise<AppError> {
  const thrown = await readAll(cut(archive, 512)).catch((error: unknown) => error);
  if (thrown instanceof AppError) return thrown;
  throw new Error(`no AppError but ${JSON.stringify(thrown)}`);
}

const FILES = { "blobs/sha256/a": "hello", "manifest.json": "{}", empty: "" };

describe("readTar", () => {
  test("tar: what was written is read, wherever the stream is cut", async () => {
    const archive = encode(FILES);
    const expected = Object.entries(FILES).map(([name, text]) => ({ name, kind: "file", text }));

    for (const bytes of [1, 7, 511, 512, 513, 1500, archive.length]) {
      expect(await readAll(cut(archive, bytes))).toEqual(expected);
    }
  });

  test("tar: any files come back", async () => {
    const name = fc.stringMatching(/^[a-z0-9/._-]{1,90}$/);
    const files = fc.dictionary(name, fc.string({ maxLength: 1200 }), { maxKeys: 5 });

    await fc.assert(
      fc.asyncProperty(files, fc.integer({ min: 1, max: 2000 }), async (contents, bytes) => {
        const read = await readAll(cut(encode(contents), bytes));
        expect(read.map(({ name: read_, text }) => [read_, text])).toEqual(
          Object.entries(contents),
        );
      }),
      { numRuns: 50 },
    );
  });

  test("tar: a body that nobody reads is skipped", async () => {
    const names: string[] = [];

    for await (const { name } of readTar(cut(encode(FILES), 100))) names.push(name);

    expect(names).toEqual(Object.keys(FILES));
  });

  test("tar: a file of 9 GiB has a size that is read back", async () => {
    const size = 9 * 1024 ** 3;
    const header = encodeTarHeader({ name: "blobs/sha256/big", size, kind: "file" });
    const zeros = new Uint8Array(64 * 1024 * 1024);
    async function* archive(): AsyncGenerator<Uint8Array> {
      yield header;
      for (let done = 0; done < size; done += zeros.length) yield zeros;
      yield* cut(encode({ after: "end" }), 4096);
    }

    const entries: { name: string; size: number }[] = [];
    for await (const entry of readTar(archive())) {
      entries.push({ name: entry.name, size: entry.size });
    }

    expect(header.length).toBe(3 * 512);
    expect(entries).toEqual([
      { name: "blobs/sha256/big", size },
      { name: "after", size: 3 },
    ]);
  });

  test.each(["ustar", "pax", "gnu", "v7"])(
    "tar: archives of tar --format=%s are read",
    async (format) => {
      await using directory = await tempDir();
      const long = format === "v7" ? "short" : `${"d".repeat(80)}/${"e".repeat(80)}`;
      await mkdir(join(directory.path, "in", long), { recursive: true });
      await writeFile(join(directory.path, "in", long, "file"), "content");

      const { stdout, exitCode } = Bun.spawnSync(
        ["tar", `--format=${format}`, "-cf", "-", "-C", join(directory.path, "in"), "."],
        { stderr: "pipe" },
      );

      expect(exitCode).toBe(0);
      const files = (await readAll(cut(stdout, 4096))).filter(({ kind }) => kind === "file");
      expect(files).toEqual([{ name: `./${long}/file`, kind: "file", text: "content" }]);
    },
  );

  test("tar: tar lists what was written", async () => {
    const directory = encodeTarHeader({ name: "blobs", size: 0, kind: "directory" });
    const archive = Buffer.concat([directory, encode(FILES)]);

    const { stdout, exitCode } = Bun.spawnSync(["tar", "-tf", "-"], { stdin: archive });

    expect(exitCode).toBe(0);
    expect(stdout.toString().trim().split("\n")).toEqual(["blobs/", ...Object.keys(FILES)]);
  });

  test("tar: GNU's binary sizes are read", async () => {
    const archive = encode({ file: "hello" });
    archive.fill(0, 124, 136);
    archive[124] = 0x80;
    archive[135] = 5;
    mendChecksum(archive);

    expect(await readAll(cut(archive, 512))).toEqual([
      { name: "file", kind: "file", text: "hello" },
    ]);
  });

  test("tar: a binary size that is negative or beyond all numbers is damage", async () => {
    for (const [at, byte] of [
      [124, 0xff],
      [127, 0x01],
    ] as const) {
      const archive = encode({ file: "hello" });
      archive.fill(0, 124, 136);
      archive[124] = 0x80;
      archive[135] = 5;
      archive[at] = byte;
      mendChecksum(archive);

      expect((await failure(archive)).message).toContain("is no number");
    }
  });

  test("tar: times where GNU keeps them are no part of a name", async () => {
    const archive = encode({ file: "hello" });
    archive.write("ustar  \0", 257, "latin1");
    archive.write("14712345670", 345, "latin1");
    mendChecksum(archive);

    expect(await readAll(cut(archive, 512))).toMatchObject([{ name: "file" }]);
  });

  test("tar: an empty file whose name ends in a slash is a directory, as before there were any", async () => {
    const [old, file] = await readAll(cut(tar([{ name: "d/" }, { name: "d/f" }]), 512));

    expect([old?.kind, file?.kind]).toEqual(["directory", "file"]);
  });

  test("tar: links say where they lead and what they are; devices are something else", async () => {
    const long = "t".repeat(150);
    const archive = tar([
      { name: "program", content: "x", mode: 0o755 },
      { name: "soft", type: "2", target: "program" },
      { name: "hard", type: "1", target: "program" },
      { name: "tty", type: "3" },
      { name: "p", type: "x", content: paxRecord("linkpath", long) },
      { name: "pax", type: "2", target: "cut" },
      { name: "l", type: "K", content: `${long}\0` },
      { name: "gnu", type: "2", target: "cut" },
    ]);

    const read: unknown[] = [];
    for await (const { body: _body, ...entry } of readTar(cut(archive, 700))) read.push(entry);

    const link = { size: 0, kind: "link", isHardLink: false, isExecutable: false };
    expect(read).toEqual([
      { ...link, name: "program", kind: "file", size: 1, target: "", isExecutable: true },
      { ...link, name: "soft", target: "program" },
      { ...link, name: "hard", target: "program", isHardLink: true },
      { ...link, name: "tty", kind: "other", target: "" },
      { ...link, name: "pax", target: long },
      { ...link, name: "gnu", target: long },
    ]);
  });

  test("tar: a link that repeats the size of its target has no body all the same", async () => {
    const archive = Buffer.concat([
      tar([{ name: "hard", type: "1", target: "a" }]).subarray(0, 512),
      encode({ after: "end" }),
    ]);
    archive.write("00000000777", 124, "latin1");
    mendChecksum(archive);

    expect(await readAll(cut(archive, 512))).toEqual([
      { name: "hard", kind: "link", text: "" },
      { name: "after", kind: "file", text: "end" },
    ]);
  });

  test("tar: a sparse file is refused instead of read as what it is not", async () => {
    const archive = tar([
      { name: "p", type: "x", content: paxRecord("GNU.sparse.major", "1") },
      { name: "sparse", content: "map" },
    ]);

    expect((await failure(archive)).message).toContain("sparse");
  });

  test("tar: zeros behind the end are a record's rest, anything else is not lost in silence", async () => {
    const archive = encode(FILES);
    const padded = Buffer.concat([archive, new Uint8Array(20 * 512)]);
    const two = Buffer.concat([archive, encode({ second: "lost" })]);
    const note = Buffer.concat([padded, Buffer.from("x")]);

    expect(await readAll(cut(padded, 700))).toHaveLength(3);
    expect((await failure(two)).message).toContain("something follows its end");
    expect((await failure(note)).message).toContain("something follows its end");
  });

  test("tar: no bytes at all are no archive; one of no entries is", async () => {
    expect((await failure(Buffer.alloc(0))).message).toContain("it is empty");
    expect(await readAll(cut(Buffer.from(TAR_END), 512))).toEqual([]);
  });

  test("tar: zeros for ever are no archive", async () => {
    const thrown = await readAll(endlessZeros()).catch((error: unknown) => error);

    expect((thrown as AppError).code).toBe("invalid_model_file");
  });

  test("tar: a source that can pass over bytes is not asked for those nobody reads", async () => {
    const archive = encode({ big: "x".repeat(100_000), after: "end" });
    let position = 0;
    let bytesRead = 0;
    const source = {
      skip: (bytes: number) => {
        position += bytes;
        return Promise.resolve();
      },
      async *[Symbol.asyncIterator]() {
        while (position < archive.length) {
          const chunk = archive.subarray(position, position + 512);
          position += chunk.length;
          bytesRead += chunk.length;
          yield chunk;
        }
      },
    };

    const names: string[] = [];
    for await (const { name } of readTar(source)) names.push(name);

    expect(names).toEqual(["big", "after"]);
    expect(bytesRead).toBeLessThan(5000);
  });

  test.each([100, 511, 513, 520, 1023])(
    "tar: an archive cut to %d bytes is an error",
    async (bytes) => {
      const error = await failure(encode(FILES).subarray(0, bytes));

      expect(error.code).toBe("invalid_model_file");
      expect(error.message).toContain("it ends within");
    },
  );

  test("tar: what is no archive fails at its checksum", async () => {
    const error = await failure(Buffer.from("GGUF".repeat(300)));

    expect(error.message).toContain("checksum");
  });

  test("tar: damage is an error or a difference, never a hang", async () => {
    const original = encode(FILES);
    const edit = fc.tuple(fc.nat(original.length - 1), fc.integer({ min: 1, max: 255 }));

    await fc.assert(
      fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 5 }), async (edits) => {
        const damaged = Buffer.from(original);
        for (const [position, change] of edits) {
          damaged[position] = ((damaged[position] ?? 0) + change) % 256;
        }
        const result = await readAll(cut(damaged, 700)).catch((error: unknown) => error);
        expect(Array.isArray(result) || result instanceof AppError).toBe(true);
      }),
    );
  });

  test("tar: an extended header that goes on for ever is refused", async () => {
    const header = Buffer.from(encodeTarHeader({ name: "x", size: 10_000_000, kind: "file" }));
    header[156] = "x".charCodeAt(0);
    mendChecksum(header);

    expect((await failure(header)).message).toContain("extended header is too long");
  });

  test.each(["notanumber path=x\n", "0 path=x\n", "12 size=-1\n\n", "11 size=1e3\n"])(
    "tar: the record %j is refused",
    async (record) => {
      const body = Buffer.from(record);
      const header = Buffer.from(encodeTarHeader({ name: "x", size: body.length, kind: "file" }));
      header[156] = "x".charCodeAt(0);
      mendChecksum(header);
      const padding = new Uint8Array(paddingOf(body.length));

      const error = await failure(Buffer.concat([header, body, padding, encode(FILES)]));

      expect(error.code).toBe("invalid_model_file");
    },
  );
});

/** Of the first header. */
function mendChecksum(archive: Buffer): void {
  archive.fill(" ", 148, 156);
  const sum = archive.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  archive.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
}
