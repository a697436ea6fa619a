import { describe, expect, test } from "bun:test";
import { computeBytes, microBatch } from "../../src/runtime/compute-buffer.ts";
import type { LayerShape, ModelShape } from "../../src/store/model-shape.ts";

const MIB = 1024 * 1024;
const layer = (keyElements = 256): LayerShape => ({
  kind: "attention",
  keyElements,
  valueElements: keyElements,
});

function shape(over: Partial<ModelShape> = {}): ModelShape {
  return {
    architecture: "llama",
    weightBytes: 0,
    inputBytes: 0,
    bytesByType: {},
    layers: [layer(), layer()],
    embeddingLength: 1024,
    feedForwardLength: 2816,
    headCount: 16,
    vocabularySize: 1024,
    expertCount: 0,
    expertUsedCount: 0,
    contextTokens: 32_768,
    isPooled: false,
    ...over,
  };
}

const SLIDING: LayerShape = { ...layer(), kind: "sliding", window: 512 };
const MOE = { expertCount: 8, feedForwardLength: 1024, expertFeedForwardLength: 1024 };
const CACHELESS = { layers: [layer(0)], feedForwardLength: 3072, embeddingLength: 768 };

/** MiB that llama-server (build 11669) printed as `compute buffer size` for models of these shapes with four slots. */
const PRINTED: readonly (readonly [string, Partial<ModelShape>, number, number, number])[] = [
  ["base", {}, 2048, 512, 28.52],
  ["a wide feed-forward", { feedForwardLength: 8192 }, 2048, 512, 60.02],
  ["a longer context", {}, 32_768, 512, 58.52],
  ["a small batch", {}, 2048, 256, 14.26],
  ["a large vocabulary", { vocabularySize: 64_000 }, 2048, 512, 28.52],
  ["half the width", { embeddingLength: 512 }, 2048, 512, 23.52],
  ["two caches", { layers: [layer(), SLIDING] }, 16_384, 512, 45.03],
  ["two of eight experts", { ...MOE, expertUsedCount: 2 }, 2048, 512, 24.02],
  ["four of eight experts", { ...MOE, expertUsedCount: 4 }, 2048, 512, 36.02],
  ["all of eight experts", { ...MOE, expertUsedCount: 8 }, 2048, 512, 60.02],
  ["no cache", CACHELESS, 2048, 2048, 110.08],
  ["no cache, a short context", { ...CACHELESS, embeddingLength: 1024 }, 512, 512, 28.52],
  ["an embedding of a decoder", {}, 4096, 2048, 122.08],
  [
    "Mamba",
    { layers: [{ ...layer(0), kind: "recurrent" }], feedForwardLength: 0 },
    2048,
    512,
    30.6,
  ],
];

describe("computeBytes", () => {
  test.each(PRINTED)("compute: %s is as llama-server prints", (...row) => {
    const [, over, cells, tokens, printed] = row;
    const model = shape(over);
    const bytes = computeBytes(model, { cells, tokens, parallel: 4 });
    // What is converted for a product is no part of that buffer.
    const used = model.expertUsedCount * (model.expertFeedForwardLength ?? 0);
    const scratch = tokens * 2 * Math.max(model.embeddingLength, model.feedForwardLength, used);

    expect(Math.abs((bytes - scratch) / MIB - printed)).toBeLessThan(0.7);
  });

  test("compute: where results of attention or of many experts are larger, they count", () => {
    const narrow = { feedForwardLength: 256 };
    const extent = { cells: 2048, tokens: 512, parallel: 1 };

    expect(computeBytes(shape({ ...narrow, queryElements: 8192 }), extent)).toBeGreaterThan(
      computeBytes(shape({ ...narrow, queryElements: 1024 }), extent),
    );
    expect(
      computeBytes(
        shape({ ...MOE, expertCount: 32, expertUsedCount: 8, expertFeedForwardLength: 64 }),
        extent,
      ),
    ).toBeGreaterThan(512 * 4 * 2 * 8 * 1024);
  });

  test("compute: logits of all slots need their place", () => {
    const bytes = computeBytes(shape({ vocabularySize: 262_144 }), {
      cells: 256,
      tokens: 256,
      parallel: 64,
    });

    expect(bytes).toBeGreaterThan(64 * 262_144 * 4);
  });
});

describe("microBatch", () => {
  test("compute: no more at once than the context has, more for embeddings", () => {
    expect(microBatch("completion", 8192)).toBe(512);
    expect(microBatch("embedding", 8192)).toBe(2048);
    expect(microBatch("reranking", 1024)).toBe(1024);
  });
});
