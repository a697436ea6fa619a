/** What engines with OpenAI's list of models say of their settings there. */
import type { AskEngine, EngineReport } from "../../src/runtime/backend.ts";

/**
 * `/v1/models`: `max_model_len` is the context that one request may use, in tokens.
 *
 * @throws what `ask` throws
 */
export async function modelsReport(ask: AskEngine): Promise<EngineReport> {
  const { data } = (await ask("/v1/models")) as { readonly data?: unknown };
  const [model] = Array.isArray(data) ? (data as unknown[]) : [];
  const length = (model as { readonly max_model_len?: unknown } | undefined)?.max_model_len;
  return typeof length === "number" && Number.isSafeInteger(length) && length > 0
    ? { context_size: length }
    : {};
}
