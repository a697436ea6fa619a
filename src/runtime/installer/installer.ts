/**
 * Installs engines: tries sources in order, proves what they serve with a smoke test, then switches to it atomically.
 *
 * Owns `<directory>/<backend>/`; nobody else writes there. Starts no workers.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { AppError } from "../../errors.ts";
import { log } from "../../log.ts";
import type { Backend, Gpu, Installation, Machine } from "../backend.ts";
import type { VariantChoice } from "../hardware/index.ts";
import { aptInstallSource } from "./apt.ts";
import { type AvailableEngine, readAvailable } from "./available.ts";
import {
  candidates,
  namedPython,
  refuseConfigured,
  refuseNamed,
  refuseProblem,
} from "./candidates.ts";
import { carryOut, logInstalled } from "./carry-out.ts";
import type { Verify } from "./carry-out.ts";
import { createGithubInstallSource } from "./github.ts";
import { blamePin, installFailed, Reasons } from "./failure.ts";
import {
  activate,
  type ListedInstallation,
  listInstalled,
  matching,
  readChoices,
  removeInstalled,
  rollBack,
  useVersion,
} from "./installed.ts";
import { isUsable, lockPath, readPointer, removeDebris } from "./layout.ts";
import { acquireLock } from "../../lock.ts";
import { ociInstallSource } from "./oci.ts";
import { installationFromEnvironment, pathInstallSource } from "./path.ts";
import { pypiInstallSource, renewLauncher } from "./pypi.ts";
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
import { decide, noteFallback, reasonFor, tries, type VariantWarning } from "./variants.ts";

/** Who holds the lock may be downloading hundreds of megabytes over a slow line. */
const INSTALL_WAIT_MS = 3_600_000;
/** Long enough for a short change by another process, too short for a download: better told than kept waiting. */
const CHANGE_BOUND_MS = 3_000;
/** What of an unknown name is shown. */
const MAX_SHOWN = 80;

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
  /** Versions that config.toml names, by engine. */
  readonly pinnedVersions?: ReadonlyMap<string, string>;
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
  /** Undefined: the one that config.toml names, else the one known to work. */
  readonly version?: string | undefined;
  /** The `python` of an environment of the user's own. Absolute path. */
  readonly python?: string | undefined;
}

export interface InstallOptions {
  readonly signal: AbortSignal;
  readonly onProgress: InstallListener;
  /** Told what is lost, such as a GPU that is left unused; a sentence without a full stop. */
  readonly onWarning?: ((message: string) => void) | undefined;
}

export type { ListedInstallation };

export class Installer {
  readonly #deps: InstallerDeps;
  readonly #sources: readonly InstallSource[];
  readonly #shared = new Map<string, SharedTask<InstallProgress | VariantWarning, Installation>>();

  constructor(deps: InstallerDeps) {
    this.#deps = deps;
    this.#sources = [
      pathInstallSource,
      createGithubInstallSource(deps.githubApi),
      ociInstallSource,
      aptInstallSource,
      pypiInstallSource,
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
    if (backend.recipe.config !== undefined) return backend.recipe.config(env);
    const named = await installationFromEnvironment(backend, env, machine.platform);
    if (named !== undefined) return named;
    const pointer = await readPointer(directory, backend.name);
    for (const candidate of [pointer?.active, pointer?.previous]) {
      if (candidate && (await isUsable(candidate))) return candidate;
    }
    return undefined;
  }

  /** Every engine that there is, installed or not, with what is missing. No network, runs nothing. */
  async describe(): Promise<AvailableEngine[]> {
    return Promise.all(
      this.#deps.backends.map((backend) => {
        const active = (): Promise<Installation | undefined> => this.active(backend.name);
        return readAvailable(backend, { ...this.#deps, active, sources: this.#sources });
      }),
    );
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
   * @throws backend_not_found, not_supported (it does not run here), install_failed, insufficient_storage
   */
  async ensure(name: string, options: InstallOptions): Promise<Installation> {
    const backend = this.#backend(name);
    const present = await this.active(name);
    if (present !== undefined) {
      await renewLauncher(present, backend);
      await backend.recipe.prepare?.(present);
      return present;
    }
    refuseProblem(backend, this.#deps.machine);
    const shared = this.#shared.get(name) ?? new SharedTask();
    this.#shared.set(name, shared);
    return shared.join(
      (signal, emit) => {
        const onWarning = (message: string): void => emit({ type: "warning", message });
        const told: InstallOptions = { signal, onProgress: emit, onWarning };
        return this.#locked(
          backend,
          told,
          async () =>
            (await this.active(name)) ??
            (await this.#choosePinned(backend)) ??
            (await this.#installPinned({ backend: name, gpu: "auto" }, told)),
        );
      },
      {
        signal: options.signal,
        onProgress: (event) => {
          if (event.type === "warning") options.onWarning?.(event.message);
          else options.onProgress(event);
        },
      },
    );
  }

  /**
   * Installs what was asked for and makes it the active engine; the one before stays and is used if this one fails.
   *
   * @throws backend_not_found, not_supported (it does not run here), usage (unknown source), install_failed,
   *   insufficient_storage
   */
  async install(request: EngineRequest, options: InstallOptions): Promise<Installation> {
    const backend = this.#backend(request.backend);
    if (backend.recipe.config !== undefined) return backend.recipe.config(this.#deps.env);
    refuseProblem(backend, this.#deps.machine);
    return this.#locked(backend, options, () => this.#installPinned(request, options));
  }

  /**
   * Removes the installed versions, or the one named, with or without its variant. Engines used in place are forgotten,
   * not removed.
   *
   * @returns what was removed
   * @throws backend_not_found, backend_not_installed (a version that is not there), usage (it is configured, not
   *   installed), conflict while another process is installing
   */
  async uninstall(request: {
    readonly backend: string;
    readonly version?: string | undefined;
  }): Promise<Installation[]> {
    const backend = this.#backend(request.backend);
    refuseConfigured(backend, "uninstall");
    const { directory } = this.#deps;
    return this.#changed(backend, "uninstall", () =>
      removeInstalled(directory, backend.name, request.version),
    );
  }

  /**
   * Makes an installed version the active one.
   *
   * @param version with or without its variant: `0.7.0-cpu`, `0.7.0`
   * @throws backend_not_found, backend_not_installed, usage (several variants are meant; it is configured), conflict (an environment
   *   variable names the engine, or another process is installing it)
   */
  async use(name: string, version: string): Promise<Installation> {
    const backend = this.#backend(name);
    const { directory } = this.#deps;
    refuseConfigured(backend, "choose a version of");
    await refuseNamed(backend, this.#deps);
    return this.#changed(backend, "switch", () => useVersion(directory, backend, version));
  }

  /** Back to the version that was active before. @throws as `use` */
  async rollback(name: string): Promise<Installation> {
    const backend = this.#backend(name);
    refuseConfigured(backend, "roll back");
    await refuseNamed(backend, this.#deps);
    return this.#changed(backend, "roll back", () => rollBack(this.#deps.directory, backend));
  }

  // --- internal ---

  #backend(name: string): Backend {
    const backend = this.#deps.backends.find((candidate) => candidate.name === name);
    if (backend !== undefined) return backend;
    const known = this.#deps.backends.map((candidate) => candidate.name).join(", ");
    throw new AppError(
      "backend_not_found",
      `cannot find the backend \`${name.slice(0, MAX_SHOWN)}\`: it is unknown`,
      {
        hint: `Choose one of: ${known}.`,
      },
    );
  }

  async #listOne({ name }: Backend): Promise<ListedInstallation[]> {
    const active = await this.active(name).catch(() => undefined);
    return listInstalled(this.#deps.directory, name, active);
  }

  /** The version that config.toml names, if it is installed: without it being asked for, nothing else is fetched. */
  async #choosePinned({ name }: Backend): Promise<Installation | undefined> {
    const { directory, pinnedVersions } = this.#deps;
    const version = pinnedVersions?.get(name);
    if (version === undefined) return undefined;
    const found = matching(await readChoices(directory, name), version).at(-1);
    if (found !== undefined) await activate(directory, found);
    return found;
  }

  /** An environment of the user's own has the version it has. */
  async #installPinned(request: EngineRequest, options: InstallOptions): Promise<Installation> {
    const backend = this.#backend(request.backend);
    const isOpen = request.version === undefined && request.python === undefined;
    const version = isOpen ? this.#deps.pinnedVersions?.get(backend.name) : undefined;
    if (version === undefined) return this.#install(backend, request, options);
    return this.#install(backend, { ...request, version }, options).catch((error: unknown) => {
      throw blamePin(error, version);
    });
  }

  /** Does not wait for long. @throws conflict while another process is installing */
  async #changed<T>(backend: Backend, verb: string, work: () => Promise<T>): Promise<T> {
    const options = { signal: AbortSignal.timeout(CHANGE_BOUND_MS), onProgress: () => {} };
    let isLocked = false;
    try {
      return await this.#locked(backend, options, () => {
        isLocked = true;
        return work();
      });
    } catch (error) {
      if (isLocked || !options.signal.aborted) throw error;
      throw new AppError(
        "conflict",
        `cannot ${verb} ${backend.name}: another process is installing it`,
        { hint: "Wait until it is done, or end it.", cause: error },
      );
    }
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
    const { machine, env, cacheDirectory, directory, remotes, offline } = this.#deps;
    const sources = candidates(this.#sources, request, { backend, env, offline });
    const places = { cacheDirectory, dataDirectory: directory };
    const context: SourceContext = { backend, machine, env, ...places, remotes, ...options };
    const { onWarning } = options;
    const choice = await decide({ gpu: request.gpu, sources, context, onWarning });
    const failed = new Map<string, Reasons>();
    for (const { source, gpus } of tries(sources, choice, context)) {
      const reasons = failed.get(source.name) ?? new Reasons();
      failed.set(source.name, reasons);
      const attempt = { ...request, gpus, reasons, choice };
      const installation = await this.#trySource(source, attempt, context);
      if (installation !== undefined) {
        noteFallback(installation, { choice, reasons: reasons.all, onWarning });
        return installation;
      }
      log.debug(`installer: source failed source=${source.name} reason=${reasons.all.join("; ")}`);
    }
    const attempts = [...failed].map(([source, reasons]) => reasons.toAttempt(source));
    throw installFailed(backend, attempts, {
      offline,
      python: namedPython(request, { backend, env }),
    });
  }

  /** @returns undefined if it serves none of them; `reasons` then say why */
  async #trySource(
    source: InstallSource,
    { gpus, version, python, reasons, choice }: EngineRequest & Attempt,
    context: SourceContext,
  ): Promise<Installation | undefined> {
    const { directory, verifyEngine } = this.#deps;
    for (const gpu of gpus) {
      try {
        const plan = await source.resolve({ gpu, version, python }, context);
        const verify = verifyEngine ?? this.#smokeTest;
        const installation = await carryOut(plan, {
          root: directory,
          source: source.name,
          verify,
          context,
          reason: reasonFor(gpu, { choice, source }),
        });
        await activate(directory, installation);
        logInstalled(installation);
        return installation;
      } catch (error) {
        reasons.note(error, context.signal);
        if (error instanceof AppError && UNUSABLE.has(error.code)) break;
      }
    }
    return undefined;
  }

  readonly #smokeTest: Verify = async (installation, backend, signal) => {
    const { machine } = this.#deps;
    const model = await this.#deps.smokeModel();
    await smokeTest(installation, backend, { model, platform: machine.platform, signal });
  };
}

// --- internal ---

/** The source itself cannot be used now, whatever is asked of it. */
const UNUSABLE: ReadonlySet<string> = new Set(["registry_unavailable", "timed_out", "offline"]);

interface Attempt {
  /** Best first. */
  readonly gpus: readonly Gpu[];
  /** Gets why one could not be had. */
  readonly reasons: Reasons;
  readonly choice: VariantChoice;
}
