/** From what a model's files say to its engine, its refusal, and what is explained. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BACKENDS } from "../../src/runtime/backends.ts";
import { createPlanner } from "../../src/runtime/planner.ts";
import type { RunnableModel } from "../../src/runtime/backend.ts";
import { toTraits } from "../../src/store/model-traits.ts";
import { ENGINE, fakePlannerDeps, shapedModel } from "../fakes/planner.ts";
import { rejection } from "../server/fake-deps.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tug-traits-"));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

function modelOf(config: Record<string, unknown>, rest: Partial<RunnableModel> = {}) {
  return shapedModel("m", {
    format: "safetensors",
    readTraits: () => Promise.resolve(toTraits(config)),
    ...rest,
  });
}

function setUp(...installed: readonly string[]) {
  const deps = fakePlannerDeps(directory, {
    backends: BACKENDS,
    activeEngine: (name) =>
      Promise.resolve(installed.includes(name) ? { ...ENGINE, backend: name } : undefined),
  });
  return { deps, planner: createPlanner(deps) };
}

test("traits: weights go to an engine that reads them, though another is installed", async () => {
  const { planner } = setUp("transformers");
  const plain = await planner.plan({ model: modelOf({}), mode: "completion" });
  const quantised = modelOf({ quantization: { group_size: 64, bits: 4 } }, { id: "sha256:2" });

  expect(plain.backend).toBe("transformers");
  expect((await planner.plan({ model: quantised, mode: "completion" })).backend).toBe("mlx");
});

test("traits: code is refused before anything is loaded, until it is allowed", async () => {
  const { deps, planner } = setUp("transformers");
  const model = modelOf({ model_type: "nobodys", auto_map: { AutoModel: "a.B" } });
  const request = { model, mode: "completion" } as const;

  expect(await rejection(planner.plan(request))).toMatchObject({ code: "forbidden" });
  deps.stored.set(model.id, null, { trust_remote_code: true });
  const plan = await planner.plan(request);

  expect([plan.backend, plan.settings.trustsCode]).toEqual(["transformers", true]);
  deps.stored.set(model.id, null, { trust_remote_code: null });
  expect(await rejection(planner.plan(request))).toMatchObject({ code: "forbidden" });
});

test("traits: a request never allows what only the owner may", async () => {
  const { planner } = setUp("transformers");
  const model = modelOf({}, { format: "pytorch" });
  for (const request of [{ allow_pickle: true }, { trust_remote_code: true }]) {
    const asked = { model, mode: "completion", request, trusted: false } as const;
    expect(await rejection(planner.plan(asked))).toMatchObject({
      code: "forbidden",
      message: expect.stringContaining("only the owner"),
    });
  }
});

test("traits: files that cannot be read are the engine's to complain about", async () => {
  const { planner } = setUp("mlx");
  const model = modelOf({}, { readTraits: () => Promise.reject(new Error("no JSON")) });

  expect((await planner.plan({ model, mode: "completion" })).backend).toBe("mlx");
});

test("explain: what an engine has nothing for is told with what it does instead", async () => {
  const { deps, planner } = setUp("mlx");
  const model = modelOf({});
  deps.stored.set(model.id, null, { gpu_layers: 5 });

  const { explained } = await planner.plan({ model, mode: "completion" });

  const row = (name: string) => explained.find((one) => one.name === name);
  expect(row("gpu_layers")).toMatchObject({ value: 5, source: "stored" });
  expect(row("gpu_layers")?.ignored).toContain("where it computes");
  expect(row("context_size")?.ignored).toContain("prompts of any length");
  // Nobody said them, and they do not count.
  expect(row("cache_type_k")).toBeUndefined();
  expect(row("parallel")?.ignored).toBeUndefined();
});
