import { afterAll, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { loadConfig } from "../src/config.ts";
import { startRunner } from "../src/daemon.ts";
import { resolvePaths } from "../src/paths.ts";
import { tempDir } from "./helpers/temp-dir.ts";

// A runner's files are its owner's; those of other tests in this process need not be.
const umask = process.umask();
afterAll(() => void process.umask(umask));

test("startRunner: asked to leave while it starts, it leaves", async () => {
  await using home = await tempDir();
  const paths = resolvePaths({ TUG_HOME: home.path });
  const socket = join(home.path, "runner.sock");

  const runner = await startRunner({
    config: loadConfig(join(home.path, "config.toml"), {}),
    paths,
    hostname: "127.0.0.1",
    port: 0,
    socket,
    idleExitMs: null,
    signal: AbortSignal.abort(),
  });
  await runner?.closed;

  expect(runner).toBeDefined();
  expect(existsSync(socket)).toBe(false);
});
