/** What an engine was told against what it says it does. Pure. */
import type { SettingMismatch } from "../api/settings.ts";
import type { EngineReport, WorkerSettings } from "./backend.ts";

/** An engine may round a context up to whole cells. @see llama.cpp src/llama-context.cpp: GGML_PAD(n_ctx, 256) */
const CONTEXT_CELL_TOKENS = 256;

export interface Wanted {
  readonly settings: WorkerSettings;
  /** The weights it was given. */
  readonly modelPath: string;
}

/** Names in the order of `ps`. What an engine does not report is no difference, nor what was left to it. */
export function findMismatches(
  { settings, modelPath }: Wanted,
  report: EngineReport,
): SettingMismatch[] {
  const { contextTokens, parallel } = settings;
  const wanted: Readonly<Record<string, unknown>> = {
    // -1, the model's own maximum, is a number that only the engine knows.
    context_size: contextTokens === -1 ? undefined : contextTokens,
    parallel,
    cache_type_k: settings.cacheTypeK,
    cache_type_v: settings.cacheTypeV,
    gpu_layers: settings.gpuLayers === -1 ? undefined : settings.gpuLayers,
    model_path: modelPath,
  };
  return Object.entries(wanted).flatMap(([name, value]) => {
    const actual = report[name];
    if (value === undefined || actual === undefined || isSame(name, value, actual)) return [];
    return [{ name, wanted: value, actual }];
  });
}

// --- internal ---

function isSame(name: string, wanted: unknown, actual: unknown): boolean {
  if (name !== "context_size") return wanted === actual;
  const excess = Number(actual) - Number(wanted);
  return excess >= 0 && excess < CONTEXT_CELL_TOKENS;
}
