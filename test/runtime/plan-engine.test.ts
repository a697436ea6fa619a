/** What the plan tells engines that take GPUs whole: through to the words of their command lines. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { sglang } from "../../backends/sglang/index.ts";
import { vllm } from "../../backends/vllm/index.ts";
import type { ModelSettings } from "../../src/api/settings.ts";
import type { Backend, Installation, RunnableModel } from "../../src/runtime/backend.ts";
import type { Device } from "../../src/runtime/hardware/devices.ts";
import { createPlanner, type PlannerDeps, type WorkerPlan } from "../../src/runtime/planner.ts";
import { explainPlan } from "../../src/server/explain.ts";
import type { ModelShape } from "../../src/store/model-shape.ts";
import { ENGINE, fakePlannerDeps, GIB, RAM, shapedModel } from "../fakes/planner.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tug-plan-engine-"));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

interface Asked {
  readonly backend?: Backend;
  readonly gpus?: readonly number[];
  readonly shape?: Partial<ModelShape> | null;
  readonly request?: ModelSettings;
  readonly deps?: Partial<Pick<PlannerDeps, "ledger" | "clusters">>;
  readonly variant?: string;
}

function cuda(index: number, gib: number): Device {
  const totalBytes = gib * GIB;
  return { id: `cuda:${index}`, kind: "cuda", name: null, totalBytes, freeBytes: totalBytes };
}

async function examined(asked: Asked): Promise<{ plan: WorkerPlan; command: readonly string[] }> {
  const { backend = vllm, gpus = [80], shape = {}, request = {}, variant = "cuda" } = asked;
  const engine: Installation = { ...ENGINE, backend: backend.name, variant };
  const devices = [RAM, ...gpus.map((gib, index) => cuda(index, gib))];
  const deps = fakePlannerDeps(directory, {
    backends: [backend],
    activeEngine: () => Promise.resolve(engine),
    readDevices: (one) => Promise.resolve(one === "cuda" ? devices : [RAM]),
    ...asked.deps,
  });
  const model = { ...shapedModel("m", { shape }), format: "safetensors", openBundle };
  const examiner = createPlanner(deps);
  const found = await examiner.examine({ model, mode: "completion", request, trusted: true });
  const { command } = await explainPlan(found, {
    workers: [],
    sandbox: () => Promise.resolve("none"),
    cores: 4,
    platform: "linux",
    signal: new AbortController().signal,
  });
  return { plan: found.plan, command: command ?? [] };
}

/** A planner of vLLM for models without a context of their own choice, by name. */
function plannerOn(
  gpus: () => readonly Device[],
  more: Partial<Omit<PlannerDeps, "models">> = {},
): (name: string) => Promise<WorkerPlan> {
  const engine: Installation = { ...ENGINE, backend: vllm.name, variant: "cuda" };
  const planner = createPlanner(
    fakePlannerDeps(directory, {
      backends: [vllm],
      activeEngine: () => Promise.resolve(engine),
      readDevices: () => Promise.resolve([RAM, ...gpus()]),
      ...more,
    }),
  );
  const shape = { contextTokens: 10_000_000 };
  return (name) => {
    const model = { ...shapedModel(name, { shape }), format: "safetensors", openBundle };
    return planner.plan({ model, mode: "completion" });
  };
}

const openBundle: RunnableModel["openBundle"] = () =>
  Promise.resolve({
    directory: "/b",
    format: "safetensors",
    model: "/b/m.safetensors",
    weightBytes: 1,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });

/** In the ledger. */
const PEAK = { "cuda:0": 70 * GIB, ram: GIB };

function after(command: readonly string[], flag: string): string | undefined {
  return command[command.indexOf(flag) + 1];
}

describe("a plan for engines that take GPUs whole", () => {
  test("plan: vLLM is told its GPU, its share, its context and the model's parsers", async () => {
    const { plan, command } = await examined({
      gpus: [24, 80],
      shape: { architecture: "qwen3" },
      request: { context_size: 8192 },
    });

    const share = Number(after(command, "--gpu-memory-utilization"));
    expect(after(command, "--device-ids")).toBe("1");
    expect(after(command, "--max-model-len")).toBe("8192");
    expect([after(command, "--tool-call-parser"), after(command, "--reasoning-parser")]).toEqual([
      "hermes",
      "qwen3",
    ]);
    expect(share * 80 * GIB).toBeCloseTo(plan.demand["cuda:1"] ?? 0, -5);
    expect(plan.demand["cuda:0"]).toBeUndefined();
    expect(plan.settings.devices).toEqual(["cuda:1"]);
  });

  test("plan: where nobody says a context, half of the budget holds all", async () => {
    const { plan } = await examined({ shape: { contextTokens: 10_000_000 } });

    expect(plan.settings.contextTokens).toBeGreaterThan(30_000);
    expect(plan.demand["cuda:0"]).toBeLessThanOrEqual(40 * GIB);
    expect(plan.gpuShare).toBeLessThanOrEqual(0.5);
  });

  test("plan: a model larger than a GPU is shared out to two", async () => {
    const shape = { weightBytes: 30 * GIB };
    const request = { context_size: 4096 };
    const { command } = await examined({ gpus: [24, 24], shape, request });
    const other = await examined({ backend: sglang, gpus: [24, 24], shape, request });

    expect(after(command, "--device-ids")).toBe("0,1");
    expect(after(command, "--tensor-parallel-size")).toBe("2");
    expect(after(other.command, "--base-gpu-id")).toBe("0");
    expect(after(other.command, "--tp-size")).toBe("2");
    expect(Number(after(other.command, "--max-total-tokens"))).toBeGreaterThanOrEqual(4096);
  });

  test("plan: a peak that was measured does not change the share, or it would grow each time", async () => {
    const request = { context_size: 4096 };
    const before = await examined({ request });
    const measured = await examined({ request, deps: { ledger: { find: () => PEAK } } });

    expect(measured.plan.demand["cuda:0"]).toBe(70 * GIB);
    expect(measured.plan.gpuShare).toBe(before.plan.gpuShare);
  });

  test("plan: a model whose files nobody can read lies on the GPU, too", async () => {
    const { plan } = await examined({ shape: null });

    expect(plan.demand["cuda:0"]).toBeGreaterThan(4 * GIB);
    expect(plan.architecture).toBeUndefined();
    expect(plan.asleep).toBeUndefined();
  });

  test("plan: an environment of the user's own uses the GPUs that there are", async () => {
    const { plan } = await examined({ variant: "host" });

    expect(plan.settings.devices).toEqual(["cuda:0"]);
  });

  test("plan: without a GPU nothing is said of any", async () => {
    const { plan, command } = await examined({ gpus: [] });

    expect([plan.gpuShare, plan.asleep, plan.settings.devices]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(command).not.toContain("--enable-sleep-mode");
  });

  test("plan: without a GPU the cache is told, which would be nine tenths of main memory", async () => {
    const bytesFor = async (tokens: number): Promise<number> => {
      const { command } = await examined({ gpus: [], request: { context_size: tokens } });
      return Number(after(command, "--kv-cache-memory-bytes"));
    };
    const [small, large] = [await bytesFor(4096), await bytesFor(8192)];
    const onGpu = await examined({ request: { context_size: 4096 } });

    // Twice the tokens, and the same rounding.
    expect(large / small).toBeGreaterThan(1.9);
    expect(large / small).toBeLessThan(2);
    expect(onGpu.command).not.toContain("--kv-cache-memory-bytes");
  });

  test("plan: vLLM can sleep, with its weights in main memory; not if flags say so, and SGLang cannot", async () => {
    const awake = { runtime_flags: ["--no-enable-sleep-mode"] };
    const { plan, command } = await examined({});
    const other = await examined({ request: awake });

    expect(plan.asleep).toEqual({
      ram: 4 * GIB + (plan.demand["ram"] ?? 0),
      "cuda:0": vllm.reservesGpus?.fixedBytes ?? 0,
    });
    expect(command).toContain("--enable-sleep-mode");
    expect([other.plan.asleep, other.command.includes("--enable-sleep-mode")]).toEqual([
      undefined,
      false,
    ]);
    expect((await examined({ backend: sglang })).plan.asleep).toBeUndefined();
  });

  test("plan: models get GPUs in turns and keep them; what was measured on another one is not theirs", async () => {
    const planner = plannerOn(() => [cuda(0, 80), cuda(1, 80)]);
    const planned = [];
    for (const name of ["a", "b", "a", "c"]) planned.push(await planner(name));

    expect(planned.map(({ settings }) => settings.devices?.[0])).toEqual([
      "cuda:0",
      "cuda:1",
      "cuda:0",
      "cuda:0",
    ]);
    const elsewhere = await plannerOn(() => [cuda(0, 40), cuda(1, 80)])("a");
    expect(elsewhere.settings.devices).toEqual(["cuda:1"]);
    expect(elsewhere.ledgerKey).not.toBe(planned[0]?.ledgerKey ?? "");
  });

  test("plan: what is free of a GPU changes nothing of who a worker is", async () => {
    let freeBytes = 79 * GIB;
    // Another text each time: nothing is kept but what was decided.
    let stamp = 0;
    const engineStamp = (): string => String((stamp += 1));
    const planner = plannerOn(() => [{ ...cuda(0, 80), freeBytes }], {
      engineStamp,
      readBudget: () => Promise.resolve({ ram: 100 * GIB, "cuda:0": freeBytes - GIB }),
    });
    const before = await planner("a");
    freeBytes = 20 * GIB;

    expect((await planner("a")).settings.contextTokens).toBe(before.settings.contextTokens ?? 0);
  });

  test("plan: flags that share a model out decide how many GPUs there are", async () => {
    const request = { runtime_flags: ["-pp", "3"], context_size: 4096 };
    const { plan, command } = await examined({ gpus: [80, 80, 80, 80], request });

    expect(plan.settings.devices).toEqual(["cuda:0", "cuda:1", "cuda:2"]);
    expect(command).not.toContain("--tensor-parallel-size");
  });

  test("plan: a cluster that config.toml names is asked by Ray, and nobody sleeps", async () => {
    const clusters = new Map([["vllm", "head:6379"]]);
    const { plan, command } = await examined({ deps: { clusters } });
    const other = await examined({ backend: sglang, deps: { clusters } });

    expect(after(command, "--distributed-executor-backend")).toBe("ray");
    expect(command).not.toContain("--device-ids");
    expect([plan.cluster, plan.asleep]).toEqual(["head:6379", undefined]);
    expect(other.plan.cluster).toBeUndefined();
  });
});
