/** What makes two workers the same. Pure. */
import { createHash } from "node:crypto";

import type { Mode, WorkerSettings } from "./backend.ts";

export interface KeyFacts {
  readonly backend: string;
  readonly modelId: string;
  readonly mode: Mode;
  readonly settings: WorkerSettings;
}

/** Workers are the same if they run the same model in the same way; the name it was asked for by does not matter. */
export function workerKey({ backend, modelId, mode, settings }: KeyFacts): string {
  const { contextTokens, reasoningBudget, runtimeFlags, draft } = settings;
  const drafting = draft && [draft.model, draft.maxTokens, draft.minProbability];
  const shape = JSON.stringify([contextTokens, reasoningBudget, runtimeFlags, drafting]);
  const hash = createHash("sha256").update(shape).digest("hex");
  return [backend, modelId, mode, hash].join(" ");
}
