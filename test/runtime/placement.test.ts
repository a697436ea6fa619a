import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Device } from "../../src/runtime/hardware/devices.ts";
import { estimateMemory, IN_RAM, type RunShape } from "../../src/runtime/memory.ts";
import { place } from "../../src/runtime/placement.ts";
import type { ModelShape } from "../../src/store/model-shape.ts";

const GB = 1e9;

const SHAPE: ModelShape = {
  architecture: "llama",
  weightBytes: 8 * GB,
  inputBytes: 0.5 * GB,
  outputBytes: 0.5 * GB,
  isTied: false,
  bytesByType: {},
  layers: Array.from({ length: 32 }, () => ({
    kind: "attention" as const,
    keyElements: 1024,
    valueElements: 1024,
  })),
  embeddingLength: 4096,
  feedForwardLength: 14_336,
  headCount: 32,
  vocabularySize: 128_000,
  expertCount: 0,
  expertUsedCount: 0,
  contextTokens: 8192,
  isPooled: false,
};

const RUN: Omit<RunShape, "offload"> = {
  contextTokens: 8192,
  parallel: 4,
  cacheTypeK: "f16",
  cacheTypeV: "f16",
  mode: "completion",
  projectorBytes: 0,
  adapterBytes: 0,
};

const device = (id: string): Device => ({
  id,
  kind: id === "ram" ? "ram" : "cuda",
  name: null,
  totalBytes: 64 * GB,
  freeBytes: null,
});

function placed(
  budget: Readonly<Record<string, number>>,
  options: { readonly gpuLayers?: number; readonly shape?: ModelShape } = {},
) {
  const devices = ["ram", ...Object.keys(budget).filter((id) => id !== "ram")].map(device);
  const { shape = SHAPE, gpuLayers } = options;
  return place(shape, { run: RUN, devices, budget, gpuLayers });
}

const layersOn = ({ gpus }: ReturnType<typeof placed>) =>
  gpus.reduce((sum, { layers }) => sum + layers, 0);

describe("place", () => {
  test("place: without GPUs, or with none that has room, everything is in main memory", () => {
    expect(placed({ ram: 64 * GB })).toEqual(IN_RAM);
    expect(placed({ ram: 64 * GB, "cuda:0": 0 })).toEqual(IN_RAM);
    expect(placed({ ram: 64 * GB, "cuda:0": 0.1 * GB })).toEqual(IN_RAM);
  });

  test("place: whole on the GPU with most room", () => {
    expect(placed({ ram: 64 * GB, "cuda:0": 12 * GB, "cuda:1": 24 * GB })).toEqual({
      gpus: [{ device: "cuda:1", layers: 32 }],
      output: "cuda:1",
      gpuLayers: 33,
    });
  });

  test("place: over all GPUs by their room where none has enough", () => {
    const { gpus, gpuLayers } = placed({ ram: 64 * GB, "cuda:0": 4 * GB, "cuda:1": 8 * GB });

    expect(gpuLayers).toBe(33);
    expect(gpus.map(({ device: id }) => id)).toEqual(["cuda:1", "cuda:0"]);
    expect(gpus[0]?.layers).toBeGreaterThan(gpus[1]?.layers ?? 0);
    expect(gpus.reduce((sum, { layers }) => sum + layers, 0)).toBe(32);
  });

  test("place: as many layers as fit, the rest in main memory; one more does not fit", () => {
    const budget = { ram: 64 * GB, "cuda:0": 5 * GB };

    const found = placed(budget);

    expect(layersOn(found)).toBeGreaterThan(4);
    expect(layersOn(found)).toBeLessThan(32);
    const { demand } = estimateMemory(SHAPE, { ...RUN, offload: found });
    expect(demand["cuda:0"]).toBeLessThanOrEqual(budget["cuda:0"]);
    const more = placed(budget, { gpuLayers: found.gpuLayers + 1 });
    expect(estimateMemory(SHAPE, { ...RUN, offload: more }).demand["cuda:0"]).toBeGreaterThan(
      budget["cuda:0"],
    );
  });

  test("place: layers that were asked for go where they were asked, whether they fit or not", () => {
    const budget = { ram: 64 * GB, "cuda:0": 2 * GB };

    expect(placed(budget, { gpuLayers: 0 })).toEqual(IN_RAM);
    expect(placed(budget, { gpuLayers: -1 }).gpuLayers).toBe(33);
    expect(placed(budget, { gpuLayers: 999 }).gpuLayers).toBe(33);
    expect(layersOn(placed(budget, { gpuLayers: 11 }))).toBe(10);
    expect(placed(budget, { gpuLayers: 1 })).toEqual({
      gpus: [{ device: "cuda:0", layers: 0 }],
      output: "cuda:0",
      gpuLayers: 1,
    });
  });

  test("place: of a model whose layers are unknown all or nothing", () => {
    const shape = { ...SHAPE, layers: [] };

    expect(placed({ ram: 64 * GB, "cuda:0": 24 * GB }, { shape }).output).toBe("cuda:0");
    expect(placed({ ram: 64 * GB, "cuda:0": 6 * GB }, { shape })).toEqual(IN_RAM);
  });

  test("place: whatever the GPUs, no layer is lost, and none is over its budget unasked", () => {
    const rooms = fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 4 });
    fc.assert(
      fc.property(rooms, (sizes) => {
        const gpus = sizes.map((size, index) => [`cuda:${index}`, size * GB] as const);
        const budget: Record<string, number> = { ram: 64 * GB, ...Object.fromEntries(gpus) };
        const found = placed(budget);
        expect(layersOn(found)).toBe(Math.max(0, found.gpuLayers - 1));
        const { demand } = estimateMemory(SHAPE, { ...RUN, offload: found });
        for (const [id, bytes] of Object.entries(demand))
          expect(id === "ram" || bytes <= (budget[id] ?? 0)).toBe(true);
      }),
      { numRuns: 100 },
    );
  });
});
