/** What the running server of an ONNX model says of its settings. */
import type { AskEngine, EngineReport } from "../../src/runtime/backend.ts";

/**
 * `/health`: `context`, the tokens that a request may have, and `asked_context`, what it was told. A model's own limit,
 * which several of its files tell differently, is no setting that was not applied: it is told by another name.
 *
 * @throws what `ask` throws
 */
export async function onnxReport(ask: AskEngine): Promise<EngineReport> {
  const { parallel, context, asked_context: asked } = object(await ask("/health"));
  const isAsked = !isCount(asked) || context === asked;
  return {
    ...(isCount(context) ? { [isAsked ? "context_size" : "model_context"]: context } : {}),
    ...(isCount(parallel) ? { parallel } : {}),
  };
}

// --- internal ---

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

function object(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
