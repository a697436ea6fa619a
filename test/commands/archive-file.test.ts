import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, readFile, readdir, readlink, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openArchiveFile, writeArchiveFile } from "../../src/commands/archive-file.ts";
import { AppError } from "../../src/errors.ts";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { testIf } from "../helpers/test-if.ts";

const mkfifo = Bun.which("mkfifo");

const BYTES = new TextEncoder().encode("an archive");

async function* chunks(...parts: (Uint8Array | Error)[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    if (part instanceof Error) throw part;
    yield part;
  }
}

const whole = () => ({
  sizeBytes: BYTES.length,
  chunks: chunks(BYTES.subarray(0, 3), BYTES.subarray(3)),
});

async function failure(work: Promise<unknown>): Promise<AppError> {
  const thrown = await work.catch((error: unknown) => error);
  if (thrown instanceof AppError) return thrown;
  throw new Error(`no AppError but ${String(thrown)}`);
}

describe("writeArchiveFile", () => {
  test("archive file: all is there, and how far it is was told", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "m.tar");
    const told: number[] = [];

    await writeArchiveFile(path, whole(), (done) => told.push(done));

    expect(await readFile(path)).toEqual(Buffer.from(BYTES));
    expect(told).toEqual([3, 10]);
    expect(await readdir(directory.path)).toEqual(["m.tar"]);
  });

  test.each([
    [
      "fails",
      () => chunks(BYTES.subarray(0, 3), new AppError("digest_mismatch", "damaged")),
      "digest_mismatch",
    ],
    ["ends early", () => chunks(BYTES.subarray(0, 3)), "runner_unreachable"],
    ["goes on for too long", () => chunks(BYTES, BYTES), "runner_unreachable"],
  ] as const)("archive file: one that %s leaves what was there", async (_, make, code) => {
    await using directory = await tempDir();
    const path = join(directory.path, "m.tar");
    await writeFile(path, "before");
    const archive = { sizeBytes: BYTES.length, chunks: make() };

    expect((await failure(writeArchiveFile(path, archive, () => undefined))).code).toBe(code);

    expect(await readFile(path, "utf8")).toBe("before");
    expect(await readdir(directory.path)).toEqual(["m.tar"]);
  });

  test("archive file: a symlink stays one", async () => {
    await using directory = await tempDir();
    const [real, link] = [join(directory.path, "real.tar"), join(directory.path, "link.tar")];
    await writeFile(real, "before");
    await symlink("real.tar", link);

    await writeArchiveFile(link, whole(), () => undefined);

    expect(await readlink(link)).toBe("real.tar");
    expect(await readFile(real)).toEqual(Buffer.from(BYTES));
  });

  test("archive file: a device is written to, never replaced", async () => {
    await writeArchiveFile("/dev/null", whole(), () => undefined);

    expect((await stat("/dev/null")).isCharacterDevice()).toBe(true);
  });

  test("archive file: a directory, and a file in none, are refused", async () => {
    await using directory = await tempDir();
    const nowhere = join(directory.path, "no", "m.tar");

    const onDirectory = await failure(writeArchiveFile(directory.path, whole(), () => undefined));
    const inNothing = await failure(writeArchiveFile(nowhere, whole(), () => undefined));

    expect(onDirectory.message).toContain("is a directory");
    expect(inNothing.message).toBe(
      `cannot open \`${nowhere}\`: there is no such file or directory`,
    );
  });
});

describe("openArchiveFile", () => {
  test("archive file: it is read; what cannot be is an error at once", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "m.tar");
    await writeFile(path, BYTES);
    await mkdir(join(directory.path, "layout"));

    expect(await new Response(await openArchiveFile(path)).bytes()).toEqual(BYTES);
    expect((await failure(openArchiveFile(join(directory.path, "no")))).code).toBe("not_found");
    const refused = await failure(openArchiveFile(join(directory.path, "layout")));
    expect(refused.hint).toContain("tug import -");
  });

  testIf(mkfifo !== null, "there is no mkfifo here")(
    "archive file: a named pipe is read to its end",
    async () => {
      await using directory = await tempDir();
      const path = join(directory.path, "pipe");
      await Bun.spawn([mkfifo ?? "", path]).exited;
      const written = `${path}.written`;
      const script = 'exec 3>"$0"; printf an >&3 && touch "$1"; printf " archive" >&3';
      const writer = Bun.spawn(["sh", "-c", script, path, written]);

      const stream = await openArchiveFile(path);
      // Somebody has to hold the other end, also before the first byte is wanted.
      await eventually(() => writer.exitCode !== null || existsSync(written));

      expect(await new Response(stream).bytes()).toEqual(BYTES);
      expect(await writer.exited).toBe(0);
    },
  );
});
