import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { ModelSettings } from "../../src/api/settings.ts";
import { createPlanner, type PlanRequest, type WorkerPlan } from "../../src/runtime/planner.ts";
import { workerKey } from "../../src/runtime/worker-key.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { StoredSettings } from "../../src/state/model-settings.ts";
import { rejection } from "../server/fake-deps.ts";
import { ENGINE, fakePlannerDeps, GIB, RAM, shapedModel } from "../fakes/planner.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tug-planner-"));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

function ask(request: Partial<PlanRequest> & Pick<PlanRequest, "model">): PlanRequest {
  return { mode: "completion", ...request };
}

function explained(plan: WorkerPlan, name: string): readonly [unknown, string] | undefined {
  const row = plan.explained.find((one) => one.name === name);
  return row && [row.value, row.source];
}

function keyOf(plan: WorkerPlan): string {
  const { backend, mode, settings, model } = plan;
  return workerKey({ backend, mode, settings, modelId: model.id, draftId: plan.draft?.id });
}

describe("which value holds", () => {
  test("planner: request, stored for the mode, stored, packaged, config.toml, environment, default", async () => {
    const model = shapedModel("m", {
      contextTokens: 4096,
      defaults: { system: "packaged", parameters: { temperature: 0.3, top_p: 0.5, stop: ["x"] } },
    });
    const deps = fakePlannerDeps(directory, {
      models: [model],
      tables: { m: { parallel: 8, keep_alive: 90, temperature: 0.9, min_p: 0.1 } },
      config: {
        contextSize: { value: 0, source: "default" },
        keepAliveMs: { value: 60_000, source: "TUG_KEEP_ALIVE" },
      },
    });
    deps.stored.set(model.id, null, { context_size: 2048, top_k: 1, temperature: 0.2 });
    deps.stored.set(model.id, "completion", { top_k: 2 });
    const planner = createPlanner(deps);

    const plan = await planner.plan(ask({ model, request: { keep_alive: "0" } }));

    expect(explained(plan, "context_size")).toEqual([2048, "stored"]);
    expect(explained(plan, "top_k")).toEqual([2, "stored for completion"]);
    expect(explained(plan, "temperature")).toEqual([0.2, "stored"]);
    expect(explained(plan, "top_p")).toEqual([0.5, "packaged"]);
    expect(explained(plan, "system")).toEqual(["packaged", "packaged"]);
    expect(explained(plan, "stop")).toEqual([["x"], "packaged"]);
    expect(explained(plan, "parallel")).toEqual([8, "config.toml"]);
    expect(explained(plan, "min_p")).toEqual([0.1, "config.toml"]);
    expect(explained(plan, "keep_alive")).toEqual(["0", "request"]);
    expect(explained(plan, "cache_type_k")).toEqual(["f16", "default"]);
    expect(plan.keepAliveMs).toBe(0);
    expect(plan.defaults).toEqual({
      system: "packaged",
      think: undefined,
      messages: undefined,
      parameters: { temperature: 0.2, top_p: 0.5, stop: ["x"], top_k: 2, min_p: 0.1 },
    });
    const { keepAliveMs, explained: rows } = await planner.plan(ask({ model, mode: "embedding" }));
    expect(keepAliveMs).toBe(90_000);
    expect(rows.find(({ name }) => name === "top_k")?.value).toBe(1);
  });

  test("planner: nothing that only requests or the keep-alive say makes another worker", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    const planner = createPlanner(deps);
    const before = await planner.plan(ask({ model }));

    deps.stored.set(model.id, null, {
      temperature: 0,
      think: false,
      system: "s",
      pinned: true,
      runtime_flags: ["--top-k", "5"],
    });
    const after = await planner.plan(ask({ model, request: { keep_alive: "-1" } }));

    expect(keyOf(after)).toBe(keyOf(before));
    expect(after.keepAliveMs).toBe(-1);
    expect(after.pinned).toBe(true);
    expect(after.defaults.parameters).toEqual({ temperature: 0, top_k: 5 });
  });

  test("planner: what is stored by another process holds for the next request", async () => {
    const model = shapedModel("m");
    const planner = createPlanner(fakePlannerDeps(directory));
    await planner.plan(ask({ model }));
    using other = new StateDatabase(`${directory}/tug.db`);

    new StoredSettings(other).set(model.id, null, { context_size: 1024 });

    expect((await planner.plan(ask({ model }))).settings.contextTokens).toBe(1024);
  });

  test("planner: what a newer Tug stored is left alone; what is stored wrongly is said", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    deps.stored.set(model.id, null, { warp: 9, parallel: 2 } as ModelSettings);

    const plan = await createPlanner(deps).plan(ask({ model }));
    deps.stored.set(model.id, null, { parallel: "two" } as unknown as ModelSettings);
    const failed = await rejection(createPlanner(deps).plan(ask({ model })));

    expect(plan.settings.parallel).toBe(2);
    expect(explained(plan, "warp")).toBeUndefined();
    expect(failed).toMatchObject({
      code: "invalid_request",
      message: "cannot use what is stored for `m`: `two` is not a value of `parallel`",
    });
  });

  test("planner: an environment's context is for models that can have it", async () => {
    const small = shapedModel("small", { shape: { contextTokens: 2048 } });
    const deps = fakePlannerDeps(directory, {
      config: {
        contextSize: { value: 8192, source: "TUG_CONTEXT_SIZE" },
        keepAliveMs: { value: 300_000, source: "default" },
      },
    });
    const planner = createPlanner(deps);

    const [of, large] = [ask({ model: small }), ask({ model: shapedModel("large") })];
    expect(explained(await planner.plan(of), "context_size")).toEqual([2048, "TUG_CONTEXT_SIZE"]);
    expect(explained(await planner.plan(large), "context_size")).toEqual([
      8192,
      "TUG_CONTEXT_SIZE",
    ]);
  });

  test("planner: config.toml means a model, whichever of its names it uses", async () => {
    const model = shapedModel("docker.io/me/m:latest");
    const alias = { ...model, name: "alias" };
    const deps = fakePlannerDeps(directory, {
      models: [alias],
      tables: { "not/here": { parallel: 9 }, alias: { parallel: 2 } },
    });

    expect((await createPlanner(deps).plan(ask({ model }))).settings.parallel).toBe(2);
  });

  test.each([
    ["no table", { m: 5 }, /settings of `m` in config\.toml: they are no table/],
    ["an unknown setting", { m: { contxt: 5 } }, /in config\.toml: there is no setting `contxt`/],
    ["a wrong value", { m: { parallel: 0 } }, /in config\.toml: `0` is not a value of `parallel`/],
    ["a bad flag", { m: { runtime_flags: ["--host", "x"] } }, /`--host`: Tug sets it itself/],
    [
      "a contradiction",
      { m: { context_size: 1024, runtime_flags: ["-c", "512"] } },
      /they set `context_size` otherwise/,
    ],
  ])("planner: config.toml with %s is an error", async (_name, tables, message) => {
    const planner = createPlanner(fakePlannerDeps(directory, { tables }));

    expect(await rejection(planner.plan(ask({ model: shapedModel("m") })))).toMatchObject({
      message: expect.stringMatching(message),
    });
  });
});

describe("runtime flags", () => {
  test("planner: a flag that says a setting is that setting", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    deps.stored.set(model.id, null, { runtime_flags: ["-c", "512", "--no-warmup"] });

    const plan = await createPlanner(deps).plan(ask({ model }));

    expect(plan.settings.contextTokens).toBe(512);
    expect(plan.settings.runtimeFlags).toEqual(["--no-warmup"]);
    expect(explained(plan, "context_size")).toEqual([512, "stored"]);
  });

  test("planner: what flags take of memory is counted, and told to the engine once and the same", async () => {
    const layer = { kind: "sliding", keyElements: 1024, valueElements: 1024, window: 512 } as const;
    const model = shapedModel("m", { shape: { layers: [layer] } });
    const planner = createPlanner(fakePlannerDeps(directory));
    const demandOf = async (...runtime_flags: string[]) => {
      const request = { context_size: 8192, runtime_flags };
      const { plan, parts } = await planner.examine(ask({ model, request }));
      return { plan, parts, ram: plan.demand["ram"] ?? 0 };
    };
    const usual = await demandOf();

    const cached = await demandOf("--cache-ram", "64", "--ctx-checkpoints", "0");

    expect(cached.plan.settings).toMatchObject({ promptCacheMiB: 64, contextCheckpoints: 0 });
    expect(cached.parts["prompt cache"]).toBe(64 * 1024 ** 2);
    expect(cached.parts["checkpoints"] ?? 0).toBe(0);
    expect((await demandOf("--swa-full")).parts["cache"]).toBe(8192 * 2048 * 2);
    expect((await demandOf("--ubatch-size", "2048")).ram).toBeGreaterThan(usual.ram);
    expect((await demandOf("--ubatch-size", "64")).ram).toBeLessThan(usual.ram);
  });

  test("planner: files that flags name are told, for the sandbox", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    const path = join(directory, "g.gbnf");
    writeFileSync(path, "root ::= [a]");
    deps.stored.set(model.id, null, { runtime_flags: ["--grammar-file", path] });
    const planner = createPlanner(deps);

    expect((await planner.plan(ask({ model }))).settings.files).toEqual([path]);
    rmSync(path);
    expect(await rejection(planner.examine(ask({ model })))).toMatchObject({
      code: "invalid_request",
      message: expect.stringMatching(/^cannot use the file `.*g\.gbnf`: there is no such file$/),
    });
  });

  test.each([[{ runtime_flags: ["--grammar-file", "/g"] }], [{ lora: ["/etc/passwd"] }]])(
    "planner: a request from elsewhere names no files (%o)",
    async (request: ModelSettings) => {
      const planner = createPlanner(fakePlannerDeps(directory));

      expect(
        await rejection(planner.plan(ask({ model: shapedModel("m"), request }))),
      ).toMatchObject({
        code: "forbidden",
      });
    },
  );

  test("planner: an adapter counts, and must be there", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    const planner = createPlanner(deps);
    const without = await planner.plan(ask({ model }));
    const path = join(directory, "lora.gguf");
    writeFileSync(path, new Uint8Array(1000));

    const request = { lora: [path], context_size: without.settings.contextTokens ?? 0 };
    const plan = await planner.plan(ask({ model, trusted: true, request }));

    expect(plan.settings.adapters).toEqual([path]);
    expect(plan.demand["ram"]).toBe((without.demand["ram"] ?? 0) + 1000);
    rmSync(path);
    const gone = planner.examine(ask({ model, trusted: true, request }));
    expect(await rejection(gone)).toMatchObject({
      message: expect.stringMatching(/adapter `.*lora\.gguf`: there is no such file/),
    });
  });
});

describe("context", () => {
  test.each([
    ["request", { request: { context_size: 131_073 } }],
    ["stored", {}],
  ] as const)("planner: one larger than the model's own is an error (%s)", async (source, more) => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    if (source === "stored") deps.stored.set(model.id, null, { context_size: 131_073 });

    expect(await rejection(createPlanner(deps).plan(ask({ model, ...more })))).toMatchObject({
      code: "invalid_request",
      message: `cannot give \`m\` a context of 131073 tokens${source === "request" ? "" : ` (${source})`}: it was trained for 131072`,
      hint: expect.stringContaining("at most 131072"),
    });
  });

  test("planner: a stretched one may be larger", async () => {
    const request = { context_size: 262_144, runtime_flags: ["--rope-scaling", "yarn"] };
    const planner = createPlanner(fakePlannerDeps(directory));

    const plan = await planner.plan(ask({ model: shapedModel("m"), request }));

    expect(plan.settings.contextTokens).toBe(262_144);
  });

  test("planner: -1 is the model's own, as a number where somebody knows it", async () => {
    const planner = createPlanner(fakePlannerDeps(directory));
    const request = { context_size: -1 };

    const known = await planner.plan(ask({ model: shapedModel("m"), request }));
    const unknown = await planner.plan(ask({ model: shapedModel("x", { shape: null }), request }));

    expect(known.settings.contextTokens).toBe(131_072);
    expect(unknown.settings.contextTokens).toBe(-1);
  });

  test("planner: unsaid, it is the largest with which two such models fit, rounded down", async () => {
    const planner = createPlanner(fakePlannerDeps(directory));

    const { plan, estimate } = await planner.examine(ask({ model: shapedModel("m") }));

    const tokens = plan.settings.contextTokens ?? 0;
    // 64 GiB less 15 %: half of that less 4 GiB of weights, at half a MiB a token.
    expect(tokens).toBeGreaterThan(40_000);
    expect(tokens).toBeLessThan(48_000);
    expect(tokens % 256).toBe(0);
    expect((estimate["ram"] ?? 0) * 2).toBeLessThanOrEqual(64 * GIB * 0.85);
    expect(explained(plan, "context_size")).toEqual([tokens, "default"]);
  });

  test.each([
    ["a small model gets all of its own", { contextTokens: 2000, layers: [] }, 2000],
    ["one that nobody can read gets a small one", null, 4096],
    ["one without known layers gets a small one", { layers: [] }, 4096],
    ["one that hardly fits gets a small one in any case", { weightBytes: 60 * GIB }, 4096],
  ])("planner: unsaid, %s", async (_name, shape, tokens) => {
    const planner = createPlanner(fakePlannerDeps(directory));

    const plan = await planner.plan(ask({ model: shapedModel("m", { shape }) }));

    expect(plan.settings.contextTokens).toBe(tokens);
  });

  test("planner: where other programs hold the memory it is smaller, and stays so when they leave", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    deps.budget = { ram: 10 * GIB };
    const planner = createPlanner(deps);

    const before = await planner.plan(ask({ model }));
    deps.budget = { ram: 50 * GIB };
    // Plans are forgotten with what is stored; this decision must not be.
    deps.stored.set("sha256:another", null, { pinned: true });
    const after = await planner.plan(ask({ model }));

    expect(before.settings.contextTokens).toBeLessThan(12_288);
    expect(before.settings.contextTokens).toBeGreaterThanOrEqual(4096);
    expect(before.demand["ram"]).toBeLessThanOrEqual(10 * GIB);
    expect(keyOf(after)).toBe(keyOf(before));
  });

  test("planner: another shape of the run decides anew", async () => {
    const planner = createPlanner(fakePlannerDeps(directory));
    const model = shapedModel("m");

    const f16 = await planner.plan(ask({ model }));
    const request = { cache_type_k: "q4_0", cache_type_v: "q4_0" };
    const q4 = await planner.plan(ask({ model, request }));

    expect(q4.settings.contextTokens).toBeGreaterThan(2 * (f16.settings.contextTokens ?? 0));
  });
});

describe("memory", () => {
  test("planner: a measured peak replaces the estimate, at once and for plans that are known", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    const planner = createPlanner(deps);
    const estimated = await planner.plan(ask({ model }));

    const peak = 2 * (estimated.demand["ram"] ?? 0);

    deps.ledger.record(estimated.ledgerKey ?? "", { ram: peak });

    expect((await planner.plan(ask({ model }))).demand).toEqual({ ram: peak });
    const { plan, measured } = await planner.examine(ask({ model }));
    expect([plan.demand, measured]).toEqual([{ ram: peak }, { ram: peak }]);
  });

  test("planner: to a peak below the estimate comes what long prompts take, up to the estimate", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    const planner = createPlanner(deps);
    const { plan, estimate, growing } = await planner.examine(ask({ model }));
    const [total = 0, later = 0] = [estimate["ram"], growing["ram"]];
    const demandAfter = async (peak: number) => {
      deps.ledger.record(plan.ledgerKey ?? "", { ram: peak });
      const examined = (await planner.examine(ask({ model }))).plan.demand["ram"];
      expect((await planner.plan(ask({ model }))).demand["ram"]).toBe(examined);
      return examined;
    };
    await planner.plan(ask({ model }));

    expect(later).toBeGreaterThan(0);
    expect(await demandAfter(total - 2 * later)).toBe(total - later);
    expect(await demandAfter(total - later / 2)).toBe(total);
    expect(await demandAfter(total + 1)).toBe(total + 1);
  });

  test("planner: the ledger's key differs with everything that decides memory", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    const planner = createPlanner(deps);
    const requests: ModelSettings[] = [
      {},
      { context_size: 1024 },
      { parallel: 1 },
      { cache_type_k: "q8_0" },
      { cache_type_v: "q8_0" },
      { gpu_layers: 1 },
      { runtime_flags: ["--no-warmup"] },
    ];

    const keys = await Promise.all(
      requests.map(async (request) => (await planner.plan(ask({ model, request }))).ledgerKey),
    );
    deps.engine = { ...ENGINE, version: "2" };
    deps.stamp = "2";
    keys.push((await planner.plan(ask({ model }))).ledgerKey);

    expect(new Set(keys).size).toBe(requests.length + 1);
  });

  test("planner: without an engine there is a plan, but nothing to measure", async () => {
    const deps = fakePlannerDeps(directory);
    deps.engine = undefined;

    const plan = await createPlanner(deps).plan(ask({ model: shapedModel("m") }));

    expect(plan.ledgerKey).toBeUndefined();
    expect(plan.demand["ram"]).toBeGreaterThan(4 * GIB);
  });

  test("planner: what does not fit comes with what would", async () => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    deps.budget = { ram: 8 * GIB };
    const plan = await createPlanner(deps).plan(ask({ model, request: { context_size: 65_536 } }));

    const tokens = Number(/a context of (\d+) tokens would fit/.exec(plan.advice ?? "")?.[1]);

    expect(tokens).toBeGreaterThan(4096);
    const fitting = { context_size: tokens };
    const next = await createPlanner(deps).plan(ask({ model, request: fitting }));
    expect(next.advice).toBeUndefined();
    expect(next.demand["ram"]).toBeLessThanOrEqual(8 * GIB);
  });

  test("planner: where no context fits, a smaller model that is here is named", async () => {
    const deps = fakePlannerDeps(directory, {
      findSmaller: () => Promise.resolve("`m:q4` (1.2GB) is here and would fit"),
    });
    deps.budget = { ram: GIB };

    const plan = await createPlanner(deps).plan(ask({ model: shapedModel("m") }));

    expect(plan.advice).toBe("`m:q4` (1.2GB) is here and would fit");
  });

  test("planner: layers on a GPU are that GPU's bytes", async () => {
    const gpu = {
      id: "cuda:0",
      kind: "cuda",
      name: "G",
      totalBytes: 24 * GIB,
      freeBytes: 24 * GIB,
    };
    const deps = fakePlannerDeps(directory, {
      readDevices: (variant) =>
        Promise.resolve(variant === "cuda" ? [RAM, { ...gpu, kind: "cuda" }] : [RAM]),
    });
    deps.engine = { ...ENGINE, variant: "cuda" };

    const plan = await createPlanner(deps).plan(ask({ model: shapedModel("m") }));

    expect(plan.demand["cuda:0"]).toBeGreaterThan(3 * GIB);
    expect(plan.demand["cuda:0"]).toBeLessThanOrEqual(12 * GIB);
    expect(plan.demand["ram"]).toBeLessThan(2 * GIB);
    expect(explained(plan, "gpu_layers")).toEqual(["as many as fit", "default"]);
  });
});

describe("draft models", () => {
  const model = shapedModel("m");
  const draft = shapedModel("small", { shape: { weightBytes: GIB } });
  const request = { draft_model: "small", draft_max_tokens: 8, draft_min_probability: 0.5 };

  test("planner: it is part of the plan, of its memory and of the worker's identity", async () => {
    const deps = fakePlannerDeps(directory, { models: [model, draft] });
    const planner = createPlanner(deps);
    const fixed = { context_size: 4096 };

    const alone = await planner.plan(ask({ model, request: fixed }));
    const plan = await planner.plan(ask({ model, request: { ...request, ...fixed } }));

    expect(plan.draft?.id).toBe(draft.id);
    expect(plan.settings.draft).toEqual({ model: draft.id, maxTokens: 8, minProbability: 0.5 });
    expect(plan.demand["ram"]).toBeGreaterThan((alone.demand["ram"] ?? 0) + GIB);
    expect(keyOf(plan)).not.toBe(keyOf(alone));
    const embedding = await planner.plan(ask({ model, mode: "embedding", request }));
    expect(embedding.draft).toBeUndefined();
  });

  test("planner: a model does not draft for itself, nor in another format, and must be there", async () => {
    const other = shapedModel("other", { format: "safetensors" });
    const planner = createPlanner(fakePlannerDeps(directory, { models: [model, other] }));
    const plan = (name: string) => planner.plan(ask({ model, request: { draft_model: name } }));

    expect(await rejection(plan("m"))).toMatchObject({
      message: expect.stringMatching(/cannot let `m` draft for itself/),
    });
    expect(await rejection(plan("other"))).toMatchObject({ code: "unsupported_model" });
    expect(await rejection(plan("nobody"))).toMatchObject({
      message: expect.stringMatching(/there is no nobody/),
    });
  });

  test("planner: only who may name files names a draft by its path", async () => {
    const asked: boolean[] = [];
    const deps = fakePlannerDeps(directory, {
      resolve: (_name, { trusted }) => {
        asked.push(trusted);
        return Promise.resolve(draft);
      },
    });
    const planner = createPlanner(deps);

    await planner.plan(ask({ model, request }));
    await planner.plan(ask({ model, request, trusted: true }));
    deps.stored.set(model.id, null, { draft_model: "/d.gguf" });
    await planner.plan(ask({ model }));

    expect(asked).toEqual([false, true, true]);
  });
});

describe("the usual plan", () => {
  test.each([
    [undefined, true],
    [{ temperature: 0, keep_alive: "1h" }, true],
    [{ context_size: 512 }, true],
    [{ context_size: 1024 }, false],
    [{ parallel: 1 }, false],
    [{ runtime_flags: ["--no-warmup"] }, false],
  ] as const)("planner: with a request for %o it is one: %p", async (request, isUsual) => {
    const model = shapedModel("m");
    const deps = fakePlannerDeps(directory);
    deps.stored.set(model.id, null, { context_size: 512 });

    const plan = await createPlanner(deps).plan(ask({ model, request }));

    expect(plan.isUsual).toBe(isUsual);
  });
});

describe("cost", () => {
  test("planner: callers share one reading of a header, and a failed one is tried again", async () => {
    const planner = createPlanner(fakePlannerDeps(directory));
    const model = shapedModel("m");
    const broken = shapedModel("x", { shape: null });

    await Promise.all(
      [1, 2, 3].map((n) => planner.plan(ask({ model, request: { context_size: n * 1024 } }))),
    );
    await planner.examine(ask({ model: broken }));
    await planner.examine(ask({ model: broken }));

    expect(model.reads).toBe(1);
    expect(broken.reads).toBe(2);
  });

  test("planner: a known request asks for nothing but what may have changed", async () => {
    let budgets = 0;
    const deps = fakePlannerDeps(directory, {
      readBudget: () => {
        budgets += 1;
        return Promise.resolve(undefined);
      },
    });
    const planner = createPlanner(deps);
    const model = shapedModel("m");
    await planner.plan(ask({ model }));

    const plan = await planner.plan(ask({ model: { ...model, name: "alias" } }));

    expect(budgets).toBe(1);
    expect(plan.model.name).toBe("alias");
    deps.stamp = "another engine";
    await planner.plan(ask({ model }));
    expect(budgets).toBe(2);
  });

  test("planner: a plan for a model that does not fit is made anew", async () => {
    const deps = fakePlannerDeps(directory);
    deps.budget = { ram: GIB };
    const request = ask({ model: shapedModel("m"), request: { context_size: 4096 } });
    let budgets = 0;
    const counting = createPlanner({
      ...deps,
      readBudget: () => {
        budgets += 1;
        return Promise.resolve(deps.budget);
      },
    });

    await counting.plan(request);
    await counting.plan(request);
    deps.budget = undefined;
    await counting.plan(request);
    await counting.plan(request);

    expect(budgets).toBe(3);
  });
});
