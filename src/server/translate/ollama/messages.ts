/** Ollama's messages as OpenAI's. Pure. */
import { AppError } from "../../../errors.ts";
import type { ChatMessage, ChatToolCall } from "../chat.ts";
import { toImageParts } from "./images.ts";
import type { MessageInput } from "./requests.ts";

const ROLES = ["system", "user", "assistant", "tool", "developer"] as const;
type Role = (typeof ROLES)[number];

/**
 * Results of tools that do not say which call they are of are given to the calls of their tool, else to any, in order.
 *
 * @throws invalid_request naming the field
 */
export function toMessages(messages: readonly MessageInput[]): ChatMessage[] {
  let open: ChatToolCall[] = [];
  let count = 0;
  return messages.map((message, index) => {
    const role = toRole(message.role, `messages.${index}.role`);
    const base = { role, content: toContent(message, `messages.${index}.images`) };
    if (role === "tool") return { ...base, ...claimCall(open, message) };
    if (role !== "assistant") return base;
    const calls = toCalls(message, count);
    count += calls.length;
    open = calls.slice();
    return {
      ...base,
      ...(message.thinking ? { reasoning_content: message.thinking } : {}),
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
    };
  });
}

// --- internal ---

function toRole(role: string, where: string): Role {
  const known = ROLES.find((one) => one === role.toLowerCase());
  if (known !== undefined) return known;
  throw new AppError(
    "invalid_request",
    `cannot read the request: \`${where}\` must be system, user, assistant or tool`,
  );
}

function toContent(
  { content, images }: MessageInput,
  where: string,
): NonNullable<ChatMessage["content"]> {
  // Engines refuse halves of characters, which clients leave where they cut texts.
  const text = content?.toWellFormed() ?? "";
  if (!images?.length) return text;
  const parts = toImageParts(images, where);
  return text === "" ? parts : [...parts, { type: "text", text }];
}

/** @param count calls before these */
function toCalls({ tool_calls }: MessageInput, count: number): ChatToolCall[] {
  return (tool_calls ?? []).map(({ id, function: called }, index) => ({
    id: id || `call_${count + index}`,
    type: "function",
    function: { name: called.name, arguments: JSON.stringify(called.arguments ?? {}) },
  }));
}

/** @param open calls that have no result yet: the one that is found is taken out */
function claimCall(
  open: ChatToolCall[],
  { tool_call_id, tool_name }: MessageInput,
): Pick<ChatMessage, "tool_call_id" | "name"> {
  const name = tool_name ? { name: tool_name } : {};
  const found = open.findIndex((call) =>
    tool_call_id ? call.id === tool_call_id : !tool_name || call.function.name === tool_name,
  );
  const [call] = found < 0 ? [] : open.splice(found, 1);
  const id = tool_call_id || call?.id;
  return id === undefined ? name : { ...name, tool_call_id: id };
}
