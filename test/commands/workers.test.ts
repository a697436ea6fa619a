import { describe, expect, test } from "bun:test";
import type { WorkerStatus } from "../../src/api/engines.ts";
import type { Progress } from "../../src/api/progress.ts";
import { withPlace } from "../../src/commands/load-model.ts";
import { notes, toRow, until } from "../../src/commands/ps.ts";
import { renderSkipped, renderUnloaded } from "../../src/commands/unload.ts";

const WORKER: WorkerStatus = {
  backend_name: "llama.cpp",
  model_name: "docker.io/me/m:latest",
  model_id: "sha256:0",
  mode: "completion",
  state: "ready",
  loading: false,
  progress: null,
  in_use: true,
  requests: 1,
  slots: 4,
  context_size: 4096,
  devices: ["cuda:0", "ram"],
  memory_estimate: { "cuda:0": 2_000_000, ram: 1_000_000 },
  memory_actual: { ram: 1_500_000 },
  sandbox: "bubblewrap",
  pinned: false,
  mismatches: [],
  last_used: null,
  keep_alive: "5m0s",
  keep_alive_ms: 300_000,
  expires_at: null,
  pid: 1,
};

describe("ps", () => {
  test("shows a worker in nine columns", () => {
    expect(toRow(WORKER, 0)).toEqual([
      "me/m",
      "llama.cpp",
      "completion",
      "cuda:0, ram",
      "1.50MB/3.00MB",
      "4096",
      "1/4",
      "Ready",
      "5m 00s from now",
    ]);
  });

  test("shows what nobody knows as a dash", () => {
    const unknown = { slots: null, context_size: null, memory_actual: null, devices: [] };

    const row = toRow({ ...WORKER, ...unknown }, 0);

    expect(row.slice(3, 7)).toEqual(["-", "-/3.00MB", "-", "1"]);
  });

  test("an older runner that leaves members out is no reason to fail", () => {
    const { backend_name, model_name, model_id, mode, state, loading, requests } = WORKER;
    const { last_used, keep_alive_ms, expires_at, pid } = WORKER;
    const identity = { backend_name, model_name, model_id, mode, state, loading, requests };
    const old = { ...identity, last_used, keep_alive_ms, expires_at, pid } as WorkerStatus;

    expect(toRow(old, 0).slice(3, 8)).toEqual(["-", "-/-", "-", "1", "Ready"]);
    expect(notes(old)).toEqual([]);
  });

  test.each([
    [{ phase: "loading", done_bytes: 42, total_bytes: 100 }, "Loading 42%"],
    [{ phase: "loading", done_bytes: 200, total_bytes: 100 }, "Loading 100%"],
    [{ phase: "installing", done_bytes: null, total_bytes: 100 }, "Installing"],
    [{ phase: "loading", done_bytes: 1, total_bytes: 0 }, "Loading"],
    [null, "Loading"],
  ])("a load with %p is %p", (progress, text) => {
    const row = toRow({ ...WORKER, state: "starting", loading: true, progress }, 0);

    expect(row.slice(-2)).toEqual([text, "-"]);
  });

  test.each([
    [{ state: "draining" }, "Stopping", "-"],
    [{ state: "asleep", expires_at: "1970-01-01T00:01:00Z" }, "Asleep", "1m 00s from now"],
    [{ pinned: true }, "Ready, pinned", "Forever"],
    [{ keep_alive_ms: -1 }, "Ready", "Forever"],
    [{ expires_at: "1970-01-01T00:01:00Z" }, "Ready", "1m 00s from now"],
    [{ expires_at: "1969-12-31T23:59:00Z" }, "Ready", "Expiring"],
  ] as const)("%p is %p until %p", (change, state, time) => {
    const worker = { ...WORKER, ...change };

    expect(toRow(worker, 0)[7]).toBe(state);
    expect(until(worker, 0)).toBe(time);
  });

  test("says under the table what is not as it should be", () => {
    const mismatches = [
      { name: "context_size", wanted: 4096, actual: 2048 },
      { name: "x", wanted: "y".repeat(500), actual: undefined },
    ];

    const lines = notes({ ...WORKER, mismatches, sandbox: "none" });

    expect(lines).toHaveLength(3);
    expect(lines[0]).toBe(
      "error: me/m runs with context_size 2048, not 4096; see `tug explain me/m`",
    );
    expect(lines[1]).toMatch(/^error: me\/m runs with x nothing, not "y{79}; see/);
    expect(lines[2]).toContain("without a sandbox");
  });
});

describe("unload", () => {
  test.each([
    [{ unloaded_runners: 0, skipped: [] }, "Nothing to unload.\n"],
    [{ unloaded_runners: 1, skipped: [] }, "Unloaded 1 model.\n"],
    [{ unloaded_runners: 2, skipped: [{ model: "m", reason: "r" }] }, "Unloaded 2 models.\n"],
    [{ unloaded_runners: 0, skipped: [{ model: "m", reason: "r" }] }, ""],
  ])("%p is %p", (result, text) => {
    expect(renderUnloaded(result)).toBe(text);
  });

  test("names what it skipped, and what to do", () => {
    const skipped = [{ model: "docker.io/me/m:latest", reason: "it serves \u001B[2J2 requests" }];

    expect(renderSkipped({ unloaded_runners: 0, skipped })).toEqual([
      "skipped me/m: it serves [2J2 requests\n",
      "hint: Wait for them with `--wait`, or break them off with `--force`.\n",
    ]);
    expect(renderSkipped({ unloaded_runners: 1, skipped: [] })).toEqual([]);
  });
});

describe("load", () => {
  const event: Progress = {
    type: "progress",
    id: "m",
    phase: "waiting",
    done_bytes: null,
    total_bytes: null,
  };

  test("shows the place in line, and who is in the way", () => {
    expect(withPlace(event)).toBe(event);
    expect(withPlace({ ...event, position: 3 }).phase).toBe("waiting (no. 3 in line)");
    expect(withPlace({ ...event, position: 1, waiting_for: "big" }).phase).toBe(
      "waiting (no. 1 in line, behind big)",
    );
  });
});
