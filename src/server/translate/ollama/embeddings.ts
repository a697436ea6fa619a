/** An engine's embeddings as Ollama's. Pure. @see https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings */
import { AppError } from "../../../errors.ts";
import { isRecord } from "../../../oci/descriptor.ts";
import type { EmbedInput } from "./requests.ts";

/** What is as long as 1 up to rounding stays as the engine sent it. */
const UNIT_TOLERANCE = 1e-5;

/** An input as the engine gets it: text, or tokens where the text had to be cut. */
export type EngineInput = string | readonly number[];

export interface EngineEmbeddings {
  /** In the order of the inputs, of length 1. */
  readonly vectors: readonly (readonly number[])[];
  readonly promptTokens: number | undefined;
}

/** Texts that a client cut up in the middle of a character are mended: engines refuse halves of one. */
export function toInputs(input: EmbedInput["input"]): readonly string[] {
  if (input === undefined || input === null || input === "") return [];
  return (typeof input === "string" ? [input] : input).map((text) => text.toWellFormed());
}

/**
 * @param dimensions the first so many are kept; absent or 0: all
 * @throws worker_failed (the answer holds no vectors)
 */
export function readEmbeddings(answer: object, dimensions?: number | null): EngineEmbeddings {
  const { data, usage } = answer as { readonly data?: unknown; readonly usage?: unknown };
  if (!Array.isArray(data)) throw noVectors();
  const rows = data.filter(isRecord);
  const vectors = rows
    .toSorted((one, other) => Number(one["index"] ?? 0) - Number(other["index"] ?? 0))
    .map((row) => toUnit(cut(vectorOf(row["embedding"]), dimensions)));
  const tokens = isRecord(usage) ? usage["prompt_tokens"] : undefined;
  return { vectors, promptTokens: typeof tokens === "number" ? tokens : undefined };
}

// --- internal ---

function vectorOf(value: unknown): readonly number[] {
  if (Array.isArray(value) && value.every((one) => typeof one === "number")) return value;
  throw noVectors();
}

function cut(vector: readonly number[], dimensions: number | null | undefined): readonly number[] {
  const count = Math.trunc(dimensions ?? 0);
  return count > 0 && count < vector.length ? vector.slice(0, count) : vector;
}

function toUnit(vector: readonly number[]): readonly number[] {
  const length = Math.sqrt(vector.reduce((sum, one) => sum + one * one, 0));
  if (length === 0 || Math.abs(length - 1) < UNIT_TOLERANCE) return vector;
  return vector.map((one) => one / length);
}

function noVectors(): AppError {
  return new AppError("worker_failed", "cannot read the answer of the engine: it has no vectors", {
    hint: "Use a model that is made for embeddings.",
  });
}
