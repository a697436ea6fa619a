/** Engines that take their share of GPUs whole: which GPUs, how much of them. */
import { describe, expect, test } from "bun:test";

import type { ReservingGpus } from "../../src/runtime/backend.ts";
import type { Device } from "../../src/runtime/hardware/devices.ts";
import { estimateMemory } from "../../src/runtime/memory.ts";
import {
  estimateReserved,
  type ReservedRun,
  reserveGpus,
  shareOf,
} from "../../src/runtime/reserved-memory.ts";
import type { ModelShape } from "../../src/store/model-shape.ts";
import { fakeShape, GIB, RAM } from "../fakes/planner.ts";

const NEEDS: ReservingGpus = { fixedBytes: GIB, batchTokens: 2048, processBytes: GIB };
/** 4 GiB of weights, 2 GiB of cache: half a MiB a token. */
const RUN: ReservedRun = {
  contextTokens: 4096,
  parallel: 4,
  cacheTypeK: "f16",
  cacheTypeV: "f16",
  engineBytes: 2 * GIB,
};

function gpus(...gib: readonly number[]): readonly Device[] {
  return gib.map((size, index) => gpu(index, size));
}

function gpu(index: number, gib: number, kind: Device["kind"] = "cuda"): Device {
  const totalBytes = gib * GIB;
  return { id: `${kind}:${index}`, kind, name: null, totalBytes, freeBytes: totalBytes };
}

function reserve(
  shape: ModelShape,
  devices: readonly Device[],
  options: Partial<Parameters<typeof reserveGpus>[1]> = {},
) {
  const budget = Object.fromEntries(devices.map(({ id, totalBytes }) => [id, totalBytes * 0.9]));
  const reservation = reserveGpus(shape, { needs: NEEDS, run: RUN, devices, budget, ...options });
  return reservation && { ...reservation, ids: reservation.gpus.map(({ id }) => id) };
}

/** GiB of cache with keys and values of a type. */
function bytes(type: string): number {
  const run = { ...RUN, contextTokens: 32_768, cacheTypeK: type, cacheTypeV: type };
  const reservation = { needs: NEEDS, gpus: gpus(100), parts: 1 };
  return (estimateReserved(fakeShape(), run, reservation).parts["cache"] ?? 0) / GIB;
}

/** Bytes of cache on each GPU of a model whose layers keep compressed vectors. */
function latentCache(parts: number): number {
  const layers = Array.from({ length: 32 }, () => LATENT);
  const shape = fakeShape({ layers, weightBytes: 0 });
  const reservation = { needs: NEEDS, gpus: gpus(100), parts };
  return estimateReserved(shape, RUN, reservation).parts["cache"] ?? 0;
}

const LATENT = { kind: "latent", keyElements: 16_384, valueElements: 16_384 } as const;

/** Bytes of a GPU of 24 GiB of which flags say the share. */
function taken(share: number): number {
  const reservation = { needs: NEEDS, gpus: gpus(24), parts: 1, share };
  return estimateReserved(fakeShape(), RUN, reservation).demand["cuda:0"] ?? 0;
}

describe("reserveGpus", () => {
  test("reserve: the GPU with most room, if the model fits it", () => {
    expect(reserve(fakeShape(), [RAM, ...gpus(12, 24, 16)])?.ids).toEqual(["cuda:1"]);
  });

  test("reserve: what is free of a GPU is no part of it: contexts are remembered by reservations", () => {
    const busy = gpus(24).map((one) => ({ ...one, freeBytes: 1 }));

    expect(reserve(fakeShape(), busy)).toEqual(reserve(fakeShape(), gpus(24)));
  });

  test("reserve: as few as it fits, with numbers that follow each other", () => {
    const shape = fakeShape({ weightBytes: 30 * GIB });

    expect(reserve(shape, gpus(24, 24, 24, 24))?.ids).toEqual(["cuda:0", "cuda:1"]);
    expect(reserve(shape, [gpu(0, 24), gpu(2, 24), gpu(3, 24)])?.ids).toEqual(["cuda:2", "cuda:3"]);
    expect(reserve(shape, gpus(12, 12, 12, 12))?.ids).toHaveLength(4);
  });

  test("reserve: of GPUs that are as good each in its turn; groups do not overlap where they need not", () => {
    const shape = fakeShape();
    const four = gpus(24, 24, 24, 24);
    const pairs = { said: { count: 2, parts: 2 } };
    const turns = [0, 1, 2, 3, 4];

    expect(turns.map((turn) => reserve(shape, four, { turn })?.ids[0])).toEqual([
      "cuda:0",
      "cuda:1",
      "cuda:2",
      "cuda:3",
      "cuda:0",
    ]);
    expect(turns.map((turn) => reserve(shape, four, { turn, ...pairs })?.ids[0])).toEqual([
      "cuda:0",
      "cuda:2",
      "cuda:0",
      "cuda:2",
      "cuda:0",
    ]);
    expect(reserve(shape, gpus(12, 24, 16), { turn: 1 })?.ids).toEqual(["cuda:1"]);
  });

  test("reserve: only as many as divide its heads", () => {
    const shape = fakeShape({ weightBytes: 60 * GIB, headCount: 14 });

    expect(reserve(shape, gpus(24, 24, 24, 24))?.ids).toEqual(["cuda:0", "cuda:1"]);
  });

  test("reserve: where it fits none, as many as there are: whoever admits it says what is missing", () => {
    const shape = fakeShape({ weightBytes: 500 * GIB });

    expect(reserve(shape, gpus(24, 24, 24))?.ids).toEqual(["cuda:0", "cuda:1"]);
  });

  test("reserve: as flags say", () => {
    const devices = gpus(24, 24, 24);

    const said = reserve(fakeShape(), devices, { said: { count: 3, parts: 3 }, share: 0.5 });
    const more = reserve(fakeShape(), devices, { said: { count: 8, parts: 8 } });

    expect(said).toMatchObject({ ids: ["cuda:0", "cuda:1", "cuda:2"], parts: 3, share: 0.5 });
    expect(more).toMatchObject({ ids: ["cuda:0", "cuda:1", "cuda:2"], parts: 8 });
  });

  test("reserve: none without a GPU of this machine, or one that may not be used", () => {
    expect(reserve(fakeShape(), [RAM, gpu(0, 24, "vulkan")])).toBeUndefined();
    expect(reserve(fakeShape(), gpus(24), { budget: { "cuda:0": 0 } })).toBeUndefined();
  });

  test("reserve: a model of which nobody knows anything", () => {
    const shape = fakeShape({ layers: [], headCount: 0 });

    expect(reserve(shape, gpus(24))?.ids).toEqual(["cuda:0"]);
  });
});

describe("estimateReserved", () => {
  test("estimate: weights, cache, batch and what is always there; whole thousandths of the GPU", () => {
    const reservation = { needs: NEEDS, gpus: gpus(24), parts: 1 };

    const { demand, parts, growing } = estimateReserved(fakeShape(), RUN, reservation);

    expect(parts["weights"]).toBe(Math.ceil(4 * GIB * 1.05));
    expect(parts["cache"]).toBeGreaterThan(2 * GIB);
    expect(demand["ram"]).toBe(2 * GIB);
    const thousandths = ((demand["cuda:0"] ?? 0) / (24 * GIB)) * 1000;
    expect(Math.abs(thousandths - Math.round(thousandths))).toBeLessThan(0.001);
    expect(shareOf(demand, reservation)).toBe(Math.round(thousandths) / 1000);
    expect(growing).toEqual({});
  });

  test("estimate: each of several holds its part, of unlike ones the same share", () => {
    const one = estimateReserved(fakeShape(), RUN, { needs: NEEDS, gpus: gpus(24), parts: 1 });
    const two = estimateReserved(fakeShape(), RUN, { needs: NEEDS, gpus: gpus(24, 48), parts: 2 });

    expect(two.demand["cuda:0"]).toBeLessThan(one.demand["cuda:0"] ?? 0);
    expect(two.demand["cuda:1"]).toBeCloseTo(2 * (two.demand["cuda:0"] ?? 0), -4);
    expect(two.demand["ram"]).toBe(3 * GIB);
  });

  test("estimate: a cache of fp8 takes half, one of a kind that nobody knows the most", () => {
    expect(bytes("f16")).toBeCloseTo(16.8, 0);
    expect(bytes("fp8")).toBeCloseTo(8.4, 0);
    expect(bytes("fp8_e4m3")).toBe(bytes("fp8_e5m2"));
    expect(bytes("nobodys")).toBeGreaterThan(bytes("f16"));
  });

  test("estimate: compressed vectors lie on each GPU whole", () => {
    expect(latentCache(2)).toBe(latentCache(1));
  });

  test("estimate: what flags say is taken, unless it is too little", () => {
    expect(taken(0.8)).toBeCloseTo(0.8 * 24 * GIB, -4);
    expect(taken(0.01)).toBeGreaterThan(6 * GIB);
  });

  test("estimate: a draft model comes on top", () => {
    const draft = { shape: fakeShape({ weightBytes: GIB }), contextTokens: 4096 };
    const reservation = { needs: NEEDS, gpus: gpus(24), parts: 1 };

    const { parts } = estimateReserved(fakeShape(), { ...RUN, draft }, reservation);

    expect(parts["weights"]).toBeGreaterThanOrEqual(5 * GIB);
  });

  test("estimate: it is what everybody's estimate is where GPUs are taken whole", () => {
    const reservation = { needs: NEEDS, gpus: gpus(24), parts: 1 };
    const rest = { mode: "completion", projectorBytes: 0, adapterBytes: 0 } as const;
    const offload = { gpus: [], output: "ram", gpuLayers: 0 };

    expect(estimateMemory(fakeShape(), { ...RUN, ...rest, offload, reservation })).toEqual(
      estimateReserved(fakeShape(), RUN, reservation),
    );
  });
});
