import { describe, expect, test } from "bun:test";
import { isRoot, isWindows, testIf } from "../helpers/test-if.ts";
import {
  chmod,
  copyFile,
  mkdir,
  readFile,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join, relative } from "node:path";
import fc from "fast-check";
import { AppError } from "../../src/errors.ts";
import { readGgufFacts, splitNames } from "../../src/store/gguf.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { type GgufValue, encodeGguf, writeSparseGguf } from "./gguf-file.ts";

const PEBBLE = join(import.meta.dir, "../../src/models/pebble.gguf");
const SHARDS = [1, 2, 3].map((index) =>
  join(import.meta.dir, `../fixtures/pebble/pebble-chat-q8_0-0000${index}-of-00003.gguf`),
);
const [SHARD_1 = "", SHARD_2 = "", SHARD_3 = ""] = SHARDS;
const GIB = 1024 ** 3;

const read = (path: string, signal = new AbortController().signal) =>
  readGgufFacts(path, { signal });

async function failure(path: string, signal?: AbortSignal): Promise<AppError> {
  const thrown = await read(path, signal).then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof AppError)) throw new Error(`no AppError but ${String(thrown)}`);
  return thrown;
}

describe("readGgufFacts", () => {
  test("gguf: a single file tells its facts", async () => {
    const facts = await read(PEBBLE);

    expect(facts).toMatchObject({
      architecture: "llama",
      name: "Pebble Chat",
      license: "apache-2.0",
      quantization: "Q8_0",
      parameterCount: 2_755_008,
      tensorBytes: 2_934_528,
      contextTokens: 2048,
      isProjector: false,
    });
    expect(facts.files).toEqual([
      { path: PEBBLE, sizeBytes: 3_000_768, modifiedMs: expect.any(Number) },
    ]);
  });

  test("gguf: the header reads as text, without vocabularies", async () => {
    const { header } = await read(PEBBLE);

    expect(header["llama.context_length"]).toBe("2048");
    expect(header["llama.attention.layer_norm_rms_epsilon"]).toBe("0.000010");
    expect(header["general.tags"]).toBe("text-generation, test-fixture");
    expect(header["tokenizer.ggml.add_bos_token"]).toBe("false");
    expect(header["tokenizer.chat_template"]).toContain("<|im_start|>");
    expect(Object.keys(header)).toEqual(Object.keys(header).toSorted());
    expect(header["tokenizer.ggml.tokens"]).toBeUndefined();
    expect(header["version"]).toBeUndefined();
  });

  test.each(SHARDS)("gguf: any shard stands for the whole model (%#)", async (path) => {
    const whole = await read(PEBBLE);

    const { files, ...facts } = await read(path);

    expect(files.map((file) => file.path)).toEqual(SHARDS);
    expect({ ...facts, files: whole.files }).toEqual(whole);
  });

  test("gguf: a relative path is read like an absolute one", async () => {
    const facts = await read(relative(process.cwd(), SHARD_2));

    expect(facts.parameterCount).toBe(2_755_008);
    expect(facts.files).toHaveLength(3);
  });

  test("gguf: a name with spaces and other scripts is read, and so is a link to the file", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "kleines modell – 模型.gguf");
    await symlink(PEBBLE, path);

    const facts = await read(path);

    expect(facts.files[0]?.path).toBe(path);
    expect(facts.files[0]?.sizeBytes).toBe(3_000_768);
  });

  test("gguf: the time of change does not change the facts", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "pebble.gguf");
    await copyFile(PEBBLE, path);
    await utimes(path, 1, 1);

    const { files, ...facts } = await read(path);

    expect(files[0]?.modifiedMs).toBe(1000);
    const { files: _, ...expected } = await read(PEBBLE);
    expect(facts).toEqual(expected);
  });

  test("gguf: of a file of 40 GiB only the header is read", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "big.gguf");
    const tensors = Array.from({ length: 40 }, (_, index) => ({
      name: `blk.${index}.ffn_up.weight`,
      shape: [32_768, 8192],
      dtype: 0,
      offset: index * GIB,
    }));
    const tokens = {
      array: Array.from({ length: 150_000 }, (_, id) => ({ string: `token ${id}` })),
    };
    const values = { "general.architecture": { string: "llama" }, "tokenizer.ggml.tokens": tokens };
    const headerBytes = encodeGguf({ values, tensors }).length;
    await writeSparseGguf(path, { values, tensors }, headerBytes + 40 * GIB);
    const before = await bytesReadSoFar();

    const facts = await read(path);

    expect(facts.parameterCount).toBe(40 * 32_768 * 8192);
    expect(facts.tensorBytes).toBe(40 * GIB);
    expect(facts.quantization).toBe("F32");
    expect((await bytesReadSoFar()) - before).toBeLessThan(headerBytes + 10_000_000);
  });

  test("gguf: the last byte of the tensors must be there", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "big.gguf");
    const tensors = [{ name: "a", shape: [1024], dtype: 0, offset: 0 }];
    const size = encodeGguf({ values: {}, tensors }).length + 4096;
    await writeSparseGguf(path, { values: {}, tensors }, size);
    expect((await read(path)).parameterCount).toBe(1024);

    await truncate(path, size - 1);

    const error = await failure(path);
    expect(error.code).toBe("invalid_model_file");
    expect(error.message).toBe(
      `cannot read \`big.gguf\`: it is truncated: it has ${size - 1} bytes of ${size}`,
    );
    expect(error.details).toEqual({ sizeBytes: size - 1, neededBytes: size });
  });

  test.each([2_999_000, 1_500_000, 66_300, 66_240, 60_000, 30_000, 1000, 100, 24, 10, 5, 4])(
    "gguf: Pebble cut to %d bytes is refused",
    async (bytes) => {
      await using directory = await tempDir();
      const path = join(directory.path, "cut.gguf");
      await writeFile(path, (await readFile(PEBBLE)).subarray(0, bytes));

      const error = await failure(path);

      expect(error.code).toBe("invalid_model_file");
      expect(error.message).toMatch(/^cannot read `cut\.gguf`: /);
    },
  );

  test("gguf: a missing shard is named", async () => {
    await using directory = await tempDir();
    const [first = "", , third = ""] = splitNames(join(directory.path, "my-00001-of-00003.gguf"));
    await copyFile(SHARD_1, first);
    await copyFile(SHARD_3, third);

    const error = await failure(third);

    expect(error.code).toBe("invalid_model_file");
    expect(error.message).toContain("`my-00002-of-00003.gguf`");
    expect(error.hint).toContain("one directory");
  });

  test("gguf: a truncated shard is named, whichever was given", async () => {
    await using directory = await tempDir();
    const names = splitNames(join(directory.path, "my-00001-of-00003.gguf"));
    for (const [index, name] of names.entries()) await copyFile(SHARDS[index] ?? "", name);
    await chmod(names[1] ?? "", 0o644);
    await truncate(names[1] ?? "", 800_000);

    const error = await failure(names[0] ?? "");

    expect(error.message).toContain("`my-00002-of-00003.gguf`: it is truncated");
  });

  test("gguf: shards of two models are not one model", async () => {
    await using directory = await tempDir();
    const names = splitNames(join(directory.path, "my-00001-of-00002.gguf"));
    const split = { "split.count": { uint32: 2 }, "split.tensors.count": { int32: 3 } };
    const tensors = [{ name: "a", shape: [8], dtype: 0, offset: 0 }];
    for (const [index, name] of names.entries()) {
      await writeSparseGguf(
        name,
        { values: { ...split, "split.no": { uint32: index } }, tensors },
        1024,
      );
    }

    expect((await failure(names[0] ?? "")).message).toContain("2 tensors of 3");
  });

  test("gguf: a shard that was renamed is refused", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "model.gguf");
    await copyFile(SHARD_2, path);

    expect((await failure(path)).message).toContain("shard 2 of 3");
  });

  test("gguf: swapped shards are refused", async () => {
    await using directory = await tempDir();
    const [first = "", second = "", third = ""] = splitNames(
      join(directory.path, "my-00001-of-00003.gguf"),
    );
    await copyFile(SHARD_1, first);
    await copyFile(SHARD_3, second);
    await copyFile(SHARD_2, third);

    expect((await failure(first)).message).toContain(
      "`my-00002-of-00003.gguf`: it is shard 3 of 3",
    );
  });

  test.each([
    ["another kind of file", "PK\u0003\u0004 and so on", "it is not a GGUF file"],
    ["an empty file", "", "it is empty"],
    ["a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid …", "Git LFS pointer"],
    ["three bytes of the magic number", "GGU", "it is not a GGUF file"],
  ])("gguf: %s is refused", async (_, content, reason) => {
    await using directory = await tempDir();
    const path = join(directory.path, "model.gguf");
    await writeFile(path, content);

    const error = await failure(path);

    expect(error.code).toBe("invalid_model_file");
    expect(error.message).toContain(reason);
  });

  test("gguf: a directory is refused", async () => {
    await using directory = await tempDir();
    await mkdir(join(directory.path, "model.gguf"));

    const error = await failure(join(directory.path, "model.gguf"));

    expect(error.code).toBe("invalid_model_file");
    expect(error.message).toBe("cannot read `model.gguf`: it is a directory");
  });

  test("gguf: a missing file is not found", async () => {
    const error = await failure("/nowhere/model.gguf");

    expect(error.code).toBe("not_found");
    expect(error.hint).toContain("/nowhere/model.gguf");
  });

  testIf(!isWindows, "Windows works otherwise")(
    "gguf: a named pipe is not waited for",
    async () => {
      await using directory = await tempDir();
      const path = join(directory.path, "pipe.gguf");
      Bun.spawnSync(["mkfifo", path]);

      expect((await failure(path)).message).toContain("it is not a regular file");
    },
  );

  testIf(!isRoot, "root may read everything")("gguf: an unreadable file is forbidden", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "model.gguf");
    await copyFile(PEBBLE, path);
    await chmod(path, 0o000);

    expect((await failure(path)).code).toBe("forbidden");
  });

  test("gguf: an aborted read ends with the abort", async () => {
    const thrown = await read(PEBBLE, AbortSignal.abort()).catch((error: unknown) => error);

    expect((thrown as Error).name).toBe("AbortError");
  });

  test("gguf: a projector is known as one", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "mmproj.gguf");
    await writeSparseGguf(path, { values: { "general.architecture": { string: "clip" } } });

    expect((await read(path)).isProjector).toBe(true);
  });

  test("gguf: a file type that the converter guessed is named all the same", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "model.gguf");
    await writeSparseGguf(path, { values: { "general.file_type": { uint32: 1024 + 15 } } });

    expect((await read(path)).quantization).toBe("Q4_K_M");
  });

  test("gguf: any header comes back as text", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "model.gguf");
    const key = fc.stringMatching(/^general\.[a-z_]{12,20}$/);
    const scalar = fc.oneof(
      fc.nat().map((n): [GgufValue, string] => [{ uint32: n }, String(n)]),
      fc.string().map((text): [GgufValue, string] => [{ string: text }, text]),
      fc.boolean().map((flag): [GgufValue, string] => [{ bool: flag }, String(flag)]),
      fc.bigInt(0n, 2n ** 63n).map((n): [GgufValue, string] => [{ uint64: n }, String(n)]),
      fc
        .float({ noNaN: true, min: -1000, max: 1000 })
        .map((n): [GgufValue, string] => [{ float32: n }, n.toFixed(6)]),
    );

    await fc.assert(
      fc.asyncProperty(fc.dictionary(key, scalar, { maxKeys: 8 }), async (entries) => {
        const pairs = Object.entries(entries);
        const values = Object.fromEntries(pairs.map(([name, [value]]) => [name, value]));
        await writeSparseGguf(path, { values });
        const { header } = await read(path);
        expect(header).toEqual(Object.fromEntries(pairs.map(([name, [, text]]) => [name, text])));
      }),
      { numRuns: 50 },
    );
  });

  test("gguf: a damaged header is an error, never a hang or a crash", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "model.gguf");
    const original = (await readFile(PEBBLE)).subarray(0, 4000);
    const edits = fc.array(fc.tuple(fc.integer({ min: 4, max: 3999 }), fc.nat(255)), {
      minLength: 1,
      maxLength: 6,
    });

    await fc.assert(
      fc.asyncProperty(edits, async (bytes) => {
        const damaged = Buffer.from(original);
        for (const [position, value] of bytes) damaged[position] = value;
        await writeFile(path, damaged);
        expect((await failure(path)).code).toBe("invalid_model_file");
      }),
      { numRuns: 40 },
    );
  });
});

describe("splitNames", () => {
  test("splitNames: a plain name is alone", () => {
    expect(splitNames("/m/model.gguf")).toEqual(["/m/model.gguf"]);
  });

  test("splitNames: any shard gives all of them in order", () => {
    const names = splitNames(join("/m", "a b-00002-of-00003.GGUF"));

    expect(names).toEqual([1, 2, 3].map((index) => join("/m", `a b-0000${index}-of-00003.GGUF`)));
  });

  test.each(["x-00004-of-00003.gguf", "x-00000-of-00003.gguf", "x-1-of-3.gguf"])(
    "splitNames: %s is no shard",
    (name) => {
      expect(splitNames(name)).toEqual([name]);
    },
  );
});

/** Bytes that this process has asked the system for; 0 where that is not known. */
async function bytesReadSoFar(): Promise<number> {
  const io = await readFile("/proc/self/io", "utf8").catch(() => "rchar: 0");
  return Number(/rchar: (\d+)/.exec(io)?.[1]);
}
