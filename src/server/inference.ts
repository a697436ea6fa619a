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
import { AppError, type ErrorCode, toAppError } from "../errors.ts";
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
import {
  type Answer,
  type AnswerTranslation,
  proxyToWorker,
  toResponse,
  type WorkerRequest,
} from "./proxy.ts";
import { type ParsedBody, parseBody, type Schema } from "./request-body.ts";
import { renamed, servedModelOf, toEngineBody } from "./served-model.ts";
import { toRequestId } from "./request-id.ts";
import { type AnswerStream, StreamTranslator, type Translation } from "./translate/translation.ts";
import { WaitNote } from "./wait-note.ts";
import { waitingResponse } from "./waiting-response.ts";
import { requireSuited } from "./suited-model.ts";
import { withSaidThinking } from "./thinking.ts";
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
  /** For requests in OpenAI's words; default: what every request to a model has. */
  readonly schema?: v.GenericSchema<unknown, v.InferOutput<typeof InferenceBody>>;
}

/** Who has waited so long for a stream gets its beginning. */
export const FIRST_COMMENT_MS = 2000;
/** A socket that broke is seen a moment before its process is gone, and an engine that is not ready needs one. */
const RETRY_PAUSE_MS = 100;

/** What another worker may not meet. Everything else would only be said twice. */
const RETRIED: ReadonlySet<ErrorCode> = new Set(["worker_failed", "insufficient_memory"]);

/** What every request to a model has. Loose: what is not named here passes untouched. */
export const InferenceBody = v.looseObject({ ...WORKER_FIELDS, stream: v.nullish(v.boolean()) });

/** A request as far as it has been read. */
export interface InferenceRequest {
  /** As the client wrote it. */
  readonly modelName: string;
  readonly settings: ModelSettings;
  /** For the engine. */
  readonly body: Readonly<Record<string, unknown>>;
  /** As it came from the client, for those who record it; sent on untouched where nothing is translated or added. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly isStream: boolean;
  readonly translation?: Translation | undefined;
  /** Ends it; default: when the client leaves. */
  readonly signal?: AbortSignal | undefined;
  /** What the body counts for: disposed when the answer begins or fails, for until then another worker may need it. */
  readonly held?: Disposable | undefined;
}

export interface InferenceBodyOptions<S extends Schema> {
  readonly schema: S;
  readonly bodies: BodyBudget;
}

/** A body that is counted until it is disposed, or until what `keep` returns is, if it was called. */
export interface HeldBody<Value> extends ParsedBody<Value>, Disposable {
  keep(): Disposable;
}

/** @throws invalid_request, request_too_large, queue_full (others hold too much), timed_out */
export async function readInferenceBody<S extends Schema>(
  request: Request,
  { schema, bodies }: InferenceBodyOptions<S>,
): Promise<HeldBody<v.InferOutput<S>>> {
  using held = new DisposableStack();
  const room = held.use(bodies.open());
  const limits = { maxBytes: bodies.maxBodyBytes, take: room.take };
  const parsed = await parseBody(request, schema, limits);
  const rest = held.move();
  return { ...parsed, keep: () => rest.move(), [Symbol.dispose]: () => rest.dispose() };
}

/**
 * A request in OpenAI's words: the engine gets it as it is.
 *
 * @throws as `readInferenceBody` and `answerInference`
 */
export async function serveInference(
  c: Context<AppEnv>,
  deps: AppDeps,
  route: InferenceRoute,
): Promise<Response> {
  // Who only wants it loaded has nothing to ask yet: Docker Model Runner's CLI sends no messages.
  const { bodies, schema = InferenceBody } = isPreload(c) ? { bodies: route.bodies } : route;
  using held = await readInferenceBody(c.req.raw, { schema, bodies });
  const { value: body, bytes } = held;
  const settings = toRequestSettings(body, c.req.raw.headers);
  const isStream = body.stream === true && route.mode === "completion";
  const request = { modelName: body.model, settings, body, bytes, isStream, held: held.keep() };
  return await answerInference({ c, deps, route }, request);
}

/** Where a request came from and goes to. */
export interface InferenceContext {
  readonly c: Context<AppEnv>;
  readonly deps: AppDeps;
  readonly route: Omit<InferenceRoute, "bodies">;
}

/**
 * Resolves when the answer begins: until then the body may be needed for another worker.
 *
 * @throws what is known before the first byte, for the app to render: invalid_request, model_not_found, queue_full,
 *   insufficient_memory, worker_failed, context_length_exceeded, and what planning and loading throw
 */
export async function answerInference(
  { c, deps, route }: InferenceContext,
  asked: InferenceRequest,
): Promise<Response> {
  using held = new DisposableStack();
  held.use(asked.held);
  const { headers } = c.req.raw;
  const runtime = requireRuntime(deps);
  const isTrusted = c.env?.trusted === true;
  const model = await deps.resolve(asked.modelName, { trusted: isTrusted });
  const body = withSaidThinking(asked.body, { headers, mode: route.mode });
  const isAsSent = body === asked.body;
  const job = {
    ...asked,
    body,
    isAsSent,
    request: c.req.raw,
    route,
    runtime,
    deps,
    model,
    isTrusted,
  };
  if (isPreload(c)) {
    await new Job({ ...job, trace: undefined }).load();
    return c.body(null, 200);
  }
  const trace = beginTrace(c, job);
  return await new Job({ ...job, trace, held: held.move() }).respond();
}

// --- internal ---

function isPreload(c: Context<AppEnv>): boolean {
  return c.req.header("x-preload-only")?.toLowerCase() === "true";
}

interface JobInput extends InferenceRequest {
  readonly request: Request;
  readonly route: Omit<InferenceRoute, "bodies">;
  readonly runtime: Runtime;
  readonly deps: AppDeps;
  readonly model: RunnableModel;
  readonly isTrusted: boolean;
  /** `body` is what `bytes` say. */
  readonly isAsSent: boolean;
}

interface JobOptions extends JobInput {
  readonly trace: InferenceTrace | undefined;
}

/** One request on its way to its answer. */
class Job {
  readonly #options: JobOptions;
  readonly #clock: Clock;
  readonly #note: WaitNote;
  readonly #left = new AbortController();
  readonly #startMs = performance.now();
  readonly #dialect: Dialect;
  #translation: Translation | undefined;
  #translator: StreamTranslator | undefined;
  #wasAcquired = false;
  #waitedMs = 0;

  constructor(options: JobOptions) {
    const { translation, isStream, route } = options;
    const stream = isStream ? translation?.stream : undefined;
    this.#options = options;
    this.#translation = translation;
    this.#dialect = stream === undefined ? route.dialect : inWordsOf(stream, route.dialect);
    this.#translator = stream && new StreamTranslator(stream, toErrorBodyOf(route.dialect));
    this.#clock = options.deps.clock ?? systemClock;
    this.#note = new WaitNote(options.model.name);
  }

  /** Loads the worker that would answer. */
  async load(): Promise<void> {
    const plan = await this.#plan();
    using _lease = await this.#options.runtime.acquire({ plan, signal: this.#gone });
  }

  async respond(): Promise<Response> {
    const { isStream, trace } = this.#options;
    const dialect = this.#dialect;
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
    const { isStream, trace, held } = this.#options;
    const gone = this.#gone;
    // A client that leaves a stream which has begun need not have aborted its request.
    const leave = (): void => this.#left.abort(gone.reason);
    if (isStream) gone.addEventListener("abort", leave, { once: true });
    if (isStream && gone.aborted) leave();
    try {
      const plan = await this.#plan();
      if (plan.servedModel !== undefined && this.#translation === undefined) this.#rename();
      return await this.#attempt(plan);
    } catch (thrown) {
      const error = toAppError(thrown);
      trace?.ended(error);
      throw error;
    } finally {
      held?.[Symbol.dispose]();
    }
  }

  async #plan(): Promise<WorkerPlan> {
    const { deps, model, route, settings, isTrusted } = this.#options;
    const planner = await deps.planner();
    const { mode, backend } = route;
    const plan = await planner.plan({
      model,
      mode,
      backend,
      request: settings,
      trusted: isTrusted,
    });
    const profile = await profileOf(deps, model);
    requireSuited({ plan, path: route.enginePath, profile, body: this.#options.body });
    return plan;
  }

  async #attempt(plan: WorkerPlan): Promise<Answer> {
    try {
      return await this.#proxy(plan, await this.#acquire(plan, "request"));
    } catch (thrown) {
      const error = toAppError(thrown);
      if (!this.#wasAcquired || !RETRIED.has(error.code)) throw error;
      log.info(
        `server: request given to another worker model=${plan.model.name} reason=${error.message}`,
      );
    }
    this.#note.retry();
    await pause(RETRY_PAUSE_MS, this.#signal);
    return this.#proxy(plan, await this.#acquire(plan, "retry"));
  }

  async #acquire(plan: WorkerPlan, reason: LoadReason): Promise<Lease> {
    const lease = await this.#options.runtime.acquire({
      plan,
      signal: this.#signal,
      reason,
      onProgress: (event) => this.#note.take(event),
    });
    this.#wasAcquired = true;
    this.#waitedMs = performance.now() - this.#startMs;
    this.#note.granted();
    this.#options.trace?.acquired(lease, this.#waitedMs);
    return lease;
  }

  #proxy(plan: WorkerPlan, lease: Lease): Promise<Answer> {
    const request = this.#toWorkerRequest(plan, lease);
    const { trace } = this.#options;
    const dialect = this.#dialect;
    return proxyToWorker(request, lease, { dialect, trace, translation: this.#toTranslation() });
  }

  /** The answer is to bear the name that the client asked for. */
  #rename(): void {
    const { isStream, route, modelName } = this.#options;
    this.#translation = renamed(modelName);
    const { stream } = this.#translation;
    if (isStream && stream !== undefined)
      this.#translator = new StreamTranslator(stream, toErrorBodyOf(route.dialect));
  }

  #toTranslation(): AnswerTranslation | undefined {
    const translation = this.#translation;
    if (translation === undefined) return undefined;
    const facts = { waitedMs: this.#waitedMs };
    this.#translator?.begin(facts);
    return { whole: (answer) => translation.whole(answer, facts), stream: this.#translator };
  }

  /** Aborted when nobody wants the answer any more. */
  get #gone(): AbortSignal {
    return this.#options.signal ?? this.#options.request.signal;
  }

  get #signal(): AbortSignal {
    return this.#options.isStream ? this.#left.signal : this.#gone;
  }

  #toWorkerRequest(plan: WorkerPlan, { report }: Lease): WorkerRequest {
    const { defaults } = plan;
    const { request, route, body, bytes, isAsSent, translation } = this.#options;
    const query = request.url.indexOf("?");
    const path = query < 0 ? route.enginePath : route.enginePath + request.url.slice(query);
    const servedModel = servedModelOf(plan, report);
    const complete = toEngineBody(applyDefaults(body, defaults), { ...plan, servedModel });
    return {
      method: request.method,
      path,
      headers: request.headers,
      // Untouched where nothing is added: byte for byte what the client sent.
      body:
        complete === body && isAsSent && translation === undefined
          ? bytes
          : new TextEncoder().encode(JSON.stringify(complete)),
      signal: this.#signal,
    };
  }
}

function beginTrace(c: Context<AppEnv>, input: JobInput): InferenceTrace | undefined {
  const { deps, request, route, model, modelName, bytes, isStream } = input;
  const { observers = [] } = deps;
  if (observers.length === 0) return undefined;
  return beginGuarded(observers, {
    id: c.get("requestId") ?? toRequestId(request.headers),
    dialect: route.dialect.name,
    method: request.method,
    path: c.req.path,
    mode: route.mode,
    modelName,
    modelId: model.id,
    isStream,
    headers: request.headers,
    body: bytes,
    startedMs: Date.now(),
  });
}

/** A file that cannot be read is found out by whoever loads it. */
async function profileOf({ profileOf: find }: AppDeps, { id }: RunnableModel) {
  try {
    return await find?.(id);
  } catch (error) {
    log.debug(`server: profile not read model=${id} reason=${toAppError(error).message}`);
    return undefined;
  }
}

function inWordsOf(stream: AnswerStream, dialect: Dialect): Dialect {
  const comment = stream.comment?.bind(stream) ?? dialect.comment;
  const errorEvent = (body: object): string => stream.fail(body);
  return { ...dialect, ...(comment === undefined ? {} : { comment }), errorEvent };
}

function toErrorBodyOf(dialect: Dialect): (message: string) => object {
  return (message) => dialect.errorBody(new AppError("worker_failed", message));
}
