import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { WorkerStatus } from "../../src/api/engines.ts";
import type { EstimateResult, ExplainResult } from "../../src/api/settings.ts";
import { eventually } from "../helpers/eventually.ts";
import { QUESTION } from "../helpers/pebble.ts";
import { type TugHome, sharedTugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

async function json<T>(home: TugHome, ...words: string[]): Promise<T> {
  const { stdout } = await home.tug([...words, "--json"]);
  return JSON.parse(stdout) as T;
}

describe("settings of a model", () => {
  const home = sharedTugHome();

  test("what is configured outlives the runner, and the engine says that it holds", async () => {
    const set = await home().tug(["configure", "pebble", "--context-size", "1024"]);
    await home().tug(["run", "-d", "pebble"]);
    await home().tug(["stop-runner"]);
    await home().tug(["run", "-d", "pebble"]);

    const explained = await json<ExplainResult>(home(), "explain", "pebble");

    expect(set).toMatchObject({ exitCode: 0 });
    expect(explained.settings).toContainEqual({
      name: "context_size",
      value: 1024,
      source: "stored",
    });
    expect(explained.reported).toMatchObject({ context_size: 1024, parallel: 4 });
    expect(explained.mismatches).toEqual([]);
    expect(explained.command?.join(" ")).toContain("--ctx-size 1024 --parallel 4 --kv-unified");
  });

  test("a request with nothing but a keep-alive changes nothing else and reloads nothing", async () => {
    await home().tug(["run", "-d", "pebble"]);
    const before = await json<WorkerStatus[]>(home(), "ps");

    const response = await fetch(`${home().url}/engines/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({
        model: "pebble",
        keep_alive: "2h",
        messages: [{ role: "user", content: QUESTION }],
      }),
    });
    await response.text();
    const after = await json<WorkerStatus[]>(home(), "ps");
    const explained = await json<ExplainResult>(home(), "explain", "pebble");

    expect(response.status).toBe(200);
    expect(after.map(({ pid }) => pid)).toEqual(before.map(({ pid }) => pid));
    expect(after[0]?.keep_alive_ms).toBe(7_200_000);
    expect(explained.settings).toContainEqual({
      name: "keep_alive",
      value: "5m",
      source: "default",
    });
  });

  test("an Ollama call with nothing but a keep-alive changes nothing else, and 0 unloads", async () => {
    await home().tug(["run", "-d", "pebble"]);
    const before = await json<WorkerStatus[]>(home(), "ps");
    const generate = async (keepAlive: string | number): Promise<unknown> => {
      const body = JSON.stringify({ model: "pebble", keep_alive: keepAlive });
      return (await fetch(`${home().url}/api/generate`, { method: "POST", body })).json();
    };

    const loaded = await generate("3h");
    const after = await json<WorkerStatus[]>(home(), "ps");
    const explained = await json<ExplainResult>(home(), "explain", "pebble");
    const unloaded = await generate(0);
    const left = await json<WorkerStatus[]>(home(), "ps");
    await home().tug(["run", "-d", "pebble"]);

    expect(loaded).toMatchObject({ done: true, done_reason: "load" });
    expect(after.map(({ pid }) => pid)).toEqual(before.map(({ pid }) => pid));
    expect(after[0]?.keep_alive_ms).toBe(10_800_000);
    expect(explained.reported).toMatchObject({ context_size: 1024 });
    expect(explained.settings).toContainEqual({
      name: "keep_alive",
      value: "5m",
      source: "default",
    });
    expect(unloaded).toMatchObject({ done_reason: "unload" });
    expect(left).toEqual([]);
  });

  test("explain says with an exit code that a worker runs with older values", async () => {
    await home().tug(["run", "-d", "pebble"]);
    await home().tug(["configure", "pebble", "--context-size", "512"]);

    const differs = await home().tug(["explain", "pebble"]);
    await home().tug(["unload", "pebble"]);
    await home().tug(["run", "-d", "pebble"]);
    const agrees = await home().tug(["explain", "pebble"]);

    expect(differs.exitCode).toBe(1);
    expect(differs.stdout).toContain("context_size: should be 512, is 1024");
    expect(agrees).toMatchObject({ exitCode: 0 });
  });

  test("a model that is configured anew is loaded once, by the next request", async () => {
    await home().tug(["configure", "pebble", "--context-size", "512"]);
    await home().tug(["run", "-d", "pebble", "--keep-alive", "1h"]);
    const [old] = await json<WorkerStatus[]>(home(), "ps");

    const same = await home().tug(["configure", "pebble", "--context-size", "512"]);
    const other = await home().tug(["configure", "pebble", "--context-size", "1024"]);
    await home().tug(["run", "pebble", QUESTION]);
    const workers = await eventually(async () => {
      const rows = await json<WorkerStatus[]>(home(), "ps");
      return rows.length === 1 && rows;
    });

    expect(same.stdout).not.toContain("loaded with other values");
    expect(other.stdout).toContain("It is loaded with other values: the next request loads it");
    expect(workers).toMatchObject([{ context_size: 1024, loading: false }]);
    expect(workers && workers[0]?.pid).not.toBe(old?.pid ?? null);
  });

  test("files are named by their owner only", async () => {
    const response = await fetch(`${home().url}/engines/_configure`, {
      method: "POST",
      body: JSON.stringify({ model: "pebble", set: { lora: ["/etc/passwd"] } }),
    });

    expect(response.status).toBe(403);
  });

  test("config.toml has settings of single models, and they are reset to", async () => {
    await writeFile(
      join(home().path, "config.toml"),
      '[models."pebble"]\ncontext_size = 768\ntemperature = 0\n',
    );
    const reset = await home().tug(["configure", "reset", "pebble"]);
    await home().tug(["stop-runner"]);

    const explained = await json<ExplainResult>(home(), "explain", "pebble");

    expect(reset).toMatchObject({ exitCode: 0 });
    expect(explained.settings).toContainEqual({
      name: "context_size",
      value: 768,
      source: "config.toml",
    });
    expect(explained.reported).toBeNull();
  });

  test("an estimate needs no runner, and says with an exit code what does not fit", async () => {
    await home().tug(["stop-runner"]);

    const estimate = await json<EstimateResult>(home(), "estimate", "pebble", "--ctx-size", "2048");
    const tight = await home().tug(["estimate", "pebble"], { env: { TUG_MEMORY_BUDGET: "16MiB" } });
    const status = await home().tug(["status"]);

    expect(estimate).toMatchObject({ context_size: 2048, trained_context: 2048, fits: true });
    expect(tight.exitCode).toBe(1);
    expect(tight.stdout).toContain("It does not fit.");
    expect(status.exitCode).toBe(1);
  });

  test.each([
    [["configure", "pebble", "--context-size", "4096"], 1, /was trained for 2048/],
    [["configure", "pebble", "--", "--cache-type-k", "q9"], 1, /`q9` is not a value/],
    [["configure", "pebble", "--", "--no-kv-unified"], 1, /Tug sets it itself/],
    [["configure", "pebble", "--", "--host", "0.0.0.0"], 1, /Tug sets it itself/],
    [["configure", "nobody/here", "--parallel", "1"], 1, /nobody\/here/],
    [["configure", "pebble"], 2, /nothing to set/],
    [["run", "pebble", "--ctx-size", "4096", QUESTION], 1, /was trained for 2048/],
  ])("%j is refused in one sentence", async (words, exitCode, message) => {
    const result = await home().tug(words);

    expect(result.exitCode).toBe(exitCode);
    expect(result.stderr).toMatch(message);
    expect(result.stderr).toMatch(/^error: .*\n(?:hint: .*\n)?$/);
  });
});
