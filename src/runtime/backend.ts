/**
 * What an engine must tell Tug. Adding an engine is adding a folder under `backends/` that exports one `Backend`.
 *
 * Values and interfaces only: nothing here does I/O.
 */

import type { ModelSettings, SettingName } from "../api/settings.ts";
import type { Bundle, ModelFormat, RunnableModel } from "../store/bundle.ts";
import type { Gpu, GpuNeeds, Installation, InstallRecipe, Machine } from "./install-recipe.ts";
import type { ModelTraits } from "../store/model-traits.ts";

/** An engine gets so many requests at a time for each of its slots: one that is served, one that follows at once. */
export const REQUESTS_A_SLOT = 2;

export type { Bundle, ModelFormat, ModelTraits, RunnableModel };
export { GPUS } from "./install-recipe.ts";
export type { Gpu, GpuNeeds, Installation, InstallRecipe, Machine };

/** What a worker was started to do; it is part of the worker's identity. */
export type Mode = "completion" | "embedding" | "reranking" | "image-generation";

/** Settings that shape the process. Two workers with different ones are two workers. */
export interface WorkerSettings {
  /** Tokens; -1 is the model's own maximum; undefined leaves it to the bundle, then to the engine. */
  readonly contextTokens?: number | undefined;
  /** llama.cpp `--reasoning-budget`: -1 unlimited, 0 none. */
  readonly reasoningBudget?: number | undefined;
  /** Layers on the GPU; -1 all; undefined leaves it to the engine. */
  readonly gpuLayers?: number | undefined;
  /** Requests served at once; undefined leaves it to the engine. */
  readonly parallel?: number | undefined;
  /** Such as `f16`, `q8_0`, `q4_0`; undefined leaves it to the engine. */
  readonly cacheTypeK?: string | undefined;
  readonly cacheTypeV?: string | undefined;
  /** Main memory that prompts of former conversations may be kept in, in MiB; undefined leaves it to the engine. */
  readonly promptCacheMiB?: number | undefined;
  /** States of a conversation that may be kept a slot, to go back to; undefined leaves it to the engine. */
  readonly contextCheckpoints?: number | undefined;
  /** LoRA adapters besides those of the bundle; absolute paths. */
  readonly adapters?: readonly string[] | undefined;
  /** The devices it may use, by `DeviceId`; undefined leaves it to the engine. */
  readonly devices?: readonly string[] | undefined;
  /** Code that comes with the model may run. */
  readonly trustsCode?: boolean | undefined;
  /** Extra engine flags, verbatim, already split into words. */
  readonly runtimeFlags: readonly string[];
  /** Files that the flags name: the engine must be able to read them. Absolute paths. */
  readonly files?: readonly string[] | undefined;
  readonly draft?: DraftSettings | undefined;
  /** RPC servers (`host:port`) that compute for it, for an engine with `rpc`. */
  readonly remotes?: readonly string[] | undefined;
}

/** What a running engine says of itself, by the names of settings: `context_size`, `parallel`, `model_path`, … */
export type EngineReport = Readonly<Record<string, unknown>>;

/** Asks a running engine: a path, such as `/props`, gives the answer's JSON. Bounded; throws if it is not 200. */
export type AskEngine = (path: string) => Promise<unknown>;

/** Speculative decoding. */
export interface DraftSettings {
  /** Absolute path of the draft model. */
  readonly model: string;
  readonly maxTokens?: number | undefined;
  readonly minProbability?: number | undefined;
}

export interface ArgsInput {
  readonly bundle: Bundle;
  readonly mode: Mode;
  readonly settings: WorkerSettings;
  /** What the engine calls the model in its answers. */
  readonly alias: string;
  /** The unix socket the engine must listen on. */
  readonly socket: string;
  /** The port of 127.0.0.1 it must listen on instead, for a backend that `listensOn` one. */
  readonly port?: number | undefined;
  /** Logical processors that the worker may use. */
  readonly cores: number;
  readonly platform: NodeJS.Platform;
  /** Of the installation; undefined if nobody knows. */
  readonly variant?: string | undefined;
  /** What the model is made as: `general.architecture`, or `model_type` of `config.json`; undefined if nobody knows. */
  readonly architecture?: string | undefined;
  /** Of the memory of each GPU what it may take, 0 to 1, for an engine that takes all at once; undefined: its own default. */
  readonly gpuShare?: number | undefined;
  /** Bytes that keys and values may take in main memory, for an engine that takes all at once and has no GPU. */
  readonly cacheBytes?: number | undefined;
  /** It will be put to sleep when others need its GPUs: see `Backend.sleep`. */
  readonly sleeps?: boolean | undefined;
  /** Address of the Ray cluster that it computes with. */
  readonly cluster?: string | undefined;
  /** For what it compiles: it outlives the worker. Undefined: there is no such place. */
  readonly cacheDirectory?: string | undefined;
}

/** How an engine was started. */
export interface StartedRun {
  readonly installation: Installation;
  readonly socket: string;
  readonly port: number | undefined;
}

/** The engine's own arguments, without `Installation.command`. */
export interface EngineCommand {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

export interface FlagOptions {
  /** Whether who set them owns the runner: may name files of this machine, and have prompts written to its logs. */
  readonly allowPaths: boolean;
}

/** What flags change of the memory that a run takes; what is absent they leave as it is. */
export interface FlagMemory {
  readonly promptCacheMiB?: number | undefined;
  readonly contextCheckpoints?: number | undefined;
  /** Tokens that are computed at once. */
  readonly microBatch?: number | undefined;
  /** Layers with a sliding window keep all of the context. */
  readonly keepsWholeWindows?: boolean | undefined;
  /** GPUs that it runs on, and parts that it is split into: what is more are copies. */
  readonly gpus?: { readonly count: number; readonly parts: number } | undefined;
  /** Of the memory of each GPU what the engine takes, 0 to 1. */
  readonly gpuShare?: number | undefined;
  /** The engine is not to be put to sleep. */
  readonly staysAwake?: boolean | undefined;
}

export interface ReadFlags {
  /** What is left for the engine, a word each. */
  readonly flags: readonly string[];
  /** What the others said. */
  readonly settings: ModelSettings;
  /** The mode that they chose. */
  readonly mode?: Mode | undefined;
  /** Absolute paths of the files that the flags left name. */
  readonly files: readonly string[];
  /** They stretch the context beyond what the model was trained for. */
  readonly stretchesContext: boolean;
  /** Absent: they change nothing of it. */
  readonly memory?: FlagMemory | undefined;
}

export interface ExitFacts {
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** The end of stderr, at most 64 KiB. */
  readonly stderrTail: string;
  /** Whether the system ended processes for lack of memory during its life; undefined where it does not tell. */
  readonly wasMemoryShort?: boolean | undefined;
  /** `WorkerSettings.remotes`. */
  readonly remotes?: readonly string[] | undefined;
}

/** One sentence for people, made of an engine's log. */
export interface ExitReason {
  readonly reason: string;
  /** It ran out of memory: with more room it may run. */
  readonly isOutOfMemory?: boolean | undefined;
  readonly hint?: string | undefined;
}

/** What an engine that takes GPUs whole has there besides weights and cache. */
export interface ReservingGpus {
  /** Bytes on each: the driver's context, libraries, captured graphs. */
  readonly fixedBytes: number;
  /** Tokens that are computed at once, whose intermediate results lie there. */
  readonly batchTokens: number;
  /** Bytes of main memory of the process that each GPU but the first adds. */
  readonly processBytes: number;
}

export interface RpcServeOptions {
  /** IPv4 address. */
  readonly host: string;
  readonly port: number;
  /** By the engine's own names, such as `CUDA0`; empty: its own choice. */
  readonly devices: readonly string[];
  /** Where it keeps large tensors; undefined: nowhere. */
  readonly cacheDirectory?: string | undefined;
}

/** How an engine computes on other machines. Pure. */
export interface RpcSupport {
  /** Names of the server's program, which lies beside the engine's own, without a system's extension; best first. */
  readonly executables: readonly string[];
  /** The server's own arguments. */
  serve(options: RpcServeOptions): EngineCommand;
  /** Arguments of the engine that make it print the devices of a server. */
  listDevices(server: string): EngineCommand;
  /** @returns bytes that the server offers; undefined if nothing of that was printed */
  parseDevices(stdout: string): number | undefined;
  /** Pure. The server's end as a sentence. */
  explainExit(facts: ExitFacts): ExitReason;
  /** Flags name the devices that it may use, and no server's is among them. */
  avoids(flags: readonly string[]): boolean;
}

export interface Backend {
  readonly name: string;
  readonly formats: readonly ModelFormat[];
  readonly modes: readonly Mode[];
  /** Why it cannot run on a machine: a clause such as "it needs Linux"; undefined if it can. Absent: it runs everywhere. */
  problem?(machine: Machine): string | undefined;
  /**
   * Pure. What of a model of its formats it cannot read, as what follows "does not read": "weights in EXL2"; undefined if
   * it reads it. Absent: it reads all.
   */
  unreadable?(traits: ModelTraits): string | undefined;
  /** Pure. Whether it can run such a model only with the code that comes with it. Absent: it runs no model's code. */
  needsCode?(traits: ModelTraits): boolean;
  /** Settings that it has nothing for, and what it does instead, as a clause. `explain` says so. Absent: it has all. */
  readonly ignores?: Readonly<Partial<Record<SettingName, string>>> | undefined;
  readonly recipe: InstallRecipe;
  /** Chosen by itself only where somebody has installed it: it takes gigabytes, and a GPU. */
  readonly onlyWhereInstalled?: boolean | undefined;
  /** Files of a tiny model that its installation is tried with, by name. Absent: it reads GGUF, and tries Pebble. */
  smokeFiles?(): Readonly<Record<string, string | Uint8Array>>;
  /** What it is asked with it, for an engine that does not chat. Any answer of status 200 will do. */
  readonly smokeRequest?: { readonly path: string; readonly body: object } | undefined;
  /** Paths that it answers requests on. Absent: those of llama-server. */
  readonly paths?: readonly string[] | undefined;
  /** Members of a request that it takes: others are left out. Absent: it ignores what it does not know. */
  readonly fields?: ReadonlySet<string> | undefined;
  /** What it calls the model, where it answers to no other name; `served_model` of its report wins. */
  readonly servedModel?: string | undefined;
  /** Bytes that its process takes without a model; absent: as many as llama-server. */
  readonly processBytes?: number | undefined;
  /**
   * It takes its share of GPUs whole when it starts, weights and cache alike, shares a model out evenly to several, and
   * has nothing of it elsewhere. Absent: layers lie where they fit.
   */
  readonly reservesGpus?: ReservingGpus | undefined;
  /**
   * Requests (POST) that move its weights from GPUs to main memory and back, for an engine that reserves GPUs. Absent: one
   * that has to make room is ended.
   */
  readonly sleep?: { readonly path: string; readonly wakePath: string } | undefined;
  /** It compiles parts of itself for a model: that is kept beside it, for each model apart, and goes with it. */
  readonly keepsCompiled?: boolean | undefined;
  /** How long its installation may be tried, in ms; absent: a minute. */
  readonly smokeBoundMs?: number | undefined;
  /** It can compute with other machines of a Ray cluster. */
  readonly joinsCluster?: boolean | undefined;
  /** Absent: it computes on this machine alone. */
  readonly rpc?: RpcSupport | undefined;
  /** It runs in a container, which confines it: no sandbox is put around what starts it. */
  readonly confinedBy?: "container" | undefined;
  /**
   * The process whose memory counts, with all that descend from it, where it does not descend from the one that was
   * started; asked once, when it is ready. Undefined: nobody can tell. Absent: it is the one that was started.
   */
  findProcess?(run: StartedRun, signal: AbortSignal): Promise<number | undefined>;
  /** Where nobody says a context, it decides itself. Absent: what fits the budget is computed for it. */
  readonly choosesContext?: boolean | undefined;
  /** Default: a unix socket. On a port others of this machine reach it, and nothing parts it from the network. */
  readonly listensOn?: "socket" | "port" | undefined;
  /** Path that answers 200 once the worker can serve. */
  readonly readinessPath: string;
  /** A load that takes longer is given up, in ms; absent: it may take as long as it makes progress. */
  readonly readyBoundMs?: number | undefined;
  /** Absolute path of the directory that it starts in. Absent: the worker's own, where its socket is. */
  readonly startsIn?: string | undefined;
  /** Pure. Throws `usage` for a setting the engine cannot honour. */
  args(input: ArgsInput): EngineCommand;
  /**
   * Pure. Judges runtime flags before anything is loaded, and takes out those that only say a setting in other words.
   * Absent for an engine that takes no flags.
   *
   * @throws invalid_request for a flag that is not allowed or a value it does not take; forbidden for a path without
   *   `allowPaths`
   */
  readFlags?(flags: readonly string[], options: FlagOptions): ReadFlags;
  /** Pure. Turns an exit before or after readiness into a sentence. */
  explainExit(facts: ExitFacts): ExitReason;
  /** Which of the settings hold, read back from the running engine. Absent for an engine that does not tell. */
  report?(ask: AskEngine): Promise<EngineReport>;
  /** Types that keys and values of the cache may have; absent where none can be chosen. */
  readonly cacheTypes?: readonly string[] | undefined;
  /** Path of the engine's own metrics in Prometheus's text format. Absent for an engine without. */
  readonly metricsPath?: string | undefined;
}
