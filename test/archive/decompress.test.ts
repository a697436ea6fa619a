import { describe, expect, test } from "bun:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { decompressed } from "../../src/archive/decompress.ts";
import { AppError } from "../../src/errors.ts";

const PACKERS = { gzip: gzipSync, zstd: zstdCompressSync } as const;

async function* cut(bytes: Uint8Array, size = 1000): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.slice(start, start + size);
}

async function unpacked(bytes: Uint8Array, maxBytes?: number): Promise<Buffer> {
  const options = maxBytes === undefined ? {} : { maxBytes };
  return Buffer.concat(await Array.fromAsync(decompressed(cut(bytes), options)));
}

describe("decompressed", () => {
  test.each(Object.entries(PACKERS))(
    "decompress: a bomb of %s ends at its bound",
    async (_name, pack) => {
      const bomb = pack(Buffer.alloc(200_000_000));
      let most = 0;
      const read = (async () => {
        for await (const chunk of decompressed(cut(bomb), { maxBytes: 5_000_000 }))
          most += chunk.length;
      })();

      const error = await read.catch((thrown: unknown) => thrown);

      expect(error).toBeInstanceOf(AppError);
      expect((error as AppError).message).toContain("unpacks to more than 5000000 bytes");
      expect(most).toBeLessThanOrEqual(5_000_000);
    },
  );

  test.each(Object.entries(PACKERS))(
    "decompress: several members of %s are one",
    async (_name, pack) => {
      const both = Buffer.concat([pack(Buffer.from("one ")), pack(Buffer.from("two"))]);

      expect((await unpacked(both)).toString()).toBe("one two");
    },
  );

  test.each(Object.entries(PACKERS))(
    "decompress: %s that is cut is damage",
    async (_name, pack) => {
      const noise = new Uint8Array(50_000).map((_, index) => (index * index * 31) >> 7);
      const whole = pack(noise);

      expect(await unpacked(whole, noise.length)).toEqual(Buffer.from(noise));
      const error = await unpacked(whole.subarray(0, whole.length / 2)).catch((e: unknown) => e);
      expect(error).toMatchObject({ code: "invalid_model_file" });
    },
  );

  test("decompress: what is not packed passes, within the same bound", async () => {
    expect((await unpacked(Buffer.from("plain"), 5)).toString()).toBe("plain");
    expect(await unpacked(Buffer.from("plain!"), 5).catch((e: unknown) => e)).toMatchObject({
      code: "invalid_model_file",
    });
  });
});
