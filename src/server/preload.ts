/** Loads the models that a runner is to have from its start. */
import { toAppError } from "../errors.ts";
import { log } from "../log.ts";
import { usualMode } from "../runtime/usual-mode.ts";
import type { AppDeps } from "./deps.ts";
import { requireRuntime } from "./worker-request.ts";

/**
 * In order, one after the other, so that the first one has all the disk. One that fails is warned of and does not keep
 * the others; nobody has to wait for it.
 *
 * @param names as in `config.toml`: references, or absolute paths of files
 */
export async function startPreload(
  deps: Pick<AppDeps, "resolve" | "planner" | "runtime">,
  names: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  for (const name of names) {
    if (signal.aborted) return;
    const start = performance.now();
    try {
      await load(deps, name, signal);
      log.info(`runner: preloaded model=${name} ms=${Math.round(performance.now() - start)}`);
    } catch (thrown) {
      const { code, message } = toAppError(thrown);
      if (signal.aborted || code === "shutting_down") return;
      log.warn(`runner: not preloaded model=${name} reason=${message}`);
    }
  }
}

// --- internal ---

async function load(
  deps: Pick<AppDeps, "resolve" | "planner" | "runtime">,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  const runtime = requireRuntime(deps);
  // What stands in the configuration was written by whoever owns the runner.
  const model = await deps.resolve(name, { trusted: true });
  const planner = await deps.planner();
  const plan = await planner.plan({ model, mode: usualMode(model), trusted: true });
  using _lease = await runtime.acquire({ plan, signal, reason: "preload" });
}
