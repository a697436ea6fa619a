import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { EstimateResult, ExplainResult, ModelSettings } from "../../src/api/settings.ts";
import { AppError } from "../../src/errors.ts";
import type { RunnableModel } from "../../src/runtime/backend.ts";
import { CHECKPOINTS } from "../../src/runtime/memory.ts";
import { createPlanner, type PlannerDeps } from "../../src/runtime/planner.ts";
import type { WorkerSnapshot } from "../../src/runtime/snapshot.ts";
import { planKey } from "../../src/runtime/worker-key.ts";
import { createApp } from "../../src/server/app.ts";
import { settingsRoutes, type SettingsRoutesDeps } from "../../src/server/routes/settings.ts";
import { fakePlannerDeps, fakeShape, GIB, shapedModel } from "../fakes/planner.ts";
import { fakeDeps } from "./fake-deps.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tug-settings-"));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

const SMALL = shapedModel("small", { shape: { weightBytes: GIB } });

/** Where it is, too. */
const SMALL_FILE = "/m/small.gguf";

interface Setup extends Partial<SettingsRoutesDeps> {
  readonly model?: RunnableModel;
  readonly workers?: readonly WorkerSnapshot[];
  /** Of config.toml. */
  readonly tables?: PlannerDeps["models"];
}

function setUp({
  model = shapedModel("pebble"),
  workers = [],
  tables = {},
  ...overrides
}: Setup = {}) {
  const resolve: SettingsRoutesDeps["resolve"] = (name, { trusted }) => {
    if (name === SMALL_FILE && trusted) return Promise.resolve(SMALL);
    if (name.startsWith("/")) {
      const code = trusted ? "not_found" : "forbidden";
      return Promise.reject(new AppError(code, `cannot run ${name}`));
    }
    const found = [model, SMALL].find((one) => one.name === name || one.id === name);
    const missing = new AppError("model_not_found", `cannot find \`${name}\``);
    return found === undefined ? Promise.reject(missing) : Promise.resolve(found);
  };
  const planner = fakePlannerDeps(directory, { resolve, tables });
  const pins: unknown[] = [];
  const routes = settingsRoutes({
    resolve,
    listModels: () => Promise.resolve([]),
    examiner: () => createPlanner(planner),
    stored: () => planner.stored,
    runtime: {
      list: () => [...workers],
      pin: (...args) => {
        pins.push(args);
        return 1;
      },
    },
    sandbox: () => Promise.resolve("bubblewrap"),
    cores: () => 4,
    ...overrides,
  });
  const app = createApp(fakeDeps({ settingsRoutes: routes }));
  const call = async (
    method: string,
    path: string,
    { body, trusted = true }: { body?: unknown; trusted?: boolean } = {},
  ) => {
    const init = { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const response = await app.fetch(new Request(`http://localhost${path}`, init), { trusted });
    const text = await response.text();
    return { status: response.status, text, json: text === "" ? undefined : JSON.parse(text) };
  };
  const configure = (set: unknown, more: object = {}, options: { trusted?: boolean } = {}) =>
    call("POST", "/engines/_configure", { body: { model: "pebble", set, ...more }, ...options });
  return { app, call, configure, stored: planner.stored, planner, model, pins };
}

function worker(overrides: Partial<WorkerSnapshot>): WorkerSnapshot {
  return {
    id: 1,
    key: "as it was planned",
    backend: "llama.cpp",
    modelName: "pebble",
    modelId: shapedModel("pebble").id,
    draftModelId: null,
    mode: "completion",
    state: "ready",
    inUse: 0,
    slots: 4,
    contextTokens: 2048,
    lastUsed: null,
    keepAliveMs: 1,
    expiresAt: null,
    pinned: false,
    pid: 1,
    demand: { ram: GIB },
    measured: null,
    devices: ["ram"],
    sandbox: "limits",
    mismatches: [],
    report: { context_size: 2048, parallel: 4, model_path: "/b/pebble.gguf" },
    progress: null,
    ...overrides,
  };
}

async function explain(setup: ReturnType<typeof setUp>, more: object = {}) {
  const answer = await setup.call("POST", "/engines/explain", {
    body: { model: "pebble", ...more },
  });
  return answer.json as ExplainResult;
}

async function estimate(setup: ReturnType<typeof setUp>, body: object) {
  const answer = await setup.call("POST", "/engines/estimate", { body });
  return answer.json as EstimateResult;
}

describe("POST /engines/_configure", () => {
  test("configure: is merged key by key, null unsets, and the rest stays", async () => {
    const { configure, model } = setUp();

    await configure({ context_size: 2048, temperature: 0 });
    const second = await configure({ keep_alive: 90, temperature: null });

    expect(second.status).toBe(200);
    expect(second.json).toEqual({
      model_id: model.id,
      mode: null,
      settings: { context_size: 2048, keep_alive: "90" },
      applies: "now",
    });
  });

  test("configure: a mode has its own", async () => {
    const { configure, stored, model } = setUp();

    await configure({ parallel: 2 }, { mode: "embedding" });

    expect(stored.find(model.id, "embedding")).toEqual({ parallel: 2 });
    expect(stored.find(model.id, null)).toEqual({});
  });

  test("configure: flags become the settings they say, and choose the mode", async () => {
    const { configure, stored, model } = setUp();

    await configure({ runtime_flags: ["-c", "1024", "--no-warmup"] });
    await configure({ runtime_flags: ["--embeddings", "-np", "2"] });

    expect(stored.find(model.id, null)).toEqual({
      context_size: 1024,
      runtime_flags: ["--no-warmup"],
    });
    expect(stored.find(model.id, "embedding")).toEqual({ parallel: 2 });
  });

  test("configure: an empty list of flags takes the stored ones away", async () => {
    const { configure, stored, model } = setUp();
    await configure({ runtime_flags: ["--no-warmup"] });

    await configure({ runtime_flags: [] });

    expect(stored.find(model.id, null)).toEqual({});
  });

  test.each([
    ["an unknown setting", { contxt_size: 1 }, 400, /there is no setting `contxt_size`/],
    ["a wrong value", { parallel: "two" }, 400, /`two` is not a value of `parallel`/],
    ["a context larger than the model's", { context_size: 131_073 }, 400, /trained for 131072/],
    ["an unknown flag", { runtime_flags: ["--no-warmpu"] }, 400, /`--no-warmpu`: it is not among/],
    ["an unknown cache type", { cache_type_v: "q9" }, 400, /cache type `q9`/],
    ["a wrong value of a flag", { runtime_flags: ["-ctk", "q9"] }, 400, /`q9` is not a value/],
    [
      "a contradiction",
      { context_size: 1, runtime_flags: ["-c", "2"] },
      400,
      /set `context_size` o/,
    ],
    ["an unknown draft model", { draft_model: "nobody" }, 404, /cannot find `nobody`/],
    ["a model drafting for itself", { draft_model: "pebble" }, 400, /draft for itself/],
    ["an adapter that is not there", { lora: ["/no/such"] }, 400, /there is no such file/],
    [
      "a flag's file that is not there",
      { runtime_flags: ["--grammar-file", "/no/such"] },
      400,
      /there is no such file/,
    ],
    ["a relative path", { lora: ["x.gguf"] }, 400, /is not a value of `lora`/],
    ["no object", 5, 400, /`set` must be Object/],
  ])(
    "configure: %s is refused, and nothing is stored",
    async (_name, ...[set, status, message]) => {
      const { configure, stored } = setUp();

      const answer = await configure(set);

      expect(answer.status).toBe(status);
      expect(answer.json.error.message).toMatch(message);
      expect(stored.list()).toEqual([]);
    },
  );

  test.each([
    ["an adapter", { lora: ["/etc/passwd"] }],
    ["to let a model's code run", { trust_remote_code: true }],
    ["to let pickles be opened", { allow_pickle: true }],
    ["a flag with a file", { runtime_flags: ["--grammar-file", "/etc/passwd"] }],
    ["a flag for an adapter", { runtime_flags: ["--lora=/etc/passwd"] }],
    ["a draft by its path", { draft_model: "/etc/passwd" }],
    ["a flag for a draft", { runtime_flags: ["-md", "/etc/passwd"] }],
  ])("configure: %s cannot be set over TCP", async (_name, set) => {
    const { configure, stored } = setUp();

    const answer = await configure(set, {}, { trusted: false });

    expect(answer.status).toBe(403);
    expect(stored.list()).toEqual([]);
  });

  test("configure: what does not hold any more can be taken away", async () => {
    const { configure, stored, model } = setUp();
    stored.set(model.id, null, { lora: ["/gone.gguf"], parallel: 2 });

    expect((await configure({ parallel: 3 })).status).toBe(400);
    expect((await configure({ lora: null })).json.settings).toEqual({ parallel: 2 });
  });

  test("configure: whether a worker runs otherwise is asked of the worker, not of what was stored", async () => {
    const workers: WorkerSnapshot[] = [];
    const { configure, planner, model, pins } = setUp({ workers });
    const plan = await createPlanner(planner).plan({ model, mode: "completion" });
    const { contextTokens, parallel } = plan.settings;
    workers.push(worker({ key: planKey(plan) }));
    const applies = async (set: object, more?: object) =>
      (await configure(set, more)).json.applies as string;

    expect(await applies({ context_size: contextTokens, parallel })).toBe("now");
    expect(await applies({ context_size: 4096 })).toBe("next load");
    // Still so, though this changes nothing of what is stored.
    expect(await applies({ context_size: 4096, temperature: 1 })).toBe("next load");
    expect(await applies({ temperature: 0 })).toBe("now");
    expect(await applies({ parallel: 1 }, { mode: "embedding" })).toBe("now");
    expect(await applies({ context_size: null })).toBe("now");
    expect(await applies({ pinned: true })).toBe("now");
    expect(pins).toEqual([[model.id, true]]);
  });

  test("configure: what is not set any more pins nothing any more, unless config.toml does", async () => {
    const workers = [worker({ pinned: true }), worker({ id: 2, modelId: SMALL.id, pinned: true })];
    const { configure, call, stored, model, pins } = setUp({
      workers,
      tables: { small: { pinned: true } },
    });
    stored.set(SMALL.id, null, { pinned: true });

    await configure({ pinned: true });
    await configure({ pinned: null });
    await configure({ pinned: true });
    await call("DELETE", "/engines/_configure?model=pebble");
    await call("DELETE", "/engines/_configure?model=pebble");
    await configure({ pinned: true });
    await call("DELETE", "/engines/_configure?all=true");

    expect(pins).toEqual([
      [model.id, true],
      [model.id, false],
      [model.id, true],
      [model.id, false],
      [model.id, true],
      [model.id, false],
      [SMALL.id, true],
    ]);
  });

  test("configure: a worker that is leaving is no matter", async () => {
    const { configure } = setUp({ workers: [worker({ state: "draining" })] });

    expect((await configure({ context_size: 4096 })).json.applies).toBe("now");
  });

  test("configure: what is for all modes must hold in one that has settings of its own, too", async () => {
    const { configure, stored, model } = setUp();
    const stretched = { context_size: 262_144, runtime_flags: ["--rope-scaling", "yarn"] };
    await configure({ runtime_flags: ["--no-warmup"] }, { mode: "embedding" });

    const refused = await configure(stretched);
    await configure({ runtime_flags: null }, { mode: "embedding" });
    const accepted = await configure(stretched);

    expect(refused.status).toBe(400);
    expect(refused.json.error.message).toMatch(/context of 262144 tokens: it was trained/);
    expect(accepted.status).toBe(200);
    expect(stored.find(model.id, null)).toEqual(stretched);
  });

  test("configure: a refusal names the source of what stands in the way, unless it was just said", async () => {
    const { configure, stored, model } = setUp();
    stored.set(model.id, null, {
      context_size: 262_144,
      runtime_flags: ["--rope-scaling", "yarn"],
    });

    const message = async (set: object) => (await configure(set)).json.error.message as string;

    expect(await message({ context_size: 131_073, runtime_flags: [] })).toBe(
      "cannot give `pebble` a context of 131073 tokens: it was trained for 131072",
    );
    expect(await message({ runtime_flags: ["--no-warmup"] })).toBe(
      "cannot give `pebble` a context of 262144 tokens (stored): it was trained for 131072",
    );
    expect(await message({ cache_type_k: "q9" })).toBe(
      "cannot use the cache type `q9`: llama.cpp does not know it",
    );
  });

  test("configure: a trusted client may draft with a file", async () => {
    const { configure, stored, model } = setUp();

    expect((await configure({ draft_model: SMALL_FILE })).status).toBe(200);
    expect(stored.find(model.id, null)).toEqual({ draft_model: SMALL_FILE });
  });

  test("configure: an engine that is not known is 404, as is a model", async () => {
    const { call } = setUp();
    const body = { model: "pebble", set: {} };

    expect((await call("POST", "/engines/nosuch/_configure", { body })).status).toBe(404);
    expect((await call("POST", "/engines/llama.cpp/_configure", { body })).status).toBe(200);
    const unknown = await call("POST", "/engines/_configure", { body: { model: "x", set: {} } });
    expect(unknown.json.error.code).toBe("model_not_found");
  });
});

describe("Docker Model Runner's form", () => {
  test("configure: its words are ours, it gets 202 without a body, and GET gives them back", async () => {
    const { call, stored, model } = setUp();
    const body = {
      model: "pebble",
      "context-size": 2048,
      "raw-runtime-flags": "--top-k 5 --no-warmup",
      speculative: { draft_model: "small", num_tokens: 6, min_acceptance_rate: 0.4 },
      llamacpp: { "reasoning-budget": 0 },
      keep_alive: "10m",
      vllm: null,
      "something-new": 1,
    };

    const answer = await call("POST", "/engines/llama.cpp/_configure", { body, trusted: false });

    expect([answer.status, answer.text]).toEqual([202, ""]);
    expect(stored.find(model.id, null)).toEqual({
      context_size: 2048,
      top_k: 5,
      runtime_flags: ["--no-warmup"],
      draft_model: "small",
      draft_max_tokens: 6,
      draft_min_probability: 0.4,
      reasoning_budget: 0,
      keep_alive: "10m",
    });
    const { json } = await call("GET", "/engines/_configure?model=pebble");
    expect(json).toMatchObject([
      {
        model_id: model.id,
        Backend: "llama.cpp",
        ModelID: model.id,
        Mode: "completion",
        Config: {
          "context-size": 2048,
          "runtime-flags": ["--no-warmup"],
          speculative: { draft_model: "small", num_tokens: 6, min_acceptance_rate: 0.4 },
          llamacpp: { "reasoning-budget": 0 },
          keep_alive: "10m0s",
        },
      },
    ]);
  });

  test("configure: a keep-alive alone erases nothing", async () => {
    const { call, stored, model } = setUp();
    stored.set(model.id, null, { context_size: 2048, runtime_flags: ["--no-warmup"] });

    await call("POST", "/engines/_configure", { body: { model: "pebble", keep_alive: "0" } });

    expect(stored.find(model.id, null)).toEqual({
      context_size: 2048,
      runtime_flags: ["--no-warmup"],
      keep_alive: "0",
    });
  });

  test.each([
    ["a mode nobody has", { mode: "image-making" }, /`mode` must be/],
    ["settings of vLLM", { vllm: { "gpu-memory-utilization": 0.5 } }, /`vllm` is not understood/],
    ["words without an end", { "raw-runtime-flags": "'--x" }, /a quote has no end/],
    ["a text for a number", { "context-size": "big" }, /`context-size` must be/],
    ["nonsense for a duration", { keep_alive: "soon" }, /`soon` is not a value of `keep_alive`/],
  ])("configure: %s is refused", async (_name, more, message) => {
    const { call } = setUp();

    const answer = await call("POST", "/engines/_configure", {
      body: { model: "pebble", ...more },
    });

    expect(answer.status).toBe(400);
    expect(answer.json.error.message).toMatch(message);
  });
});

describe("GET and DELETE /engines/_configure", () => {
  test("settings: are listed with the names a model has now, and reset", async () => {
    const { call, configure, stored, model } = setUp();
    await configure({ parallel: 2 });
    await configure({ parallel: 3 }, { mode: "embedding" });
    stored.set("sha256:gone", null, { parallel: 1 });

    expect((await call("GET", "/engines/_configure")).json).toHaveLength(3);
    expect((await call("GET", "/engines/_configure?model=sha256:gone")).json).toMatchObject([
      { model_id: "sha256:gone", tags: [], settings: { parallel: 1 } },
    ]);
    const reset = (query: string) => call("DELETE", `/engines/_configure?${query}`);
    expect((await reset("model=pebble&mode=embedding")).json).toEqual({ reset: 1 });
    expect(stored.find(model.id, null)).toEqual({ parallel: 2 });
    expect((await reset("model=sha256:gone")).json).toEqual({ reset: 1 });
    expect((await reset("")).status).toBe(400);
    expect((await reset("model=pebble&mode=x")).status).toBe(400);
    expect((await reset("all=true")).json).toEqual({ reset: 1 });
    expect(stored.list()).toEqual([]);
  });
});

describe("POST /engines/explain", () => {
  test("explain: every value with its source, and the exact command line", async () => {
    const setup = setUp();
    await setup.configure({ context_size: 2048, runtime_flags: ["--no-warmup"] });

    const result = await explain(setup);

    expect(result.settings).toContainEqual({ name: "context_size", value: 2048, source: "stored" });
    expect(result.settings).toContainEqual({ name: "parallel", value: 4, source: "default" });
    expect(result.command?.join(" ")).toBe(
      "/engines/1/llama-server --metrics --threads 3 --model /b/pebble.gguf --host worker.sock --alias pebble --jinja " +
        "--ctx-size 2048 --parallel 4 --kv-unified --threads-http 12 --cache-type-k f16 --cache-type-v f16 --cache-ram 0 " +
        `--ctx-checkpoints ${CHECKPOINTS} --no-warmup`,
    );
    expect(result).toMatchObject({ sandbox: "bubblewrap", reported: null, mismatches: [] });
  });

  test("explain: what a running engine says is held against it", async () => {
    const setup = setUp({ workers: [worker({ contextTokens: 4096 }), worker({ id: 2 })] });
    await setup.configure({ context_size: 2048 });

    const right = await explain(setup);
    const wrong = await explain(setup, { context_size: 1024 });

    expect(right).toMatchObject({ sandbox: "limits", reported: { context_size: 2048 } });
    expect(right.mismatches).toEqual([]);
    expect(wrong.mismatches).toEqual([{ name: "context_size", wanted: 1024, actual: 2048 }]);
  });

  test("explain: the draft model's file is on the command line", async () => {
    const setup = setUp();
    await setup.configure({ draft_model: "small" });

    expect((await explain(setup)).command?.join(" ")).toContain("--model-draft /b/small.gguf");
  });

  test("explain: without an engine there is no command; a model that pools is explained so", async () => {
    const setup = setUp({ model: shapedModel("pebble", { shape: { isPooled: true } }) });
    setup.planner.engine = undefined;

    expect(await explain(setup)).toMatchObject({ command: null, mode: "embedding" });
    expect(await explain(setup, { mode: "completion" })).toMatchObject({ mode: "completion" });
  });
});

describe("POST /engines/estimate", () => {
  test("estimate: parts, devices, what is held, and the largest context", async () => {
    const setup = setUp({ workers: [worker({})] });

    const result = await estimate(setup, { model: "pebble", context_size: 4096, parallel: 2 });

    const sum = Object.values(result.parts).reduce((total, bytes) => total + bytes, 0);
    expect(result.estimate).toEqual({ ram: sum });
    expect(result).toMatchObject({
      is_local: true,
      context_size: 4096,
      parallel: 2,
      cache_type_k: "f16",
      measured: null,
      fits: true,
      trained_context: 131_072,
      devices: [{ id: "ram", total_bytes: 64 * GIB, held_bytes: GIB }],
    });
    expect(result.largest_context).toBeGreaterThan(80_000);
  });

  test("estimate: what does not fit says what would", async () => {
    const setup = setUp();
    setup.planner.budget = { ram: 6 * GIB };

    const result = await estimate(setup, { model: "pebble", context_size: -1 });

    expect(result.fits).toBe(false);
    expect(result.largest_context).toBeLessThan(4096);
  });

  test("estimate: a model that is not here is read where it is", async () => {
    const setup = setUp({
      estimateSource: (name) =>
        Promise.resolve({
          modelId: "sha256:far",
          name: `far/${name}`,
          isLocal: false,
          shape: fakeShape({ contextTokens: 8192 }),
          projectorBytes: 0,
        }),
    });

    const result = await estimate(setup, { model: "away" });

    expect(result).toMatchObject({
      model_id: "sha256:far",
      model_name: "far/away",
      is_local: false,
      trained_context: 8192,
      context_size: 8192,
    });
  });

  test.each<[object, number]>([
    [{ model: "nobody" }, 404],
    [{ model: "pebble", context_size: 0 }, 400],
    [{ model: "pebble", parallel: 1e9 }, 400],
    [{ model: "pebble", cache_type_k: "q9" }, 400],
    [{ model: "" }, 400],
    [{}, 400],
  ])("estimate: %j is %d", async (body, status) => {
    const { call } = setUp();

    const answer = await call("POST", "/engines/estimate", { body });

    expect(answer.status).toBe(status);
    expect(answer.json.error.message).toBeString();
  });
});

test("no setting that a client sends can be too much", async () => {
  const { configure } = setUp();
  const large: ModelSettings = { system: "x".repeat(2_000_000) };

  expect((await configure(large)).status).toBeOneOf([400, 413]);
});
