import { describe, expect, test } from "bun:test";
import * as fc from "fast-check";

import { AppError } from "../../src/errors.ts";
import { isCustomTable, readDefinition } from "../../src/runtime/custom-definition.ts";

const TABLE = { command: ["python3", "/opt/echo.py", "${PORT}"], formats: ["echo"] };

function refusal(table: Readonly<Record<string, unknown>>, name = "echo"): string {
  try {
    readDefinition(name, table, ["llama.cpp"]);
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.code === "usage") return thrown.message;
    throw thrown;
  }
  throw new Error("it was not refused");
}

describe("readDefinition", () => {
  test("definition: what is not said has defaults", () => {
    expect(readDefinition("echo", TABLE, [])).toEqual({
      name: "echo",
      command: TABLE.command,
      formats: ["echo"],
      modes: ["completion"],
      ready: "/health",
      servedModel: undefined,
      env: {},
      reads: [],
    });
  });

  test("definition: all that can be said", () => {
    const table = {
      command: `~/bin/echo --model "\${MODEL}" 'a b' --on=\${SOCKET}`,
      formats: ["Echo", "gguf", "echo"],
      modes: ["reranking", "completion"],
      ready: "/v1/models",
      served_model: "x",
      env: { A: "${CORES}", B: 1, C: true },
      reads: ["/opt/echo", "~/models"],
    };

    expect(readDefinition("my-echo.2", table, ["llama.cpp"])).toEqual({
      name: "my-echo.2",
      command: ["~/bin/echo", "--model", "${MODEL}", "a b", "--on=${SOCKET}"],
      formats: ["echo", "gguf"],
      modes: ["completion", "reranking"],
      ready: "/v1/models",
      servedModel: "x",
      env: { A: "${CORES}", B: "1", C: "true" },
      reads: ["/opt/echo", "~/models"],
    });
  });

  test("definition: the address may stand in the environment", () => {
    const table = { command: ["a"], formats: ["echo"], env: { PORT: "${PORT}" } };

    expect(readDefinition("echo", table, []).env).toEqual({ PORT: "${PORT}" });
  });

  test("definition: a shell may be given what others chose as an argument", () => {
    const command = ["sh", "-c", 'engine --port ${PORT} "$1"', "sh", "${MODEL}"];

    expect(readDefinition("echo", { ...TABLE, command }, []).command).toEqual(command);
  });

  test.each<[Record<string, unknown>, RegExp]>([
    [{ command: [] }, /`command` is empty$/],
    [{ command: "" }, /`command` is empty$/],
    [{ command: [" "] }, /`command` is empty$/],
    [{ command: 5 }, /`command` is neither a text nor a list of texts$/],
    [{ command: ["a", 5] }, /`command` is neither/],
    [{ command: ["a", "b\0c"] }, /`command` is neither/],
    [{ command: Array.from({ length: 600 }, () => "a") }, /`command` is neither/],
    [{ command: "a 'b" }, /cannot split `command` into words: a quote has no end$/],
    [{ command: ["./a", "${PORT}"] }, /its program `\.\/a` is a relative path$/],
    [{ command: ["${MODEL}", "${PORT}"] }, /its program is a placeholder$/],
    [{ command: ["a"] }, /nothing tells the engine where to listen$/],
    [{ command: ["a", "$${PORT}"] }, /nothing tells the engine where to listen$/],
    [{ command: ["a", "${PORT}", "${SOCKET}"] }, /it has both `\$\{SOCKET\}` and `\$\{PORT\}`$/],
    [{ command: ["a", "${PORTS}"] }, /there is no placeholder `\$\{PORTS\}`$/],
    [
      { command: ["sh", "-c", "a ${PORT} '${MODEL}'"] },
      /`\$\{MODEL\}` stands in the text of a shell$/,
    ],
    [{ command: "/bin/bash -lc 'a ${MODEL_NAME}' ${PORT}" }, /`\$\{MODEL_NAME\}` stands in/],
    [{ env: { A: "${NOPE}" } }, /there is no placeholder `\$\{NOPE\}`$/],
    [{ formats: undefined }, /it does not say which `formats` it serves$/],
    [{ formats: [] }, /`formats` is not a list of texts$/],
    [{ formats: "echo" }, /`formats` is not a list of texts$/],
    [{ formats: ["a b"] }, /`a b` is no name of a format$/],
    [{ modes: ["chat"] }, /`chat` is no mode$/],
    [{ modes: [] }, /`modes` is not a list of texts$/],
    [{ ready: "health" }, /`ready` is not a path$/],
    [{ ready: "/a b" }, /`ready` is not a path$/],
    [{ ready: 5 }, /`ready` is not a path$/],
    [{ served_model: "" }, /`served_model` is no name of a model$/],
    [{ env: [] }, /`env` is not a table$/],
    [{ env: { "A B": "x" } }, /`A B` is no name of a variable$/],
    [{ env: { A: ["x"] } }, /the variable `A` is not a text$/],
    [{ reads: ["opt"] }, /`opt` in `reads` is no absolute path$/],
    [{ reads: ["/"] }, /`\/` in `reads` is no absolute path$/],
    [{ cmd: "x" }, /unknown setting `cmd`$/],
  ])("definition: %j is refused", (wrong, message) => {
    const refused = refusal({ ...TABLE, ...wrong });

    expect(refused).toMatch(/^cannot read `\[engines\."echo"\]` in config\.toml: /);
    expect(refused).toMatch(message);
  });

  test.each(["llama.cpp", "LLAMA.CPP"])("definition: the name of a built-in engine, %s", (name) => {
    expect(refusal(TABLE, name)).toContain("Tug has an engine of that name");
  });

  test.each(["", "a b", "../x", "v1", ".x", "x".repeat(65), "ü"])(
    "definition: %j is no name of an engine",
    (name) => {
      expect(refusal(TABLE, name)).toContain("it cannot be called so");
    },
  );

  test("definition: an unknown placeholder names those there are", () => {
    const table = { ...TABLE, command: ["a", "${X}"] };

    expect(() => readDefinition("echo", table, [])).toThrow(
      expect.objectContaining({ hint: expect.stringMatching(/\$\{SOCKET\}.*\$\{CORES\}/) }),
    );
  });

  test("definition: whatever the table holds, it is read or refused as usage", () => {
    const keys = ["command", "formats", "modes", "ready", "served_model", "env", "reads"];
    const tables = fc.dictionary(fc.constantFrom(...keys), fc.anything({ maxDepth: 2 }));
    fc.assert(
      fc.property(tables, fc.string(), (table, name) => {
        expect(isCustomTable({ ...table, command: 1 })).toBe(true);
        try {
          readDefinition(name, table, []);
        } catch (thrown) {
          expect(thrown).toMatchObject({ name: "AppError", code: "usage" });
        }
      }),
    );
  });
});
