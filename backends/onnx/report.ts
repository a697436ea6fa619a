/** What the running server of an ONNX model says of its settings. */
import type { AskEngine, EngineReport } from "../../src/runtime/backend.ts";

/**
 * Not the context: a model's own limit, which several of its files tell differently, is no setting that was not applied.
 *
 * @throws what `ask` throws
 */
export async function onnxReport(ask: AskEngine): Promise<EngineReport> {
  const { parallel } = object(await ask("/health"));
  return Number.isSafeInteger(parallel) ? { parallel } : {};
}

// --- internal ---

function object(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
