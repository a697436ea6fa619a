import { describe, expect, test } from "bun:test";

import { readEngineSettings, readPinnedVersions } from "../../src/runtime/engine-settings.ts";

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
