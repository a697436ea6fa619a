/** Two models of vLLM's stand-in take turns on one GPU: whoever makes room sleeps, and is woken. */
import { describe, expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { vllm } from "../../../backends/vllm/index.ts";
import type { Installation, RunnableModel } from "../../../src/runtime/backend.ts";
import type { SupervisorDeps } from "../../../src/runtime/supervisor.ts";
import { setUp, socketOf, type Supervised } from "../../fakes/supervised.ts";
import { tinyModel } from "../../fakes/tiny-safetensors.ts";
import { eventually } from "../../helpers/eventually.ts";
import { tempDir } from "../../helpers/temp-dir.ts";

const PLAN = {
  backend: "vllm",
  settings: { contextTokens: 64, devices: ["cuda:0"], runtimeFlags: [] },
  gpuShare: 0.6,
  demand: { "cuda:0": 60, ram: 2 },
  asleep: { ram: 30 },
};

const readBudget: SupervisorDeps["readBudget"] = () => Promise.resolve({ "cuda:0": 100, ram: 100 });

function setUpVllm(directory: string): Promise<Supervised> {
  const installation: Installation = {
    backend: "vllm",
    version: "0.32.0",
    variant: "cuda",
    source: "pypi",
    directory,
    command: [process.execPath, join(import.meta.dir, "stand-in.ts")],
    installedAt: "2026-01-01T00:00:00Z",
  };
  const installed = (): Promise<Installation> => Promise.resolve(installation);
  const installer = { ensure: installed, active: installed };
  return setUp({ maxWorkers: 8 }, { backends: [vllm], installer, readBudget });
}

async function model(
  root: string,
  name: string,
  config: Readonly<Record<string, unknown>> = {},
): Promise<RunnableModel> {
  const directory = join(root, name);
  await mkdir(directory);
  return { ...(await tinyModel(directory, config)), name };
}

/** Asks it one question; the worker is idle then. */
async function ask(at: Supervised, asked: RunnableModel): Promise<string> {
  using lease = await at.acquire(asked, PLAN);
  const response = await fetch("http://engine/v1/chat/completions", {
    method: "POST",
    unix: socketOf(lease),
    keepalive: false,
    body: JSON.stringify({ model: vllm.servedModel, messages: [] }),
  });
  return await response.text();
}

function states({ supervisor }: Supervised): readonly string[] {
  return supervisor.list().map(({ modelName, state }) => `${modelName} ${state}`);
}

describe("Supervisor's warm tier, with vLLM's stand-in", () => {
  test("warm: two models take turns in the same two processes", async () => {
    await using directory = await tempDir();
    await using at = await setUpVllm(directory.path);
    const [one, two] = [await model(directory.path, "one"), await model(directory.path, "two")];
    expect(await ask(at, one)).toContain("Paris");
    const pid = at.supervisor.list()[0]?.pid;

    for (const asked of [two, one, two, one]) expect(await ask(at, asked)).toContain("Paris");

    expect(states(at)).toEqual(["one ready", "two asleep"]);
    expect(at.supervisor.list()).toMatchObject([
      { pid, devices: ["cuda:0", "ram"] },
      { demand: { ram: 30 }, devices: ["ram"] },
    ]);
  });

  test("warm: two that ask at once while it wakes are both answered", async () => {
    await using directory = await tempDir();
    await using at = await setUpVllm(directory.path);
    const [one, two] = [await model(directory.path, "one"), await model(directory.path, "two")];
    await ask(at, one);
    await ask(at, two);

    const answers = await Promise.all([ask(at, one), ask(at, one), ask(at, two)]);

    expect(answers.every((answer) => answer.includes("Paris"))).toBe(true);
    expect(at.supervisor.list()).toHaveLength(2);
  });

  test("warm: who dies asleep is loaded anew", async () => {
    await using directory = await tempDir();
    await using at = await setUpVllm(directory.path);
    const [one, two] = [await model(directory.path, "one"), await model(directory.path, "two")];
    await ask(at, one);
    await ask(at, two);
    const [asleep] = at.supervisor.list();
    process.kill(asleep?.pid ?? 0, "SIGKILL");
    await eventually(() => at.supervisor.list().length === 1);

    expect(await ask(at, one)).toContain("Paris");
    expect(states(at)).toEqual(["two asleep", "one ready"]);
  });

  test("warm: who does not wake is ended and loaded anew", async () => {
    await using directory = await tempDir();
    await using at = await setUpVllm(directory.path);
    const one = await model(directory.path, "one", { never_wakes: true });
    const two = await model(directory.path, "two");
    await ask(at, one);
    const pid = at.supervisor.list()[0]?.pid;
    await ask(at, two);

    expect(await ask(at, one)).toContain("Paris");
    expect(at.supervisor.list().some((worker) => worker.pid === pid)).toBe(false);
  });

  test("warm: keep-alive and unloading end who sleeps", async () => {
    await using directory = await tempDir();
    await using at = await setUpVllm(directory.path);
    const [one, two] = [await model(directory.path, "one"), await model(directory.path, "two")];
    await ask(at, one);
    await ask(at, two);

    await at.supervisor.unload({ models: [one.id] });
    expect(states(at)).toEqual(["two ready"]);
    await ask(at, one);
    expect(states(at)).toEqual(["two asleep", "one ready"]);
    at.clock.advance(300_000);

    await eventually(() => at.supervisor.list().length === 0);
  });
});
