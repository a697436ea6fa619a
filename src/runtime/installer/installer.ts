/**
 * Installs engines: tries sources in order, proves what they serve with a smoke test, then switches to it atomically.
 *
 * Owns `<directory>/<backend>/`; nobody else writes there. Starts no workers.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { AppError } from "../../errors.ts";
import { log } from "../../log.ts";
import type { Backend, Gpu, Installation, Machine } from "../backend.ts";
import { detectGpu } from "../hardware/index.ts";
import { aptInstallSource } from "./apt.ts";
import { carryOut } from "./carry-out.ts";
import type { Verify } from "./carry-out.ts";
import { createGithubInstallSource } from "./github.ts";
import { installFailed, reasonOf } from "./failure.ts";
import type { FailedAttempt } from "./failure.ts";
import {
  isUsable,
  lockPath,
  readInstallations,
  readPointer,
  removeDebris,
  sameEngine,
  sizeOf,
  writePointer,
} from "./layout.ts";
import { acquireLock } from "../../lock.ts";
import { ociInstallSource } from "./oci.ts";
import { installationFromEnvironment, pathInstallSource } from "./path.ts";
import { SharedTask } from "./shared-task.ts";
import { smokeTest } from "./smoke.ts";
import { phaseOf } from "./source.ts";
import type {
  InstallListener,
  InstallProgress,
  InstallRemotes,
  InstallSource,
  SourceContext,
} from "./source.ts";

/** Who holds the lock may be downloading hundreds of megabytes over a slow line. */
const INSTALL_WAIT_MS = 3_600_000;
/** Long enough for a short change by another process, too short for a download: better told than kept waiting. */
const UNINSTALL_BOUND_MS = 3_000;

export interface InstallerDeps {
  /** `<directory>/<backend>/<version>-<variant>/`. */
  readonly directory: string;
  readonly cacheDirectory: string;
  readonly backends: readonly Backend[];
  readonly machine: Machine;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** No source that needs the network is tried. */
  readonly offline: boolean;
  /** Asked for when a source needs the network. */
  readonly remotes: () => Promise<InstallRemotes>;
  /** Path of the model that the smoke test loads. */
  smokeModel(): Promise<string>;
  /** Default: the smoke test. Throws if the engine does not work. */
  readonly verifyEngine?: Verify;
  /** Base URL of GitHub's API. Default: GitHub's own. */
  readonly githubApi?: string;
}

export interface EngineRequest {
  readonly backend: string;
  readonly gpu: Gpu | "auto";
  /** `path`, `github`, `oci` or `apt`; only this one is tried. */
  readonly source?: string | undefined;
  readonly version?: string | undefined;
}

export interface InstallOptions {
  readonly signal: AbortSignal;
  readonly onProgress: InstallListener;
}

export interface ListedInstallation extends Installation {
  readonly active: boolean;
  readonly sizeBytes: number;
}

export class Installer {
  readonly #deps: InstallerDeps;
  readonly #sources: readonly InstallSource[];
  readonly #shared = new Map<string, SharedTask<InstallProgress, Installation>>();

  constructor(deps: InstallerDeps) {
    this.#deps = deps;
    this.#sources = [
      pathInstallSource,
      createGithubInstallSource(deps.githubApi),
      ociInstallSource,
      aptInstallSource,
    ];
  }

  /**
   * The engine to use, or undefined if none is installed. No network, runs nothing.
   *
   * @throws backend_not_found; install_failed if an environment variable names an engine that is not there
   */
  async active(name: string): Promise<Installation | undefined> {
    const backend = this.#backend(name);
    const { env, machine, directory } = this.#deps;
    const named = await installationFromEnvironment(backend, env, machine.platform);
    if (named !== undefined) return named;
    const pointer = await readPointer(directory, backend.name);
    for (const candidate of [pointer?.active, pointer?.previous]) {
      if (candidate && (await isUsable(candidate))) return candidate;
    }
    return undefined;
  }

  /** Every engine on this machine, by backend and version. */
  async list(): Promise<ListedInstallation[]> {
    const listed = await Promise.all(this.#deps.backends.map((backend) => this.#listOne(backend)));
    return listed.flat();
  }

  /**
   * The active engine, installed first if there is none. Callers at the same time, in other processes too, share one
   * installation; it is given up when every caller's signal has aborted.
   *
   * @throws backend_not_found, install_failed, insufficient_storage
   */
  async ensure(name: string, options: InstallOptions): Promise<Installation> {
    const backend = this.#backend(name);
    const present = await this.active(name);
    if (present !== undefined) return present;
    const shared = this.#shared.get(name) ?? new SharedTask();
    this.#shared.set(name, shared);
    return shared.join(
      (signal, onProgress) =>
        this.#locked(
          backend,
          { signal, onProgress },
          async () =>
            (await this.active(name)) ??
            (await this.#install(backend, { backend: name, gpu: "auto" }, { signal, onProgress })),
        ),
      options,
    );
  }

  /**
   * Installs what was asked for and makes it the active engine; the one before stays and is used if this one fails.
   *
   * @throws backend_not_found, usage (unknown source), install_failed, insufficient_storage
   */
  async install(request: EngineRequest, options: InstallOptions): Promise<Installation> {
    const backend = this.#backend(request.backend);
    return this.#locked(backend, options, () => this.#install(backend, request, options));
  }

  /**
   * Removes the installed versions, or the one named. Engines used in place are forgotten, not removed.
   *
   * @returns what was removed
   * @throws conflict while another process is installing
   */
  async uninstall(request: {
    readonly backend: string;
    readonly version?: string | undefined;
  }): Promise<Installation[]> {
    const backend = this.#backend(request.backend);
    const options = { signal: AbortSignal.timeout(UNINSTALL_BOUND_MS), onProgress: () => {} };
    try {
      return await this.#locked(backend, options, () => this.#uninstall(backend, request.version));
    } catch (error) {
      if (!options.signal.aborted) throw error;
      throw new AppError(
        "conflict",
        `cannot uninstall ${backend.name}: another process is installing it`,
        { hint: "Wait until it is done, or end it.", cause: error },
      );
    }
  }

  // --- internal ---

  #backend(name: string): Backend {
    const backend = this.#deps.backends.find((candidate) => candidate.name === name);
    if (backend !== undefined) return backend;
    const known = this.#deps.backends.map((candidate) => candidate.name).join(", ");
    throw new AppError("backend_not_found", `cannot find the backend \`${name}\`: it is unknown`, {
      hint: `Choose one of: ${known}.`,
    });
  }

  async #listOne(backend: Backend): Promise<ListedInstallation[]> {
    const { directory } = this.#deps;
    const [installed, pointer] = await Promise.all([
      readInstallations(directory, backend.name),
      readPointer(directory, backend.name),
    ]);
    const active = await this.active(backend.name).catch(() => undefined);
    const inPlace = [active, pointer?.active].find((found) => found?.source === "path");
    const all = inPlace === undefined ? installed : [inPlace, ...installed];
    return Promise.all(
      all.map(async (installation) => ({
        ...installation,
        active: active !== undefined && sameEngine(installation, active),
        sizeBytes: installation.source === "path" ? 0 : await sizeOf(installation.directory),
      })),
    );
  }

  async #locked<T>(backend: Backend, options: InstallOptions, work: () => Promise<T>): Promise<T> {
    const { directory } = this.#deps;
    await mkdir(join(directory, backend.name), { recursive: true });
    using _lock = await acquireLock(lockPath(directory, backend.name), {
      signal: options.signal,
      waitMs: INSTALL_WAIT_MS,
      onWait: () => options.onProgress(phaseOf(backend, "waiting")),
    });
    await removeDebris(directory, backend.name);
    return await work();
  }

  async #install(
    backend: Backend,
    request: EngineRequest,
    options: InstallOptions,
  ): Promise<Installation> {
    const { machine, env, cacheDirectory, remotes } = this.#deps;
    const sources = this.#candidates(backend, request);
    const gpu = request.gpu === "auto" ? await detectGpu(machine, env) : request.gpu;
    const gpus = request.gpu === "auto" ? fallbacks(gpu) : [gpu];
    const context: SourceContext = { backend, machine, env, cacheDirectory, remotes, ...options };
    const attempts: FailedAttempt[] = [];
    for (const source of sources) {
      const isVaried = source.variants && source.isAskedFor?.(context) !== true;
      const wanted = isVaried ? gpus : [gpu];
      const outcome = await this.#trySource(
        source,
        { gpus: wanted, version: request.version },
        context,
      );
      if (typeof outcome !== "string") return outcome;
      log.debug(`installer: source failed source=${source.name} reason=${outcome}`);
      attempts.push({ source: source.name, reason: outcome });
    }
    throw installFailed(backend, attempts, this.#deps.offline);
  }

  /** @returns the installation, or why there is none */
  async #trySource(
    source: InstallSource,
    request: { readonly gpus: readonly Gpu[]; readonly version: string | undefined },
    context: SourceContext,
  ): Promise<Installation | string> {
    const { directory, verifyEngine } = this.#deps;
    const reasons = new Set<string>();
    for (const gpu of request.gpus) {
      try {
        const plan = await source.resolve({ gpu, version: request.version }, context);
        const verify = verifyEngine ?? this.#smokeTest;
        const installation = await carryOut(plan, {
          root: directory,
          source: source.name,
          verify,
          context,
        });
        await this.#activate(context.backend, installation);
        return installation;
      } catch (error) {
        reasons.add(reasonOf(error, context.signal));
        if (error instanceof AppError && UNUSABLE.has(error.code)) break;
      }
    }
    return [...reasons].join("; ");
  }

  readonly #smokeTest: Verify = async (installation, backend, signal) => {
    const { machine } = this.#deps;
    const model = await this.#deps.smokeModel();
    await smokeTest(installation, backend, { model, platform: machine.platform, signal });
  };

  #candidates(backend: Backend, { source, version }: EngineRequest): readonly InstallSource[] {
    const { env } = this.#deps;
    const names = this.#sources.map((candidate) => candidate.name);
    if (source !== undefined && !names.includes(source)) {
      throw new AppError("usage", `cannot install from \`${source}\`: there is no such source`, {
        hint: `Choose one of: ${names.join(", ")}.`,
      });
    }
    const asked = this.#sources.filter((one) => one.isAskedFor?.({ backend, env }));
    const named =
      source === undefined && asked.length > 0
        ? asked
        : this.#sources.filter((one) => source === undefined || one.name === source);
    const usable = named.filter((one) => !this.#deps.offline || !one.network);
    const pinned = source === undefined && version !== undefined;
    // Whatever happens to be on PATH is not what somebody means who names a version.
    const chosen = pinned ? usable.filter((one) => one.network) : usable;
    if (chosen.length > 0) return chosen;
    throw new AppError(
      "install_failed",
      `cannot install from ${source === undefined ? "the network" : `\`${source}\``}: offline mode is on`,
      { hint: "Turn offline mode off, or use `--source path`." },
    );
  }

  async #activate(backend: Backend, installation: Installation): Promise<void> {
    const { directory } = this.#deps;
    const before = await readPointer(directory, backend.name);
    const replaced = before?.active;
    const previous =
      replaced === undefined || sameEngine(replaced, installation) ? before?.previous : replaced;
    await writePointer(directory, backend.name, {
      active: installation,
      previous: previous ?? null,
    });
    const { version, variant, source } = installation;
    log.info(
      `installer: engine installed backend=${backend.name} version=${version} variant=${variant} source=${source}`,
    );
  }

  async #uninstall(backend: Backend, version: string | undefined): Promise<Installation[]> {
    const { directory } = this.#deps;
    const pointer = await readPointer(directory, backend.name);
    const installed = await readInstallations(directory, backend.name);
    const inPlace = pointer?.active.source === "path" ? [pointer.active] : [];
    const chosen = [...inPlace, ...installed].filter(
      (one) => version === undefined || one.version === version,
    );
    const kept = installed.filter((one) => !chosen.includes(one));
    const isKept = (one: Installation | null | undefined): boolean =>
      kept.some((other) => one !== null && one !== undefined && sameEngine(one, other));
    // The pointer first: an interruption then leaves unused files, not a pointer to nothing.
    if (pointer !== undefined && chosen.some((one) => sameEngine(one, pointer.active))) {
      const next = isKept(pointer.previous) ? pointer.previous : kept.at(-1);
      await writePointer(
        directory,
        backend.name,
        next ? { active: next, previous: null } : undefined,
      );
    }
    for (const one of chosen.filter(({ source }) => source !== "path")) {
      await rm(one.directory, { recursive: true, force: true });
    }
    return chosen;
  }
}

/** The source itself cannot be used now, whatever is asked of it. */
const UNUSABLE: ReadonlySet<string> = new Set(["registry_unavailable", "timed_out", "offline"]);

/** What to try on a machine with this GPU, best first. */
function fallbacks(gpu: Gpu): readonly Gpu[] {
  if (gpu === "none" || gpu === "metal") return [gpu];
  return gpu === "vulkan" ? [gpu, "none"] : [gpu, "vulkan", "none"];
}
