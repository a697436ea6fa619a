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
    settings.remotes,
    settings.trustsCode,
    drafting,
    draftId,
  ]);
  const hash = createHash("sha256").update(shape).digest("hex");
  return [backend, modelId, mode, hash].join(" ");
}

interface KnownKey {
  readonly plan: WorkerPlan;
  readonly key: string;
}

const keys = new WeakMap<WorkerSettings, KnownKey>();

/** Plans that differ only in what was measured since have their settings in common: of each the key is made once. */
export function planKey(plan: WorkerPlan): string {
  const known = keys.get(plan.settings);
  if (known !== undefined && isSame(known.plan, plan)) return known.key;
  const { backend, model, mode, settings, draft } = plan;
  const key = workerKey({ backend, modelId: model.id, mode, settings, draftId: draft?.id });
  keys.set(settings, { plan, key });
  return key;
}

// --- internal ---

function isSame(one: WorkerPlan, other: WorkerPlan): boolean {
  return (
    one.model.id === other.model.id &&
    one.backend === other.backend &&
    one.mode === other.mode &&
    one.draft?.id === other.draft?.id
  );
}
