import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { isRoot, testIf } from "../helpers/test-if.ts";
import { chmod, mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import {
  expandMessage,
  findCandidates,
  sniffImage,
  TEXT_FILE_LIMIT,
} from "../../src/chat/attachments.ts";
import { AppError } from "../../src/errors.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const PNG = Buffer.from("89504e470d0a1a0a0000000d49484452", "hex");
const PNG_URL = `data:image/png;base64,${PNG.toString("base64")}`;
const image = { type: "image_url", image_url: { url: PNG_URL } };

let directory: Awaited<ReturnType<typeof tempDir>>;
let work: string;

beforeAll(async () => {
  directory = await tempDir();
  work = join(directory.path, "work");
  await mkdir(join(work, "sub"), { recursive: true });
  await writeFile(join(work, "a.txt"), "text of a");
  await writeFile(join(work, "with space é.txt"), "spaced");
  await writeFile(join(work, "dollar.txt"), "$1 $& $name @a.txt ./pic.png");
  await writeFile(join(work, "bom.txt"), "\uFEFFtext");
  await writeFile(join(work, "zero.bin"), Buffer.from([65, 0, 66]));
  await writeFile(join(work, "latin.txt"), Buffer.from([0xe9, 0x20, 0xe8]));
  await writeFile(join(work, "big.txt"), "");
  await truncate(join(work, "big.txt"), TEXT_FILE_LIMIT + 1);
  await writeFile(join(work, "pic.png"), PNG);
  await writeFile(join(work, "my pic (1).png"), PNG);
  await writeFile(join(work, "fake.png"), "no image");
  await writeFile(join(directory.path, "up.png"), PNG);
});

afterAll(() => directory[Symbol.asyncDispose]());

const expand = (message: string): ReturnType<typeof expandMessage> =>
  expandMessage(message, { directory: work, home: directory.path });

async function failure(message: string): Promise<AppError> {
  const error = await expand(message).catch((thrown: unknown) => thrown);
  if (!(error instanceof AppError)) throw new Error("it did not fail");
  return error;
}

describe("expandMessage: text", () => {
  test.each([
    ["a file", "sum @a.txt up", "sum text of a up"],
    ["a file at the start", "@a.txt", "text of a"],
    ["a file in double quotes", 'see @"with space é.txt".', "see spaced."],
    ["a file in single quotes", "see @'with space é.txt'", "see spaced"],
    ["a file with escaped spaces", "see @with\\ space\\ é.txt", "see spaced"],
    ["a comma behind it", "@a.txt, please", "text of a, please"],
    ["punctuation of all kinds behind it", "(see @a.txt)?!", "(see text of a)?!"],
    ["two files", "@a.txt @a.txt", "text of a text of a"],
    ["a file in a folder above", "@../work/a.txt", "text of a"],
    [
      "content with dollars and names, taken as it is",
      "@dollar.txt",
      "$1 $& $name @a.txt ./pic.png",
    ],
    ["a byte order mark, dropped", "@bom.txt", "text"],
    ["a missing file, left alone", "@missing.txt, ok", "@missing.txt, ok"],
    ["a folder, left alone", "@sub and @.", "@sub and @."],
    ["an address, left alone", "me@a.txt", "me@a.txt"],
    ["a lone sign", "@ @\" @'", "@ @\" @'"],
  ])("attachments: %s", async (_, message, expected) => {
    expect((await expand(message)).content).toBe(expected);
  });

  test("attachments: the names of what was included are told", async () => {
    expect((await expand("@a.txt, ./pic.png")).files).toEqual(["a.txt", "./pic.png"]);
  });
});

describe("expandMessage: images", () => {
  test.each([
    ["a path beginning with ./", "what is ./pic.png ?", "what is  ?"],
    ["a path beginning with ../", "../up.png what is it", "what is it"],
    ["a path beginning with ~/", "~/up.png what is it", "what is it"],
    ["a path with spaces", "./my pic (1).png what is it", "what is it"],
    ["a path with escapes", "./my\\ pic\\ \\(1\\).png what is it", "what is it"],
    ["a path in quotes", "what is 'my pic (1).png'", "what is"],
    ["a name with @", "@pic.png, tell me", ", tell me"],
    ["a sentence that ends behind it", "look at ./pic.png.", "look at ."],
  ])("attachments: %s", async (_, message, text) => {
    expect((await expand(message)).content).toEqual([image, { type: "text", text }] as never);
  });

  test("attachments: an absolute path alone leaves no text", async () => {
    expect((await expand(join(work, "pic.png"))).content).toEqual([image] as never);
  });

  test("attachments: a path before an image is not taken for a part of it", async () => {
    const { content } = await expand("compare /etc/nothing and ./pic.png");

    expect(content).toEqual([image, { type: "text", text: "compare /etc/nothing and" }] as never);
  });

  test("attachments: a missing image is left alone", async () => {
    expect((await expand("./none.png and 'none.png'")).content).toBe("./none.png and 'none.png'");
  });
});

describe("expandMessage: refusals", () => {
  test.each([
    ["@zero.bin", "invalid_request", "it is not text"],
    ["@latin.txt", "invalid_request", "it is not text"],
    ["@big.txt", "request_too_large", "big.txt is over 1 MiB"],
    ["./fake.png", "invalid_request", "it is not an image"],
  ])("attachments: %s", async (message, code, part) => {
    const error = await failure(message);

    expect(error.code).toBe(code as never);
    expect(error.message).toContain(part);
    expect(error.hint).toBeDefined();
  });

  // Root may read everything.
  testIf(!isRoot, "root may read everything")(
    "attachments: a file that may not be read",
    async () => {
      await writeFile(join(work, "secret.txt"), "x");
      await chmod(join(work, "secret.txt"), 0);

      expect((await failure("@secret.txt")).message).toStartWith("cannot read `secret.txt`");
    },
  );

  test("attachments: an aborted signal stops it", async () => {
    const signal = AbortSignal.abort();

    expect(
      await expandMessage("@a.txt", { directory: work, signal }).catch((error: unknown) => error),
    ).toBeInstanceOf(Error);
  });
});

describe("findCandidates", () => {
  test("attachments: candidates lie in the message and in order, whatever it is", () => {
    const unit = fc.constantFrom("@", '"', "'", " ", "/", ".", "\\", "a", ".png", ",", "\n", "~");

    fc.assert(
      fc.property(fc.string({ unit }), (message) => {
        const candidates = findCandidates(message);
        const starts = candidates.map(({ start }) => start);
        expect(starts).toEqual(starts.toSorted((a, b) => a - b));
        for (const { start, ends } of candidates)
          for (const { end, path } of ends) {
            expect(path).not.toBe("");
            expect(end).toBeGreaterThan(start);
            expect(end).toBeLessThanOrEqual(message.length);
          }
      }),
    );
  });

  test("attachments: a drive of Windows begins a path and its separators stay", () => {
    expect(findCandidates("see C:\\my pics\\a.png now")[0]?.ends[0]?.path).toBe(
      "C:\\my pics\\a.png",
    );
  });

  test("attachments: a long message of names is looked at in no time", () => {
    const message = " /a.png".repeat(150_000);

    expect(findCandidates(message).length).toBeLessThanOrEqual(1000);
  });
});

describe("sniffImage", () => {
  test.each([
    ["ffd8ffe0", "image/jpeg"],
    ["524946460000000057454250", "image/webp"],
    ["474946383961", "image/gif"],
    ["00", undefined],
  ])("attachments: %s", (hex, type) => {
    expect(sniffImage(Buffer.from(hex, "hex"))).toBe(type);
  });
});
