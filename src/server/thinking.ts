/**
 * Whether and how much a model thinks before it answers: the words of several APIs for it, and what engines understand
 * of them. It goes with each request; no worker is loaded anew for it. Pure.
 */
import { AppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";
import type { Mode } from "../runtime/backend.ts";

/** Absent members are not said. */
export interface Thinking {
  readonly isOn?: boolean;
  /** Of `EFFORTS`; for templates that know levels, such as gpt-oss's. */
  readonly effort?: string;
  /** Tokens; 0 for none, -1 for no limit. */
  readonly budgetTokens?: number;
}

type Body = Readonly<Record<string, unknown>>;

/** For clients that cannot change their bodies: a word of `think`. */
const THINK_HEADER = "x-think";

/** OpenAI's levels, and Anthropic's `max`. `none` is not to think. */
const EFFORTS = ["none", "minimal", "low", "medium", "high", "xhigh", "max"] as const;

/** An int32 in engines. */
const MAX_TOKENS = 2 ** 31 - 1;

/** Words of llama-server for it; the first is what it gets from here. */
const BUDGET_WORDS = ["reasoning_budget_tokens", "thinking_budget_tokens", "reasoning_budget"];

/**
 * `think` (Ollama: a switch or a level), `reasoning_effort` (OpenAI's chat), `reasoning: {effort, enabled, max_tokens}`
 * (OpenAI's responses, OpenRouter), `reasoning_budget`, and the `X-Think` header where the body says nothing.
 *
 * @returns undefined if nothing is said
 * @throws invalid_request naming the field
 */
export function readThinking(body: Body, headers: Headers): Thinking | undefined {
  const said: Thinking = {
    ...fromReasoning(body["reasoning"]),
    ...fromWord(body["reasoning_effort"], "reasoning_effort"),
    ...fromThink(body["think"]),
    ...fromBudget(body),
  };
  if (Object.keys(said).length > 0) return said;
  const header = headers.get(THINK_HEADER);
  return header === null ? undefined : fromThink(toSwitch(header), "X-Think");
}

/** Whether a body says anything of it, if only to the template. */
export function saysThinking(body: Body): boolean {
  const kwargs = body["chat_template_kwargs"];
  if (isRecord(kwargs) && Object.hasOwn(kwargs, "enable_thinking")) return true;
  return ["think", "reasoning", "reasoning_effort", ...BUDGET_WORDS].some((word) =>
    isSaid(body[word]),
  );
}

/**
 * In an engine's words: `chat_template_kwargs` for templates that know how to turn it off, and a budget of no tokens
 * for those that do not. What a request says to the template itself stands.
 *
 * @see https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md `chat_template_kwargs`
 */
export function withThinking(body: Body, { isOn, effort, budgetTokens }: Thinking): Body {
  const kwargs = body["chat_template_kwargs"] ?? {};
  if (!isRecord(kwargs)) return body;
  const toTemplate = {
    ...(isOn === undefined ? {} : { enable_thinking: isOn }),
    ...(effort === undefined || isOn === false ? {} : { reasoning_effort: effort }),
  };
  const isOff = (kwargs["enable_thinking"] ?? isOn) === false;
  const budget = isOff ? 0 : budgetTokens;
  return {
    ...body,
    chat_template_kwargs: { ...toTemplate, ...kwargs },
    ...(budget === undefined ? {} : { [BUDGET_WORDS[0] ?? ""]: budget }),
  };
}

/** A prompt without messages has no template that could be told. @throws invalid_request */
export function withSaidThinking(
  body: Body,
  { headers, mode }: { readonly headers: Headers; readonly mode: Mode },
): Body {
  if (mode !== "completion" || !Array.isArray(body["messages"])) return body;
  const thinking = readThinking(body, headers);
  return thinking === undefined ? body : withThinking(body, thinking);
}

// --- internal ---

function isSaid<Value>(value: Value | undefined | null): value is Value & {} {
  return value !== undefined && value !== null;
}

function fromThink(value: unknown, name = "think"): Thinking {
  if (typeof value === "boolean") return { isOn: value };
  return fromWord(value, name);
}

function fromWord(value: unknown, name: string): Thinking {
  if (!isSaid(value)) return {};
  if (typeof value !== "string" || !EFFORTS.some((effort) => effort === value)) {
    throw refused(name, `one of ${EFFORTS.join(", ")}${name === "think" ? ", true, false" : ""}`);
  }
  return value === "none" ? { isOn: false } : { isOn: true, effort: value };
}

function fromReasoning(value: unknown): Thinking {
  if (!isSaid(value)) return {};
  if (!isRecord(value)) throw refused("reasoning", "an object");
  const { effort, enabled, max_tokens: tokens } = value;
  if (isSaid(enabled) && typeof enabled !== "boolean") {
    throw refused("reasoning.enabled", "true or false");
  }
  return {
    ...(isSaid(enabled) ? { isOn: enabled } : {}),
    ...fromWord(effort, "reasoning.effort"),
    ...(isSaid(tokens) ? { budgetTokens: toBudget(tokens, "reasoning.max_tokens") } : {}),
  };
}

function fromBudget(body: Body): Thinking {
  for (const name of BUDGET_WORDS) {
    const value = body[name];
    if (!isSaid(value)) continue;
    const budgetTokens = toBudget(value, name);
    return budgetTokens === 0 ? { isOn: false, budgetTokens } : { budgetTokens };
  }
  return {};
}

function toBudget(value: unknown, name: string): number {
  const isValid = Number.isInteger(value) && Number(value) >= -1 && Number(value) <= MAX_TOKENS;
  if (!isValid) throw refused(name, "a number of tokens, or -1");
  return Number(value);
}

function toSwitch(header: string): string | boolean {
  const word = header.trim().toLowerCase();
  if (/^(?:true|on|1|yes)$/.test(word)) return true;
  return /^(?:false|off|0|no)$/.test(word) ? false : word;
}

function refused(name: string, takes: string): AppError {
  return new AppError("invalid_request", `cannot read the request: \`${name}\` must be ${takes}`, {
    details: { param: name },
  });
}
