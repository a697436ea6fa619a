/** Under which paths the routes of engines are: OpenAI's, and Docker Model Runner's with and without an engine's name. */
import type { Context } from "hono";
import type { AppDeps, AppEnv } from "../deps.ts";
import { BodyBudget } from "../body-budget.ts";
import { requireBackend } from "../worker-request.ts";

/** Before `PLAIN_PREFIXES`, whose last would take the `v1` for an engine's name. */
export const V1_PREFIXES = ["/v1", "/engines/v1", "/engines/:engine/v1"] as const;
/** llama-server's and vLLM's paths without a version. */
export const PLAIN_PREFIXES = ["", "/engines", "/engines/:engine"] as const;

/** @returns the engine that the path names @throws backend_not_found */
export async function engineOf(c: Context<AppEnv>): Promise<string | undefined> {
  const engine = c.req.param("engine");
  return engine === undefined ? undefined : requireBackend(engine, c.get("engineNames"));
}

/** The runner's one budget, or one for a process that makes none. */
export function bodiesOf(deps: AppDeps): BodyBudget {
  return deps.bodies ?? new BodyBudget();
}
