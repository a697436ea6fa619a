/** Changes what is stored for a model: checked against the engine that will really run it, merged key by key. */
import type { ConfigureResult, ModeName, ModelSettings } from "../api/settings.ts";
import type { RunnableModel } from "../runtime/backend.ts";
import { foldFlags, REQUEST } from "../runtime/plan-settings.ts";
import type { Examiner } from "../runtime/planner.ts";
import { checkPatch, PROCESS_SETTINGS } from "../runtime/settings.ts";
import { usualMode } from "../runtime/usual-mode.ts";
import { planKey } from "../runtime/worker-key.ts";
import type { StoredSettings } from "../state/model-settings.ts";
import type { AppDeps, Runtime } from "./deps.ts";

export interface ConfigureDeps {
  readonly examiner: Examiner;
  readonly stored: Pick<StoredSettings, "find" | "list" | "set">;
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
  const changed = Object.keys(patch);
  if (typeof patch["draft_model"] === "string")
    await deps.resolve(patch["draft_model"], { trusted });
  const chosen = { ...change, mode: mode ?? undefined };
  // Taking something away makes nothing worse, and it is how what does not hold any more is mended.
  if (changed.some((name) => patch[name] !== null)) await check(deps, chosen, patch);
  const settings = deps.stored.set(model.id, mode, patch);
  const { pinned } = patch;
  if (typeof pinned === "boolean") deps.runtime?.pin(model.id, pinned);
  if (pinned === null) await followPins(deps, new Set([model.id]));
  const shapesProcess = PROCESS_SETTINGS.some((name) => changed.includes(name));
  const isLater = shapesProcess && (await isLoadedOtherwise(deps, chosen));
  const applies = isLater ? "next load" : "now";
  return { model_id: model.id, mode, settings, applies };
}

/** What is stored does not pin these models any more: config.toml may. */
export async function followPins(
  { examiner, resolve, runtime }: Omit<ConfigureDeps, "stored">,
  modelIds: ReadonlySet<string>,
): Promise<void> {
  for (const { modelId, mode, backend, pinned } of runtime?.list() ?? []) {
    if (!pinned || !modelIds.has(modelId)) continue;
    const isPinned = await resolve(modelId, { trusted: true })
      .then((model) => examiner.examine({ model, mode, backend }))
      // A model that is gone, or whose settings do not hold, is pinned by nobody.
      .then(
        ({ plan }) => plan.pinned,
        () => false,
      );
    runtime?.pin(modelId, isPinned);
  }
}

// --- internal ---

type Patch = Readonly<Record<string, unknown>>;

/** Flags that say a setting become it, and one that says a mode chooses it. */
async function fold(
  { examiner }: ConfigureDeps,
  { model, mode, backend, trusted }: Change,
  patch: Patch,
): Promise<{ readonly patch: Patch; readonly mode: ModeName | null }> {
  const { runtime_flags: flags } = patch as ModelSettings;
  if (!isForOwners(patch)) return { patch, mode: mode ?? null };
  const engine = await examiner.backendFor({ model, mode: mode ?? usualMode(model), backend });
  const folded = foldFlags(
    { source: REQUEST, settings: wantedOf(patch) },
    engine,
    trusted,
  ).settings;
  const chosen = flags && engine.readFlags?.(flags, { allowPaths: trusted }).mode;
  const left = Array.isArray(flags) ? { runtime_flags: folded.runtime_flags ?? null } : {};
  return { patch: { ...patch, ...folded, ...left }, mode: mode ?? chosen ?? null };
}

/** Whether any of it may name files, or lets a model's code run. */
function isForOwners(patch: Patch): boolean {
  const { runtime_flags: flags, lora, ...rest } = patch as ModelSettings;
  const allowsCode = rest.trust_remote_code === true || rest.allow_pickle === true;
  return Array.isArray(flags) || Array.isArray(lora) || allowsCode;
}

/** A plan with them can be made, in each mode that may differ from others. */
async function check(
  { examiner, stored }: ConfigureDeps,
  { model, mode, backend, trusted }: Change,
  patch: Patch,
): Promise<void> {
  const { id } = model;
  const change: ModelSettings = wantedOf(patch);
  const without = (settings: ModelSettings): ModelSettings =>
    Object.fromEntries(Object.entries(settings).filter(([name]) => !Object.hasOwn(patch, name)));
  const own = stored.list().flatMap((entry) => (entry.modelId === id ? (entry.mode ?? []) : []));
  const modes = mode === undefined ? new Set<ModeName>([usualMode(model), ...own]) : [mode];
  for (const planned of modes) {
    const all = stored.find(id, null);
    const ofMode = stored.find(id, planned);
    const layers =
      mode === undefined
        ? { all: without(all), mode: ofMode }
        : { all, mode: without(ofMode), isForMode: true };
    const request = { model, mode: planned, backend, trusted };
    await examiner.examine({ ...request, stored: { ...layers, change } });
  }
}

function wantedOf(patch: Patch): Patch {
  return Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== null));
}

/** Whether a worker that is loaded runs otherwise than the model is set now. */
async function isLoadedOtherwise(
  { examiner, runtime }: ConfigureDeps,
  { model, mode }: Pick<Change, "model" | "mode">,
): Promise<boolean> {
  const workers = (runtime?.list() ?? []).filter(
    (worker) =>
      worker.modelId === model.id &&
      worker.state !== "draining" &&
      (mode === undefined || worker.mode === mode),
  );
  for (const worker of workers) {
    try {
      const { backend } = worker;
      const { plan } = await examiner.examine({ model, mode: worker.mode, backend });
      if (planKey(plan) !== worker.key) return true;
    } catch {
      // What is left does not hold, which is not what was asked here; the next request is told.
      return true;
    }
  }
  return false;
}
