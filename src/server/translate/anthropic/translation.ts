/** One request of the Messages API, translated: what the engine gets, and what becomes of its answer. */
import type { ChatRequest } from "../chat.ts";
import type { Translation } from "../translation.ts";
import { type AnswerOptions, toMessage } from "./answer.ts";
import { prefillOf } from "./messages.ts";
import type { Messages } from "./request.ts";
import { MessageStream } from "./stream.ts";
import { toChatRequest, type ToChatOptions } from "./to-chat.ts";

export interface TranslatedMessages {
  readonly body: ChatRequest;
  readonly translation: Translation;
}

/** @throws invalid_request */
export function translateMessages(request: Messages, options: ToChatOptions): TranslatedMessages {
  const body = toChatRequest(request, options);
  const answer: AnswerOptions = {
    model: request.model,
    maxTokens: request.max_tokens,
    stops: request.stop_sequences ?? [],
    prefill: prefillOf(body.messages),
    isThinkingShown: !isHidden(request.thinking),
    newId: () => crypto.randomUUID().replaceAll("-", ""),
  };
  return {
    body,
    translation: {
      whole: (whole) => toMessage(whole, answer),
      ...(request.stream === true ? { stream: new MessageStream(answer) } : {}),
    },
  };
}

// --- internal ---

function isHidden(thinking: Messages["thinking"]): boolean {
  if (thinking?.type !== "enabled" && thinking?.type !== "adaptive") return false;
  return thinking.display === "omitted";
}
