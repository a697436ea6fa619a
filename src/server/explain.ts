/** What was decided for a model, as the API tells it. */
import type { EstimateResult, ExplainResult } from "../api/settings.ts";
import { sumDemands } from "../runtime/demand.ts";
import { toArgsInput } from "../runtime/engine-input.ts";
import { findMismatches } from "../runtime/mismatches.ts";
import type { Examination } from "../runtime/plan-build.ts";
import { fits } from "../runtime/plan-memory.ts";
import type { WorkerPlan } from "../runtime/planner.ts";
import type { WorkerSnapshot } from "../runtime/snapshot.ts";

export interface ExplainFacts {
  readonly workers: readonly WorkerSnapshot[];
  /** Which an engine would get. */
  readonly sandbox: () => Promise<string>;
  readonly cores: number;
  readonly platform: NodeJS.Platform;
  readonly signal: AbortSignal;
}

/** Each worker has one of its own, in a directory of its own. */
const ANY_SOCKET = "worker.sock";

/** @throws what opening the model's files throws, and what the engine cannot honour */
export async function explainPlan(
  { plan, backend, engine }: Examination,
  facts: ExplainFacts,
): Promise<ExplainResult> {
  const { model, mode, draft } = plan;
  await using bundle = await model.openBundle(facts.signal);
  await using drafting = await draft?.openBundle(facts.signal);
  const worker = findWorker(plan, facts.workers);
  const { cores, platform } = facts;
  const place = { installation: engine, socket: ANY_SOCKET, cores, platform };
  const { args } = backend.args(toArgsInput(plan, { bundle, draft: drafting, ...place }));
  const wanted = { settings: plan.settings, modelPath: bundle.model };
  return {
    model_id: model.id,
    model_name: model.name,
    backend: backend.name,
    mode,
    settings: plan.explained,
    command: engine === undefined ? null : [...engine.command, ...args],
    sandbox: worker?.sandbox ?? backend.confinedBy ?? (await facts.sandbox()),
    shares_network: sharesNetwork(backend, plan),
    is_loaded: worker !== undefined,
    reported: worker?.report ?? null,
    mismatches: worker?.report ? findMismatches(wanted, worker.report) : [],
  };
}

export function toEstimate(
  { plan, parts, estimate, measured, devices, budget, largestContext, shape }: Examination,
  { isLocal, workers }: { readonly isLocal: boolean; readonly workers: readonly WorkerSnapshot[] },
): EstimateResult {
  const { model, settings } = plan;
  const held = sumDemands(workers.map(({ demand }) => demand));
  return {
    model_id: model.id,
    model_name: model.name,
    is_local: isLocal,
    context_size: settings.contextTokens ?? -1,
    parallel: settings.parallel ?? 1,
    cache_type_k: settings.cacheTypeK ?? "",
    cache_type_v: settings.cacheTypeV ?? "",
    parts,
    estimate,
    measured: measured ?? null,
    devices: devices.map(({ id, name, totalBytes, freeBytes }) => ({
      id,
      name,
      total_bytes: totalBytes,
      free_bytes: freeBytes,
      budget_bytes: budget[id] ?? 0,
      held_bytes: held[id] ?? 0,
    })),
    fits: fits(plan.demand, budget),
    largest_context: largestContext,
    advice: plan.advice ?? null,
    trained_context: shape?.contextTokens ?? null,
  };
}

// --- internal ---

function sharesNetwork(
  backend: Examination["backend"],
  { cluster, settings }: WorkerPlan,
): boolean {
  const listens = backend.confinedBy === undefined && backend.listensOn === "port";
  return listens || cluster !== undefined || settings.remotes !== undefined;
}

/** One that runs as planned, rather than one that was loaded with other settings. */
function findWorker(
  { model, mode, backend, settings }: WorkerPlan,
  workers: readonly WorkerSnapshot[],
): WorkerSnapshot | undefined {
  const running = workers.filter(
    (worker) =>
      worker.modelId === model.id &&
      worker.mode === mode &&
      worker.backend === backend &&
      worker.state !== "draining",
  );
  return (
    running.find(({ contextTokens }) => contextTokens === settings.contextTokens) ?? running[0]
  );
}
