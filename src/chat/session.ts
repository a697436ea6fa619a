/** A conversation as a value: what was said and the settings. Pure; every function returns a new session. */
import type { ChatMessage, ChatRequest } from "../api/chat.ts";

export interface SamplingParameters {
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly min_p?: number;
  readonly repeat_penalty?: number;
  readonly seed?: number;
  readonly max_tokens?: number;
  readonly stop?: readonly string[];
}

export interface ChatSettings {
  readonly system?: string | undefined;
  readonly parameters: SamplingParameters;
  /** Tokens; shapes the worker, so that a change loads the model anew. */
  readonly contextSize?: number | undefined;
  /** Engine asked for by name. */
  readonly backend?: string | undefined;
  readonly keepAlive?: string | number | undefined;
  /** Whether the model reasons before it answers; undefined: as its template has it. */
  readonly think?: boolean | undefined;
  /** Whether reasoning is shown, on stderr. */
  readonly showReasoning: boolean;
  /** Whether timings follow each answer, on stderr. */
  readonly verbose: boolean;
}

export interface Turn {
  readonly question: ChatMessage["content"];
  /** Without reasoning; the part that came if it was interrupted. */
  readonly answer: string;
}

export interface Session {
  readonly model: string;
  readonly settings: ChatSettings;
  readonly turns: readonly Turn[];
}

export const DEFAULT_SETTINGS: ChatSettings = {
  parameters: {},
  showReasoning: true,
  verbose: false,
};

export function createSession(model: string, settings: ChatSettings = DEFAULT_SETTINGS): Session {
  return { model, settings, turns: [] };
}

/** The request that asks `question` after everything said so far. */
export function toRequest(session: Session, question: ChatMessage["content"]): ChatRequest {
  const { system } = session.settings;
  const messages: ChatMessage[] = [
    ...(system ? [{ role: "system", content: system } as const] : []),
    ...session.turns.flatMap((turn): ChatMessage[] => [
      { role: "user", content: turn.question },
      { role: "assistant", content: turn.answer },
    ]),
    { role: "user", content: question },
  ];
  return { model: session.model, messages, ...requestSettings(session.settings) };
}

/** What the settings put into a chat request: sampling, reasoning, keep-alive and context size. */
function requestSettings(settings: ChatSettings): Omit<ChatRequest, "model" | "messages"> {
  const { parameters, think, keepAlive, contextSize, backend } = settings;
  return {
    ...parameters,
    ...(think === undefined ? {} : { chat_template_kwargs: { enable_thinking: think } }),
    ...(keepAlive === undefined ? {} : { keep_alive: keepAlive }),
    ...(contextSize === undefined ? {} : { context_size: contextSize }),
    ...(backend === undefined ? {} : { backend }),
  };
}

export function addTurn(session: Session, turn: Turn): Session {
  return { ...session, turns: [...session.turns, turn] };
}

/** Takes the last turn back, or returns undefined if there is none. */
export function undoTurn(session: Session): { session: Session; undone: Turn } | undefined {
  const undone = session.turns.at(-1);
  if (undone === undefined) return undefined;
  return { session: { ...session, turns: session.turns.slice(0, -1) }, undone };
}

/** Forgets what was said and keeps the settings. */
export function clearTurns(session: Session): Session {
  return { ...session, turns: [] };
}

export function changeSettings(session: Session, change: Partial<ChatSettings>): Session {
  return { ...session, settings: { ...session.settings, ...change } };
}

/** @param value undefined: back to the model's own */
export function setParameter<Name extends keyof SamplingParameters>(
  session: Session,
  name: Name,
  value: SamplingParameters[Name] | undefined,
): Session {
  const { [name]: _, ...others } = session.settings.parameters;
  const parameters = value === undefined ? others : { ...others, [name]: value };
  return changeSettings(session, { parameters });
}
