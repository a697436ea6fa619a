import { describe, expect, test } from "bun:test";
import { createApp } from "../../src/server/app.ts";
import type { AppDeps } from "../../src/server/deps.ts";
import { fakeDeps, fakeRuntime, IDLE_WORKER, PEBBLE_ID } from "./fake-deps.ts";

function post(body: unknown): RequestInit {
  return { method: "POST", body: JSON.stringify(body) };
}

function settingsThatNote(sets: unknown[]): Pick<AppDeps, "settings"> {
  return { settings: () => ({ set: (...set) => void sets.push(set) }) };
}

describe("POST /engines/unload", () => {
  test("hands on how, and says what was skipped", async () => {
    const runtime = fakeRuntime({
      unload: {
        unloaded: 1,
        skipped: [{ modelName: "me/busy", modelId: "sha256:1", reason: "it serves 2 requests" }],
      },
    });

    const response = await createApp(fakeDeps({ runtime })).request(
      "/engines/unload",
      post({ all: true, wait: true }),
    );

    expect(await response.json()).toEqual({
      unloaded_runners: 1,
      skipped: [{ model: "me/busy", reason: "it serves 2 requests" }],
    });
    expect(runtime.unloads).toMatchObject([{ all: true, wait: true, force: false }]);
    expect(runtime.unloads[0]?.signal).toBeInstanceOf(AbortSignal);
  });

  test.each([
    ["an unknown model", { models: ["nobody/nothing"] }, 404],
    ["an unknown engine", { backend: "abacus" }, 404],
    ["an empty name", { models: [""] }, 400],
    ["no list", { models: "pebble" }, 400],
    ["a word for true", { all: true, wait: "yes" }, 400],
    ["nothing", {}, 400],
  ])("%s unloads nothing", async (_, body, status) => {
    const runtime = fakeRuntime({});

    const response = await createApp(fakeDeps({ runtime })).request("/engines/unload", post(body));

    expect(response.status).toBe(status);
    expect(runtime.unloads).toEqual([]);
  });

  test("a model is found by the short and by the long form of its name", async () => {
    const modelName = "docker.io/ai/gone:latest";
    const runtime = fakeRuntime({ workers: [{ ...IDLE_WORKER, modelName }] });
    const app = createApp(fakeDeps({ runtime }));

    await app.request("/engines/unload", post({ models: ["gone", "ai/gone:latest"] }));

    expect(runtime.unloads[0]?.models).toEqual([IDLE_WORKER.modelId, IDLE_WORKER.modelId]);
  });

  test("a name that is nobody's is answered with what is loaded", async () => {
    const runtime = fakeRuntime({ workers: [IDLE_WORKER] });

    const response = await createApp(fakeDeps({ runtime })).request(
      "/engines/unload",
      post({ models: ["me/gon"] }),
    );

    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({
      error: { code: "model_not_found", hint: "Loaded are me/gone; `tug ps` lists what is." },
    });
  });

  test("fields it does not know do not matter", async () => {
    const runtime = fakeRuntime({});

    const response = await createApp(fakeDeps({ runtime })).request(
      "/engines/unload",
      post({ all: true, "keep-config": 1 }),
    );

    expect(response.status).toBe(200);
  });
});

describe("POST /engines/pin", () => {
  test("stores it and applies it to what is loaded", async () => {
    const sets: unknown[] = [];
    const runtime = fakeRuntime({ workers: [IDLE_WORKER] });
    const app = createApp(fakeDeps({ runtime, ...settingsThatNote(sets) }));

    const response = await app.request(
      "/engines/pin",
      post({ models: ["pebble", "me/gone"], pinned: true }),
    );

    expect(await response.json()).toEqual({
      models: [
        { model: "pebble", model_id: PEBBLE_ID, pinned: true, loaded: false },
        { model: "me/gone", model_id: IDLE_WORKER.modelId, pinned: true, loaded: true },
      ],
    });
    expect(sets).toEqual([
      [PEBBLE_ID, null, { pinned: true }],
      [IDLE_WORKER.modelId, null, { pinned: true }],
    ]);
    expect(runtime.pins).toEqual([
      { modelId: PEBBLE_ID, pinned: true },
      { modelId: IDLE_WORKER.modelId, pinned: true },
    ]);
  });

  test("unpinning is stored, too, also where no runner runs", async () => {
    const sets: unknown[] = [];
    const app = createApp(fakeDeps(settingsThatNote(sets)));

    const response = await app.request("/engines/pin", post({ models: ["pebble"], pinned: false }));

    expect(await response.json()).toMatchObject({ models: [{ pinned: false, loaded: false }] });
    expect(sets).toEqual([[PEBBLE_ID, null, { pinned: false }]]);
  });

  test.each([
    ["an unknown model among others", { models: ["pebble", "nobody/nothing"], pinned: true }, 404],
    ["no model", { models: [], pinned: true }, 400],
    ["no decision", { models: ["pebble"] }, 400],
    ["a word for a decision", { models: ["pebble"], pinned: "yes" }, 400],
  ])("%s changes nothing", async (_, body, status) => {
    const sets: unknown[] = [];
    const runtime = fakeRuntime({});
    const app = createApp(fakeDeps({ runtime, ...settingsThatNote(sets) }));

    expect((await app.request("/engines/pin", post(body))).status).toBe(status);
    expect(sets).toEqual([]);
    expect(runtime.pins).toEqual([]);
  });
});
