/** What makes two workers the same. Pure. */
import { createHash } from "node:crypto";

import type { Mode, WorkerSettings } from "./backend.ts";
import type { WorkerPlan } from "./planner.ts";

export interface KeyFacts {
  readonly backend: string;
  readonly modelId: string;
  readonly mode: Mode;
  readonly settings: WorkerSettings;
  /** Of the draft model, if there is one. */
  readonly draftId?: string | undefined;
}

/** Workers are the same if they run the same model in the same way; the name it was asked for by does not matter. */
export function workerKey({ backend, modelId, mode, settings, draftId }: KeyFacts): string {
  const { draft } = settings;
  const drafting = draft && [draft.model, draft.maxTokens, draft.minProbability];
  const shape = JSON.stringify([
    settings.contextTokens,
    settings.reasoningBudget,
    settings.gpuLayers,
    settings.parallel,
    settings.cacheTypeK,
    settings.cacheTypeV,
    settings.adapters,
    settings.devices,
    settings.runtimeFlags,
    drafting,
    draftId,
  ]);
  const hash = createHash("sha256").update(shape).digest("hex");
  return [backend, modelId, mode, hash].join(" ");
}

const keys = new WeakMap<WorkerPlan, string>();

/** The planner gives out the same plan as long as nothing changes: of each the key is made once. */
export function planKey(plan: WorkerPlan): string {
  const known = keys.get(plan);
  if (known !== undefined) return known;
  const { backend, model, mode, settings, draft } = plan;
  const key = workerKey({ backend, modelId: model.id, mode, settings, draftId: draft?.id });
  keys.set(plan, key);
  return key;
}
