import { expect, test } from "bun:test";
import { join } from "node:path";
import { connect } from "../../src/client/connect.ts";
import { loadConfig } from "../../src/config.ts";
import type { AppError } from "../../src/errors.ts";
import { resolvePaths } from "../../src/paths.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const signal = new AbortController().signal;
const ELSEWHERE = "http://192.0.2.1:12434";

test.each([
  ["--host", "usage"],
  ["TUG_HOST", "in-process"],
] as const)("connect: what works here only, with an address from %s", async (source, outcome) => {
  await using home = await tempDir();
  const paths = resolvePaths({ TUG_HOME: home.path });
  const config = {
    ...loadConfig(join(home.path, "config.toml"), {}),
    host: { value: ELSEWHERE, source },
  };

  const came = await connect("local", { config, paths, signal }).then(
    ({ transport }) => transport.kind,
    (error: unknown) => (error as AppError).code,
  );

  expect(came).toBe(outcome);
});
