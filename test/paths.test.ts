import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { resolvePaths, SOCKET_PATH_LIMIT } from "../src/paths.ts";

describe("resolvePaths", () => {
  test("puts everything under TUG_HOME if that is set", () => {
    const paths = resolvePaths({ TUG_HOME: "/t", HOME: "/h" }, "linux");

    expect(paths).toMatchObject({
      models: "/t/models",
      backends: "/t/backends",
      run: "/t/run",
      database: "/t/tug.db",
      configFile: "/t/config.toml",
    });
  });

  test("follows XDG on Linux and ignores relative values, as the specification says", () => {
    const env = {
      HOME: "/h",
      XDG_DATA_HOME: "/d",
      XDG_CONFIG_HOME: "relative",
      XDG_RUNTIME_DIR: "/r",
    };

    const paths = resolvePaths(env, "linux");

    expect(paths).toMatchObject({
      models: "/d/tug/models",
      configFile: "/h/.config/tug/config.toml",
      run: "/h/.local/state/tug/run",
      logs: "/h/.local/state/tug/logs",
    });
  });

  test("follows the platform elsewhere", () => {
    expect(resolvePaths({ HOME: "/h" }, "darwin").models).toBe(
      "/h/Library/Application Support/tug/models",
    );
    expect(resolvePaths({ LOCALAPPDATA: "/l" }, "win32").models).toBe(join("/l", "tug", "models"));
  });

  test("MODELS_PATH moves the store alone", () => {
    const paths = resolvePaths({ TUG_HOME: "/t", MODELS_PATH: "/m" }, "linux");

    expect(paths).toMatchObject({ models: "/m", backends: "/t/backends" });
  });

  test("keeps a socket within the limit of the system, the same one every time", () => {
    const deep = `/${"deep/".repeat(40)}`;

    const run = resolvePaths({ TUG_HOME: deep }, "linux").run;

    expect(Buffer.byteLength(join(run, "runner.sock.4194304"))).toBeLessThanOrEqual(
      SOCKET_PATH_LIMIT,
    );
    expect(resolvePaths({ TUG_HOME: deep }, "linux").run).toBe(run);
    expect(resolvePaths({ TUG_HOME: `${deep}x` }, "linux").run).not.toBe(run);
  });
});
