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
      readyTimeoutMs: undefined,
      models: [],
      memoryBytes: undefined,
      servedModel: undefined,
      env: {},
      reads: [],
      cwd: undefined,
    });
  });

  test("definition: all that can be said", () => {
    const table = {
      command: `~/bin/echo --model "\${MODEL}" 'a b' --on=\${SOCKET}`,
      formats: ["Echo", "gguf", "echo"],
      modes: ["reranking", "completion"],
      ready: "/v1/models",
      ready_timeout: "10m",
      memory: "8GB",
      models: ["me/thing", "me/thing:latest", "other"],
      served_model: "x",
      env: { A: "${CORES}", B: 1, C: true },
      reads: ["/opt/echo", "~/models"],
      cwd: "~/echo",
    };

    expect(readDefinition("my-echo.2", table, ["llama.cpp"])).toEqual({
      name: "my-echo.2",
      command: ["~/bin/echo", "--model", "${MODEL}", "a b", "--on=${SOCKET}"],
      formats: ["echo", "gguf"],
      modes: ["completion", "reranking"],
      ready: "/v1/models",
      readyTimeoutMs: 600_000,
      memoryBytes: 8e9,
      models: ["docker.io/me/thing:latest", "docker.io/ai/other:latest"],
      servedModel: "x",
      env: { A: "${CORES}", B: "1", C: "true" },
      reads: ["/opt/echo", "~/models"],
      cwd: "~/echo",
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

  test("definition: models that it brings itself need no formats, and have no files", () => {
    const table = { command: ["a", "${PORT}", "${MODEL_NAME}"], models: ["me/thing"] };

    expect(readDefinition("echo", table, [])).toMatchObject({
      formats: [],
      models: ["docker.io/me/thing:latest"],
    });
    expect(refusal({ ...table, command: ["a", "${PORT}", "${MODEL}"] })).toMatch(
      /`\$\{MODEL\}` stands for files, and its `models` have none here$/,
    );
  });

  test.each([
    [["env", "A=1", "/bin/dash", "-c", "a ${MODEL}"]],
    [["python3.11", "-Ic", "open('${MODEL_DIR}')"]],
    [["/opt/node", "--eval", "f('${MODEL}')"]],
    [["bun", "-e", "f('${MODEL_NAME}')"]],
    [["C:\\Windows\\cmd.exe", "/c", "engine", "${MODEL}"]],
    [["pwsh", "-Command", "engine ${MODEL}"]],
    [["perl", "-ne", "${MODEL}"]],
  ])("definition: what others chose is no text of a program: %p", (command) => {
    expect(refusal({ ...TABLE, command: [...command, "${PORT}"] })).toMatch(
      /stands in the text of a program$/,
    );
  });

  test.each([
    [["python3", "-m", "engine", "-c", "4096", "${MODEL}"]],
    [["python3", "engine.py", "--model", "${MODEL}", "-c", "x"]],
    [["/opt/engine", "-c", "${MODEL}"]],
    [["python3", "engine.py", "-c", "${MODEL}"]],
    [["node", "--no-warnings", "engine.js", "-e", "${MODEL}"]],
    [["node", "engine.js", "${MODEL}"]],
  ])("definition: an argument of a program is no text of one: %p", (command) => {
    const words = [...command, "${PORT}"];

    expect(readDefinition("echo", { ...TABLE, command: words }, []).command).toEqual(words);
  });

  test.each<[Record<string, unknown>, RegExp]>([
    [{ models: [] }, /`models` is not a list of texts$/],
    [{ models: ["a b"] }, /`a b` is no name of a model$/],
    [{ models: ["https://x.org/a"] }, /is no name of a model$/],
    [{ models: "me/thing" }, /`models` is not a list/],
    [{ ready_timeout: "soon" }, /`ready_timeout` is not a time$/],
    [{ ready_timeout: "-1" }, /`ready_timeout` is not a time$/],
    [{ ready_timeout: "100h" }, /`ready_timeout` is not a time$/],
    [{ ready_timeout: 5 }, /`ready_timeout` is not a time$/],
    [{ memory: "60%" }, /`memory` is not a size$/],
    [{ memory: "ram=8GB" }, /`memory` is not a size$/],
    [{ memory: "" }, /`memory` is not a size$/],
    [{ memory: 8 }, /`memory` is not a size$/],
    [{ cwd: "work" }, /`cwd` is no absolute path$/],
    [{ cwd: "/a\0b" }, /`cwd` is no absolute path$/],
    [{ cwd: ["/a"] }, /`cwd` is no absolute path$/],
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
      /`\$\{MODEL\}` stands in the text of a program$/,
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
