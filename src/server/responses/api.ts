/**
 * OpenAI's Responses: conversations that the runner keeps. The engine knows nothing of them, it gets the whole
 * conversation as a chat each time.
 *
 * @see https://platform.openai.com/docs/api-reference/responses
 */
import type { Context } from "hono";
import type {
  DeletedResponse,
  ResponseItem,
  ResponseItemList,
  ResponseObject,
} from "../../api/responses.ts";
import { AppError, toAppError } from "../../errors.ts";
import { log } from "../../log.ts";
import { systemClock } from "../../runtime/clock.ts";
import { absentResponse, type StoredResponse } from "../../state/responses.ts";
import type { BodyBudget } from "../body-budget.ts";
import { countTokens } from "../count-tokens.ts";
import type { AppDeps, AppEnv, ResponseStore } from "../deps.ts";
import { OPENAI } from "../dialect.ts";
import { answerInference, type InferenceRequest, readInferenceBody } from "../inference.ts";
import { ResponseAnswer } from "../translate/responses/answer.ts";
import { makeId } from "../translate/responses/ids.ts";
import { toItems } from "../translate/responses/items.ts";
import { missing, refuse } from "../translate/responses/refuse.ts";
import {
  type Echo,
  type ResponsesBody,
  ResponsesRequest,
  toEcho,
} from "../translate/responses/request.ts";
import { toChatRequest } from "../translate/responses/to-chat.ts";
import { toRequestSettings } from "../worker-request.ts";
import { type BackgroundJob, BackgroundResponses } from "./background.ts";
import { EventLog, followEvents } from "./event-log.ts";
import { type ItemQuery, toCount, toItemPage } from "./item-page.ts";
import { maySee, type Reader, readerOf } from "./reader.ts";

const STREAM_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": "no-cache",
  // nginx would keep events back until its buffer is full.
  "x-accel-buffering": "no",
};

export interface ResponsesApiDeps {
  readonly deps: AppDeps;
  readonly bodies: BodyBudget;
  readonly store: ResponseStore;
}

export class ResponsesApi {
  readonly #deps: AppDeps;
  readonly #bodies: BodyBudget;
  readonly #store: ResponseStore;
  readonly #background = new BackgroundResponses();

  constructor({ deps, bodies, store }: ResponsesApiDeps) {
    this.#deps = deps;
    this.#bodies = bodies;
    this.#store = store;
  }

  /** @throws invalid_request, not_found (what it continues), and what `answerInference` throws */
  async create(c: Context<AppEnv>, backend: string | undefined): Promise<Response> {
    using holds = new DisposableStack();
    const { body, echo, input, items, ...read } = await this.#read(c, holds);
    const isStream = body.stream === true || echo.background;
    const response = begin(echo);
    const asked = {
      ...read,
      body: toChatRequest({ echo, items, isStream, wantsLogprobs: wantsLogprobs(body, echo) }),
      isStream,
    };
    const route = {
      enginePath: "/v1/chat/completions",
      mode: "completion",
      dialect: OPENAI,
    } as const;
    const ask = (more: Partial<InferenceRequest> & Pick<InferenceRequest, "translation">) =>
      answerInference({ c, deps: this.#deps, route: { ...route, backend } }, { ...asked, ...more });
    const sealed = includes(body, "reasoning.encrypted_content");
    const making = { response, input, owner: readerOf(c).name, sealed };
    if (echo.background) {
      // A name that means nothing is told at once, not at the first look.
      await this.#deps.resolve(body.model, { trusted: c.env?.trusted === true });
      this.#background.requireRoom();
      return this.#begin({ ...making, ask, held: holds.move(), isFollowed: body.stream === true });
    }
    return await ask({ translation: this.#toAnswer(making), held: holds.move() });
  }

  /** How many tokens a request would have for its model. @throws as `create`, and `countTokens` */
  async count(c: Context<AppEnv>, backend: string | undefined): Promise<Response> {
    using holds = new DisposableStack();
    const { echo, items, modelName, settings, bytes } = await this.#read(c, holds);
    const asked = {
      modelName,
      settings,
      bytes,
      body: toChatRequest({ echo, items, isStream: false, wantsLogprobs: false }),
      toBody: (tokens: number) => ({ object: "response.input_tokens", input_tokens: tokens }),
    };
    const context = { c, deps: this.#deps, dialect: OPENAI, backend };
    return await countTokens(context, { ...asked, held: holds.move() });
  }

  /** @throws not_found */
  retrieve(reader: Reader, id: string): ResponseObject {
    return this.#running(reader, id)?.answer.response ?? this.#find(reader, id).response;
  }

  /**
   * The events of a response that was begun with `background` and `stream`.
   *
   * @param startingAfter the number of the last event that is known, as the client wrote it
   * @throws not_found, invalid_request
   */
  resume(reader: Reader, id: string, startingAfter: string | undefined): Response {
    const after = startingAfter === undefined ? -1 : toCount(startingAfter, "starting_after", 0);
    const job = this.#running(reader, id);
    if (job?.log !== undefined) return this.#follow(job.log, after);
    const events = job === undefined ? this.#find(reader, id).events : undefined;
    if (events !== undefined) {
      return new Response(events.slice(after + 1).join(""), { headers: STREAM_HEADERS });
    }
    const hint = "Only what was begun with `background` and `stream` can be; ask without `stream`.";
    throw refuse("stream", "this response cannot be streamed", hint);
  }

  /** @throws not_found */
  remove(reader: Reader, id: string): DeletedResponse {
    const job = this.#running(reader, id);
    if (job === undefined) this.#find(reader, id);
    else this.#background.forget(job);
    this.#store.remove(id);
    return { id, object: "response", deleted: true };
  }

  /** One that is over stays as it is. @throws not_found, invalid_request */
  cancel(reader: Reader, id: string): ResponseObject {
    const job = this.#running(reader, id);
    if (job !== undefined) return this.#background.cancel(job);
    const { response } = this.#find(reader, id);
    if (response.background) return response;
    throw refuse("response_id", "only what runs in the background can be cancelled");
  }

  /** What the response is an answer to, with all it continues. @throws not_found, invalid_request */
  inputItems(reader: Reader, id: string, query: ItemQuery): ResponseItemList {
    return toItemPage(this.#itemsOf(this.#find(reader, id)), query);
  }

  // --- internal ---

  /** @param holds gets what is to be counted until the answer begins */
  async #read(c: Context<AppEnv>, holds: DisposableStack) {
    const request = c.req.raw;
    const options = { schema: ResponsesRequest, bodies: this.#bodies };
    const { value: body, bytes } = holds.use(await readInferenceBody(request, options));
    const reader = readerOf(c);
    const echo = toEcho(body);
    const { take } = holds.use(this.#bodies.open());
    const earlier = this.#earlier(reader, echo.previous_response_id, take);
    const known = new Map(earlier.map((item) => [item.id, item]));
    const findItem = (id: string, field: string): ResponseItem => this.#findItem(reader, id, field);
    // Clients send back items that the chain has already.
    const input = toItems(body.input, { makeId, findItem }).filter(
      (item) => !isSame(item, known.get(item.id)),
    );
    const settings = toRequestSettings(body, request.headers);
    const items = [...earlier, ...input];
    return { body, bytes, modelName: body.model, settings, echo, input, items };
  }

  #earlier(reader: Reader, previous: string | null, take: (bytes: number) => void): ResponseItem[] {
    if (previous === null) return [];
    const field = "previous_response_id";
    if (this.#running(reader, previous)?.answer.isOver === false) {
      throw refuse(field, "it is still being made", "Wait until it is over.");
    }
    const chain = this.#store.chain(previous, take);
    // Who could continue it could also read what it continues.
    if (!maySee(reader, chain.at(-1)?.owner ?? null)) throw absentResponse(previous, field);
    return chain.flatMap(toConversation);
  }

  #findItem(reader: Reader, id: string, field: string): ResponseItem {
    const found = this.#store.findItem(id);
    if (found !== undefined && maySee(reader, found.owner)) return found.item;
    const hint = "Only items of responses that are stored can be named; send the item itself.";
    throw missing(field, `the item \`${id.slice(0, 80)}\``, hint);
  }

  #toAnswer(
    making: Making,
    more: Partial<ConstructorParameters<typeof ResponseAnswer>[0]> = {},
  ): ResponseAnswer {
    const { response, owner, input, sealed } = making;
    return new ResponseAnswer({
      response,
      makeId,
      sealed,
      asSummary: response.reasoning.summary !== null,
      now: seconds,
      ended: (ended) => this.#keep({ response: ended, owner, input }),
      ...more,
    });
  }

  /** An answer is worth more than its being kept: the client gets it, and is told. Throws nothing. */
  #keep(stored: StoredResponse): ResponseObject {
    const { response } = stored;
    if (!response.store) return response;
    try {
      if (this.#store.save(stored)) return response;
      log.warn("server: response not kept reason=it is too large");
    } catch (thrown) {
      log.warn(`server: response not kept reason=${toAppError(thrown).message}`);
    }
    return { ...response, store: false };
  }

  #begin({ ask, held, isFollowed, ...making }: BackgroundOptions): Response {
    const { response, owner, input } = making;
    using begun = new DisposableStack();
    begun.use(held);
    if (!this.#store.save({ response, owner, input })) throw tooLarge();
    const told = isFollowed ? new EventLog() : undefined;
    let isForgotten = false;
    const keep = (ended: ResponseObject, events?: readonly string[]): ResponseObject =>
      isForgotten ? ended : this.#keep({ response: ended, owner, input, events });
    const answer = this.#toAnswer(making, {
      ended: (ended) => keep(ended),
      ...(told === undefined ? {} : { told: (event: string) => told.push(event) }),
    });
    answer.begin();
    begun.move();
    this.#background.start({
      answer,
      owner,
      log: told,
      controller: new AbortController(),
      ask: (signal) => ask({ translation: answer, signal, held }),
      done: () => void (told?.events !== undefined && keep(answer.response, told.events)),
      forget: () => void (isForgotten = true),
    });
    return told === undefined ? Response.json(answer.response) : this.#follow(told, -1);
  }

  #follow(events: EventLog, after: number): Response {
    const clock = this.#deps.clock ?? systemClock;
    return new Response(followEvents(events, after, clock), { headers: STREAM_HEADERS });
  }

  #running(reader: Reader, id: string): BackgroundJob | undefined {
    const job = this.#background.find(id);
    return job !== undefined && maySee(reader, job.owner) ? job : undefined;
  }

  /** @throws not_found, also for those who may not know of it */
  #find(reader: Reader, id: string): StoredResponse {
    const stored = this.#store.find(id);
    if (stored === undefined || !maySee(reader, stored.owner)) throw absentResponse(id);
    const { status } = stored.response;
    const isRunning = this.#background.find(id) !== undefined;
    if (isRunning || (status !== "queued" && status !== "in_progress")) return stored;
    const error = { code: "server_error", message: "the runner ended before the answer" };
    const failed = {
      ...stored,
      response: { ...stored.response, status: "failed", error },
    } as const;
    this.#keep(failed);
    return failed;
  }

  #itemsOf({ response, input }: StoredResponse): readonly ResponseItem[] {
    if (response.previous_response_id === null) return input;
    try {
      const earlier = this.#store.chain(response.previous_response_id).flatMap(toConversation);
      return [...earlier, ...input];
    } catch (thrown) {
      // What it continued is gone; what came with it is there.
      if (thrown instanceof AppError && thrown.code === "not_found") return input;
      throw thrown;
    }
  }
}

// --- internal ---

interface Making {
  readonly response: ResponseObject;
  readonly owner: string | null;
  readonly input: readonly ResponseItem[];
  readonly sealed: boolean;
}

interface BackgroundOptions extends Making {
  readonly ask: (
    more: Pick<InferenceRequest, "translation" | "signal" | "held">,
  ) => Promise<Response>;
  readonly held: Disposable;
  readonly isFollowed: boolean;
}

function begin(echo: Echo): ResponseObject {
  return {
    id: makeId("resp"),
    object: "response",
    created_at: seconds(),
    status: echo.background ? "queued" : "in_progress",
    completed_at: null,
    error: null,
    incomplete_details: null,
    output: [],
    usage: null,
    ...echo,
  };
}

/** What a model said is known by its id; those of what clients say are theirs, and may be anything. */
function isSame(item: ResponseItem, known: ResponseItem | undefined): boolean {
  if (known === undefined) return false;
  const isSaid = item.type === "message" ? item.role === "assistant" : item.type !== OUTPUT;
  return (isSaid && item.type === known.type) || Bun.deepEquals(item, known);
}

const OUTPUT = "function_call_output";

function toConversation({ response, input }: StoredResponse): ResponseItem[] {
  return [...input, ...response.output];
}

function includes({ include }: ResponsesBody, what: string): boolean {
  return include?.includes(what) === true;
}

function wantsLogprobs(body: ResponsesBody, { top_logprobs }: Echo): boolean {
  return top_logprobs > 0 || includes(body, "message.output_text.logprobs");
}

function seconds(): number {
  return Math.floor(Date.now() / 1000);
}

function tooLarge(): AppError {
  return new AppError("request_too_large", "cannot keep the response: its input is too large", {
    hint: "Ask without `background`.",
  });
}
