/** Typed calls of Tug's HTTP API. The one way in which commands and the chat reach models, engines and the runner. */
import type { ChatEvent, ChatRequest } from "../api/chat.ts";
import type {
  EngineInstallation,
  InstallRequest,
  LoadRequest,
  LoadResult,
  PinRequest,
  PinResult,
  RunnerInfo,
  VersionInfo,
  UnloadRequest,
  UnloadResult,
  WorkerStatus,
} from "../api/engines.ts";
import type {
  AdoptRequest,
  AdoptResult,
  CopyRequest,
  DiskUsage,
  ExportRequest,
  LoginRequest,
  LoginResult,
  LogoutRequest,
  LogoutResult,
  Model,
  ModelDetails,
  PackageRequest,
  PackageResult,
  PruneResult,
  PullJob,
  PullRequest,
  PullResult,
  PushRequest,
  PushResult,
  RemoveEvent,
  SearchResult,
  TagResult,
  VerifyResult,
} from "../api/models.ts";
import type {
  ConfigureRequest,
  ConfigureResult,
  EstimateRequest,
  EstimateResult,
  ExplainRequest,
  ExplainResult,
  ModeName,
  StoredSettingsRow,
} from "../api/settings.ts";
import { ARCHIVE_SIZE, WARNINGS } from "../api/headers.ts";
import type { ProgressListener } from "../api/progress.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import { looksLikeId, parseReference } from "../oci/reference.ts";
import { toError } from "./response-error.ts";
import { FOLLOWED, followProgress, streamChat } from "./stream.ts";
import type { Transport } from "./transport.ts";

export interface CallOptions {
  readonly signal: AbortSignal;
}

export interface ProgressOptions extends CallOptions {
  readonly onProgress: ProgressListener;
}

/** As the route takes it: it says what is wrong with it. */
export interface LogQuery {
  readonly follow?: string | undefined;
  readonly since?: string | undefined;
  readonly tail?: string | undefined;
  readonly model?: string | undefined;
  readonly "no-engines"?: string | undefined;
}

/** Of models, on its way. */
export interface Archive {
  /** Of the whole archive: fewer bytes are not all of it. */
  readonly sizeBytes: number;
  readonly chunks: AsyncIterable<Uint8Array>;
}

export class Client {
  readonly transport: Transport;

  constructor(transport: Transport) {
    this.transport = transport;
  }

  listModels(options: CallOptions): Promise<Model[]> {
    return this.#get("/models", options);
  }

  /** @param options.remote look at it in its registry instead of in the store */
  async inspect(model: string, options: CallOptions & { remote?: boolean }): Promise<ModelDetails> {
    const query = options.remote === true ? "?remote=true" : "";
    return this.#get(`/models/${encodeName(model)}${query}`, options);
  }

  pull(request: PullRequest, options: ProgressOptions): Promise<PullResult> {
    return this.#follow("/models/create", request, options);
  }

  /** Returns at once; the runner goes on. */
  startPull(request: PullRequest, options: CallOptions): Promise<PullJob> {
    const body = { ...request, detach: true };
    return this.#json("POST", "/models/create", { ...options, body });
  }

  /** Pulls of the runner. */
  listPulls(options: CallOptions): Promise<PullJob[]> {
    return this.#get("/models/pulls", options);
  }

  cancelPull(id: string, options: CallOptions): Promise<PullJob> {
    return this.#json("DELETE", `/models/pulls/${encodeURIComponent(id)}`, options);
  }

  async push(model: string, request: PushRequest, options: ProgressOptions): Promise<PushResult> {
    return this.#follow(`/models/${encodeName(model)}/push`, request, options);
  }

  copy(request: CopyRequest, options: ProgressOptions): Promise<PushResult> {
    return this.#follow("/models/copy", request, options);
  }

  /** @param options.onWarning told of a source that did not answer */
  async search(
    query: { text: string; source: string; limit: number },
    options: CallOptions & { onWarning?: (message: string) => void },
  ): Promise<SearchResult[]> {
    const { text, source, limit } = query;
    const parameters = new URLSearchParams({ q: text, source, limit: String(limit) });
    const response = await this.#send("GET", `/models/search?${parameters.toString()}`, options);
    for (const message of warningsOf(response)) options.onWarning?.(message);
    return (await response.json()) as SearchResult[];
  }

  adopt(request: AdoptRequest, options: ProgressOptions): Promise<AdoptResult> {
    return this.#follow("/models/adopt", request, options);
  }

  login(request: LoginRequest, options: CallOptions): Promise<LoginResult> {
    return this.#json("POST", "/registries/login", { ...options, body: request });
  }

  logout(registry: string, options: CallOptions): Promise<LogoutResult> {
    const body: LogoutRequest = { registry };
    return this.#json("POST", "/registries/logout", { ...options, body });
  }

  /** @throws also while it is read, where a model turns out to be damaged */
  async export(request: ExportRequest, options: CallOptions): Promise<Archive> {
    const response = await this.#send("POST", "/models/export", { ...options, body: request });
    const sizeBytes = Number(response.headers.get(ARCHIVE_SIZE) ?? Number.NaN);
    if (response.body === null || !Number.isSafeInteger(sizeBytes)) {
      throw new AppError("internal", `${this.transport.target} sent no archive`);
    }
    return { sizeBytes, chunks: response.body };
  }

  /** @param archive is read as fast as it is taken in; damage in it is the server's to find */
  async import(
    archive: ReadableStream<Uint8Array>,
    options: ProgressOptions,
  ): Promise<readonly Model[]> {
    const call = { signal: options.signal, archive, headers: FOLLOWED };
    const response = await this.#send("POST", "/models/load", call);
    return followProgress(response, options.onProgress);
  }

  /** @param target a reference; what it leaves out is filled in by the server */
  async tag(
    model: string,
    target: { repository: string; tag: string },
    options: CallOptions,
  ): Promise<TagResult> {
    const query = new URLSearchParams({ repo: target.repository, tag: target.tag });
    return this.#json("POST", `/models/${encodeName(model)}/tag?${query.toString()}`, options);
  }

  async remove(model: string, options: CallOptions & { force: boolean }): Promise<RemoveEvent[]> {
    return this.#json("DELETE", `/models/${encodeName(model)}?force=${options.force}`, options);
  }

  prune(options: CallOptions & { all: boolean; dryRun: boolean }): Promise<PruneResult> {
    const body = { all: options.all, dry_run: options.dryRun };
    return this.#json("POST", "/models/prune", { ...options, body });
  }

  async purge(options: CallOptions): Promise<void> {
    await this.#send("DELETE", "/models/purge", options);
  }

  verify(options: ProgressOptions): Promise<VerifyResult> {
    return this.#follow("/models/verify", {}, options);
  }

  package(request: PackageRequest, options: ProgressOptions): Promise<PackageResult> {
    return this.#follow("/models/package", request, options);
  }

  diskUsage(options: CallOptions): Promise<DiskUsage> {
    return this.#get("/engines/df", options);
  }

  listWorkers(options: CallOptions): Promise<WorkerStatus[]> {
    return this.#get("/engines/ps", options);
  }

  unload(request: UnloadRequest, options: CallOptions): Promise<UnloadResult> {
    return this.#json("POST", "/engines/unload", { ...options, body: request });
  }

  pin(request: PinRequest, options: CallOptions): Promise<PinResult> {
    return this.#json("POST", "/engines/pin", { ...options, body: request });
  }

  load(request: LoadRequest, options: ProgressOptions): Promise<LoadResult> {
    return this.#follow("/engines/load", request, options);
  }

  /** Engines on this machine, whether a runner runs or not. */
  listEngines(options: CallOptions): Promise<EngineInstallation[]> {
    return this.#get("/engines", options);
  }

  install(request: InstallRequest, options: ProgressOptions): Promise<EngineInstallation> {
    return this.#follow("/engines/install-backend", request, options);
  }

  uninstall(
    request: { backend: string; version?: string },
    options: CallOptions,
  ): Promise<EngineInstallation[]> {
    return this.#json("POST", "/engines/uninstall-backend", { ...options, body: request });
  }

  configure(request: ConfigureRequest, options: CallOptions): Promise<ConfigureResult> {
    return this.#json("POST", "/engines/_configure", { ...options, body: request });
  }

  /** @param options.model of one model; else of all */
  async listSettings(
    options: CallOptions & { model?: string | undefined },
  ): Promise<StoredSettingsRow[]> {
    const query = options.model === undefined ? "" : `?${toQuery({ model: options.model })}`;
    const rows = await this.#get<StoredSettingsRow[]>(`/engines/_configure${query}`, options);
    return rows.map((row) => ({ ...row, mode: row.mode ?? null }));
  }

  /** @param options.model undefined: of all models */
  resetSettings(
    options: CallOptions & { model?: string | undefined; mode?: ModeName | undefined },
  ): Promise<{ reset: number }> {
    const { model, mode } = options;
    const query = model === undefined ? toQuery({ all: "true" }) : toQuery({ model, mode });
    return this.#json("DELETE", `/engines/_configure?${query}`, options);
  }

  explain(request: ExplainRequest, options: CallOptions): Promise<ExplainResult> {
    return this.#json("POST", "/engines/explain", { ...options, body: request });
  }

  estimate(request: EstimateRequest, options: CallOptions): Promise<EstimateResult> {
    return this.#json("POST", "/engines/estimate", { ...options, body: request });
  }

  version(options: CallOptions): Promise<VersionInfo> {
    return this.#get("/version", options);
  }

  runner(options: CallOptions): Promise<RunnerInfo> {
    return this.#get("/runner", options);
  }

  /** Returns when that runner has taken note; it leaves when its work is done, or at once with `force`. */
  async stopRunner(
    options: CallOptions & { force: boolean; pid?: number | undefined },
  ): Promise<void> {
    const whose = options.pid === undefined ? "" : `&pid=${options.pid}`;
    await this.#send("POST", `/runner/stop?force=${options.force}${whose}`, options);
  }

  /** @param options.onWarning hears why these are not all the lines that one could expect */
  async logs(
    query: LogQuery,
    options: CallOptions & { onWarning: (message: string) => void },
  ): Promise<AsyncIterable<Uint8Array>> {
    const response = await this.#send("GET", `/logs?${toQuery({ ...query })}`, options);
    for (const message of warningsOf(response)) options.onWarning(message);
    return response.body ?? new Blob().stream();
  }

  /** Any other call, answered as it comes. @throws what the other side says went wrong */
  call(
    method: string,
    path: string,
    options: CallOptions & { body?: unknown; headers?: Readonly<Record<string, string>> },
  ): Promise<Response> {
    return this.#send(method, path, options);
  }

  /** One streamed answer. Stop it by aborting the signal; the engine then stops as well. */
  chat(request: ChatRequest, options: CallOptions): AsyncIterable<ChatEvent> {
    return streamChat(request, (path, body) => this.#send("POST", path, { ...options, body }));
  }

  // --- internal ---

  #get<T>(path: string, options: CallOptions): Promise<T> {
    return this.#json("GET", path, options);
  }

  async #json<T>(
    method: string,
    path: string,
    options: CallOptions & { body?: unknown },
  ): Promise<T> {
    const response = await this.#send(method, path, options);
    return (await response.json()) as T;
  }

  async #follow<T>(path: string, body: unknown, options: ProgressOptions): Promise<T> {
    const call = { signal: options.signal, body, headers: FOLLOWED };
    const response = await this.#send("POST", path, call);
    return followProgress(response, options.onProgress);
  }

  async #send(method: string, path: string, options: SendOptions): Promise<Response> {
    const init = toRequestInit(method, options);
    const start = performance.now();
    const response = await this.transport.fetch(path, init);
    const ms = (performance.now() - start).toFixed(1);
    log.debug(
      `client: answered ${method} ${path} via=${this.transport.kind} status=${response.status} ms=${ms}`,
    );
    if (response.ok) return response;
    throw await toError(response, this.transport.target);
  }
}

// --- internal ---

interface SendOptions extends CallOptions {
  readonly body?: unknown;
  readonly archive?: ReadableStream<Uint8Array>;
  readonly headers?: Readonly<Record<string, string>>;
}

function toRequestInit(method: string, options: SendOptions): RequestInit {
  const { signal, body, archive, headers: given = {} } = options;
  if (archive !== undefined) {
    const headers = { ...given, "content-type": "application/x-tar" };
    // A stream as a body is only sent, never answered meanwhile (https://fetch.spec.whatwg.org, `duplex`).
    return { method, signal, body: archive, headers, duplex: "half" };
  }
  if (body === undefined) return { method, signal, headers: given };
  return {
    method,
    signal,
    body: JSON.stringify(body),
    headers: { ...given, "content-type": "application/json" },
  };
}

/**
 * A name as part of a route. With its tag written out it cannot be taken for a route of its own (`purge`, `…/export`),
 * and what is no name (``, `.`, `..`) never becomes a path.
 *
 * @throws invalid_reference
 */
function encodeName(name: string): string {
  const trimmed = name.trim();
  if (looksLikeId(trimmed)) return trimmed;
  parseReference(trimmed);
  const hasTag = /[:@][^/]*$/.test(trimmed) && !trimmed.endsWith(":");
  const full = hasTag ? trimmed : `${trimmed.replace(/:$/, "")}:latest`;
  return full.split("/").map(encodeURIComponent).join("/");
}

/** For a query; what is undefined is left out. */
function toQuery(said: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(said).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  return new URLSearchParams(given).toString();
}

function warningsOf({ headers }: Response): string[] {
  try {
    const said: unknown = JSON.parse(decodeURIComponent(headers.get(WARNINGS) ?? "[]"));
    return Array.isArray(said) ? said.filter((message) => typeof message === "string") : [];
  } catch {
    return [];
  }
}
