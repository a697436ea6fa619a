import { describe, expect, test } from "bun:test";
import { testIf } from "../../helpers/test-if.ts";
import { mkdir, readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";

import fc from "fast-check";

import { readArchive, unpackTar } from "../../../src/runtime/installer/untar.ts";
import { unpackZip } from "../../../src/runtime/installer/unzip.ts";
import { failureOf } from "./failure-of.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { paxRecord } from "../../helpers/tar.ts";
import { engineArchive, tarGz } from "./archives.ts";

const signal = new AbortController().signal;

async function unpack(
  content: Uint8Array,
  check: (directory: string) => Promise<void>,
  unpacker = unpackTar,
): Promise<void> {
  await using root = await tempDir();
  const archive = join(root.path, "archive");
  const directory = join(root.path, "out");
  await Bun.write(archive, content);
  await mkdir(directory);
  await unpacker({ archive, directory, signal });
  await check(directory);
}

const nothing = (): Promise<void> => Promise.resolve();

describe("unpackTar", () => {
  test("untar: files, modes and links come out", async () => {
    await unpack(engineArchive(), async (directory) => {
      const server = await stat(join(directory, "llama-b1/llama-server"));
      expect(server.mode & 0o777).toBe(0o755);
      expect(await readlink(join(directory, "llama-b1/libllama.so"))).toBe("libllama.so.0.1");
      expect((await readFile(join(directory, "llama-b1/libllama.so"))).length).toBe(70_000);
    });
  });

  testIf(Bun.which("tar") !== null, "there is no tar here")(
    "untar: what GNU tar and its PAX mode write is read, long and foreign names included",
    async () => {
      await using root = await tempDir();
      const long = `${"d".repeat(90)}/${"ü".repeat(90)}.txt`;
      await Bun.write(join(root.path, "in", long), "long");
      for (const format of ["gnu", "pax"]) {
        const tar = Bun.spawn(["tar", `--format=${format}`, "-czf", "-", "-C", "in", "."], {
          cwd: root.path,
          stdout: "pipe",
          stderr: "ignore",
        });
        await unpack(await tar.stdout.bytes(), async (directory) => {
          expect(await Bun.file(join(directory, long)).text()).toBe("long");
        });
      }
    },
  );

  test.each([
    ["a parent", [{ name: "../escape", content: "x" }]],
    ["an inner parent", [{ name: "a/../../escape", content: "x" }]],
    ["an absolute name", [{ name: "/tmp/escape", content: "x" }]],
    ["a drive", [{ name: "C:escape", content: "x" }]],
    ["a backslash", [{ name: "..\\escape", content: "x" }]],
    ["a link out", [{ name: "link", type: "2", target: "../../etc" }]],
    ["an absolute link", [{ name: "link", type: "2", target: "/etc/passwd" }]],
    [
      "a PAX name out",
      [
        { name: "p", type: "x", content: paxRecord("path", "../../escape") },
        { name: "innocent", content: "x" },
      ],
    ],
  ])("untar: %s is refused", async (_name, entries) => {
    expect(await failureOf(unpack(tarGz(entries), nothing))).toHaveProperty(
      "message",
      expect.stringMatching(/leads out of it/),
    );
  });

  test("untar: a file cannot be written through a link of the archive", async () => {
    const entries = [
      { name: "a", type: "2", target: "b" },
      { name: "a/file", content: "x" },
    ];

    expect(await failureOf(unpack(tarGz(entries), nothing))).toBeInstanceOf(Error);
  });

  test.each([
    [
      "a link out by way of another one",
      [
        { name: "a/b/c/file", content: "x" },
        { name: "a/b/c/up", type: "2", target: "../../../a" },
        { name: "out", type: "2", target: "a/b/c/up/../../" },
      ],
      /leads out of it/,
    ],
    [
      "a link below another one",
      [
        { name: "lib/file", content: "x" },
        { name: "bin/d", type: "2", target: "../lib" },
        { name: "bin/d/x", type: "2", target: "../../lib/file" },
      ],
      /below a link/,
    ],
    ["a file twice", [{ name: "a/f" }, { name: "a/f" }], /two things in it are called `f`/],
    ["a file for a directory", [{ name: "a" }, { name: "a/f" }], /two things in it/],
    ["a link to itself", [{ name: "l", type: "2", target: "l" }], /leads out of it/],
  ])("untar: %s is refused", async (_name, entries, message) => {
    expect(await failureOf(unpack(tarGz(entries), nothing))).toHaveProperty(
      "message",
      expect.stringMatching(message),
    );
  });

  test("untar: who has given up is not kept until a large entry is passed over", async () => {
    await using root = await tempDir();
    const archive = join(root.path, "archive");
    await Bun.write(archive, tarGz([{ name: "large", content: new Uint8Array(16 * 2 ** 20) }]));
    const giveUp = new AbortController();
    const read = async (): Promise<void> => {
      for await (const _ of readArchive(archive, Infinity, giveUp.signal)) giveUp.abort();
    };

    expect(await failureOf(read())).toHaveProperty("name", "AbortError");
  });

  test("untar: a device is refused", async () => {
    expect(await failureOf(unpack(tarGz([{ name: "tty", type: "3" }]), nothing))).toHaveProperty(
      "message",
      expect.stringMatching(/neither file nor directory/),
    );
  });

  test("untar: an archive cut anywhere, or with any byte changed, is an error or complete", async () => {
    const whole = Buffer.from(engineArchive());
    const damage = fc.oneof(
      fc.nat(whole.length - 1).map((length) => whole.subarray(0, length)),
      fc.tuple(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 })).map(([at, change]) => {
        const copy = Buffer.from(whole);
        copy[at] = (copy[at] ?? 0) ^ change;
        return copy;
      }),
    );

    await fc.assert(
      fc.asyncProperty(damage, async (bytes) => {
        const outcome = await unpack(bytes, async (directory) => {
          // Bytes that do not matter (time stamp, padding) may change.
          const library = join(directory, "llama-b1/libllama.so.0.1");
          expect((await stat(library)).size).toBe(70_000);
        }).catch((error: unknown) => error);
        expect(
          outcome === undefined || (outcome as { code?: string }).code === "install_failed",
        ).toBe(true);
      }),
      { numRuns: 60 },
    );
  });
});

describe("unpackZip", () => {
  const python = Bun.which("python3");

  async function zip(script: string): Promise<Uint8Array> {
    const child = Bun.spawn([python ?? "", "-c", script], { stdout: "pipe", stderr: "inherit" });
    return child.stdout.bytes();
  }

  const HONEST = `
import io, sys, zipfile
b = io.BytesIO()
z = zipfile.ZipFile(b, "w", zipfile.ZIP_DEFLATED)
z.writestr("build/bin/llama-server.exe", "x" * 100000)
z.writestr(zipfile.ZipInfo("build/stored é.txt"), "stored")
z.writestr("build/empty.txt", "")
z.writestr("build/dir/", "")
z.comment = b"PK" * 100
z.close()
sys.stdout.buffer.write(b.getvalue())
`;

  testIf(python !== null, "there is no Python here")(
    "unzip: deflated, stored and empty entries come out",
    async () => {
      const content = await zip(HONEST);

      await unpack(
        content,
        async (directory) => {
          expect((await stat(join(directory, "build/bin/llama-server.exe"))).size).toBe(100_000);
          expect(await Bun.file(join(directory, "build/stored é.txt")).text()).toBe("stored");
          expect(await Bun.file(join(directory, "build/empty.txt")).text()).toBe("");
          expect((await stat(join(directory, "build/dir"))).isDirectory()).toBe(true);
        },
        unpackZip,
      );
    },
  );

  testIf(python !== null, "there is no Python here")(
    "unzip: a name that climbs is refused",
    async () => {
      const content = await zip(HONEST.replaceAll("build/bin", "build/../.."));

      expect(await failureOf(unpack(content, nothing, unpackZip))).toHaveProperty(
        "message",
        expect.stringMatching(/leads out of it/),
      );
    },
  );

  testIf(python !== null, "there is no Python here")(
    "unzip: a cut archive is refused",
    async () => {
      const content = await zip(HONEST);

      expect(
        await failureOf(unpack(content.subarray(0, content.length - 300), nothing, unpackZip)),
      ).toHaveProperty("message", expect.stringMatching(/not a zip archive/));
    },
  );
});
