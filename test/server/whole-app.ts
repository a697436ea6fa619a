/** The app with every route that a runner has. */
import type { Hono } from "hono";
import { join } from "node:path";
import { composeApp } from "../../src/compose-app.ts";
import { loadConfig } from "../../src/config.ts";
import { resolvePaths } from "../../src/paths.ts";
import type { App } from "../../src/server/app.ts";
import type { AppEnv } from "../../src/server/deps.ts";
import { tempDir } from "../helpers/temp-dir.ts";

/** Every route that a runner has; none of them is called. */
export async function withWholeApp<T>(work: (app: App) => T | Promise<T>): Promise<T> {
  await using home = await tempDir();
  const nothing = {} as never;
  return await work(
    composeApp({
      config: loadConfig(join(home.path, "config.toml"), {}),
      paths: resolvePaths({ TUG_HOME: home.path }),
      files: [],
      supervisor: nothing,
      runner: nothing,
      pulls: nothing,
      watching: nothing,
    }),
  );
}

export interface AnyRoute {
  readonly method: string;
  readonly path: string;
}

/** Without what runs before all of them. */
export function routesOf(app: Hono<AppEnv>): AnyRoute[] {
  return app.routes.filter(({ method, path }) => !(method === "ALL" && path === "/*"));
}
