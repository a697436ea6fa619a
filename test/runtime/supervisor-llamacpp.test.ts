/** The real engine, confined where this machine can: what is read back, measured and explained is what it does. */
import { describe, expect } from "bun:test";
import { join } from "node:path";

import { llamacpp } from "../../backends/llamacpp/index.ts";
import { ROOT } from "../../scripts/compile/freshness.ts";
import type { Installation } from "../../src/runtime/backend.ts";
import type { Demand } from "../../src/runtime/demand.ts";
import { estimateMemory, IN_RAM } from "../../src/runtime/memory.ts";
import { expectedDemand } from "../../src/runtime/plan-memory.ts";
import { readWeightLoading } from "../../src/runtime/weight-loading.ts";
import { readGgufShape } from "../../src/store/gguf.ts";
import { writeRandomModel } from "../helpers/random-model.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { listDescendants, measureProcess } from "../../src/runtime/measure.ts";
import { type Spawn, spawnEngine } from "../../src/runtime/process.ts";
import { rememberSandbox } from "../../src/runtime/sandbox/index.ts";
import type { Sandbox } from "../../src/runtime/sandbox/sandbox.ts";
import { fakeModel } from "../fakes/backend.ts";
import { failureOf, onlyPid, setUp, socketOf } from "../fakes/supervised.ts";
import { eventually } from "../helpers/eventually.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { isLinux, testIf } from "../helpers/test-if.ts";

const installation = await findInstallation();
const real = testIf(
  installation !== undefined && isLinux,
  "no llama-server in dist/test-home, or not Linux",
);
const remembered = rememberSandbox({
  mode: "auto",
  platform: process.platform,
  env: process.env,
  log: { warn: () => undefined },
});
const sandbox = (): Promise<Sandbox> => remembered.choose();
const backends = [llamacpp];
const settings = { contextTokens: 512, parallel: 1, runtimeFlags: [] };
const plan = { backend: "llama.cpp", settings };

async function findInstallation(): Promise<Installation | undefined> {
  const home = join(ROOT, "dist", "test-home", "backends", "llama.cpp");
  const files = new Bun.Glob("*/install.json").scan({ cwd: home });
  const [found] = await Array.fromAsync(files).catch((): string[] => []);
  if (found === undefined) return undefined;
  const directory = join(home, found, "..");
  const record = (await Bun.file(join(home, found)).json()) as Installation;
  const command = record.command.map((word) => word.replaceAll("{directory}", directory));
  return { ...record, directory, command };
}

function installed(): Promise<Installation> {
  if (installation === undefined) return Promise.reject(new Error("there is none"));
  return Promise.resolve(installation);
}

/** With a gigabyte of addresses: a real want of memory, harmless to everybody else. */
const spawnInLittleMemory: Spawn = (options) => {
  const command = ["/bin/sh", "-c", 'ulimit -v 1000000; exec "$@"', "x", ...options.command];
  return spawnEngine({ ...options, command });
};

function pebble(overrides: Parameters<typeof setUp>[1] = {}) {
  const installer = { ensure: installed, active: installed };
  return setUp({}, { backends, installer, sandbox, measure: measureProcess, ...overrides });
}

const model = (): ReturnType<typeof fakeModel> => fakeModel("pebble", { path: PEBBLE });

async function ask(socket: string): Promise<string> {
  const response = await fetch("http://engine/v1/chat/completions", {
    method: "POST",
    unix: socket,
    keepalive: false,
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      temperature: 0,
      messages: [{ role: "user", content: "What is the capital of France?" }],
    }),
  });
  return response.text();
}

describe("Supervisor with llama-server", () => {
  real("llama-server: it answers in its sandbox, and does what it was told", async () => {
    await using at = await pebble();

    using lease = await at.acquire(model(), plan);

    expect(await ask(socketOf(lease))).toContain("Paris");
    expect(at.supervisor.list()).toMatchObject([
      { contextTokens: 512, slots: 1, mismatches: [], sandbox: (await sandbox()).name },
    ]);
    expect(lease.report).toMatchObject({ context_size: 512, parallel: 1, model_path: PEBBLE });
    expect(at.supervisor.list()[0]?.measured?.["ram"]).toBeGreaterThan(2 ** 23);
  });

  real("llama-server: a context that it caps is a difference", async () => {
    await using at = await pebble();
    const tooLong = { ...settings, contextTokens: 100_000 };

    using _lease = await at.acquire(model(), { ...plan, settings: tooLong });

    expect(at.supervisor.list()[0]?.mismatches).toEqual([
      { name: "context_size", wanted: 100_000, actual: 2048 },
    ]);
  });

  real("llama-server: one that was killed inside its sandbox says so", async () => {
    await using at = await pebble();
    using lease = await at.acquire(model(), plan);
    const family = listDescendants(onlyPid(at.supervisor));

    process.kill(await engineOf(family), "SIGKILL");

    await eventually(() => !lease.isAlive);
    expect((await lease.failure())?.message).toBe(
      "cannot serve `pebble`: the engine was ended by SIGKILL",
    );
  });

  real(
    "llama-server: a peak that was measured after a short prompt is not all that a long one takes",
    async () => {
      await using directory = await tempDir();
      const path = join(directory.path, "wide.gguf");
      const { bytes } = await writeRandomModel(path, WIDE);
      const rows = new Map<string, Demand>();
      const ledger = { record: (key: string, demand: Demand) => void rows.set(key, demand) };
      await using at = await pebble({ ledger });
      const run = { contextTokens: 2048, parallel: 1, cacheTypeK: "f16", cacheTypeV: "f16" };
      const shape = await readGgufShape([{ location: path, name: "wide.gguf" }], {
        signal: AbortSignal.timeout(10_000),
      });
      const loading = await readWeightLoading();
      const whole = { ...run, mode: "completion", projectorBytes: 0, adapterBytes: 0 } as const;
      const estimate = estimateMemory(shape, { ...whole, offload: IN_RAM, loading });
      const peakAfter = async (tokens: number): Promise<number> => {
        at.clock.advance(2000);
        const wide = fakeModel("wide", { path, weightBytes: bytes });
        const { demand } = estimate;
        const kept = { promptCacheMiB: 0, contextCheckpoints: 1, runtimeFlags: [] };
        const worker = { ...plan, settings: { ...run, ...kept }, demand, ledgerKey: "wide" };
        const lease = await at.acquire(wide, worker);
        await complete(socketOf(lease), tokens);
        lease[Symbol.dispose]();
        return rows.get("wide")?.["ram"] ?? 0;
      };

      const short = await peakAfter(8);
      const long = await peakAfter(1500);

      expect(long).toBeGreaterThan(short + 8 * 2 ** 20);
      const expected = expectedDemand(estimate, { ram: short })["ram"] ?? 0;
      expect(expected).toBeGreaterThan(long * 0.95);
      expect(expected).toBeLessThan(long * 1.5);
    },
  );

  real("llama-server: a machine without memory is told from a broken engine", async () => {
    await using at = await pebble({ spawn: spawnInLittleMemory });
    const runtimeFlags = ["--cache-type-k", "f32"];
    const huge = { ...settings, contextTokens: 2_000_000, runtimeFlags };

    const failure = await failureOf(at.acquire(model(), { ...plan, settings: huge }));

    expect(failure.code).toBe("insufficient_memory");
    expect(failure.message).toMatch(/^cannot load `pebble`: not enough memory/);
  });
});

/** Little to keep, much to compute with. */
const WIDE = {
  type: "Q8_0",
  layers: 2,
  embedding: 512,
  heads: 8,
  feedForward: 8192,
  context: 2048,
} as const;

async function complete(socket: string, tokens: number): Promise<void> {
  const prompt = Array.from({ length: tokens }, (_, index) => 300 + ((index * 7919) % 1500));
  const response = await fetch("http://engine/completion", {
    method: "POST",
    unix: socket,
    keepalive: false,
    body: JSON.stringify({ prompt, n_predict: 2 }),
  });
  if (!response.ok) throw new Error(await response.text());
  await response.text();
}

/** The one that runs llama-server: the loader's command line names it. */
async function engineOf(pids: readonly number[]): Promise<number> {
  const holders: number[] = [];
  for (const pid of pids) {
    const line = await Bun.file(`/proc/${pid}/cmdline`).text();
    if (/^[^\0]*(?:ld-linux|llama-server)/.test(line)) holders.push(pid);
  }
  const engine = holders.at(-1);
  if (engine === undefined) throw new Error("no llama-server among the processes");
  return engine;
}
