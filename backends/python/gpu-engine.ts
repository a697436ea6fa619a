/** What engines of PyTorch that take GPUs whole (vLLM, SGLang) have in common. Pure. */
import { dirname, join } from "node:path";

import type {
  ArgsInput,
  FlagMemory,
  Gpu,
  InstallRecipe,
  Machine,
  ReservingGpus,
  WorkerSettings,
} from "../../src/runtime/backend.ts";
import { pythonEnvironment } from "./environment.ts";
import { gpuIndexes, refuse } from "./settings.ts";

const MIB = 1024 * 1024;

/** Of one process with PyTorch, as `transformers` measured. */
export const PROCESS_BYTES = 900 * MIB;

/** Some of each GPU is never the engine's: the driver's context, other programs' windows. */
export const MAX_GPU_SHARE = 0.95;

/** Importing PyTorch and compiling for a GPU that is new to it takes minutes, also for a model of some kilobytes. */
export const SMOKE_BOUND_MS = 15 * 60_000;

export const RESERVES_GPUS: ReservingGpus = {
  // Not measured here: a context and libraries of CUDA, NCCL's buffers, and graphs of a few batch sizes.
  fixedBytes: 1536 * MIB,
  // Both engines' default on GPUs with much memory; less on others.
  batchTokens: 8192,
  processBytes: PROCESS_BYTES,
};

/** What of the settings of llama.cpp nothing corresponds to. */
export const IGNORES = { gpu_layers: "the model is on GPUs whole" };

/** Names of the flags by which the model is split (tensor, pipeline), and copied (data). */
export interface ParallelFlags {
  readonly parts: readonly string[];
  readonly copies: readonly string[];
}

/** How many GPUs flags say the model is shared out to; undefined if they say nothing of it. */
export function parallelOf(
  said: ReadonlyMap<string, string | undefined>,
  names: ParallelFlags,
): FlagMemory["gpus"] {
  if (![...names.parts, ...names.copies].some((name) => said.has(name))) return undefined;
  const parts = productOf(said, names.parts);
  return { parts, count: parts * productOf(said, names.copies) };
}

/** How many GPUs the plan gives it, if flags do not say how the model is shared out to them. */
export function sharedBy(
  { devices }: WorkerSettings,
  flags: readonly string[],
  { parts, copies }: ParallelFlags,
): number {
  const isSaid = [...parts, ...copies].some((name) => flags.includes(name));
  return isSaid ? 1 : gpuIndexes(devices).length;
}

/**
 * Templates of models that think or not as they are told know this name.
 *
 * @throws invalid_request for a budget in tokens
 */
export function thinkingArgs(
  engine: string,
  { reasoningBudget }: WorkerSettings,
): readonly string[] {
  if (reasoningBudget === undefined || reasoningBudget === -1) return [];
  refuse(engine, "a reasoning budget other than 0 and -1", reasoningBudget !== 0);
  return ["--default-chat-template-kwargs", JSON.stringify({ enable_thinking: false })];
}

/** What it writes lies beside its socket; what it compiled, where the next worker finds it. */
export function gpuEnvironment({
  socket,
  cacheDirectory,
}: Pick<ArgsInput, "socket" | "cacheDirectory">): Readonly<Record<string, string>> {
  const own = dirname(socket);
  const compiled = cacheDirectory ?? join(own, "compiled");
  return {
    ...pythonEnvironment(socket),
    // In its sandbox there is no user of that name, and no home: what asks for them would fail.
    HOME: own,
    USER: "engine",
    TRITON_HOME: own,
    TRITON_CACHE_DIR: join(compiled, "triton"),
    TORCHINDUCTOR_CACHE_DIR: join(compiled, "inductor"),
    FLASHINFER_WORKSPACE_BASE: compiled,
    CUDA_CACHE_PATH: join(compiled, "cuda"),
    // As the vendor's tool counts them.
    CUDA_DEVICE_ORDER: "PCI_BUS_ID",
  };
}

/** @returns why it cannot run there, as a clause */
export function linuxProblem({ platform, arch }: Machine): string | undefined {
  const isKnown = platform === "linux" && (arch === "x64" || arch === "arm64");
  return isKnown ? undefined : "it needs Linux";
}

type PypiRecipe = NonNullable<InstallRecipe["pypi"]>;

export interface LockedPackage extends Pick<
  PypiRecipe,
  "python" | "launcher" | "environment" | "module"
> {
  readonly package: string;
  /** For CUDA 13: of builds for ROCm, XPU and processors PyPI has none. */
  readonly lock: string;
}

export function cudaRecipe({ lock, ...recipe }: LockedPackage): InstallRecipe {
  const version = lock.split("\n").find((line) => line.startsWith(`${recipe.package}==`));
  return {
    // What PyTorch's builds for CUDA 13 ask for.
    gpuNeeds: { cuda: 13, computeCapability: 7.5 },
    pypi: {
      ...recipe,
      version: /==([^\s;\\]+)/.exec(version ?? "")?.[1] ?? "",
      requirements: (machine: Machine, gpu: Gpu) =>
        linuxProblem(machine) === undefined && gpu === "cuda" ? lock : undefined,
    },
  };
}

// --- internal ---

/** Flags were judged before: numbers are numbers. */
function productOf(
  said: ReadonlyMap<string, string | undefined>,
  names: readonly string[],
): number {
  return names.reduce((product, name) => product * Number(said.get(name) ?? 1), 1);
}
