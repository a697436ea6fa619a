/** A request of the Messages API as one to an engine. Pure. */
import { type Thinking, withThinking } from "../../thinking.ts";
import type { ChatRequest } from "../chat.ts";
import { given, invalid } from "./members.ts";
import { prefillOf, toChatMessages } from "./messages.ts";
import type { Conversation, Messages } from "./request.ts";
import { toTools } from "./tools.ts";

export interface ToChatOptions {
  /** What the `anthropic-beta` header says. */
  readonly betas?: string | undefined;
}

/** An int32 in engines: llama-server takes 2³² - 1 for no limit. Nothing is that long. */
const MAX_INT = 2 ** 31 - 1;

/** Levels that templates know. */
const EFFORTS = { low: "low", medium: "medium", high: "high", xhigh: "high", max: "high" } as const;

/**
 * @throws invalid_request (a tool that is chosen and not there, two of a name, results of calls that were not made, a
 *   budget of thinking that leaves nothing for the answer)
 */
export function toChatRequest(request: Messages, options: ToChatOptions = {}): ChatRequest {
  const { stop_sequences: stops, temperature, top_p, top_k, max_tokens } = request;
  requireRoom(request, options);
  if (max_tokens === 0 && request.stream === true) {
    throw invalid("`max_tokens` must be at least 1 in a stream");
  }
  return {
    ...toConversation(request),
    // An engine that is asked for none gives one; it is left out of the answer.
    max_tokens: Math.max(1, toInt(max_tokens)),
    ...given({ temperature, top_p, top_k: toInt(top_k) }),
    // llama-server tells which of them it was only with everything else it knows.
    ...(stops === undefined || stops === null || stops.length === 0
      ? {}
      : { stop: stops, verbose: true }),
    // llama-server says with each piece how long the prompt was: an answer begins with it.
    ...(request.stream === true
      ? { stream: true, stream_options: { include_usage: true }, timings_per_token: true }
      : {}),
  };
}

/** The part of it that makes the prompt. @throws invalid_request */
export function toConversation(request: Conversation): ChatRequest {
  const messages = toChatMessages(request);
  const format = request.output_config?.format ?? request.output_format;
  const body: ChatRequest = {
    model: request.model,
    messages,
    ...toTools(request),
    ...(format === undefined || format === null
      ? {}
      : {
          response_format: {
            type: "json_schema",
            json_schema: { name: "answer", schema: format.schema, strict: true },
          },
        }),
  };
  const thinking = toThinking(request, prefillOf(messages) !== "");
  return Object.keys(thinking).length === 0 ? body : { ...body, ...withThinking(body, thinking) };
}

// --- internal ---

/**
 * A request that does not say it gets what the model and its settings do by default; but an answer whose beginning is
 * given has been thought about.
 */
function toThinking({ thinking, output_config }: Conversation, isBegun: boolean): Thinking {
  const effort = output_config?.effort ?? undefined;
  const level = effort === undefined ? {} : { effort: EFFORTS[effort] };
  if (thinking === undefined || thinking === null) {
    return isBegun ? { ...level, isOn: false } : level;
  }
  if (thinking.type === "disabled") return { isOn: false };
  const budget = thinking.type === "enabled" ? { budgetTokens: toInt(thinking.budget_tokens) } : {};
  return { ...level, ...budget, isOn: true };
}

function toInt<Given extends number | null | undefined>(value: Given): Given | number {
  return typeof value === "number" ? Math.min(value, MAX_INT) : value;
}

/** Between calls of tools a model thinks anew: there the budget may be larger than one answer. */
function requireRoom({ thinking, max_tokens }: Messages, { betas }: ToChatOptions): void {
  if (thinking?.type !== "enabled" || thinking.budget_tokens < max_tokens) return;
  if (betas?.includes("interleaved-thinking") === true) return;
  throw invalid(
    `\`max_tokens\` must be greater than \`thinking.budget_tokens\`, not ${max_tokens}`,
  );
}
