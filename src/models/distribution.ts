/** Everything that moves models between this machine and others, put together for one set of settings. */
import { homedir } from "node:os";
import { join } from "node:path";
import type {
  AdoptRequest,
  AdoptResult,
  CopyRequest,
  LoginRequest,
  LoginResult,
  LogoutResult,
  ModelDetails,
  PullRequest,
  PullResult,
  PushRequest,
  PushResult,
  SearchResult,
} from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";
import type { Config } from "../config.ts";
import { formatReference, parseReference, parseRegistryHost } from "../oci/reference.ts";
import type { Paths } from "../paths.ts";
import type { Store } from "../store/store.ts";
import type { ImageSettings } from "./pull-image.ts";
import type { RemoteOverrides } from "./remote-settings.ts";
import type { Remotes } from "./remotes.ts";
import type { SearchQuery } from "./search.ts";

export interface DistributionOptions {
  readonly config: Config;
  readonly paths: Paths;
  readonly store: Store;
}

interface Work {
  readonly signal: AbortSignal;
  readonly onProgress: ProgressListener;
}

/** Modules load when they are called for: most commands never do. */
export class ModelDistribution {
  readonly #options: DistributionOptions;

  constructor(options: DistributionOptions) {
    this.#options = options;
  }

  /** New ones for each request, because each may ask for other limits. */
  async remotes(overrides: RemoteOverrides = {}): Promise<Remotes> {
    const [{ createRemotes }, { toRemoteSettings }] = await Promise.all([
      import("./remotes.ts"),
      import("./remote-settings.ts"),
    ]);
    return createRemotes(toRemoteSettings(this.#options, overrides));
  }

  get images(): ImageSettings {
    const { nimPrefixes, containerEngine } = this.#options.config;
    const env = { ...process.env, TUG_CONTAINER_ENGINE: containerEngine.value };
    return { prefixes: nimPrefixes.value, env };
  }

  async pull(request: PullRequest, { signal, onProgress }: Work): Promise<PullResult> {
    const [{ pullModel }, { createAdoptedFinder }] = await Promise.all([
      import("./pull.ts"),
      import("./adopt.ts"),
    ]);
    const remotes = await this.remotes({
      connections: request.connections,
      limitRate: request.limit_rate,
      token: request["bearer-token"],
      tokenHost: hostOf(request.from),
      insecureRegistries: insecureHosts(request.insecure, [request.from]),
      onWarning: warnThrough(onProgress),
    });
    const findAdopted = createAdoptedFinder(this.#adoptOptions());
    const { store } = this.#options;
    const { images } = this;
    return pullModel({ store, remotes, signal, onProgress, findAdopted, images }, request);
  }

  async push(
    request: PushRequest & { readonly name: string },
    { signal, onProgress }: Work,
  ): Promise<PushResult> {
    const [{ pushModel }, { chooseTarget }] = await Promise.all([
      import("./push.ts"),
      import("./push-target.ts"),
    ]);
    const { store } = this.#options;
    const { name } = request;
    // A short name does not tell which registry is meant: the name that it finds does.
    const to = formatReference(chooseTarget(await store.resolve(name), request));
    const remotes = await this.remotes({
      token: request["bearer-token"],
      tokenHost: hostOf(to),
      insecureRegistries: insecureHosts(request.insecure, [to]),
      onWarning: warnThrough(onProgress),
    });
    return pushModel(store, remotes, { name, to, signal, onProgress });
  }

  async copy(request: CopyRequest, { signal, onProgress }: Work): Promise<PushResult> {
    const { copyModel } = await import("./copy.ts");
    const remotes = await this.remotes({
      insecureRegistries: insecureHosts(request.insecure, [request.source, request.target]),
      onWarning: warnThrough(onProgress),
    });
    return copyModel(remotes, request, { signal, onProgress });
  }

  async adopt(request: AdoptRequest, { signal, onProgress }: Work): Promise<AdoptResult> {
    const { adoptCaches } = await import("./adopt.ts");
    return adoptCaches({ ...this.#adoptOptions(), dryRun: request.dry_run, signal, onProgress });
  }

  async search(query: SearchQuery, { signal, onProgress }: Work): Promise<SearchResult[]> {
    const { searchModels } = await import("./search.ts");
    const onWarning = warnThrough(onProgress);
    return searchModels(await this.remotes(), query, { signal, onWarning });
  }

  async inspect(name: string, { signal }: { signal: AbortSignal }): Promise<ModelDetails> {
    const { inspectRemote } = await import("./inspect-remote.ts");
    return inspectRemote(await this.remotes(), name, { signal });
  }

  async login(request: LoginRequest, { signal }: { signal: AbortSignal }): Promise<LoginResult> {
    const { login } = await import("./login.ts");
    const host = parseRegistryHost(request.registry);
    const insecureRegistries = request.insecure === true ? [host] : [];
    return login(await this.remotes({ insecureRegistries }), request, { signal });
  }

  async logout(registry: string, { signal }: { signal: AbortSignal }): Promise<LogoutResult> {
    const { logout } = await import("./login.ts");
    return logout(await this.remotes(), registry, { signal });
  }

  #adoptOptions() {
    const { env } = process;
    return {
      env,
      home: env["HOME"] || env["USERPROFILE"] || homedir(),
      platform: process.platform,
      indexFile: join(this.#options.paths.cache, "adopted.json"),
    };
  }
}

// --- internal ---

/** `--insecure` is about the registries that are named beside it, and no others. */
function insecureHosts(isInsecure: boolean | undefined, names: readonly string[]): string[] {
  if (isInsecure !== true) return [];
  return names.map(hostOf).filter((host) => host !== undefined);
}

/** Undefined for a name that is none, which whoever uses it says better. */
function hostOf(name: string): string | undefined {
  const url = /^https?:\/\//i.test(name) ? URL.parse(name) : null;
  if (url !== null) return url.host;
  try {
    return parseReference(name).registry;
  } catch {
    return undefined;
  }
}

function warnThrough(onProgress: ProgressListener): (message: string) => void {
  return (message) => onProgress({ type: "warning", message });
}
