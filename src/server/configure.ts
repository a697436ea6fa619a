/** Changes what is stored for a model: checked against the engine that will really run it, merged key by key. */
import type { ConfigureResult, ModeName, ModelSettings, SettingName } from "../api/settings.ts";
import type { RunnableModel } from "../runtime/backend.ts";
import { foldFlags } from "../runtime/plan-settings.ts";
import type { Examiner } from "../runtime/planner.ts";
import { checkPatch } from "../runtime/settings.ts";
import type { StoredSettings } from "../state/model-settings.ts";
import type { AppDeps, Runtime } from "./deps.ts";

export interface ConfigureDeps {
  readonly examiner: Examiner;
  readonly stored: Pick<StoredSettings, "find" | "set">;
  readonly resolve: AppDeps["resolve"];
  readonly runtime?: Pick<Runtime, "list" | "pin"> | undefined;
}

export interface Change {
  readonly model: RunnableModel;
  /** Undefined: for all modes, unless the flags choose one. */
  readonly mode: ModeName | undefined;
  /** An engine by name. */
  readonly backend: string | undefined;
  /** Null unsets. */
  readonly set: Readonly<Record<string, unknown>>;
  /** Whether who says it may name files of this machine. */
  readonly trusted: boolean;
}

/**
 * @throws invalid_request (no such setting or flag, a value out of range, a context larger than the model's), forbidden
 *   (a file, from who may not name any), model_not_found (the draft model)
 */
export async function configure(deps: ConfigureDeps, change: Change): Promise<ConfigureResult> {
  const { model, trusted } = change;
  const where = `cannot configure \`${model.name}\``;
  const { patch, mode } = await fold(deps, change, checkPatch(change.set, where));
  const wanted = Object.entries(patch).filter(([, value]) => value !== null);
  if (typeof patch["draft_model"] === "string")
    await deps.resolve(patch["draft_model"], { trusted });
  const before = deps.stored.find(model.id, mode);
  // Taking something away makes nothing worse, and it is how what does not hold any more is mended.
  if (wanted.length > 0)
    await check(deps, { ...change, mode: mode ?? undefined }, { ...before, ...patch });
  const settings = deps.stored.set(model.id, mode, patch);
  const { pinned } = patch;
  if (pinned !== undefined) deps.runtime?.pin(model.id, pinned === true);
  const isLoaded = deps.runtime
    ?.list()
    .some((worker) => worker.modelId === model.id && (mode === null || worker.mode === mode));
  const applies = isLoaded === true && shapesProcess(before, settings) ? "next load" : "now";
  return { model_id: model.id, mode, settings, applies };
}

// --- internal ---

/** Requests carry the rest: it holds from the next one on. */
const PROCESS_SETTINGS: readonly SettingName[] = [
  "context_size",
  "parallel",
  "gpu_layers",
  "cache_type_k",
  "cache_type_v",
  "lora",
  "draft_model",
  "draft_max_tokens",
  "draft_min_probability",
  "reasoning_budget",
  "runtime_flags",
];

type Patch = Readonly<Record<string, unknown>>;

/** Flags that say a setting become it, and one that says a mode chooses it. */
async function fold(
  { examiner }: ConfigureDeps,
  { model, mode, backend, trusted }: Change,
  patch: Patch,
): Promise<{ readonly patch: Patch; readonly mode: ModeName | null }> {
  const { runtime_flags: flags, lora } = patch as ModelSettings;
  if (!Array.isArray(flags) && !Array.isArray(lora)) return { patch, mode: mode ?? null };
  const engine = await examiner.backendFor({ model, mode: mode ?? "completion", backend });
  const said = Object.entries(patch).filter(([, value]) => value !== null);
  const folded = foldFlags(
    { source: "request", settings: Object.fromEntries(said) },
    engine,
    trusted,
  ).settings;
  const chosen = flags && engine.readFlags?.(flags, { allowPaths: trusted }).mode;
  const left = Array.isArray(flags) ? { runtime_flags: folded.runtime_flags ?? null } : {};
  return { patch: { ...patch, ...folded, ...left }, mode: mode ?? chosen ?? null };
}

/** A plan with them can be made. */
async function check(
  { examiner, stored }: ConfigureDeps,
  { model, mode, backend }: Change,
  candidate: Patch,
): Promise<void> {
  const settings: ModelSettings = Object.fromEntries(
    Object.entries(candidate).filter(([, value]) => value !== null),
  );
  const planned = mode ?? "completion";
  await examiner.examine({
    model,
    mode: planned,
    backend,
    stored:
      mode === undefined
        ? { all: settings, mode: stored.find(model.id, planned) }
        : { all: stored.find(model.id, null), mode: settings },
  });
}

function shapesProcess(before: ModelSettings, after: ModelSettings): boolean {
  return PROCESS_SETTINGS.some(
    (name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]),
  );
}
