import { describe, expect, test } from "bun:test";
import { type AvailableEngine, ENGINE_GPUS } from "../../src/api/engines.ts";
import { AppError } from "../../src/errors.ts";
import { GPUS } from "../../src/runtime/backend.ts";
import type { AvailableEngine as EngineFacts } from "../../src/runtime/installer/available.ts";
import type { UnloadOutcome } from "../../src/runtime/supervisor.ts";
import { createApp } from "../../src/server/app.ts";
import type { Bindings, EngineInstaller } from "../../src/server/deps.ts";
import { fakeDeps, fakeInstaller, fakeRuntime, IDLE_WORKER, INSTALLED } from "./fake-deps.ts";

const TRUSTED: Bindings = { trusted: true };
const NAME = "llama.cpp";

function post(body: unknown): RequestInit {
  return { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) };
}

function appWith(installer: Partial<EngineInstaller>) {
  return createApp(fakeDeps({ installer: () => fakeInstaller(installer) }));
}

async function codeOf(response: Response): Promise<unknown[]> {
  const { error } = (await response.json()) as { error: { code: string; hint?: string } };
  return [response.status, error.code];
}

const FACTS: EngineFacts = {
  backend: { name: NAME, formats: ["gguf"], modes: ["completion", "embedding"] },
  state: "installed",
  installed: [INSTALLED],
  previous: { ...INSTALLED, version: "0.6.0" },
  pinnedVersion: "0.7.0",
  sources: [
    { name: "path", problem: "no `llama-server` is on PATH" },
    { name: "apt", problem: undefined },
  ],
  variants: ["cpu", "vulkan"],
  problem: undefined,
  hint: undefined,
};
const refuse = () => Promise.reject(new Error("it was called"));

function installing() {
  const asked: Parameters<EngineInstaller["install"]>[0][] = [];
  const app = appWith({
    install: (request) => {
      asked.push(request);
      return Promise.resolve(INSTALLED);
    },
  });
  return { app, asked };
}

function uninstalling(workers: (typeof IDLE_WORKER)[], unload?: UnloadOutcome) {
  const removed: object[] = [];
  const installer: Partial<EngineInstaller> = {
    uninstall: (what) => {
      removed.push(what);
      return Promise.resolve([INSTALLED]);
    },
  };
  const runtime = fakeRuntime({ workers, ...(unload === undefined ? {} : { unload }) });
  const app = createApp(fakeDeps({ runtime, installer: () => fakeInstaller(installer) }));
  return { app, runtime, removed };
}

describe("GET /engines/available", () => {
  test("has every fact, null where there is none", async () => {
    const app = appWith({ describe: () => Promise.resolve([FACTS]) });

    const response = await app.request("/engines/available");

    expect((await response.json()) as AvailableEngine[]).toEqual([
      {
        name: NAME,
        formats: ["gguf"],
        modes: ["completion", "embedding"],
        state: "installed",
        problem: null,
        hint: null,
        variants: ["cpu", "vulkan"],
        sources: [
          { name: "path", problem: "no `llama-server` is on PATH" },
          { name: "apt", problem: null },
        ],
        pinned_version: "0.7.0",
        previous: "0.6.0-cpu",
        installed: [
          {
            version: "0.7.0",
            variant: "cpu",
            source: "apt",
            directory: "/engines/llama.cpp/0.7.0-cpu",
            active: true,
            pinned: true,
            size_bytes: 46_000_000,
            installed_at: "2026-01-01T00:00:00Z",
          },
        ],
      },
    ]);
  });

  test("is no engine's name, and takes nothing else than GET", async () => {
    const response = await appWith({}).request("/engines/available", post({}));

    expect(response.status).toBe(405);
  });
});

describe("POST /engines/use", () => {
  test("chooses a version, or goes back", async () => {
    const asked: string[][] = [];
    const app = appWith({
      use: (name, version) => {
        asked.push([name, version]);
        return Promise.resolve(INSTALLED);
      },
      rollback: (name) => {
        asked.push([name]);
        return Promise.resolve({ ...INSTALLED, version: "0.6.0" });
      },
    });

    const used = await app.request("/engines/use", post({ backend: NAME, version: "0.7.0-cpu" }));
    const back = await app.request("/engines/use", post({ backend: NAME, rollback: true }));

    expect(asked).toEqual([[NAME, "0.7.0-cpu"], [NAME]]);
    expect(await used.json()).toMatchObject({ version: "0.7.0", variant: "cpu", active: true });
    expect(await back.json()).toMatchObject({ version: "0.6.0", active: true });
  });

  test.each([
    [{ backend: NAME }, 400, "invalid_request"],
    [{ backend: NAME, version: "" }, 400, "invalid_request"],
    [{ backend: NAME, version: null }, 400, "invalid_request"],
    [{ backend: NAME, version: "1", rollback: true }, 400, "invalid_request"],
    [{ backend: NAME, rollback: false }, 400, "invalid_request"],
    [{ backend: NAME, rollback: "yes" }, 400, "invalid_request"],
    [{ backend: NAME, version: 7 }, 400, "invalid_request"],
    [{ backend: NAME, version: "x".repeat(201) }, 400, "invalid_request"],
    [{ backend: 1, version: "1" }, 400, "invalid_request"],
    [{ version: "1" }, 400, "invalid_request"],
    [[], 400, "invalid_request"],
    ["{", 400, "invalid_request"],
    [{ backend: "abacus", version: "1" }, 404, "backend_not_found"],
    [{ backend: "__proto__", rollback: true }, 404, "backend_not_found"],
  ])("%j is %d %s, and nothing is changed", async (body, status, code) => {
    const app = appWith({ use: refuse, rollback: refuse });

    expect(await codeOf(await app.request("/engines/use", post(body)))).toEqual([status, code]);
  });

  test("one that is not installed is a 412", async () => {
    const failure = new AppError("backend_not_installed", "cannot use it: it is not installed");
    const app = appWith({ use: () => Promise.reject(failure) });
    const body = { backend: NAME, version: "9" };

    expect(await codeOf(await app.request("/engines/use", post(body)))).toEqual([
      412,
      "backend_not_installed",
    ]);
  });
});

describe("POST /engines/install-backend", () => {
  test("takes every variant that engines are built in", () => {
    expect<readonly string[]>(ENGINE_GPUS).toEqual(["auto", ...GPUS]);
  });

  test("a Python is for the runner's own user only", async () => {
    const { app, asked } = installing();
    const body = { backend: NAME, python: "/opt/venv/bin/python" };

    const theirs = await app.request("/engines/install-backend", post(body));
    const ours = await app.request("/engines/install-backend", post(body), TRUSTED);

    expect(await codeOf(theirs)).toEqual([403, "forbidden"]);
    expect(ours.status).toBe(200);
    expect(asked).toMatchObject([{ backend: NAME, python: "/opt/venv/bin/python" }]);
  });

  test.each([[null], [""]])("%j is no Python, for everybody", async (python) => {
    const { app, asked } = installing();

    const response = await app.request("/engines/install-backend", post({ python }));

    expect(response.status).toBe(200);
    expect(asked).toHaveLength(1);
    expect(asked[0]).not.toHaveProperty("python");
  });

  test.each(["venv/bin/python", "~/venv/bin/python", `/${"x".repeat(5000)}`, 7, [["/a"]]])(
    "the Python %j is a 400",
    async (python) => {
      const { app, asked } = installing();

      const response = await app.request("/engines/install-backend", post({ python }), TRUSTED);

      expect([response.status, asked]).toEqual([400, []]);
    },
  );
});

describe("POST /engines/uninstall-backend", () => {
  const request = post({ backend: NAME });
  const busy = { ...IDLE_WORKER, inUse: 1 };

  test("idle models of the engine are unloaded first", async () => {
    const { app, runtime, removed } = uninstalling([IDLE_WORKER]);

    expect((await app.request("/engines/uninstall-backend", request)).status).toBe(200);

    expect(runtime.unloads).toMatchObject([{ backend: NAME }]);
    expect(runtime.unloads[0]).not.toHaveProperty("force");
    expect(removed).toEqual([{ backend: NAME, version: undefined }]);
  });

  test("while one serves it is refused, and the others stay", async () => {
    const { app, runtime, removed } = uninstalling([IDLE_WORKER, busy]);

    expect(await codeOf(await app.request("/engines/uninstall-backend", request))).toEqual([
      409,
      "conflict",
    ]);

    expect([runtime.unloads, removed]).toEqual([[], []]);
  });

  test("while one is loaded for somebody it is refused", async () => {
    const skipped = [{ modelName: "m", modelId: "i", reason: "it is being loaded" }];
    const { app, removed } = uninstalling([IDLE_WORKER], { unloaded: 0, skipped });

    expect((await app.request("/engines/uninstall-backend", request)).status).toBe(409);
    expect(removed).toEqual([]);
  });

  test("models of other engines, and versions that are not there, unload nothing", async () => {
    const other = uninstalling([{ ...busy, backend: "mlx" }]);
    const absent = uninstalling([busy]);
    const body = post({ backend: NAME, version: "9" });

    expect((await other.app.request("/engines/uninstall-backend", request)).status).toBe(200);
    expect((await absent.app.request("/engines/uninstall-backend", body)).status).toBe(200);

    expect([other.runtime.unloads, absent.runtime.unloads]).toEqual([[], []]);
  });

  test("an unknown name is answered with the known ones", async () => {
    const { app } = uninstalling([]);
    const body = post({ backend: "abacus" });
    const response = await app.request("/engines/uninstall-backend", body);

    expect(response.status).toBe(404);
    expect(await response.text()).toContain("`llama.cpp`");
  });
});
