/** What an engine is installed from, and what an installation is. Values and interfaces only. */

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
  /** Why it is this variant: `cuda: NVIDIA GeForce RTX 4090 (…)`. Absent where the source has one for all machines. */
  readonly reason?: string | undefined;
  /** What it runs with besides its directory, such as the files of a Python that is not its own. Absolute paths. */
  readonly needs?: readonly string[] | undefined;
}

export interface Machine {
  readonly platform: NodeJS.Platform;
  readonly arch: NodeJS.Architecture;
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
  /** The variant of what `config` finds, where finding it runs programs and this does not. */
  configVariant?(env: Readonly<Record<string, string | undefined>>): Promise<string>;
  /** Before a start of what is configured: writes what it needs and is not there. @throws install_failed */
  prepare?(installation: Installation): Promise<void>;
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
    /** Further assets that one needs, unpacked beside the program. */
    companions?(asset: string): readonly string[];
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
    /** What comes along where the archive has it. */
    extras?(gpu: Gpu): readonly string[];
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
