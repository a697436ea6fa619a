/** From settings to what an engine is told, and to what memory is estimated with. */
import { statSync } from "node:fs";
import { AppError } from "../errors.ts";
import type { ModelShape } from "../store/model-shape.ts";
import type { Backend, FlagMemory, Mode, RunnableModel, WorkerSettings } from "./backend.ts";
import type { Demand } from "./demand.ts";
import type { Device } from "./hardware/devices.ts";
import { CHECKPOINTS, IN_RAM, type RunShape, type WeightLoading } from "./memory.ts";
import { place } from "./placement.ts";
import { reserveGpus, unknownShape } from "./reserved-memory.ts";
import type { ResolvedSettings } from "./plan-settings.ts";
import type { EffectiveSettings } from "./settings.ts";

/** So many requests share one cache: more would each get too little of it, fewer make people wait. */
export const DEFAULT_PARALLEL = 4;
/** llama.cpp's own. */
export const DEFAULT_CACHE_TYPE = "f16";
/**
 * MiB of prompts that llama-server keeps of conversations that lost their slot. Its own default of 8 GiB is beyond what
 * anybody would count as the model's memory.
 */
const PROMPT_CACHE_MIB = 0;

export interface RunFacts {
  readonly model: Pick<RunnableModel, "projectorBytes" | "adapterBytes" | "weightBytes">;
  readonly mode: Mode;
  readonly shape: ModelShape | undefined;
  readonly devices: readonly Device[];
  /** Where layers may go. */
  readonly budget: Demand;
  readonly resolved: ResolvedSettings;
  readonly draft: { readonly shape: ModelShape | undefined } | undefined;
  readonly loading: WeightLoading;
  readonly backend: Pick<Backend, "processBytes" | "reservesGpus">;
  /** Which of several GPUs that would all do. */
  readonly turn?: number | undefined;
}

/**
 * @param contextTokens positive
 * @throws invalid_request (an adapter that is not there)
 */
export function toRun(facts: RunFacts, contextTokens: number): RunShape {
  const { model, mode, shape, devices, budget, resolved, draft, loading } = facts;
  const { effective, flags, memory } = resolved;
  const { parallel, cacheTypeK, cacheTypeV } = decided(effective);
  const kept = keptOf(memory);
  const run = {
    contextTokens,
    parallel,
    cacheTypeK,
    cacheTypeV,
    mode,
    projectorBytes: model.projectorBytes ?? 0,
    adapterBytes: (model.adapterBytes ?? 0) + sizesOf(effective.lora?.value ?? []),
    draft: draft?.shape && { shape: draft.shape, contextTokens },
    loading: withFlags(loading, flags),
    cacheRamBytes: kept.promptCacheMiB * 1024 * 1024,
    checkpoints: kept.contextCheckpoints,
    microBatch: memory.microBatch,
    keepsWholeWindows: memory.keepsWholeWindows,
    engineBytes: facts.backend.processBytes,
  };
  const { reservesGpus: needs } = facts.backend;
  if (needs !== undefined) {
    const { gpus: said, gpuShare: share } = memory;
    const options = { needs, run, devices, budget, said, share, turn: facts.turn };
    const reservation = reserveGpus(shape ?? unknownShape(model), options);
    return { ...run, offload: IN_RAM, reservation };
  }
  if (shape === undefined) return { ...run, offload: IN_RAM };
  const gpuLayers = effective.gpu_layers?.value;
  return { ...run, offload: place(shape, { run, devices, budget, gpuLayers }) };
}

export interface WorkerFacts {
  readonly contextTokens: number;
  readonly draftId: string | undefined;
  /** With that context. */
  readonly run: Pick<RunShape, "reservation">;
  readonly remotes: readonly string[] | undefined;
}

export function toWorkerSettings(
  { effective, flags, files, memory }: ResolvedSettings,
  { contextTokens, draftId, run, remotes }: WorkerFacts,
): WorkerSettings {
  return {
    contextTokens,
    devices: run.reservation?.gpus.map(({ id }) => id),
    reasoningBudget: effective.reasoning_budget?.value,
    gpuLayers: effective.gpu_layers?.value,
    ...decided(effective),
    ...keptOf(memory),
    adapters: effective.lora?.value,
    ...(effective.trust_remote_code?.value === true ? { trustsCode: true } : {}),
    ...(remotes === undefined ? {} : { remotes }),
    runtimeFlags: flags,
    files: files.length === 0 ? undefined : files,
    draft: draftId === undefined ? undefined : toDraft(effective, draftId),
  };
}

/** @throws invalid_request for a file that a flag names and that is not there */
export function requireFiles({ files }: Pick<ResolvedSettings, "files">): void {
  const hint = "Name another behind `--`, or unset them all with `--unset runtime_flags`.";
  for (const path of files) sizeOf(path, { what: "file", hint });
}

// --- internal ---

/** What is told to every engine, said or not. */
function decided({ parallel, cache_type_k, cache_type_v }: EffectiveSettings) {
  return {
    parallel: parallel?.value ?? DEFAULT_PARALLEL,
    cacheTypeK: cache_type_k?.value ?? DEFAULT_CACHE_TYPE,
    cacheTypeV: cache_type_v?.value ?? DEFAULT_CACHE_TYPE,
  };
}

/** What is kept of conversations, of which an engine would keep more. */
function keptOf({ promptCacheMiB, contextCheckpoints }: FlagMemory) {
  return {
    promptCacheMiB: promptCacheMiB ?? PROMPT_CACHE_MIB,
    contextCheckpoints: contextCheckpoints ?? CHECKPOINTS,
  };
}

/** Its path is known when its bundle is opened; until then its id says which it is. */
function toDraft(effective: EffectiveSettings, model: string): WorkerSettings["draft"] {
  return {
    model,
    maxTokens: effective.draft_max_tokens?.value,
    minProbability: effective.draft_min_probability?.value,
  };
}

function withFlags(loading: WeightLoading, flags: readonly string[]): WeightLoading {
  const isMapped = loading.isMapped && !flags.includes("--no-mmap");
  const isRepacked = !flags.includes("--no-repack") && !flags.includes("-nr");
  return isRepacked ? { ...loading, isMapped } : { isMapped };
}

function sizesOf(adapters: readonly string[]): number {
  const hint = "Set another with `tug configure MODEL --lora FILE`, or none with `--unset lora`.";
  return adapters.reduce((sum, path) => sum + sizeOf(path, { what: "adapter", hint }), 0);
}

/** @throws invalid_request if it is not there */
function sizeOf(path: string, { what, hint }: { readonly what: string; readonly hint: string }) {
  const facts = statSync(path, { throwIfNoEntry: false });
  if (facts?.isFile() === true) return facts.size;
  throw new AppError(
    "invalid_request",
    `cannot use the ${what} \`${path.slice(0, 200)}\`: there is no such file`,
    { hint },
  );
}
