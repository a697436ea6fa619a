import { describe, expect, test } from "bun:test";
import { chmod, mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { AppError } from "../../src/errors.ts";
import {
  parseSafetensorsHeader,
  readSafetensorsHeader,
} from "../../src/store/safetensors-header.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { testIf } from "../helpers/test-if.ts";
import { failureOf } from "./failure-of.ts";
import { encodeRaw, encodeSafetensors } from "./safetensors-file.ts";

const { signal } = new AbortController();
const isRoot = process.getuid?.() === 0;

/** Reads these bytes as a file. */
async function read(bytes: Uint8Array, name = "model.safetensors") {
  await using directory = await tempDir();
  // In the store a file is called by its digest: messages must have the name.
  const location = join(directory.path, "0123");
  await writeFile(location, bytes);
  return await readSafetensorsHeader({ location, name }, { signal });
}

const raw = (header: unknown, dataBytes = 0): Buffer =>
  encodeRaw(typeof header === "string" ? header : JSON.stringify(header), dataBytes);

const tensor = (value: unknown, dataBytes = 4): Buffer => raw({ a: value }, dataBytes);
const SCALAR = { dtype: "F32", shape: [], data_offsets: [0, 4] };

const HOSTILE: Readonly<Record<string, readonly [bytes: Uint8Array, message: RegExp]>> = {
  "an empty file": [Buffer.alloc(0), /is empty/],
  "seven bytes": [Buffer.alloc(7), /truncated/],
  "a text": [Buffer.from("this is not a model, it is a text"), /not a safetensors file/],
  "a Git LFS pointer": [Buffer.from("version https://git-lfs.github.com/spec/v1\n"), /Git LFS/],
  "a header that would be larger than all memory": [
    Buffer.from([255, 255, 255, 255, 255, 255, 255, 255, 0x7b]),
    /not a safetensors file/,
  ],
  "a header over the format's limit": [
    Buffer.concat([Buffer.from(new BigUint64Array([100_000_001n]).buffer), Buffer.from("{}")]),
    /not a safetensors file/,
  ],
  "a header that is longer than the file": [
    Buffer.concat([Buffer.from(new BigUint64Array([50_000_000n]).buffer), Buffer.from("{}")]),
    /truncated: it ends within its header/,
  ],
  "a header that is no JSON": [raw("{no"), /damaged \(it is not JSON\)/],
  "a header that is no UTF-8": [
    Buffer.concat([Buffer.from(new BigUint64Array([3n]).buffer), Buffer.from([0x7b, 0xff, 0x7d])]),
    /damaged \(it is not JSON\)/,
  ],
  "a header that is a list": [raw("[]"), /not a safetensors file/],
  "a tensor that is a number": [tensor(1), /tensor "a" is not an object/],
  "a tensor without a type": [tensor({ ...SCALAR, dtype: 7 }), /has no type/],
  "a type that is a sentence": [tensor({ ...SCALAR, dtype: "F 32\u001B[2J" }), /has no type/],
  "a tensor without a shape": [tensor({ ...SCALAR, shape: "2" }), /has no shape/],
  "a negative size": [tensor({ ...SCALAR, shape: [-1] }), /has no shape/],
  "half an element": [tensor({ ...SCALAR, shape: [0.5] }), /has no shape/],
  "sizes beyond all numbers": [
    tensor({ ...SCALAR, shape: [2 ** 50, 2 ** 50] }),
    /has an impossible size/,
  ],
  "a tensor without a place": [tensor({ ...SCALAR, data_offsets: [0] }), /has no place/],
  "a tensor in three places": [tensor({ ...SCALAR, data_offsets: [0, 2, 4] }), /has no place/],
  "a tensor that ends before it begins": [
    tensor({ ...SCALAR, data_offsets: [4, 0] }),
    /has an impossible size/,
  ],
  "a place of another size than the shape": [
    tensor({ ...SCALAR, shape: [2] }),
    /another size than its shape/,
  ],
  "a hole before the first tensor": [
    tensor({ ...SCALAR, data_offsets: [4, 8] }, 8),
    /overlap or have gaps/,
  ],
  "two tensors in one place": [raw({ a: SCALAR, b: SCALAR }, 4), /overlap or have gaps/],
  "tensors behind the end": [tensor(SCALAR, 3), /truncated: it has 3 bytes of tensors of 4/],
  "bytes that no tensor has": [tensor(SCALAR, 5), /1 bytes more than its header says/],
};

describe("readSafetensorsHeader", () => {
  test("safetensors: tensors, types and metadata are read, the tensors themselves are not", async () => {
    const bytes = encodeSafetensors(
      [
        { name: "a", dtype: "F16", shape: [2, 3] },
        { name: "b", dtype: "F32", shape: [] },
      ],
      { format: "pt" },
    );

    const header = await read(bytes);

    expect(header).toMatchObject({
      sizeBytes: bytes.length,
      metadata: { format: "pt" },
      tensors: [
        { name: "a", dtype: "F16", elements: 6 },
        { name: "b", dtype: "F32", elements: 1 },
      ],
    });
  });

  test("safetensors: a file without tensors is one", async () => {
    expect((await read(encodeSafetensors([]))).tensors).toEqual([]);
  });

  test("safetensors: a header padded with spaces is fine", async () => {
    expect((await read(raw(`{}${" ".repeat(100)}`))).tensors).toEqual([]);
  });

  test("safetensors: a type that is not known yet is taken at its word", async () => {
    const packed = { dtype: "F4", shape: [16], data_offsets: [0, 8] };
    expect((await read(tensor(packed, 8))).tensors[0]).toMatchObject({ dtype: "F4", elements: 16 });
  });

  test("safetensors: metadata is in one order, without long texts and what is no text", async () => {
    const metadata = { z: "last", a: "first", n: 1, long: "x".repeat(10_000), o: {} };

    const header = await read(encodeSafetensors([], metadata));

    expect(Object.entries(header.metadata)).toEqual([
      ["a", "first"],
      ["z", "last"],
    ]);
  });

  test("safetensors: endless metadata is cut", async () => {
    const metadata = Object.fromEntries(
      Array.from({ length: 1000 }, (_, index) => [`key-${index}`, "text"]),
    );

    const { metadata: read1 } = await read(encodeSafetensors([], metadata));

    expect(Object.keys(read1)).toHaveLength(256);
  });

  test("safetensors: a name that every object has is a tensor like others", async () => {
    const bytes = raw('{"__proto__":{"dtype":"constructor","shape":[4],"data_offsets":[0,4]}}', 4);
    const outcome = await read(bytes).catch((error: unknown) => error);
    expect(({} as Record<string, unknown>)["dtype"]).toBeUndefined();
    if (!(outcome instanceof AppError)) expect(outcome).toMatchObject({ sizeBytes: bytes.length });
  });

  test.each(Object.entries(HOSTILE))("safetensors: %s is refused", async (_, [bytes, message]) => {
    const error = await failureOf(read(bytes, "weights.safetensors"));

    expect(error).toMatchObject({ code: "invalid_model_file" });
    expect(error.message).toMatch(message);
    expect(error.message).toContain("`weights.safetensors`");
    expect(error.message).not.toMatch(/\p{Cc}/u);
  });

  test("safetensors: a file that was cut anywhere is refused", async () => {
    await using directory = await tempDir();
    const location = join(directory.path, "m.safetensors");
    const whole = encodeSafetensors([{ name: "a", dtype: "F32", shape: [4] }]);
    for (let size = 0; size < whole.length; size += 1) {
      await writeFile(location, whole);
      await truncate(location, size);
      const reading = readSafetensorsHeader({ location, name: "m" }, { signal });
      expect(await failureOf(reading)).toMatchObject({ code: "invalid_model_file" });
    }
  });

  test("safetensors: whatever the header says, it is read or refused", () => {
    const odd = fc.dictionary(
      fc.constantFrom("a", "b", "__metadata__", "__proto__"),
      fc.oneof(
        fc.jsonValue(),
        fc.record({
          dtype: fc.constantFrom("F32", "U8", "X"),
          shape: fc.array(fc.nat(4)),
          data_offsets: fc.array(fc.nat(16)),
        }),
      ),
    );

    fc.assert(
      fc.property(fc.oneof(odd, fc.jsonValue()), fc.nat(32), (value, dataBytes) => {
        const bytes = new TextEncoder().encode(JSON.stringify(value));
        try {
          const { tensors } = parseSafetensorsHeader(bytes, { name: "m", dataBytes });
          expect(tensors.every(({ elements }) => Number.isSafeInteger(elements))).toBe(true);
        } catch (error) {
          expect(error).toMatchObject({ code: "invalid_model_file" });
        }
      }),
    );
  });

  test("safetensors: what is not there, and what is no file", async () => {
    await using directory = await tempDir();
    await mkdir(join(directory.path, "d"));
    const open = (name: string) =>
      readSafetensorsHeader({ location: join(directory.path, name), name }, { signal });

    expect(await failureOf(open("none"))).toMatchObject({ code: "not_found" });
    expect(await failureOf(open("d"))).toMatchObject({ code: "invalid_model_file" });
  });

  testIf(!isRoot, "root may read everything")(
    "safetensors: a file that may not be read",
    async () => {
      await using directory = await tempDir();
      const location = join(directory.path, "m");
      await writeFile(location, encodeSafetensors([]));
      await chmod(location, 0);
      const reading = readSafetensorsHeader({ location, name: "m" }, { signal });
      expect(await failureOf(reading)).toMatchObject({ code: "forbidden" });
    },
  );

  test("safetensors: an abort ends it", async () => {
    const reading = readSafetensorsHeader(
      { location: "/nowhere", name: "m" },
      { signal: AbortSignal.abort() },
    );
    expect((await failureOf(reading)).name).toBe("AbortError");
  });
});
