import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { ConfigureRequest } from "../../src/api/settings.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { StoredSettings } from "../../src/state/model-settings.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const PROCESS = join(import.meta.dir, "..", "fakes", "state-process.ts");
const MODEL = "sha256:a";

async function open(): Promise<
  AsyncDisposable & { path: string; state: StateDatabase; settings: StoredSettings }
> {
  const directory = await tempDir();
  const path = join(directory.path, "tug.db");
  const state = new StateDatabase(path);
  let nowMs = 1_700_000_000_000;
  return {
    path,
    state,
    settings: new StoredSettings(state, { now: () => (nowMs += 1) }),
    async [Symbol.asyncDispose]() {
      state[Symbol.dispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

describe("StoredSettings", () => {
  test("are merged key by key, null unsets, the rest stays", async () => {
    await using opened = await open();
    const { settings } = opened;

    settings.set(MODEL, null, { context_size: 2048, keep_alive: "5m", system: "Be short." });
    const merged = settings.set(MODEL, null, { context_size: 4096, system: null, seed: 7 });

    expect(merged).toEqual({ context_size: 4096, keep_alive: "5m", seed: 7 });
    expect(settings.find(MODEL, null)).toEqual(merged);
  });

  test("keep what is set to nothing in particular: undefined changes nothing, false and 0 are values", async () => {
    await using opened = await open();
    const { settings } = opened;
    settings.set(MODEL, null, { think: false, temperature: 0, lora: [] });

    const patch = { think: undefined } as unknown as ConfigureRequest["set"];

    expect(settings.set(MODEL, null, patch)).toEqual({ think: false, temperature: 0, lora: [] });
  });

  test("of one mode are apart from those of all modes, and of another model", async () => {
    await using opened = await open();
    const { settings } = opened;
    settings.set(MODEL, null, { parallel: 1 });
    settings.set(MODEL, "embedding", { parallel: 2 });

    expect(settings.find(MODEL, null)).toEqual({ parallel: 1 });
    expect(settings.find(MODEL, "embedding")).toEqual({ parallel: 2 });
    expect(settings.find(MODEL, "completion")).toEqual({});
    expect(settings.find("sha256:b", null)).toEqual({});
  });

  test("of which nothing is left are no row any more", async () => {
    await using opened = await open();
    const { settings, state } = opened;
    settings.set(MODEL, null, { seed: 1 });

    expect(settings.set(MODEL, null, { seed: null })).toEqual({});
    expect(settings.set("sha256:b", null, {})).toEqual({});
    expect(settings.set("sha256:b", null, { seed: null })).toEqual({});

    expect(state.open().query("SELECT * FROM model_settings").all()).toEqual([]);
  });

  test("are listed by model, those for all modes first, with their time", async () => {
    await using opened = await open();
    const { settings } = opened;
    settings.set("sha256:b", "reranking", { seed: 4 });
    settings.set("sha256:b", "completion", { seed: 3 });
    settings.set("sha256:b", null, { seed: 2 });
    settings.set(MODEL, "embedding", { seed: 1 });

    expect(settings.list()).toEqual([
      { modelId: MODEL, mode: "embedding", settings: { seed: 1 }, updatedAtMs: 1_700_000_000_004 },
      { modelId: "sha256:b", mode: null, settings: { seed: 2 }, updatedAtMs: 1_700_000_000_003 },
      {
        modelId: "sha256:b",
        mode: "completion",
        settings: { seed: 3 },
        updatedAtMs: 1_700_000_000_002,
      },
      {
        modelId: "sha256:b",
        mode: "reranking",
        settings: { seed: 4 },
        updatedAtMs: 1_700_000_000_001,
      },
    ]);
  });

  test("are reset for a mode, for all modes alone, for a model, and altogether", async () => {
    await using opened = await open();
    const { settings } = opened;
    const fill = (): void => {
      for (const model of [MODEL, "sha256:b"]) {
        settings.set(model, null, { seed: 1 });
        settings.set(model, "completion", { seed: 2 });
      }
    };
    fill();

    expect(settings.reset(MODEL, null)).toBe(1);
    expect(settings.find(MODEL, "completion")).toEqual({ seed: 2 });
    expect(settings.reset(MODEL, "completion")).toBe(1);
    expect(settings.reset(MODEL)).toBe(0);
    expect(settings.reset("sha256:b")).toBe(2);
    fill();
    expect(settings.reset()).toBe(4);
    expect(settings.list()).toEqual([]);
  });

  test("that a newer Tug stored survive", async () => {
    await using opened = await open();
    const { settings, state } = opened;
    const text = '{"seed":1,"from_the_future":{"deep":[1]},"__proto__":{"seed":9}}';
    state.open().run("INSERT INTO model_settings VALUES (?, '', ?, 1)", [MODEL, text]);

    settings.set(MODEL, null, { seed: 2 });

    const row = state.open().query("SELECT settings FROM model_settings").get() as {
      settings: string;
    };
    expect(row.settings).toBe('{"seed":2,"from_the_future":{"deep":[1]},"__proto__":{"seed":9}}');
    expect(({} as { seed?: number }).seed).toBeUndefined();
  });

  test.each(["{", "null", "[]", "12", '"text"'])(
    "that are %j count as none, and are replaced",
    async (text) => {
      await using opened = await open();
      const { settings, state } = opened;
      state.open().run("INSERT INTO model_settings VALUES (?, '', ?, 1)", [MODEL, text]);

      expect(settings.find(MODEL, null)).toEqual({});
      expect(settings.list()).toEqual([]);
      expect(settings.set(MODEL, null, { seed: 2 })).toEqual({ seed: 2 });
    },
  );

  test("that are absurdly long or no JSON are refused, and the old ones stay", async () => {
    await using opened = await open();
    const { settings } = opened;
    settings.set(MODEL, null, { seed: 1 });
    const circular: Record<string, unknown> = {};
    circular["system"] = circular;

    expect(() => settings.set(MODEL, null, { system: "x".repeat(1_000_001) })).toThrow(
      "at most 1000000 are stored",
    );
    expect(() => settings.set(MODEL, null, circular as ConfigureRequest["set"])).toThrow(
      "not JSON",
    );
    expect(settings.find(MODEL, null)).toEqual({ seed: 1 });
  });

  test("take names that SQL or paths would trip over", async () => {
    await using opened = await open();
    const { settings } = opened;
    const model = "'; DROP TABLE model_settings; --\u0000/../é";

    settings.set(model, null, { system: "'\"\u0000\ud83d\ude00" });

    expect(settings.list()).toMatchObject([
      { modelId: model, settings: { system: "'\"\u0000😀" } },
    ]);
  });

  test("have another version after each change, here and in another process", async () => {
    await using opened = await open();
    const { settings, path } = opened;
    using otherState = new StateDatabase(path);
    const versions = [settings.version(), settings.version()];
    settings.set(MODEL, null, { seed: 1 });
    versions.push(settings.version());
    new StoredSettings(otherState).set(MODEL, null, { seed: 2 });
    versions.push(settings.version());
    settings.reset(MODEL);
    versions.push(settings.version());

    expect(new Set(versions).size).toBe(4);
    expect(versions[0]).toBe(versions[1] ?? "");
  });
});

describe("StoredSettings of several processes", () => {
  test("lose nothing when others set other keys at once, on a database that nobody made before", async () => {
    await using opened = await open();
    const children = ["one", "two", "three"].map((name) =>
      Bun.spawn([process.execPath, PROCESS, "set", opened.path, name], { stderr: "inherit" }),
    );

    const codes = await Promise.all(children.map((child) => child.exited));

    expect(codes).toEqual([0, 0, 0]);
    expect(Object.keys(opened.settings.find("sha256:shared", null))).toHaveLength(300);
  }, 30_000);

  test("survive kill -9 amid a write: what was stored is there, and nothing half", async () => {
    await using opened = await open();
    opened.settings.set(MODEL, null, { seed: 42 });
    let stored = 0;
    for (const bytes of [1, 20, 50]) {
      const child = Bun.spawn([process.execPath, PROCESS, "count", opened.path], {
        stdout: "pipe",
        stderr: "inherit",
      });
      let said = "";
      for await (const chunk of child.stdout) {
        said += new TextDecoder().decode(chunk);
        if (said.length >= bytes) child.kill("SIGKILL");
      }
      await child.exited;
      stored = Number(said.trim().split("\n").at(-1));

      const found = opened.settings.find("sha256:counted", null) as { count?: number };
      expect(found.count).toBeGreaterThanOrEqual(stored);
    }

    expect(stored).toBeGreaterThan(0);
    expect(opened.settings.find(MODEL, null)).toEqual({ seed: 42 });
    expect(opened.state.open().query("PRAGMA integrity_check").get()).toEqual({
      integrity_check: "ok",
    });
  }, 30_000);
});
