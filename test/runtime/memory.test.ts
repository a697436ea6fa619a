import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { totalBytes } from "../../src/runtime/demand.ts";
import {
  estimateBytes,
  estimateMemory,
  IN_RAM,
  largestContext,
  type RunShape,
} from "../../src/runtime/memory.ts";
import type { LayerShape, ModelShape } from "../../src/store/model-shape.ts";

const MIB = 1024 * 1024;
const FULL: LayerShape = { kind: "attention", keyElements: 256, valueElements: 256 };

const MODEL: ModelShape = {
  architecture: "llama",
  weightBytes: 312_000_000,
  inputBytes: 65_000_000,
  outputBytes: 65_000_000,
  isTied: false,
  bytesByType: { F16: 245_000_000 },
  expertBytesByType: {},
  layers: Array.from({ length: 8 }, () => FULL),
  embeddingLength: 1024,
  feedForwardLength: 2816,
  headCount: 16,
  queryElements: 1024,
  vocabularySize: 32_000,
  expertCount: 0,
  expertUsedCount: 0,
  contextTokens: 8192,
  isPooled: false,
};

const RUN: RunShape = {
  contextTokens: 4096,
  parallel: 4,
  cacheTypeK: "f16",
  cacheTypeV: "f16",
  mode: "completion",
  projectorBytes: 0,
  adapterBytes: 0,
  offload: IN_RAM,
};

const partsOf = (shape: Partial<ModelShape> = {}, run: Partial<RunShape> = {}) =>
  estimateMemory({ ...MODEL, ...shape }, { ...RUN, ...run }).parts;
const ramOf = (shape: Partial<ModelShape> = {}, run: Partial<RunShape> = {}) =>
  estimateMemory({ ...MODEL, ...shape }, { ...RUN, ...run }).demand["ram"] ?? 0;

describe("estimateBytes", () => {
  test("memory: more weights need more memory, and always more than the weights", () => {
    const sizes = [0, 3_000_000, 300_000_000, 40_000_000_000];

    const estimates = sizes.map((weightBytes) => estimateBytes({ weightBytes }));

    expect(estimates).toEqual(estimates.toSorted((a, b) => a - b));
    expect(estimates.every((bytes, index) => bytes > (sizes[index] ?? 0))).toBe(true);
  });
});

describe("estimateMemory", () => {
  test("memory: the cache is what llama-server prints for this model", () => {
    // llama_kv_cache: size = 32.00 MiB (4096 cells, 8 layers)
    expect(partsOf()["cache"]).toBe(32 * MIB);
  });

  test.each([
    ["f32", 64],
    ["bf16", 32],
    ["q8_0", 17],
    ["q4_0", 9],
    ["q5_1", 12],
    ["iq4_nl", 9],
  ])("memory: a cache of %s", (type, mib) => {
    expect(partsOf({}, { cacheTypeK: type, cacheTypeV: type })["cache"]).toBe(mib * MIB);
  });

  test("memory: keys and values may be of two types, an unknown type counts as the largest", () => {
    expect(partsOf({}, { cacheTypeK: "q4_0" })["cache"]).toBe((16 + 4.5) * MIB);
    expect(partsOf({}, { cacheTypeK: "toString" })["cache"]).toBe((32 + 16) * MIB);
  });

  test("memory: contexts are rounded up to 256 tokens", () => {
    expect(partsOf({}, { contextTokens: 4000 })["cache"]).toBe(32 * MIB);
    expect(partsOf({}, { contextTokens: 1 })["cache"]).toBe(2 * MIB);
  });

  test("memory: layers that slide hold their window a slot and one micro-batch", () => {
    const layers = Array.from({ length: 10 }, (): LayerShape => ({
      ...FULL,
      kind: "sliding",
      window: 512,
    }));

    // llama_kv_cache_iswa: SWA KV cache, 2560 cells with 4 slots, 1024 with one
    expect(partsOf({ layers }, { contextTokens: 16_384 })["cache"]).toBe(2560 * 10 * 1024);
    expect(partsOf({ layers }, { contextTokens: 16_384, parallel: 1 })["cache"]).toBe(
      1024 * 10 * 1024,
    );
    expect(partsOf({ layers }, { contextTokens: 2048 })["cache"]).toBe(2048 * 10 * 1024);
  });

  test("memory: what layers forget is kept for the next turn, once a slot", () => {
    const layers: LayerShape[] = [{ ...FULL, kind: "sliding", window: 512 }, FULL];

    expect(partsOf({ layers })["checkpoints"]).toBe(4 * 1024 * 1024);
    expect(partsOf({ layers }, { checkpoints: 0 })["checkpoints"]).toBeUndefined();
    expect(partsOf()["checkpoints"]).toBeUndefined();
  });

  test("memory: a recurrent state does not grow with the context", () => {
    const layers: LayerShape[] = [
      { kind: "recurrent", keyElements: 0, valueElements: 0, stateBytes: 155_648 },
    ];

    const small = partsOf({ layers }, { contextTokens: 256 });
    const large = partsOf({ layers }, { contextTokens: 131_072 });

    expect(small["state"]).toBe(4 * 155_648);
    expect(large["state"]).toBe(4 * 155_648);
    expect(large["cache"]).toBeUndefined();
  });

  test("memory: a latent cache has keys only", () => {
    const layers: LayerShape[] = [{ kind: "latent", keyElements: 576, valueElements: 0 }];

    expect(partsOf({ layers })["cache"]).toBe(4096 * 576 * 2);
  });

  test("memory: weights that are read lie in memory once, mapped ones and their copies twice", () => {
    const rearranged = new Set(["F16"]);

    expect(partsOf()).toMatchObject({ weights: 312_000_000 });
    expect(partsOf({}, { loading: { isMapped: false, rearranged } })["rearranged"]).toBeUndefined();
    expect(partsOf({}, { loading: { isMapped: true, rearranged } })).toMatchObject({
      weights: 312_000_000,
      rearranged: 245_000_000,
    });
    expect(partsOf({}, { loading: { isMapped: true } })["rearranged"]).toBeUndefined();
  });

  test("memory: experts are rearranged by other code than the rest", () => {
    const shape = { expertBytesByType: { Q4_0: 1000 }, bytesByType: { Q4_0: 100 } };
    const types = new Set(["Q4_0"]);

    const dense = partsOf(shape, { loading: { isMapped: true, rearranged: types } });
    const both = partsOf(shape, {
      loading: { isMapped: true, rearranged: types, rearrangedExperts: types },
    });

    expect([dense["rearranged"], both["rearranged"]]).toEqual([100, 1100]);
  });

  test("memory: an output that is the input's tensor is a second copy where it is rearranged", () => {
    const loading = { isMapped: false, rearranged: new Set(["F16"]) };

    expect(partsOf({ isTied: true }, { loading })["rearranged"]).toBe(65_000_000);
    expect(partsOf({ isTied: true })["weights"]).toBe(312_000_000);
  });

  test("memory: a projector, adapters and the prompt cache are added, the projector for chats only", () => {
    const extras = { projectorBytes: 100 * MIB, adapterBytes: 7, cacheRamBytes: 9 };

    expect(partsOf({}, extras)).toMatchObject({ adapters: 7, "prompt cache": 9 });
    expect(partsOf({}, extras)["projector"]).toBeGreaterThan(100 * MIB);
    expect(partsOf({}, { ...extras, mode: "embedding" })["projector"]).toBeUndefined();
  });

  test("memory: a draft model has weights, a cache and buffers of its own", () => {
    const draft = { shape: MODEL, contextTokens: 4096 };
    const alone = partsOf();

    const both = partsOf({}, { draft });

    expect(both).toMatchObject({ "draft weights": 312_000_000, "draft cache": 32 * MIB });
    expect(both["weights"]).toBe(alone["weights"]);
    expect(partsOf({}, { draft, mode: "embedding" })["draft weights"]).toBeUndefined();
    expect(
      partsOf({}, { draft: { shape: { ...MODEL, layers: [] }, contextTokens: 1 } })[
        "draft weights"
      ],
    ).toBe(estimateBytes(MODEL));
  });

  test("memory: whole on a GPU, main memory keeps the input and the engine", () => {
    const gpus = [{ device: "cuda:0", layers: 8 }];

    const { demand } = estimateMemory(MODEL, {
      ...RUN,
      offload: { gpus, output: "cuda:0", gpuLayers: 9 },
    });

    expect(demand["cuda:0"]).toBeGreaterThan(312_000_000 - 65_000_000 + 32 * MIB);
    expect(demand["ram"]).toBeGreaterThan(65_000_000);
    expect(demand["ram"]).toBeLessThan(65_000_000 + 80 * MIB);
  });

  test("memory: split over devices, layers and caches follow their layers", () => {
    const gpus = [
      { device: "cuda:0", layers: 2 },
      { device: "cuda:1", layers: 2 },
    ];
    const run = { ...RUN, offload: { gpus, output: "cuda:1", gpuLayers: 5 } };

    const { demand } = estimateMemory(MODEL, run);

    expect(Object.keys(demand).toSorted()).toEqual(["cuda:0", "cuda:1", "ram"]);
    expect((demand["cuda:1"] ?? 0) - (demand["cuda:0"] ?? 0)).toBe(65_000_000);
  });

  test("memory: a mapped file counts in main memory, wherever its layers are", () => {
    const gpus = [{ device: "cuda:0", layers: 8 }];
    const run = { offload: { gpus, output: "cuda:0", gpuLayers: 9 } };

    expect(ramOf({}, { ...run, loading: { isMapped: true } })).toBeGreaterThan(312_000_000);
  });

  test("memory: what long prompts take is told apart, in main memory only", () => {
    const gpus = [{ device: "cuda:0", layers: 4 }];
    const here = estimateMemory(MODEL, { ...RUN, cacheRamBytes: MIB });
    const there = estimateMemory(MODEL, {
      ...RUN,
      offload: { gpus, output: "cuda:0", gpuLayers: 5 },
    });
    const { compute = 0, checkpoints = 0, output = 0 } = here.parts;

    expect(here.growing).toEqual({ ram: compute + checkpoints + output + MIB });
    expect(Object.keys(there.growing)).toEqual(["ram"]);
  });

  test("memory: without layers the rule of thumb holds", () => {
    const gpus = [{ device: "cuda:0", layers: 0 }];
    const unknown = { ...MODEL, layers: [] };

    expect(estimateMemory(unknown, RUN).demand).toEqual({ ram: estimateBytes(MODEL) });
    expect(
      estimateMemory(unknown, { ...RUN, offload: { gpus, output: "cuda:0", gpuLayers: 999 } })
        .demand,
    ).toEqual({ "cuda:0": estimateBytes(MODEL), ram: 128 * MIB });
  });

  test("memory: more of anything never needs less, and parts make the whole", () => {
    const wholes = fc.record({
      contextTokens: fc.integer({ min: 1, max: 2 ** 31 }),
      parallel: fc.integer({ min: 1, max: 256 }),
      projectorBytes: fc.nat(),
      adapterBytes: fc.nat(),
    });
    fc.assert(
      fc.property(wholes, wholes, (one, other) => {
        const more = {
          contextTokens: Math.max(one.contextTokens, other.contextTokens),
          parallel: Math.max(one.parallel, other.parallel),
          projectorBytes: Math.max(one.projectorBytes, other.projectorBytes),
          adapterBytes: Math.max(one.adapterBytes, other.adapterBytes),
        };
        const { parts, demand } = estimateMemory(MODEL, { ...RUN, ...one });
        expect(ramOf({}, more)).toBeGreaterThanOrEqual(demand["ram"] ?? 0);
        expect(totalBytes(demand)).toBe(Object.values(parts).reduce((sum, part) => sum + part, 0));
        expect(Object.values(parts).every(Number.isSafeInteger)).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  test("memory: absurd numbers stay numbers", () => {
    const huge = estimateMemory(
      { ...MODEL, weightBytes: Number.POSITIVE_INFINITY },
      { ...RUN, contextTokens: Number.MAX_VALUE, parallel: Number.NaN },
    );

    expect(Object.values(huge.demand).every(Number.isFinite)).toBe(true);
  });
});

describe("largestContext", () => {
  test("context: the largest that fits, and 256 tokens more do not", () => {
    const room = { ram: ramOf() };

    const tokens = largestContext(MODEL, RUN, room) ?? 0;

    expect(tokens).toBe(4096);
    expect(ramOf({}, { contextTokens: tokens + 256 })).toBeGreaterThan(room.ram);
  });

  test("context: never beyond what the model was trained for", () => {
    expect(largestContext(MODEL, RUN, { ram: 2 ** 40 })).toBe(8192);
    expect(largestContext({ ...MODEL, contextTokens: 1000 }, RUN, { ram: 2 ** 40 })).toBe(768);
    expect(largestContext({ ...MODEL, contextTokens: 100 }, RUN, { ram: 2 ** 40 })).toBe(100);
  });

  test("context: none fits where the weights do not", () => {
    expect(largestContext(MODEL, RUN, { ram: 300_000_000 })).toBeUndefined();
    expect(largestContext(MODEL, RUN, {})).toBeUndefined();
  });

  test("context: a model that does not say what it was trained for is bounded by memory alone", () => {
    const tokens = largestContext({ ...MODEL, contextTokens: null }, RUN, { ram: 2 ** 31 }) ?? 0;

    expect(tokens % 256).toBe(0);
    expect(tokens).toBeGreaterThan(8192);
  });
});
