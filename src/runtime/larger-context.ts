/** A request that needs a context of some size is as well served by a larger one that is loaded. Pure. */
import type { WorkerPlan } from "./planner.ts";
import { workerKey } from "./worker-key.ts";

/**
 * @param loaded the workers that there are and that stay
 * @returns the plan as it is, or with what concerns the process of the smallest that will do
 */
export function onLargerContext(
  plan: WorkerPlan,
  loaded: readonly { readonly plan: WorkerPlan }[],
): WorkerPlan {
  if (plan.takesLargerContext !== true) return plan;
  // Plans are made once: most often it is the very one.
  if (loaded.some((one) => one.plan.settings === plan.settings)) return plan;
  const wanted = contextOf(plan);
  const key = keyButContext(plan);
  const fitting = loaded
    .map((one) => one.plan)
    .filter(
      (other) =>
        other.model.id === plan.model.id &&
        contextOf(other) >= wanted &&
        // Of two usual ones the older was made before settings changed.
        !(plan.isUsual === true && other.isUsual === true) &&
        keyButContext(other) === key,
    )
    .toSorted((one, other) => contextOf(one) - contextOf(other));
  const [host] = fitting;
  if (host === undefined) return plan;
  const { settings, demand, ledgerKey, advice, gpuShare, cacheBytes, asleep } = host;
  return { ...plan, settings, demand, ledgerKey, advice, gpuShare, cacheBytes, asleep };
}

// --- internal ---

function contextOf({ settings }: WorkerPlan): number {
  return settings.contextTokens ?? Number.POSITIVE_INFINITY;
}

function keyButContext({ backend, model, mode, settings, draft }: WorkerPlan): string {
  const rest = { ...settings, contextTokens: undefined };
  return workerKey({ backend, modelId: model.id, mode, settings: rest, draftId: draft?.id });
}
