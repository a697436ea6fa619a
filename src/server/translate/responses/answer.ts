/** A response while it is made, and its events. Does no I/O. */
import type {
  ResponseFailure,
  ResponseObject,
  ResponseUsage,
  TokenLogprob,
} from "../../../api/responses.ts";
import { isRecord } from "../../../oci/descriptor.ts";
import type { ChatAnswer, ChatChunk, ChatTimings, ChatUsage, FinishReason } from "../chat.ts";
import type { AnswerStream, Translation } from "../translation.ts";
import { type OutputEvent, OutputItems, type OutputOptions } from "./output.ts";

/** What goes wrong is told in a sentence. Characters. */
const MAX_ERROR = 1000;

export interface AnswerOptions extends OutputOptions {
  /** As it begins: `queued` or `in_progress`. */
  readonly response: ResponseObject;
  /** Seconds since 1970. */
  readonly now: () => number;
  /**
   * Called once, when it has ended, however, and before the client is told.
   *
   * @returns what the client is told: it may turn out that it is not kept
   */
  readonly ended?: (response: ResponseObject) => ResponseObject;
  /** Told of each event, framed; its number is its place. */
  readonly told?: (event: string) => void;
}

export class ResponseAnswer implements Translation {
  readonly #options: AnswerOptions;
  readonly #output: OutputItems;
  #response: ResponseObject;
  #sequence = 0;
  #finish: FinishReason | undefined;
  #usage: ResponseUsage | null = null;

  constructor(options: AnswerOptions) {
    this.#options = options;
    this.#response = options.response;
    this.#output = new OutputItems(options);
  }

  /** As it is now. */
  get response(): ResponseObject {
    return this.isOver ? this.#response : { ...this.#response, output: this.#output.items };
  }

  get isOver(): boolean {
    const { status } = this.#response;
    return status !== "queued" && status !== "in_progress";
  }

  /** @throws worker_failed */
  whole(answer: ChatAnswer): ResponseObject {
    this.#take(toChunk(answer));
    this.#end();
    return this.#response;
  }

  /** For those who look before a worker is there. */
  begin(): string {
    if (this.#sequence > 0) return "";
    const { status } = this.#response;
    const response = this.#response;
    const first = this.#frame({ type: "response.created", response });
    return status === "queued" ? first + this.#frame({ type: "response.queued", response }) : first;
  }

  /** The client has gone, or it was cancelled. */
  cancel(): void {
    if (this.isOver) return;
    this.#output.close("incomplete");
    this.#settle("cancelled", {});
  }

  readonly stream: AnswerStream = {
    push: (chunk) => (this.isOver ? "" : this.#progress() + this.#frames(this.#take(chunk))),
    end: () => (this.isOver ? "" : this.#progress() + this.#frames(this.#end())),
    fail: (body) => (this.isOver ? "" : this.#progress() + this.#frames(this.#fail(body))),
    left: () => this.cancel(),
  };

  // --- internal ---

  #progress(): string {
    if (this.#sequence > 0 && this.#response.status === "in_progress") return "";
    const begun = this.begin();
    this.#response = { ...this.#response, status: "in_progress" };
    return begun + this.#frame({ type: "response.in_progress", response: this.#response });
  }

  #take({ choices, usage, timings }: ChatChunk): OutputEvent[] {
    if (usage !== undefined && usage !== null) this.#usage = toUsage(usage, timings);
    const choice = choices?.find(({ index = 0 }) => index === 0);
    if (choice === undefined) return [];
    this.#finish = choice.finish_reason ?? this.#finish;
    const { delta } = choice;
    return delta === undefined ? [] : this.#output.push(delta, toLogprobs(choice.logprobs));
  }

  #end(): OutputEvent[] {
    const reason = INCOMPLETE[this.#finish ?? "stop"];
    const events = this.#output.close(reason === undefined ? "completed" : "incomplete");
    if (reason === undefined) {
      this.#settle("completed", { completed_at: this.#options.now() });
    } else {
      this.#settle("incomplete", { incomplete_details: { reason } });
    }
    return [...events, { type: `response.${this.#response.status}`, response: this.#response }];
  }

  #fail(body: object): OutputEvent[] {
    this.#output.close("incomplete");
    this.#settle("failed", { error: toFailure(body) });
    return [{ type: "response.failed", response: this.#response }];
  }

  #settle(status: ResponseObject["status"], more: Partial<ResponseObject>): void {
    const output = this.#output.items;
    const response = { ...this.#response, status, ...more, output, usage: this.#usage };
    this.#response = response;
    this.#response = this.#options.ended?.(response) ?? response;
  }

  #frames(events: readonly OutputEvent[]): string {
    let text = "";
    for (const event of events) text += this.#frame(event);
    return text;
  }

  #frame({ type, ...rest }: OutputEvent): string {
    const event = { type, sequence_number: this.#sequence, ...rest };
    this.#sequence += 1;
    const framed = `event: ${type}\ndata: ${JSON.stringify(event)}\n\n`;
    this.#options.told?.(framed);
    return framed;
  }
}

// --- internal ---

const INCOMPLETE: Partial<Record<FinishReason, "max_output_tokens" | "content_filter">> = {
  length: "max_output_tokens",
  content_filter: "content_filter",
};

/** A whole answer is a stream of one piece. */
function toChunk({ choices, usage, timings }: ChatAnswer): ChatChunk {
  return {
    ...(usage === undefined ? {} : { usage }),
    ...(timings === undefined ? {} : { timings }),
    choices: (choices ?? []).map(({ message, ...choice }) => ({
      ...choice,
      delta: {
        ...message,
        tool_calls: (message?.tool_calls ?? []).map((call, index) => ({ ...call, index })),
      },
    })),
  };
}

function toUsage(usage: ChatUsage, timings: ChatTimings | undefined): ResponseUsage {
  const input = count(usage.prompt_tokens);
  const output = count(usage.completion_tokens);
  const cached = usage.prompt_tokens_details?.cached_tokens ?? timings?.cache_n;
  return {
    input_tokens: input,
    input_tokens_details: { cached_tokens: count(cached), cache_write_tokens: 0 },
    output_tokens: output,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: usage.total_tokens ?? input + output,
  };
}

function count(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

function toLogprobs(said: unknown): TokenLogprob[] {
  const content = isRecord(said) ? said["content"] : undefined;
  if (!Array.isArray(content)) return [];
  return content.filter(isRecord).map((entry) => ({
    ...toTop(entry),
    top_logprobs: Array.isArray(entry["top_logprobs"])
      ? entry["top_logprobs"].filter(isRecord).map(toTop)
      : [],
  }));
}

function toTop(entry: Readonly<Record<string, unknown>>): {
  token: string;
  bytes: readonly number[];
  logprob: number;
} {
  const { token, bytes, logprob } = entry;
  const text = typeof token === "string" ? token : "";
  return {
    token: text,
    bytes: Array.isArray(bytes) ? bytes : [...Buffer.from(text)],
    logprob: count(logprob),
  };
}

/** OpenAI's codes of failed responses; the exact reason is the sentence. */
function toFailure(body: object): ResponseFailure {
  const error = isRecord(body) && isRecord(body["error"]) ? body["error"] : {};
  const { message, type } = error;
  return {
    code: CODES[String(type)] ?? "server_error",
    message: typeof message === "string" ? message.slice(0, MAX_ERROR) : "the answer broke off",
  };
}

const CODES: Readonly<Record<string, string>> = {
  invalid_request_error: "invalid_prompt",
  rate_limit_error: "rate_limit_exceeded",
};
