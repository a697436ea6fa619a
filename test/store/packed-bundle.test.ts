import { describe, expect, test } from "bun:test";
import { mkdir, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { AppError } from "../../src/errors.ts";
import {
  DOCKER_CONFIG_V01,
  DOCKER_CONFIG_V02,
  DOCKER_DIR_TAR,
  DOCKER_GGUF,
  DOCKER_GGUF_LORA,
  DOCKER_GGUF_MMPROJ,
  DOCKER_SAFETENSORS,
  DOCKER_VLLM_CONFIG_TAR,
  FILE_PATH,
  MODELPACK_CONFIG,
  MODELPACK_MANIFEST,
  MODELPACK_WEIGHT,
} from "../../src/oci/media-types.ts";
import { PathClaims } from "../../src/store/path-claims.ts";
import { Store } from "../../src/store/store.ts";
import { placeOf, unpackArchives } from "../../src/store/unpack-archives.ts";
import { tar } from "../helpers/tar.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";
import { commitSample, filesIn, type SampleLayer, type SampleOptions } from "./sample-model.ts";

const MODELPACK = { configType: MODELPACK_CONFIG, artifactType: MODELPACK_MANIFEST };
const WEIGHT_TAR = "application/vnd.cncf.model.weight.v1.tar";
const CONFIG_TAR = "application/vnd.cncf.model.weight.config.v1.tar";
const signal = new AbortController().signal;

describe("a bundle of archives", () => {
  test.each([
    ["plain", WEIGHT_TAR, (bytes: Buffer<ArrayBuffer>) => bytes],
    ["gzip", `${WEIGHT_TAR}+gzip`, Bun.gzipSync],
    ["zstd", `${WEIGHT_TAR}+zstd`, zstdCompressSync],
  ] as const)("%s: shard 1 is what the engine is given", async (_name, mediaType, pack) => {
    const shards = [2, 1].map((number) => ({
      name: `q4/m-0000${number}-of-00002.gguf`,
      content: `shard ${number}`,
    }));
    await using opened = await openSample({
      ...MODELPACK,
      layers: [
        layer(mediaType, pack(tar([{ name: "q4/", type: "5" }, ...shards])), "q4"),
        layer(CONFIG_TAR, tar([{ name: "./chat_template.jinja", content: "{{ t }}" }])),
      ],
    });

    expect(opened.files).toEqual([
      "chat_template.jinja",
      join("q4", "m-00001-of-00002.gguf"),
      join("q4", "m-00002-of-00002.gguf"),
    ]);
    expect(opened.bundle).toMatchObject({ format: "gguf", weightBytes: 14 });
    expect(await readFile(opened.bundle.model, "utf8")).toBe("shard 1");
    expect(await readFile(opened.bundle.chatTemplate ?? "", "utf8")).toBe("{{ t }}");
    expect((await stat(opened.bundle.model)).mode & 0o777).toBe(0o444);
  });

  test("projectors are told by name, hidden files and those of documents are none of an engine's", async () => {
    await using opened = await openSample({
      ...MODELPACK,
      layers: [
        layer(
          WEIGHT_TAR,
          tar([
            { name: "._m.gguf", content: "note" },
            { name: "sub/other.gguf", content: "o" },
            { name: "m.gguf", content: "weights" },
            { name: "mmproj-f16.gguf", content: "projector" },
          ]),
        ),
        layer(
          "application/vnd.cncf.model.doc.v1.tar",
          tar([
            { name: "doc/a.gguf", content: "x" },
            { name: "doc/t.jinja", content: "x" },
          ]),
        ),
      ],
    });

    expect(basename(opened.bundle.model)).toBe("m.gguf");
    expect(basename(opened.bundle.mmproj ?? "")).toBe("mmproj-f16.gguf");
    expect(opened.bundle.chatTemplate).toBeUndefined();
    expect(opened.bundle.weightBytes).toBe(8);
  });

  test("a single file without an extension is what the config says", async () => {
    await using opened = await openSample({
      ...MODELPACK,
      config: { config: { format: "GGUF" } },
      layers: [layer(WEIGHT_TAR, tar([{ name: "weights.bin", content: "w" }]))],
    });

    expect(opened.bundle.format).toBe("gguf");
    expect(basename(opened.bundle.model)).toBe("weights.bin");
  });

  test("an older model has its configuration and directories in archives", async () => {
    await using opened = await openSample({
      layers: [
        layer(DOCKER_SAFETENSORS, "w"),
        layer(DOCKER_VLLM_CONFIG_TAR, tar([{ name: "config.json", content: "{}" }])),
        layer(DOCKER_DIR_TAR, tar([{ name: "a/x.txt", content: "1" }])),
        layer(DOCKER_DIR_TAR, Bun.gzipSync(tar([{ name: "b/x.txt", content: "2" }]))),
      ],
    });

    expect(opened.files).toEqual([
      join("a", "x.txt"),
      join("b", "x.txt"),
      "config.json",
      "model.safetensors",
    ]);
    expect(opened.bundle).toMatchObject({ format: "safetensors", weightBytes: 1 });
  });

  test("weights may be in a directory's archive alone", async () => {
    await using opened = await openSample({
      layers: [
        layer(
          DOCKER_DIR_TAR,
          tar([
            { name: "m/model.safetensors", content: "w" },
            { name: "m/config.json", content: "{}" },
          ]),
        ),
      ],
    });

    expect(opened.bundle.format).toBe("safetensors");
    expect(relative(opened.bundle.directory, opened.bundle.model)).toBe(
      join("m", "model.safetensors"),
    );
  });

  test("adapters and projectors in the words of Docker's specification, declared or typed", async () => {
    const [v01, v02] = [DOCKER_CONFIG_V01, DOCKER_CONFIG_V02].map((configType) =>
      openSample({
        configType,
        layers: [
          layer(DOCKER_GGUF, "w", "m.gguf"),
          layer(DOCKER_GGUF_MMPROJ, "p", "p.gguf"),
          layer(DOCKER_GGUF_LORA, "a", "one.gguf"),
          layer(DOCKER_GGUF_LORA, "b", "two.gguf"),
        ],
      }),
    );
    await using older = await (v01 as ReturnType<typeof openSample>);
    await using newer = await (v02 as ReturnType<typeof openSample>);

    expect(older.files).toEqual(["adapter-1.gguf", "adapter-2.gguf", "model.gguf", "model.mmproj"]);
    expect(newer.files).toEqual(["m.gguf", "one.gguf", "p.gguf", "two.gguf"]);
    for (const { bundle } of [older, newer]) {
      const contents = (bundle.adapters ?? []).map((path) => readFile(path, "utf8"));
      expect(await Promise.all(contents)).toEqual(["a", "b"]);
      expect(await readFile(bundle.mmproj ?? "", "utf8")).toBe("p");
      expect(bundle.weightBytes).toBe(1);
    }
  });

  test("raw weights of a ModelPack that names no format are what their extension says", async () => {
    await using opened = await openSample({
      ...MODELPACK,
      config: {},
      layers: [
        layer(MODELPACK_WEIGHT, "w", "../../home/me/m.gguf"),
        layer(MODELPACK_WEIGHT, "p", "a/mmproj-1.gguf"),
        layer(MODELPACK_WEIGHT, "q", "b/mmproj-2.gguf"),
      ],
    });

    expect(opened.files).toEqual([
      join("a", "mmproj-1.gguf"),
      join("b", "mmproj-2.gguf"),
      join("home", "me", "m.gguf"),
    ]);
    expect(opened.bundle).toMatchObject({ format: "gguf", mmproj: undefined });
  });

  test.each([
    ["a link", [{ name: "l", type: "2", target: "m.gguf" }], "no file"],
    ["a hard link", [{ name: "l", type: "1", target: "m.gguf" }], "no file"],
    ["a device", [{ name: "tty", type: "3" }], "no file"],
    ["a parent in a name", [{ name: "a/../../x", content: "x" }], "leaves the model's"],
    ["an absolute name", [{ name: "/etc/passwd", content: "x" }], "is absolute"],
    ["a drive", [{ name: "C:x", content: "x" }], "characters"],
    ["a name twice", [{ name: "M.gguf", content: "x" }], "two of its files"],
    ["a file for a directory", [{ name: "m.gguf/x", content: "x" }], "two of its files"],
    ["the place of a linked file", [{ name: "License", content: "x" }], "two of its files"],
  ] as const)("%s is refused, and nothing is made", async (_name, entries, reason) => {
    await expectRefusal([layer(WEIGHT_TAR, tar([{ name: "m.gguf", content: "w" }, ...entries]))], {
      code: "invalid_model_file",
      message: expect.stringContaining(reason),
    });
  });

  test.each([
    ["no archive", Buffer.from("GGUF".repeat(500)), "invalid_model_file", "checksum"],
    ["another compression", Buffer.from("BZh91AY&SY"), "invalid_model_file", "bzip2"],
    ["nothing", Buffer.alloc(1024), "unsupported_model", "no weights"],
    ["no weights", tar([{ name: "README.md", content: "x" }]), "unsupported_model", "no weights"],
    [
      "half an archive",
      Bun.gzipSync(tar([{ name: "m.gguf", content: "x".repeat(5000) }])).subarray(0, 60),
      "invalid_model_file",
      "cannot read the archive",
    ],
  ] as const)("an archive that is %s is refused, and nothing is made", async (...args) => {
    const [_name, content, code, reason] = args;
    await expectRefusal([layer(`${WEIGHT_TAR}+gzip`, content)], {
      code,
      message: expect.stringContaining(reason),
    });
  });

  test("two archives of configuration are one too many", async () => {
    const archives = ["a", "b"].map((name) =>
      layer(DOCKER_VLLM_CONFIG_TAR, tar([{ name, content: "x" }])),
    );
    await expectRefusal([layer(DOCKER_SAFETENSORS, "w"), ...archives], {
      code: "unsupported_model",
    });
  });

  test("it is unpacked once, and again if a file is lost or the archive was mended since", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, {
      ...MODELPACK,
      name: "a",
      layers: [layer(WEIGHT_TAR, tar([{ name: "m.gguf", content: "weights" }]))],
    });
    const inode = async (): Promise<number> => {
      await using bundle = await store.openBundle(model);
      expect(await readFile(bundle.model, "utf8")).toBe("weights");
      return (await stat(bundle.model)).ino;
    };

    const first = await inode();
    expect(await inode()).toBe(first);
    const bundle = await store.openBundle(model);
    await bundle[Symbol.asyncDispose]();
    await rm(bundle.model, { force: true });
    await inode();
    const second = await inode();
    const later = new Date(Date.now() + 3_600_000);
    await utimes(store.blobPath(model.manifest.layers[0]?.digest ?? model.digest), later, later);
    const before = await stat(bundle.model);
    await inode();

    expect(second).toBe(before.ino);
    expect((await stat(bundle.model)).mtimeMs).not.toBe(before.mtimeMs);
    expect(await readdir(join(store.root, "bundles"))).toHaveLength(1);
  });

  test("given up while unpacking, it leaves nothing", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, {
      ...MODELPACK,
      name: "a",
      layers: [layer(WEIGHT_TAR, tar([{ name: "m.gguf", content: "weights" }]))],
    });

    const attempt = store.openBundle(model, { signal: AbortSignal.abort() });

    expect(await failureOf(attempt)).toMatchObject({ name: "AbortError" });
    expect(await readdir(join(store.root, "bundles"))).toEqual([]);
    expect(await readdir(join(store.root, "pins"))).toEqual([]);
  });

  test("what a crash left of unpacking is swept, and the next one begins anew", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, {
      ...MODELPACK,
      name: "a",
      layers: [layer(WEIGHT_TAR, tar([{ name: "m.gguf", content: "weights" }]))],
    });
    const half = join(store.root, "bundles", "0123456789abcdef.tmp", "model");
    await mkdir(half, { recursive: true });
    await writeFile(join(half, "m.gguf"), "wei");

    await using bundle = await store.openBundle(model);
    await store.prune({ all: false, dryRun: false });

    expect(await readFile(bundle.model, "utf8")).toBe("weights");
    expect(await readdir(join(store.root, "bundles"))).toHaveLength(1);
  });

  test("its bytes count in `df`, and are freed with the model", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const content = "w".repeat(100_000);
    const model = await commitSample(store, {
      ...MODELPACK,
      name: "a",
      layers: [layer(`${WEIGHT_TAR}+gzip`, Bun.gzipSync(tar([{ name: "m.gguf", content }])))],
    });
    const before = await store.usage();

    const bundle = await store.openBundle(model);
    await bundle[Symbol.asyncDispose]();
    const opened = await store.usage();
    await store.remove("a", { force: false });
    const after = await store.usage();

    expect(opened.totalBytes - before.totalBytes).toBeGreaterThanOrEqual(100_000);
    expect(after.totalBytes).toBeLessThan(1_000);
    expect(await readdir(join(store.root, "bundles"))).toEqual([]);
  });
});

describe("unpackArchives", () => {
  test.each([
    ["entries", { maxEntries: 2, freeBytes: 1e9 }, /more than 2 entries/],
    ["bytes", { maxEntries: 9, freeBytes: -2e9 }, /it unpacks to more than/],
  ])("too many %s are refused", async (_name, limits, message) => {
    const entries = ["a", "b", "c"].map((name) => ({ name, content: "x".repeat(5_000) }));

    expect(await unpack(tar(entries), limits)).toMatchObject({
      code: "invalid_model_file",
      message: expect.stringMatching(message),
    });
  });

  test("the archives of a model share one bound", async () => {
    await using directory = await tempDir();
    const archive = tar([{ name: "a", content: "x".repeat(5_000) }]);
    const plans = ["one", "two", "three"].map((name, index) => ({ name, index }));
    for (const { name, index } of plans)
      await writeFile(
        join(directory.path, name),
        tar([{ name, content: "x".repeat(5_000 + index) }]),
      );
    const unpacking = unpackArchives(plans.map(({ name }) => ({ size: 1, path: name })) as never, {
      locate: ({ path }) => join(directory.path, path ?? ""),
      directory: join(directory.path, "out"),
      claims: new PathClaims(),
      signal,
      limits: { maxEntries: 9, freeBytes: 2 * archive.length },
    });

    expect(await failureOf(unpacking)).toMatchObject({
      message: expect.stringContaining("unpacks to more than"),
    });
  });

  test("an entry larger than the disk is refused before its first byte", async () => {
    const archive = tar([{ name: "m.gguf", content: "x" }]);
    // A size in base 256: 2^62 - 1 would be no safe number, 2^52 is a disk nobody has.
    archive.fill(0, 124, 136);
    archive[124] = 0x80;
    archive[129] = 0x10;
    archive.fill(" ", 148, 156);
    const sum = archive.subarray(0, 512).reduce((total, byte) => total + byte, 0);
    archive.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);

    expect(await unpack(archive)).toMatchObject({ code: "insufficient_storage" });
  });

  test("an archive cut anywhere, or with any byte changed, is an error or safe files", async () => {
    const whole = Buffer.from(
      Bun.gzipSync(tar([{ name: "a/m.gguf", content: "w".repeat(3000) }, { name: "b" }])),
    );
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
        const outcome = await unpack(bytes);
        expect(Array.isArray(outcome) || outcome instanceof AppError).toBe(true);
      }),
      { numRuns: 50 },
    );
  });
});

describe("PathClaims", () => {
  test.each([
    ["a/Straße", "A/STRASSE"],
    ["caſe", "CASE"],
    ["\u00e9", "E\u0301"],
  ])("%p and %p are one file on some disk", (one, other) => {
    const claims = new PathClaims();
    claims.claim(one);

    expect(() => claims.claim(other)).toThrow("two of its files");
  });

  test("more files and directories than a disk should bear are refused", () => {
    const claims = new PathClaims();
    const deep = "/d".repeat(50);

    expect(() => {
      for (let number = 0; number < 2_000; number += 1) claims.claim(`${number}${deep}/file`);
    }).toThrow("files and directories");
  });
});

describe("placeOf", () => {
  test.each([
    ["m.gguf", undefined, "m.gguf"],
    ["./q/m.gguf", "q", "q/m.gguf"],
    ["q/m.gguf", "q/", "q/m.gguf"],
    ["a/q/m.gguf", "a/q", "a/q/m.gguf"],
    ["q/m.gguf", "a/q", "a/q/m.gguf"],
    ["m.gguf", "a/q/m.gguf", "a/q/m.gguf"],
    ["m.gguf", "a/q/m.tar", "m.gguf"],
    ["../../x/m.gguf", "../../x", "../../x/m.gguf"],
    ["x/m.gguf", "../../x", "../../x/m.gguf"],
  ])("%p of an archive at %p goes to %p", (name, annotated, expected) => {
    expect(placeOf(name, annotated)).toBe(expected);
  });
});

async function unpack(
  bytes: Uint8Array,
  limits?: { maxEntries: number; freeBytes: number },
): Promise<unknown> {
  await using directory = await tempDir();
  const archive = join(directory.path, "archive");
  await writeFile(archive, bytes);
  const plan = {
    mediaType: WEIGHT_TAR,
    digest: `sha256:${"0".repeat(64)}`,
    size: limits === undefined ? bytes.length : 1e7,
    path: undefined,
    format: undefined,
  } as never;
  return await unpackArchives([plan], {
    locate: () => archive,
    directory: join(directory.path, "out"),
    claims: new PathClaims(),
    signal,
    ...(limits === undefined ? {} : { limits }),
  }).catch((error: unknown) => error);
}

async function expectRefusal(layers: readonly SampleLayer[], failure: object): Promise<void> {
  await using directory = await tempDir();
  const store = Store.open(directory.path);
  const license = layer("application/vnd.cncf.model.doc.v1.raw", "l", "LICENSE");
  const model = await commitSample(store, {
    ...MODELPACK,
    config: {},
    name: "a",
    layers: [license, ...layers],
  });

  expect(await failureOf(store.openBundle(model))).toMatchObject(failure);
  expect(await readdir(join(store.root, "bundles"))).toEqual([]);
  expect(await readdir(join(store.root, "pins"))).toEqual([]);
}

type OpenBundle = Awaited<ReturnType<Store["openBundle"]>>;

async function openSample(
  options: SampleOptions,
): Promise<AsyncDisposable & { readonly bundle: OpenBundle; readonly files: readonly string[] }> {
  const directory = await tempDir();
  const store = Store.open(directory.path);
  const bundle = await store.openBundle(
    await commitSample(store, { name: "a", config: {}, ...options }),
  );
  return {
    bundle,
    files: await filesIn(bundle.directory),
    async [Symbol.asyncDispose]() {
      await bundle[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

function layer(mediaType: string, content: string | Uint8Array, path?: string): SampleLayer {
  return {
    mediaType,
    content,
    ...(path === undefined ? {} : { annotations: { [FILE_PATH]: path } }),
  };
}
