import { describe, expect, test } from "bun:test";

import type { AppError } from "../../src/errors.ts";
import {
  readClusters,
  readEngineSettings,
  readPinnedVersions,
} from "../../src/runtime/engine-settings.ts";

const KNOWN = ["llama.cpp", "mlx"];

describe("[engines] of config.toml", () => {
  test.each(["b9879", "0.7.0+dfsg-2", "1:2.3~rc1-4", "0.31.3", "latest", "v1.2"])(
    "%p is a version",
    (version) => {
      const tables = { "llama.cpp": { version }, mlx: {} };
      expect([...readPinnedVersions(tables, KNOWN)]).toEqual([["llama.cpp", version]]);
    },
  );

  test("a table with a command is an engine of the user's own, whatever else it says", () => {
    const tables = { echo: { command: ["x"], version: 7, formats: ["echo"] } };
    expect(readEngineSettings(tables, KNOWN).size).toBe(0);
  });

  test.each([
    [{ x: { comand: "a ${PORT}" } }, "Did you mean `command`? Known are "],
    [{ mlxx: { version: "1" } }, "Did you mean `mlx`? Known are "],
    [{ unlike: { version: "1" } }, "Known are "],
  ] as [Record<string, unknown>, string][])("says what may be meant by %j", (tables, hint) => {
    try {
      readEngineSettings(tables, KNOWN);
    } catch (thrown) {
      expect((thrown as AppError).hint).toStartWith(hint);
    }
    expect.assertions(1);
  });

  test.each([
    [{ vllm: { version: "1" } }, "there is no such engine, and it has no `command`"],
    [{ constructor: {} }, "there is no such engine"],
    [{ vllm: "1" }, "there is no such engine"],
    [{ mlx: "0.31" }, "it is not a table"],
    [{ mlx: ["0.31"] }, "it is not a table"],
    [{ mlx: { verison: "1" } }, "unknown setting `verison`"],
    [{ mlx: { version: 0.31 } }, "`version` is not the text of a version"],
    [{ mlx: { version: "" } }, "`version` is not the text of a version"],
    [{ mlx: { version: "../1" } }, "`version` is not the text of a version"],
    [{ mlx: { version: "1 2" } }, "`version` is not the text of a version"],
    [{ mlx: { version: "x".repeat(129) } }, "`version` is not the text of a version"],
    [{ mlx: { version: null } }, "`version` is not the text of a version"],
  ] as [Record<string, unknown>, string][])("refuses %j", (tables, message) => {
    expect(() => readEngineSettings(tables, KNOWN)).toThrow(message);
  });

  test("the refusal of an unknown name has the known ones, and is bounded", () => {
    const tables = { ["x".repeat(5000)]: {} };
    try {
      readEngineSettings(tables, KNOWN);
      throw new Error("it did not throw");
    } catch (error) {
      expect(error).toMatchObject({
        code: "usage",
        hint: expect.stringContaining(KNOWN.join(", ")),
      });
      expect((error as Error).message.length).toBeLessThan(250);
    }
  });
});

describe("clusters", () => {
  const backends = [{ name: "vllm", joinsCluster: true }, { name: "sglang" }];

  test("a variable is above the file, which may also say nothing", () => {
    const tables = { vllm: { ray_address: "head:6379" }, own: { command: "x", ray_address: 1 } };

    expect(readClusters(tables, backends, {}).get("vllm")).toBe("head:6379");
    expect(readClusters(tables, backends, { TUG_VLLM_RAY_ADDRESS: "10.0.0.1:1" }).get("vllm")).toBe(
      "10.0.0.1:1",
    );
    expect(readClusters({ vllm: {} }, backends, { TUG_VLLM_RAY_ADDRESS: "" }).size).toBe(0);
    expect(readEngineSettings({ vllm: tables.vllm }, ["vllm"]).size).toBe(1);
  });

  test.each([
    [{ vllm: { ray_address: 6379 } }, {}, "`ray_address` in config.toml"],
    [{ vllm: { ray_address: "head" } }, {}, "`ray_address` in config.toml"],
    [{ vllm: { ray_address: "head:99999" } }, {}, "`ray_address` in config.toml"],
    [{ vllm: { ray_address: "http://head:1" } }, {}, "`ray_address` in config.toml"],
    [{ vllm: { ray_address: `${"h".repeat(300)}:1` } }, {}, "`ray_address` in config.toml"],
    [{}, { TUG_VLLM_RAY_ADDRESS: "-x:1" }, "cannot read TUG_VLLM_RAY_ADDRESS"],
    [{ sglang: { ray_address: "head:1" } }, {}, "it cannot compute with a cluster"],
  ] as [Record<string, unknown>, Record<string, string>, string][])(
    "refuses %j %j",
    (tables, env, message) => {
      expect(() => readClusters(tables, backends, env)).toThrow(message);
    },
  );
});
