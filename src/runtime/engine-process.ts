/** Which process an engine is, where it is none of those that were started for it. */
import { toAppError } from "../errors.ts";
import { log } from "../log.ts";
import type { Backend, StartedRun } from "./backend.ts";

/** @returns null if nobody can tell. Never rejects */
export async function findEngineProcess(
  backend: Pick<Backend, "name" | "findProcess">,
  run: StartedRun,
  signal: AbortSignal,
): Promise<number | null> {
  try {
    return (await backend.findProcess?.(run, signal)) ?? null;
  } catch (thrown) {
    const reason = toAppError(thrown).message;
    log.debug(`runtime: process of the engine not found backend=${backend.name} reason=${reason}`);
    return null;
  }
}
