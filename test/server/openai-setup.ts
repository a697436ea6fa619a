/** `EngineApp`, and what its engine got. */
import type { AppDeps } from "../../src/server/deps.ts";
import type { Script } from "../fakes/engine.ts";
import { type EngineApp, engineApp } from "./engine-app.ts";

export interface OpenaiSetup extends EngineApp {
  /** The JSON of what the engine got last. */
  readonly sent: Record<string, unknown>;
}

export async function openaiSetup(
  script: Script,
  deps: Partial<AppDeps> = {},
): Promise<OpenaiSetup> {
  const it = await engineApp(script, { deps });
  return {
    ...it,
    get sent() {
      return JSON.parse(it.engine.requests.at(-1)?.body ?? "null") as Record<string, unknown>;
    },
  };
}

/** Answers everything with the same JSON. */
export function says(value: unknown, status = 200): Script {
  return (exchange) => exchange.json(status, value);
}

/** The `error` of a failed answer. */
export async function errorOf(response: Response): Promise<Record<string, unknown>> {
  const { error } = (await response.json()) as { error: Record<string, unknown> };
  return error;
}
