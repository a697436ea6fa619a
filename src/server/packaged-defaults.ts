/** What a model's settings and package say requests get where they say nothing themselves. Pure. */
import { isRecord } from "../oci/descriptor.ts";
import type { RequestDefaults } from "../runtime/planner.ts";
import { saysThinking, withThinking } from "./thinking.ts";

type Body = Readonly<Record<string, unknown>>;

/**
 * Members that the request has win. A system message of the request replaces the one of the settings; packaged turns
 * come before the first turn.
 *
 * @returns the same object if nothing is added
 */
export function applyDefaults(body: Body, defaults: Partial<RequestDefaults> | undefined): Body {
  if (defaults === undefined) return body;
  const missing = Object.entries(defaults.parameters ?? {}).filter(
    ([name]) => !(SYNONYMS[name] ?? [name]).some((word) => Object.hasOwn(body, word)),
  );
  const messages = withDefaults(body["messages"], defaults);
  const thinking = withDefaultThinking(body, defaults.think);
  const isSame = messages === body["messages"] && thinking === body;
  if (missing.length === 0 && isSame) return body;
  return {
    ...Object.fromEntries(missing),
    ...thinking,
    ...(messages === undefined ? {} : { messages }),
  };
}

// --- internal ---

/** Other words that say the same in a request; the engine would have to choose between two of them. */
const SYNONYMS: Readonly<Record<string, readonly string[]>> = {
  max_tokens: ["max_tokens", "max_completion_tokens", "n_predict"],
};

/** Turns a package brings along stand before those of the request: a conversation that has more is another one. */
function withDefaults(
  messages: unknown,
  { system, messages: turns = [] }: Partial<RequestDefaults>,
): unknown {
  if (!Array.isArray(messages)) return messages;
  const own = messages.filter(isSystem);
  const rest = messages.filter((message) => !isSystem(message));
  const first =
    own.length > 0 || system === undefined ? own : [{ role: "system", content: system }];
  if (first === own && turns.length === 0) return messages;
  return [...first, ...turns, ...rest];
}

function withDefaultThinking(body: Body, think: boolean | undefined): Body {
  if (think === undefined || !Array.isArray(body["messages"]) || saysThinking(body)) return body;
  return withThinking(body, { isOn: think });
}

function isSystem(message: unknown): boolean {
  return isRecord(message) && (message["role"] === "system" || message["role"] === "developer");
}
