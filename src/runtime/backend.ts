/**
 * What an engine must tell Tug. Adding an engine is adding a folder under `backends/` that exports one `Backend`.
 *
 * Values and interfaces only: nothing here does I/O.
 */

import type { ModelSettings } from "../api/settings.ts";
import type { Bundle, ModelFormat, RunnableModel } from "../store/bundle.ts";

/** An engine gets so many requests at a time for each of its slots: one that is served, one that follows at once. */
export const REQUESTS_A_SLOT = 2;

export type { Bundle, ModelFormat, RunnableModel };

/** What a worker was started to do; it is part of the worker's identity. */
export type Mode = "completion" | "embedding" | "reranking";

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
  /** Extra engine flags, verbatim, already split into words. */
  readonly runtimeFlags: readonly string[];
  /** Files that the flags name: the engine must be able to read them. Absolute paths. */
  readonly files?: readonly string[] | undefined;
  readonly draft?: DraftSettings | undefined;
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

/** An engine on this machine. Persisted as `install.json` beside it. */
export interface Installation {
  readonly backend: string;
  readonly version: string;
  /** cpu, cuda, rocm, vulkan, metal. */
  readonly variant: string;
  /** Which source served it: path, github, apt, oci, pypi; config for an engine of config.toml. */
  readonly source: string;
  /** The directory that holds it; removing it uninstalls. For `path` the user's own directory, never removed. */
  readonly directory: string;
  /** argv prefix: the program and what must precede the engine's own arguments (a loader, say). Absolute paths. */
  readonly command: readonly string[];
  /** RFC 3339. */
  readonly installedAt: string;
  /** What it runs with besides its directory, such as the files of a Python that is not its own. Absolute paths. */
  readonly needs?: readonly string[] | undefined;
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
}

/** One sentence for people, made of an engine's log. */
export interface ExitReason {
  readonly reason: string;
  /** It ran out of memory: with more room it may run. */
  readonly isOutOfMemory?: boolean | undefined;
  readonly hint?: string | undefined;
}

/** What engines are built for, besides the processor (`none`). */
export const GPUS = [
  "none",
  "cuda",
  "rocm",
  "vulkan",
  "metal",
  "sycl",
  "musa",
  "cann",
  "opencl",
] as const;

export type Gpu = (typeof GPUS)[number];

/** What an engine's builds ask of GPUs; what is absent they leave open. */
export interface GpuNeeds {
  /** Major version of the CUDA that they are built with: decides the oldest driver. */
  readonly cuda?: number | undefined;
  /** The lowest compute capability, such as 7.5. */
  readonly computeCapability?: number | undefined;
  /** AMD's names of the chips that they have code for, such as `gfx1100`. */
  readonly rocmTargets?: readonly string[] | undefined;
}

/** What each install source needs to know of an engine. A source an engine does not name cannot install it. */
export interface InstallRecipe {
  readonly gpuNeeds?: GpuNeeds | undefined;
  /** It is configured, not installed: what is there, found anew each time. @throws install_failed if it is not there */
  config?(env: Readonly<Record<string, string | undefined>>): Promise<Installation>;
  /** An executable of the user's own. */
  readonly path?: {
    /** Environment variables that name the file or its directory, first set wins. */
    readonly environment: readonly string[];
    readonly executable: string;
  };
  /** Release assets on GitHub. */
  readonly github?: {
    readonly repository: string;
    /** The tag known to work, installed unless a version is asked for. */
    readonly version: string;
    /** Asset file names to try in order, for this machine and variant; empty if there is none. */
    assets(machine: Machine, gpu: Gpu, version: string): readonly string[];
    readonly executable: string;
  };
  /** A directory in a container image. */
  readonly oci?: {
    /** As in references, without a tag. */
    readonly repository: string;
    /** The tag for a variant; null if there is none for this machine. @param version undefined: the newest */
    tag(machine: Machine, gpu: Gpu, version: string | undefined): string | null;
    /** Name of the directory in the image that holds `bin` and `lib` for this machine and variant. */
    tree(machine: Machine, gpu: Gpu): string;
    /** Names of the program, without a system's extension, best first. */
    readonly executables: readonly string[];
    /** The environment variable that names another image. */
    readonly environment: string;
  };
  /** Debian packages, unpacked into one flat directory. */
  readonly apt?: {
    packages(gpu: Gpu): readonly string[];
    /** The suite to fall back to where the host's own suites lack `mainPackage`. */
    readonly suite: string;
    readonly mainPackage: string;
    /** Globs (relative to the unpacked tree) of the files that go into the flat directory. */
    readonly files: readonly string[];
    readonly executable: string;
  };
  /** Packages of PyPI, in an environment of their own. */
  readonly pypi?: {
    /** The distribution whose version counts, such as `mlx-lm`. */
    readonly package: string;
    /** What it must be able to import, such as `mlx_lm`. */
    readonly module: string;
    /** The locked version. */
    readonly version: string;
    /** Versions of Python that the lock was made for (PEP 440), such as `>=3.10,<3.15`. */
    readonly python: string;
    /** Locked requirements, each with its hashes (pip's format); undefined if there are none for it. */
    requirements(machine: Machine, gpu: Gpu): string | undefined;
    /** Program that starts it, which gets the engine's arguments; it lies beside the environment. */
    readonly launcher: string;
    /** Environment variables that name the `python` of an environment of the user's own, first set wins. */
    readonly environment: readonly string[];
  };
}

export interface Machine {
  readonly platform: NodeJS.Platform;
  readonly arch: NodeJS.Architecture;
}

export interface Backend {
  readonly name: string;
  readonly formats: readonly ModelFormat[];
  readonly modes: readonly Mode[];
  /** Why it cannot run on a machine: a clause such as "it needs Linux"; undefined if it can. Absent: it runs everywhere. */
  problem?(machine: Machine): string | undefined;
  readonly recipe: InstallRecipe;
  /** Chosen by itself only where somebody has installed it: it takes gigabytes, and a GPU. */
  readonly onlyWhereInstalled?: boolean | undefined;
  /** Files of a tiny model that its installation is tried with, by name. Absent: it reads GGUF, and tries Pebble. */
  smokeFiles?(): Readonly<Record<string, string | Uint8Array>>;
  /** Paths that it answers requests on. Absent: those of llama-server. */
  readonly paths?: readonly string[] | undefined;
  /** Members of a request that it takes: others are left out. Absent: it ignores what it does not know. */
  readonly fields?: ReadonlySet<string> | undefined;
  /** What it calls the model, where it answers to no other name. */
  readonly servedModel?: string | undefined;
  /** Bytes that its process takes without a model; absent: as many as llama-server. */
  readonly processBytes?: number | undefined;
  /** Default: a unix socket. On a port others of this machine reach it, and nothing parts it from the network. */
  readonly listensOn?: "socket" | "port" | undefined;
  /** Path that answers 200 once the worker can serve. */
  readonly readinessPath: string;
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
