/** What the server needs of the rest, by shape: the composition root hands in the real things, tests hand in small ones. */
import type { Hono } from "hono";
import type { RunnerInfo } from "../api/engines.ts";
import type { Model, ModelDetails } from "../api/models.ts";
import type { RunnableModel } from "../runtime/backend.ts";
import type { Installer } from "../runtime/installer/installer.ts";
import type { Supervisor } from "../runtime/supervisor.ts";
import type { Store } from "../store/store.ts";

/** What the listener knows of a request, beyond the request. */
export interface Bindings {
  /** It came by the unix socket or from this process, so from the user who owns the runner. */
  readonly trusted?: boolean;
  /** The address the listener is bound to: a Host header may name it. */
  readonly hostname?: string;
}

/** For Hono's type parameter. */
export interface AppEnv {
  Bindings: Bindings;
}

/** The part of the supervisor that requests reach. */
export type Runtime = Pick<Supervisor, "acquire" | "list" | "unload">;

/** The part of the installer that requests reach. */
export type EngineInstaller = Pick<Installer, "list" | "install" | "uninstall">;

/** The runner itself, as far as requests may see and steer it. */
export interface RunnerControl {
  info(): Promise<RunnerInfo>;
  /** Asked to leave: it takes no new work. */
  readonly isStopping: boolean;
  /** Returns at once. */
  stop(options: { readonly force: boolean }): void;
  logs(options: {
    readonly follow: boolean;
    readonly signal: AbortSignal;
  }): ReadableStream<Uint8Array>;
}

export interface AppDeps {
  readonly store: Pick<Store, "usage">;
  /** The routes under `/models`. */
  readonly models: Hono<AppEnv>;
  /** Absent in a process that runs no engines: `ps` is then empty and inference is refused. */
  readonly runtime?: Runtime;
  /** Called when a request needs it: most commands never do. */
  readonly installer: () => EngineInstaller | Promise<EngineInstaller>;
  /** @param options.trusted whether the caller may name any file on this machine */
  readonly resolve: (
    name: string,
    options: { readonly trusted: boolean },
  ) => Promise<RunnableModel>;
  readonly listModels: () => Promise<Model[]>;
  readonly inspectModel: (name: string) => Promise<ModelDetails>;
  /** Absent in a process that is not the runner. */
  readonly runner?: RunnerControl;
  readonly version: string;
  /** What callers over TCP must present; undefined: nothing. */
  readonly apiKey?: string;
  /** Browser origins besides loopback's: `scheme://host[:port]`, `scheme://*.host`, `scheme://host:*`, or `*`. */
  readonly allowedOrigins: readonly string[];
}
