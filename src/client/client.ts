/** Typed calls of Tug's HTTP API. The one way in which commands and the chat reach models, engines and the runner. */
import type { ChatEvent, ChatRequest } from "../api/chat.ts";
import type {
  EngineInstallation,
  InstallRequest,
  LoadRequest,
  LoadResult,
  RunnerInfo,
  UnloadRequest,
  UnloadResult,
  WorkerStatus,
} from "../api/engines.ts";
import type {
  DiskUsage,
  Model,
  ModelDetails,
  PackageRequest,
  PackageResult,
  PruneResult,
  RemoveEvent,
  TagResult,
  VerifyResult,
} from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";
import { AppError, fromErrorObject } from "../errors.ts";
import { chatEvents, followProgress } from "./stream.ts";
import type { Transport } from "./transport.ts";

export interface CallOptions {
  readonly signal: AbortSignal;
}

export interface ProgressOptions extends CallOptions {
  readonly onProgress: ProgressListener;
}

/** An error body is small; what exceeds this is cut. Bytes. */
const MAX_ERROR_BODY = 64 * 1024;

export class Client {
  readonly transport: Transport;

  constructor(transport: Transport) {
    this.transport = transport;
  }

  listModels(options: CallOptions): Promise<Model[]> {
    return this.#get("/models", options);
  }

  inspect(model: string, options: CallOptions): Promise<ModelDetails> {
    return this.#get(`/models/${encodeName(model)}`, options);
  }

  /** @param target a reference; what it leaves out is filled in by the server */
  tag(
    model: string,
    target: { repository: string; tag: string },
    options: CallOptions,
  ): Promise<TagResult> {
    const query = new URLSearchParams({ repo: target.repository, tag: target.tag });
    return this.#json("POST", `/models/${encodeName(model)}/tag?${query.toString()}`, options);
  }

  remove(model: string, options: CallOptions & { force: boolean }): Promise<RemoveEvent[]> {
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

  version(options: CallOptions): Promise<{ version: string }> {
    return this.#get("/version", options);
  }

  runner(options: CallOptions): Promise<RunnerInfo> {
    return this.#get("/runner", options);
  }

  /** Returns when the runner has taken note; it leaves when its work is done, or at once with `force`. */
  async stopRunner(options: CallOptions & { force: boolean }): Promise<void> {
    await this.#send("POST", `/runner/stop?force=${options.force}`, options);
  }

  async logs(options: CallOptions & { follow: boolean }): Promise<AsyncIterable<Uint8Array>> {
    const response = await this.#send("GET", `/logs?follow=${options.follow}`, options);
    return (
      response.body ?? new ReadableStream<Uint8Array>({ start: (controller) => controller.close() })
    );
  }

  /** One streamed answer. Stop it by aborting the signal; the engine then stops as well. */
  async *chat(request: ChatRequest, options: CallOptions): AsyncIterable<ChatEvent> {
    const body = { ...request, stream: true, stream_options: { include_usage: true } };
    const response = await this.#send("POST", "/engines/v1/chat/completions", { ...options, body });
    yield* chatEvents(response);
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
    const response = await this.#send("POST", path, { signal: options.signal, body });
    return followProgress(response, options.onProgress);
  }

  async #send(
    method: string,
    path: string,
    options: CallOptions & { body?: unknown },
  ): Promise<Response> {
    const init: RequestInit = { method, signal: options.signal };
    if (options.body !== undefined) {
      init.body = JSON.stringify(options.body);
      init.headers = { "content-type": "application/json" };
    }
    const response = await this.transport.fetch(path, init);
    if (response.ok) return response;
    throw await toError(response, this.transport.target);
  }
}

// --- internal ---

/** A name keeps its slashes: they are part of the route. */
function encodeName(name: string): string {
  return name.split("/").map(encodeURIComponent).join("/");
}

async function toError(response: Response, target: string): Promise<AppError> {
  const text = (await response.text()).slice(0, MAX_ERROR_BODY);
  let described: unknown;
  try {
    described = (JSON.parse(text) as { error?: unknown }).error;
  } catch {
    // Not ours: a proxy's page, or an engine's plain text.
  }
  const known = fromErrorObject(described);
  if (known !== undefined) return known;
  const said = (described as { message?: unknown } | undefined)?.message;
  const message = typeof said === "string" ? said : text.slice(0, 200);
  return new AppError(
    "internal",
    `${target} answered ${response.status}: ${message || response.statusText}`,
  );
}
