import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { StateDatabase } from "../../src/state/database.ts";
import { Ledger, type LedgerFacts, ledgerKey } from "../../src/state/ledger.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const FACTS: LedgerFacts = {
  modelId: "sha256:a",
  build: "llama.cpp/b1-cpu",
  mode: "completion",
  contextTokens: 4096,
  parallel: 4,
  cacheTypeK: "f16",
  cacheTypeV: "f16",
  devices: ["ram", "cuda:0"],
  adapters: ["/b", "/a"],
  runtimeFlags: ["--no-mmap"],
  further: { one: 1, two: "2" },
};
const PROCESS = join(import.meta.dir, "..", "fakes", "state-process.ts");

describe("ledgerKey", () => {
  test("is the same whatever the order of what has none, and for absent and null", () => {
    const other = {
      ...FACTS,
      devices: ["cuda:0", "ram"],
      adapters: ["/a", "/b"],
      further: { two: "2", one: 1 },
    };

    expect(ledgerKey(other)).toBe(ledgerKey(FACTS));
    expect(ledgerKey({ modelId: "m", build: "b", mode: "x" })).toBe(
      ledgerKey({ modelId: "m", build: "b", mode: "x", parallel: null, devices: [], further: {} }),
    );
  });

  test.each([
    { modelId: "sha256:b" },
    { build: "llama.cpp/b2-cpu" },
    { mode: "embedding" },
    { contextTokens: 8192 },
    { contextTokens: null },
    { parallel: 1 },
    { cacheTypeK: "q8_0" },
    { cacheTypeV: "q8_0" },
    { devices: ["ram"] },
    { gpuLayers: 0 },
    { adapters: [] },
    { draftModelId: "sha256:d" },
    { runtimeFlags: [] },
    { further: { one: 2, two: "2" } },
    { further: { one: "1", two: "2" } },
  ] satisfies Partial<LedgerFacts>[])("is another with %j", (change) => {
    expect(ledgerKey({ ...FACTS, ...change })).not.toBe(ledgerKey(FACTS));
  });
});

describe("Ledger", () => {
  test("keeps the most that was measured, device by device, across processes", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    {
      using state = new StateDatabase(path);
      const ledger = new Ledger(state);
      ledger.record("k", { ram: 100, "cuda:0": 5 });
      ledger.record("k", { ram: 40, "cuda:0": 9, "cuda:1": 1 });
      ledger.record("other", { ram: 1 });
    }

    using state = new StateDatabase(path);
    const ledger = new Ledger(state);

    expect(ledger.find("k")).toEqual({ ram: 100, "cuda:0": 9, "cuda:1": 1 });
    expect(ledger.find("unknown")).toBeUndefined();
  });

  test("leaves out what is no number of bytes", async () => {
    await using directory = await tempDir();
    using state = new StateDatabase(join(directory.path, "tug.db"));
    const ledger = new Ledger(state);

    ledger.record("k", { ram: Number.NaN, "cuda:0": -5, "cuda:1": 0.5, "cuda:2": Infinity });
    ledger.record("l", { ram: 7, "cuda:0": Number.NaN });

    expect(ledger.find("k")).toBeUndefined();
    expect(ledger.find("l")).toEqual({ ram: 7 });
  });

  test.each(["{", "null", "[1]", '"x"', '{"ram":"12"}', '{"ram":-1}', "{}"])(
    "ignores the row %j and replaces it",
    async (text) => {
      await using directory = await tempDir();
      using state = new StateDatabase(join(directory.path, "tug.db"));
      state.open().run("INSERT INTO ledger VALUES ('k', ?, 1)", [text]);
      const ledger = new Ledger(state);

      expect(ledger.find("k")).toBeUndefined();
      ledger.record("k", { ram: 3 });
      expect(ledger.find("k")).toEqual({ ram: 3 });
    },
  );

  test("forgets what was measured longest ago when there is too much", async () => {
    await using directory = await tempDir();
    using state = new StateDatabase(join(directory.path, "tug.db"));
    let nowMs = 1000;
    const ledger = new Ledger(state, { now: () => nowMs, maxRows: 3 });
    for (const key of ["a", "b", "c"]) {
      ledger.record(key, { ram: 1 });
      nowMs += 1;
    }
    ledger.record("a", { ram: 2 });

    nowMs += 1;
    ledger.record("d", { ram: 1 });

    expect(["a", "b", "c", "d"].filter((key) => ledger.find(key) !== undefined)).toEqual([
      "a",
      "c",
      "d",
    ]);
  });

  test("does not write what it knows already", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    using state = new StateDatabase(path);
    using watcher = new StateDatabase(path);
    const ledger = new Ledger(state);
    ledger.record("k", { ram: 10 });
    const before = watcher.foreignVersion();

    ledger.record("k", { ram: 10 });
    ledger.record("k", { ram: 3 });

    expect(watcher.foreignVersion()).toBe(before);
  });

  test("that cannot be used knows nothing, and stops nobody", async () => {
    await using directory = await tempDir();
    using state = new StateDatabase(directory.path);
    const ledger = new Ledger(state);

    ledger.record("k", { ram: 1 });

    expect(ledger.find("k")).toBeUndefined();
  });

  test("loses nothing of what two processes record at once", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    const children = ["cuda:0", "cuda:1"].map((device) =>
      Bun.spawn([process.execPath, PROCESS, "record", path, device], { stderr: "inherit" }),
    );

    const codes = await Promise.all(children.map((child) => child.exited));

    using state = new StateDatabase(path);
    expect(codes).toEqual([0, 0]);
    expect(new Ledger(state).find("shared")).toEqual({ "cuda:0": 100, "cuda:1": 100 });
  });
});
