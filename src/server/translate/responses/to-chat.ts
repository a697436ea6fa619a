/** A request for a response as one for a chat completion. Pure. */
import type { ResponseItem, TextFormat } from "../../../api/responses.ts";
import type { ChatRequest } from "../chat.ts";
import { toMessages } from "./messages.ts";
import { refuse } from "./refuse.ts";
import type { Echo } from "./request.ts";

export interface ChatInput {
  /** What the response says of its request. */
  readonly echo: Echo;
  /** The whole conversation, oldest first. */
  readonly items: readonly ResponseItem[];
  readonly isStream: boolean;
  readonly wantsLogprobs: boolean;
}

/** @throws invalid_request (nothing to answer, calls and outputs that do not fit) */
export function toChatRequest({ echo, items, isStream, wantsLogprobs }: ChatInput): ChatRequest {
  const messages = toMessages(items, echo.instructions);
  if (messages.length === 0) throw refuse("input", "it is required");
  return {
    model: echo.model,
    messages,
    stream: isStream,
    ...(isStream ? { stream_options: { include_usage: true } } : {}),
    ...given("temperature", echo.temperature),
    ...given("top_p", echo.top_p),
    ...given("max_tokens", echo.max_output_tokens),
    ...(wantsLogprobs ? { logprobs: true, top_logprobs: echo.top_logprobs } : {}),
    ...toTools(echo),
    ...toFormat(echo.text.format),
    ...given("reasoning_effort", echo.reasoning.effort),
  };
}

// --- internal ---

function given(name: string, value: unknown): Readonly<Record<string, unknown>> {
  return value === null ? {} : { [name]: value };
}

/** Not all engines can be told the name of a tool: they get no other one. */
function toTools({ tools, tool_choice: choice, parallel_tool_calls }: Echo): object {
  if (tools.length === 0) return {};
  const allowed = namesOf(choice);
  const offered = allowed === undefined ? tools : tools.filter(({ name }) => allowed.has(name));
  return {
    tools: offered.map(({ name, description, parameters, strict }) => ({
      type: "function",
      function: {
        name,
        ...given("description", description),
        parameters: parameters ?? { type: "object", properties: {} },
        strict,
      },
    })),
    tool_choice: modeOf(choice),
    parallel_tool_calls,
  };
}

function namesOf(choice: Echo["tool_choice"]): ReadonlySet<string> | undefined {
  if (typeof choice === "string") return undefined;
  const named = choice.type === "function" ? [choice] : choice.tools;
  return new Set(named.map(({ name }) => name));
}

function modeOf(choice: Echo["tool_choice"]): string {
  if (typeof choice === "string") return choice;
  return choice.type === "function" ? "required" : choice.mode;
}

function toFormat(format: TextFormat): object {
  if (format.type === "text") return {};
  if (format.type === "json_object") return { response_format: { type: "json_object" } };
  const { name, description, schema, strict } = format;
  const json = { name, ...given("description", description), schema, strict };
  return { response_format: { type: "json_schema", json_schema: json } };
}
