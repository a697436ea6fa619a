/** Typed calls of Tug's HTTP API. The one way in which commands and the chat reach models, engines and the runner. */
import type { ChatEvent, ChatRequest } from "../api/chat.ts";
import type {
  EngineInstallation,
  InstallRequest,
  LoadRequest,
  LoadResult,
  RunnerInfo,
  VersionInfo,
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
import { log } from "../log.ts";
import { looksLikeId, parseReference } from "../oci/reference.ts";
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

  async inspect(model: string, options: CallOptions): Promise<ModelDetails> {
    return this.#get(`/models/${encodeName(model)}`, options);
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
  if (typeof said === "string") return engineError(said, response.status);
  return new AppError(
    "internal",
    `${target} answered ${response.status}: ${text.slice(0, 200) || response.statusText}`,
  );
}

/** What an engine itself refuses, in its own words but for what a person can do something about. */
function engineError(message: string, status: number): AppError {
  const full = /\((\d+) tokens\) exceeds the available context size \((\d+) tokens\)/.exec(message);
  if (full !== null) {
    const [, needed, size] = full;
    return new AppError(
      "invalid_request",
      `the conversation (${needed} tokens) does not fit into the context of ${size} tokens`,
      {
        hint: "Load the model with a larger one (`--ctx-size N`, in a chat `/set num_ctx N`), or say less (`/undo`, `/clear`).",
      },
    );
  }
  if (/image input is not supported/.test(message)) {
    return new AppError("unsupported_model", "this model cannot read images", {
      hint: "Package one that can with its projector: `tug package --gguf FILE --mmproj FILE NAME`.",
    });
  }
  return new AppError(status < 500 ? "invalid_request" : "worker_failed", message.slice(0, 500));
}
