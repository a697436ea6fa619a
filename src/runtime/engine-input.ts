/** From a plan to what a backend makes its command line of: for workers, and for `explain`, which shows it. Pure. */
import type { ArgsInput, Bundle, Installation, WorkerSettings } from "./backend.ts";
import type { WorkerPlan } from "./planner.ts";

export interface InputFacts {
  readonly bundle: Bundle;
  /** Of `plan.draft`. */
  readonly draft?: Bundle | undefined;
  /** Undefined if none is installed yet. */
  readonly installation: Pick<Installation, "variant"> | undefined;
  readonly socket: string;
  readonly port?: number | undefined;
  readonly cores: number;
  readonly platform: NodeJS.Platform;
  readonly cacheDirectory?: string | undefined;
}

export function toArgsInput(plan: WorkerPlan, facts: InputFacts): ArgsInput {
  const { model, mode, architecture, gpuShare, cacheBytes, asleep, cluster } = plan;
  const { bundle, draft, installation, ...place } = facts;
  return {
    ...place,
    bundle,
    mode,
    settings: withDraft(plan.settings, draft),
    alias: model.name,
    variant: installation?.variant,
    architecture,
    gpuShare,
    cacheBytes,
    sleeps: asleep !== undefined,
    cluster,
  };
}

// --- internal ---

function withDraft(settings: WorkerSettings, draft: Bundle | undefined): WorkerSettings {
  if (draft === undefined) return settings;
  return { ...settings, draft: { ...settings.draft, model: draft.model } };
}
