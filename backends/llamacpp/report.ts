/** What a running llama-server says of its settings. */
import type { AskEngine, EngineReport } from "../../src/runtime/backend.ts";

/**
 * `/props`: `n_ctx` is what one request may use. It is the whole of `--ctx-size` only if the slots share one cache; a
 * build that divides it (`--parallel` without `--kv-unified`) or caps it at the trained context says so here.
 *
 * @throws what `ask` throws
 * @see https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md#get-props-get-server-global-properties
 */
export async function llamacppReport(ask: AskEngine): Promise<EngineReport> {
  const props = object(await ask("/props"));
  const defaults = object(props["default_generation_settings"]);
  const report = {
    context_size: wholeNumber(defaults["n_ctx"]),
    parallel: wholeNumber(props["total_slots"]),
    model_path: text(props["model_path"]),
    build: text(props["build_info"]),
  };
  return Object.fromEntries(Object.entries(report).filter(([, value]) => value !== undefined));
}

// --- internal ---

/** Paths are long; what a report holds is shown. Characters. */
const MAX_TEXT = 4096;

function object(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function wholeNumber(value: unknown): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value.length <= MAX_TEXT ? value : undefined;
}
