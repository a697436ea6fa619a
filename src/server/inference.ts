/**
 * From a request of any dialect to the answer of a worker: which model, with which settings, on which worker, and what
 * the client hears while it waits.
 *
 * A client that asked for a stream hears of a long wait; one that did not hears nothing before its answer. A worker that
 * dies before a byte of the answer was sent costs the client nothing but time: the request goes to another one, once.
 */
import type { Context } from "hono";
import * as v from "valibot";
import type { ModelSettings } from "../api/settings.ts";
import { type ErrorCode, toAppError } from "../errors.ts";
import { log } from "../log.ts";
import { pause } from "../pause.ts";
import type { Mode, RunnableModel } from "../runtime/backend.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import type { LoadReason } from "../runtime/events.ts";
import type { Lease } from "../runtime/lease.ts";
import type { WorkerPlan } from "../runtime/planner.ts";
import type { BodyBudget } from "./body-budget.ts";
import type { AppDeps, AppEnv, Runtime } from "./deps.ts";
import type { Dialect } from "./dialect.ts";
import { beginGuarded } from "./guarded-trace.ts";
import type { InferenceTrace } from "./observer.ts";
import { applyDefaults } from "./packaged-defaults.ts";
import { type Answer, proxyToWorker, toResponse, type WorkerRequest } from "./proxy.ts";
import { MAX_INFERENCE_BODY_BYTES, parseBody } from "./request-body.ts";
import { toRequestId } from "./request-id.ts";
import { WaitNote } from "./wait-note.ts";
import { waitingResponse } from "./waiting-response.ts";
import { requireRuntime, toRequestSettings, WORKER_FIELDS } from "./worker-request.ts";

export interface InferenceRoute {
  /** The engine's path for it. */
  readonly enginePath: string;
  readonly mode: Mode;
  readonly dialect: Dialect;
  /** Shared by all routes that hold bodies. */
  readonly bodies: BodyBudget;
  /** The engine that the path names. */
  readonly backend?: string | undefined;
}

/** Who has waited so long for a stream gets its beginning. */
export const FIRST_COMMENT_MS = 2000;
/** A socket that broke is seen a moment before its process is gone, and an engine that is not ready needs one. */
const RETRY_PAUSE_MS = 100;

/** What another worker may not meet. Everything else would only be said twice. */
const RETRIED: ReadonlySet<ErrorCode> = new Set(["worker_failed", "insufficient_memory"]);

/** Loose: what is not named here passes untouched. */
const InferenceBody = v.looseObject({ ...WORKER_FIELDS, stream: v.optional(v.unknown()) });

/**
 * @throws what is known before the first byte, for the dialect's routes to render: invalid_request, request_too_large,
 *   model_not_found, queue_full, insufficient_memory, worker_failed, context_length_exceeded, and what planning and
 *   loading throw
 */
export async function serveInference(
  c: Context<AppEnv>,
  deps: AppDeps,
  route: InferenceRoute,
): Promise<Response> {
  const request = c.req.raw;
  using held = new DisposableStack();
  const room = held.use(route.bodies.open());
  const limits = { maxBytes: MAX_INFERENCE_BODY_BYTES, take: room.take };
  const { value: body, bytes } = await parseBody(request, InferenceBody, limits);
  const runtime = requireRuntime(deps);
  const settings = toRequestSettings(body, request.headers);
  const isTrusted = c.env?.trusted === true;
  const model = await deps.resolve(body.model, { trusted: isTrusted });
  const isStream = body.stream === true && route.mode === "completion";
  const facts = { model, settings, body, bytes, isStream, isTrusted };
  const input = { request, route, runtime, deps, ...facts };
  if (c.req.header("x-preload-only")?.toLowerCase() === "true") {
    await new Job({ ...input, trace: undefined, release: noop }).load();
    return c.body(null, 200);
  }
  const trace = beginTrace(c, input);
  // The body is held until the answer begins: another worker may need it.
  const rest = held.move();
  return await new Job({ ...input, trace, release: () => rest.dispose() }).respond();
}

// --- internal ---

interface JobInput {
  readonly request: Request;
  readonly route: InferenceRoute;
  readonly runtime: Runtime;
  readonly deps: AppDeps;
  readonly model: RunnableModel;
  readonly settings: ModelSettings;
  readonly body: v.InferOutput<typeof InferenceBody>;
  /** As it came. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly isStream: boolean;
  readonly isTrusted: boolean;
}

interface JobOptions extends JobInput {
  readonly trace: InferenceTrace | undefined;
  /** Called when the body is not needed any more. */
  readonly release: () => void;
}

/** One request on its way to its answer. */
class Job {
  readonly #options: JobOptions;
  readonly #clock: Clock;
  readonly #note: WaitNote;
  readonly #left = new AbortController();
  readonly #startMs = performance.now();
  #wasAcquired = false;

  constructor(options: JobOptions) {
    this.#options = options;
    this.#clock = options.deps.clock ?? systemClock;
    this.#note = new WaitNote(options.model.name);
  }

  /** Loads the worker that would answer. */
  async load(): Promise<void> {
    const plan = await this.#plan();
    const { signal } = this.#options.request;
    using _lease = await this.#options.runtime.acquire({ plan, signal });
  }

  async respond(): Promise<Response> {
    const { isStream, route, trace } = this.#options;
    const { dialect } = route;
    const { comment } = dialect;
    const answer = this.#answer();
    if (!isStream || comment === undefined) return toResponse(await answer, trace);
    const late = Promise.withResolvers<undefined>();
    using _timer = this.#clock.setTimer(FIRST_COMMENT_MS, () => late.resolve(undefined));
    const early = await Promise.race([answer, late.promise]);
    if (early !== undefined) return toResponse(early, trace);
    return waitingResponse({
      answer,
      dialect: { ...dialect, comment },
      describe: () => this.#note.text,
      clock: this.#clock,
      trace,
      leave: () => this.#left.abort(),
    });
  }

  async #answer(): Promise<Answer> {
    const { request, isStream, trace, release } = this.#options;
    // A client that leaves a stream which has begun need not have aborted its request.
    const leave = (): void => this.#left.abort(request.signal.reason);
    if (isStream) request.signal.addEventListener("abort", leave, { once: true });
    if (isStream && request.signal.aborted) leave();
    try {
      const plan = await this.#plan();
      return await this.#attempt(plan, this.#toWorkerRequest(plan));
    } catch (thrown) {
      const error = toAppError(thrown);
      trace?.ended(error);
      throw error;
    } finally {
      release();
    }
  }

  async #plan(): Promise<WorkerPlan> {
    const { deps, model, route, settings, isTrusted } = this.#options;
    const planner = await deps.planner();
    const { mode, backend } = route;
    return planner.plan({ model, mode, backend, request: settings, trusted: isTrusted });
  }

  async #attempt(plan: WorkerPlan, request: WorkerRequest): Promise<Answer> {
    try {
      return await this.#proxy(request, await this.#acquire(plan, "request"));
    } catch (thrown) {
      const error = toAppError(thrown);
      if (!this.#wasAcquired || !RETRIED.has(error.code)) throw error;
      log.info(
        `server: request given to another worker model=${plan.model.name} reason=${error.message}`,
      );
    }
    this.#note.retry();
    await pause(RETRY_PAUSE_MS, this.#signal);
    return this.#proxy(request, await this.#acquire(plan, "retry"));
  }

  async #acquire(plan: WorkerPlan, reason: LoadReason): Promise<Lease> {
    const lease = await this.#options.runtime.acquire({
      plan,
      signal: this.#signal,
      reason,
      onProgress: (event) => this.#note.take(event),
    });
    this.#wasAcquired = true;
    this.#note.granted();
    this.#options.trace?.acquired(lease, performance.now() - this.#startMs);
    return lease;
  }

  #proxy(request: WorkerRequest, lease: Lease): Promise<Answer> {
    const { route, trace } = this.#options;
    return proxyToWorker(request, lease, { dialect: route.dialect, trace });
  }

  get #signal(): AbortSignal {
    return this.#options.isStream ? this.#left.signal : this.#options.request.signal;
  }

  #toWorkerRequest({ defaults }: WorkerPlan): WorkerRequest {
    const { request, route, body, bytes } = this.#options;
    const query = request.url.indexOf("?");
    const path = query < 0 ? route.enginePath : route.enginePath + request.url.slice(query);
    const complete = applyDefaults(body, defaults);
    return {
      method: request.method,
      path,
      headers: request.headers,
      // Untouched where nothing is added: byte for byte what the client sent.
      body: complete === body ? bytes : new TextEncoder().encode(JSON.stringify(complete)),
      signal: this.#signal,
    };
  }
}

function beginTrace(c: Context<AppEnv>, input: JobInput): InferenceTrace | undefined {
  const { deps, request, route, model, body, bytes, isStream } = input;
  const { observers = [] } = deps;
  if (observers.length === 0) return undefined;
  return beginGuarded(observers, {
    id: c.get("requestId") ?? toRequestId(request.headers),
    dialect: route.dialect.name,
    method: request.method,
    path: c.req.path,
    mode: route.mode,
    modelName: body.model,
    modelId: model.id,
    isStream,
    headers: request.headers,
    body: bytes,
    startedMs: Date.now(),
  });
}

function noop(): void {}
