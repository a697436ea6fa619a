import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { readGgufShape } from "../../src/store/gguf.ts";
import { type NamedTensor, toModelShape } from "../../src/store/gguf-shape.ts";
import { type RandomModelSpec, writeRandomModel } from "../helpers/random-model.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";

const { signal } = new AbortController();

const SMALL: RandomModelSpec = {
  layers: 6,
  embedding: 64,
  heads: 4,
  kvHeads: 2,
  feedForward: 128,
  context: 1024,
  vocabulary: 512,
};

async function shapeOf(spec: Partial<RandomModelSpec> = {}) {
  await using directory = await tempDir();
  const path = join(directory.path, "model.gguf");
  await writeRandomModel(path, { ...SMALL, ...spec });
  return await readGgufShape([{ location: path, name: "model.gguf" }], { signal });
}

const tensor = (name: string, shape: readonly number[], type = "F16"): NamedTensor => ({
  name,
  shape: shape.map(BigInt),
  dtype: 1,
  type,
});

const shape = (
  architecture: string,
  values: Readonly<Record<string, unknown>>,
  tensors: readonly NamedTensor[] = [],
) =>
  toModelShape(
    new Map<string, unknown>([
      ["general.architecture", architecture],
      ...Object.entries({ block_count: 6, embedding_length: 64, ...values }).map(
        ([key, value]) => [`${architecture}.${key}`, value] as const,
      ),
    ]),
    tensors,
  );

const kinds = (of: ReturnType<typeof shape>) => of.layers.map(({ kind }) => kind);
const HEADS = { "attention.head_count": 4, "attention.head_count_kv": 2 };

describe("readGgufShape", () => {
  test("shape: a real model", async () => {
    const pebble = await readGgufShape([{ location: PEBBLE, name: "pebble.gguf" }], { signal });

    expect(pebble).toMatchObject({
      architecture: "llama",
      weightBytes: 2_934_528,
      contextTokens: 2048,
      isPooled: false,
      expertCount: 0,
    });
    expect(pebble.layers.length).toBeGreaterThan(0);
    expect(
      pebble.layers.every(({ kind, keyElements }) => kind === "attention" && keyElements > 0),
    ).toBe(true);
  });

  test("shape: shards make the shape of the whole, in any order", async () => {
    const shards = [1, 2, 3].map((index) => {
      const location = FIRST_SHARD.replace("00001-of", `0000${index}-of`);
      return { location, name: `shard ${index}` };
    });

    const whole = await readGgufShape([{ location: PEBBLE, name: "pebble" }], { signal });

    expect(await readGgufShape(shards, { signal })).toEqual(whole);
    expect(await readGgufShape(shards.toReversed(), { signal })).toEqual(whole);
  });

  test("shape: grouped-query attention has the keys of its few heads", async () => {
    const { layers, ...rest } = await shapeOf();

    expect(layers).toEqual(
      Array.from({ length: 6 }, () => ({ kind: "attention", keyElements: 32, valueElements: 32 })),
    );
    expect(rest).toMatchObject({
      vocabularySize: 512,
      headCount: 4,
      queryElements: 64,
      isTied: false,
    });
    expect(rest.inputBytes).toBe(512 * 64 * 2);
    expect(rest.outputBytes).toBe(512 * 64 * 2);
  });

  test("shape: of six layers of Gemma 3 five slide", async () => {
    const gemma = await shapeOf({ architecture: "gemma3", window: 256 });

    expect(kinds(gemma)).toEqual([...Array<string>(5).fill("sliding"), "attention"] as never);
    expect(gemma.layers[0]?.window).toBe(256);
  });

  test("shape: experts are counted apart", async () => {
    const moe = await shapeOf({
      architecture: "qwen3moe",
      experts: 4,
      expertsUsed: 2,
      type: "Q8_0",
    });

    expect(moe).toMatchObject({ expertCount: 4, expertUsedCount: 2, expertFeedForwardLength: 128 });
    expect(moe.expertBytesByType).toEqual({ Q8_0: 6 * 3 * 4 * ((64 * 128) / 32) * 34 });
    expect(Object.keys(moe.bytesByType)).toContain("Q8_0");
  });

  test("shape: an embedding model has layers, and no cache", async () => {
    const bert = await shapeOf({ architecture: "nomic-bert" });

    expect(bert.isPooled).toBe(true);
    expect(bert.layers).toHaveLength(6);
    expect(bert.layers.every(({ keyElements }) => keyElements === 0)).toBe(true);
  });

  test("shape: Mamba has a state, as large as llama.cpp says", async () => {
    const mamba = await shapeOf({ architecture: "mamba" });

    expect(new Set(kinds(mamba))).toEqual(new Set(["recurrent"]));
    // Convolution 3 × 128 and state 16 × 128, in F32.
    expect(mamba.layers[0]?.stateBytes).toBe(4 * (3 * 128 + 16 * 128));
  });

  test("shape: a missing file is an error, an aborted signal its reason", async () => {
    const missing = [{ location: "/nonexistent.gguf", name: "nonexistent.gguf" }];

    expect(await failureOf(readGgufShape(missing, { signal }))).toMatchObject({
      code: "not_found",
    });
    const aborted = AbortSignal.abort(new Error("enough"));
    const left = await readGgufShape([{ location: PEBBLE, name: "p" }], { signal: aborted }).catch(
      (error: unknown) => error,
    );
    expect(left).toEqual(new Error("enough"));
  });
});

describe("toModelShape", () => {
  test("shape: without tensors the keys say how wide the cache is", () => {
    expect(shape("llama", HEADS).layers[0]).toEqual({
      kind: "attention",
      keyElements: 32,
      valueElements: 32,
    });
    const { layers } = shape("llama", {
      ...HEADS,
      "attention.key_length": 128,
      "attention.value_length": 64,
    });
    expect(layers[5]).toEqual({ kind: "attention", keyElements: 256, valueElements: 128 });
  });

  test("shape: heads may differ from layer to layer", () => {
    const { layers } = shape("openelm", {
      block_count: 3,
      "attention.head_count": [4, 8, 8],
      "attention.head_count_kv": [1, 2, 4],
      "attention.key_length": 16,
      "attention.value_length": 16,
    });

    expect(layers.map(({ keyElements }) => keyElements)).toEqual([16, 32, 64]);
  });

  test.each([
    ["gemma2", {}, "SFSFSF"],
    ["gpt-oss", {}, "SFSFSF"],
    ["cohere2", {}, "SSSFSS"],
    ["smallthinker", {}, "FSSSFS"],
    ["modern-bert", {}, "FFFFFF"],
    ["deepseek4", {}, "SSSSSS"],
    ["llama", {}, "FFFFFF"],
    ["phi3", {}, "FFFFFF"],
    [
      "step35",
      { "attention.sliding_window_pattern": [true, false, true, true, false, true] },
      "SFSSFS",
    ],
    ["afmoe", { "attention.sliding_window_pattern": 3 }, "SSFSSF"],
  ])("shape: which layers of %s slide", (architecture, values, expected) => {
    const found = shape(architecture, { ...HEADS, "attention.sliding_window": 1024, ...values });

    expect(found.layers.map(({ kind }) => (kind === "sliding" ? "S" : "F")).join("")).toBe(
      expected,
    );
  });

  test("shape: no window, no sliding; Llama 4 has one that nobody names", () => {
    expect(kinds(shape("olmo2", HEADS))).not.toContain("sliding");
    expect(shape("llama4", HEADS).layers[0]).toMatchObject({ kind: "sliding", window: 8192 });
  });

  test("shape: a latent cache is one vector, where the engine has the tensors for it", () => {
    const values = {
      ...HEADS,
      "attention.head_count_kv": 1,
      "attention.kv_lora_rank": 512,
      "rope.dimension_count": 64,
    };
    const tensors = Array.from({ length: 6 }, (_, index) => [
      tensor(`blk.${index}.attn_kv_a_mqa.weight`, [64, 576]),
      tensor(`blk.${index}.attn_k_b.weight`, [128, 512, 4]),
    ]).flat();

    expect(shape("deepseek2", values, tensors).layers[0]).toEqual({
      kind: "latent",
      keyElements: 576,
      valueElements: 0,
    });
    expect(shape("deepseek2", values).layers[0]?.kind).toBe("attention");
  });

  test("shape: hybrids attend in some layers, Falcon-H1 does both in each", () => {
    const ssm = {
      "ssm.conv_kernel": 4,
      "ssm.inner_size": 128,
      "ssm.state_size": 16,
      "ssm.group_count": 1,
    };
    const bytes = 4 * (3 * (128 + 2 * 16) + 16 * 128);
    const recurrent = (index: number) => tensor(`blk.${index}.ssm_out.weight`, [128, 64]);
    const attending = (index: number) => tensor(`blk.${index}.attn_k.weight`, [64, 32]);

    const qwen = shape("qwen3next", { ...HEADS, ...ssm, block_count: 2 }, [
      recurrent(0),
      tensor("blk.0.attn_qkv.weight", [64, 256]),
      attending(1),
    ]);
    const falcon = shape("falcon-h1", { ...HEADS, ...ssm, block_count: 1 }, [
      recurrent(0),
      attending(0),
    ]);

    expect(qwen.layers.map(({ kind, stateBytes }) => [kind, stateBytes])).toEqual([
      ["recurrent", bytes],
      ["attention", undefined],
    ]);
    expect(falcon.layers).toEqual([
      { kind: "attention", keyElements: 32, valueElements: 32, stateBytes: bytes },
    ]);
  });

  test.each([
    [
      "rwkv7",
      { "wkv.head_size": 64, token_shift_count: 2 },
      "time_mix_w1.weight",
      4 * 64 * (2 + 64),
    ],
    ["lfm2", { "shortconv.l_cache": 3 }, "shortconv.conv.weight", 4 * 64 * 2],
    [
      "kimi-linear",
      { "kda.head_dim": 16, "ssm.conv_kernel": 4, "attention.head_count": 4 },
      "ssm_conv1d_q.weight",
      4 * 4 * 16 * (9 + 16),
    ],
  ])("shape: the state of %s", (...row) => {
    const [architecture, values, name, bytes] = row;
    const found = shape(architecture, { ...values, block_count: 1 }, [
      tensor(`blk.0.${name}`, [64, 64]),
    ]);

    expect(found.layers).toEqual([
      { kind: "recurrent", keyElements: 0, valueElements: 0, stateBytes: bytes },
    ]);
  });

  test("shape: layers that reuse others' keys have none", () => {
    const { layers } = shape("gemma4", { ...HEADS, "attention.shared_kv_layers": 2 });

    expect(layers.map(({ keyElements }) => keyElements)).toEqual([32, 32, 32, 32, 0, 0]);
  });

  test("shape: the head size of sliding layers may be their own", () => {
    const { layers } = shape("gemma4", {
      ...HEADS,
      "attention.key_length": 512,
      "attention.value_length": 512,
      "attention.key_length_swa": 256,
      "attention.value_length_swa": 256,
      "attention.sliding_window": 1024,
      "attention.sliding_window_pattern": [true, true, true, true, true, false],
    });

    expect(layers.map(({ keyElements }) => keyElements)).toEqual([512, 512, 512, 512, 512, 1024]);
  });

  test("shape: an output that is the input's tensor", () => {
    const tied = shape("gemma3", HEADS, [tensor("token_embd.weight", [64, 1000])]);

    expect(tied).toMatchObject({ isTied: true, outputBytes: 128_000, inputBytes: 128_000 });
    expect(tied.vocabularySize).toBe(1000);
  });

  test.each(
    [0, -1, 2 ** 60, 1.5, Number.NaN, "many", null, [], {}, 2n ** 62n].map((count) => ({ count })),
  )("shape: no sane number of layers makes none (%#)", ({ count }) => {
    expect(shape("llama", { ...HEADS, block_count: count }).layers).toEqual([]);
    expect(shape("llama", { ...HEADS, embedding_length: count }).layers).toEqual([]);
  });

  test("shape: nothing at all is no shape, and no failure", () => {
    expect(toModelShape(new Map(), [])).toMatchObject({
      architecture: null,
      layers: [],
      contextTokens: null,
      weightBytes: 0,
    });
  });

  test("shape: whatever the header says, numbers stay numbers", () => {
    const hostile = fc.oneof(
      fc.double(),
      fc.integer(),
      fc.bigInt(),
      fc.string(),
      fc.boolean(),
      fc.constant(null),
      fc.array(fc.oneof(fc.double(), fc.integer(), fc.bigInt()), { maxLength: 8 }),
    );
    const keys = [
      "block_count",
      "embedding_length",
      "context_length",
      "feed_forward_length",
      "attention.head_count",
      "attention.head_count_kv",
      "attention.key_length",
      "attention.sliding_window",
      "attention.sliding_window_pattern",
      "expert_count",
      "ssm.inner_size",
      "nextn_predict_layers",
    ];
    fc.assert(
      fc.property(
        fc.constantFrom("llama", "gemma3", "mamba", "llama4", "constructor", "__proto__"),
        fc.array(hostile, { minLength: keys.length, maxLength: keys.length }),
        (architecture, values) => {
          const found = shape(
            architecture,
            Object.fromEntries(keys.map((key, index) => [key, values[index]])),
          );
          const numbers = JSON.stringify(found, (_, value: unknown) => {
            if (typeof value === "number" && (!Number.isFinite(value) || value < 0))
              throw new Error("bad");
            return value;
          });
          expect(numbers.length).toBeGreaterThan(0);
        },
      ),
      { numRuns: 500 },
    );
  });
});
