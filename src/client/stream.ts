/** Streams of the API as async iterables: NDJSON progress and Server-Sent Events of a chat answer. */
import type { ChatEvent, ChatRequest, Timings, Usage } from "../api/chat.ts";
import { PROGRESS_TYPE } from "../api/headers.ts";
import type { ProgressEvent, ProgressListener } from "../api/progress.ts";
import { AppError, fromErrorObject } from "../errors.ts";

/** A line of progress is short; what exceeds this is not ours. Characters. */
const MAX_LINE_LENGTH = 1024 * 1024;

/** Of a request whose answer is followed. */
export const FOLLOWED = { accept: PROGRESS_TYPE } as const;

/**
 * Follows a long operation to its end.
 *
 * @throws the error the operation ended with; `runner_unreachable` if it was cut off before its last line
 */
export async function followProgress<Result>(
  response: Response,
  onProgress: ProgressListener,
): Promise<Result> {
  for await (const line of lines(response)) {
    const event = JSON.parse(line) as ProgressEvent<Result>;
    switch (event.type) {
      case "success":
        return event.result;
      case "error":
        throw fromErrorObject(event.error) ?? new AppError("internal", event.error.message);
      case "progress":
      case "warning":
        onProgress(event);
    }
  }
  throw new AppError("runner_unreachable", "the runner went away in the middle of the work", {
    hint: "See `tug logs` for why, and run the command again.",
  });
}

/** A chat's answer, streamed. @param post sends a body to a path */
export async function* streamChat(
  { backend = "", ...asked }: ChatRequest,
  post: (path: string, body: object) => Promise<Response>,
): AsyncIterable<ChatEvent> {
  const engine = backend === "" ? "" : `/${encodeURIComponent(backend)}`;
  const body = { ...asked, stream: true, stream_options: { include_usage: true } };
  yield* chatEvents(await post(`/engines${engine}/v1/chat/completions`, body));
}

/**
 * The events of one streamed chat completion, ending with `done`. A body that is plain JSON (a server that does not
 * stream) gives the same events.
 *
 * @throws the error event that a failing engine sends after the first byte
 */
export async function* chatEvents(response: Response): AsyncIterable<ChatEvent> {
  if (!(response.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
    yield* wholeCompletion((await response.json()) as Chunk);
    return;
  }
  const end: { -readonly [K in "finishReason" | "usage" | "timings"]: Done[K] } = {
    finishReason: null,
    usage: null,
    timings: null,
  };
  for await (const data of eventData(response)) {
    if (data === "[DONE]") {
      yield { kind: "done", ...end };
      return;
    }
    const chunk = parseChunk(data);
    yield* deltas(chunk.choices?.[0]?.delta);
    end.finishReason = chunk.choices?.[0]?.finish_reason ?? end.finishReason;
    end.usage = chunk.usage ?? end.usage;
    end.timings = chunk.timings ?? end.timings;
  }
  throw new AppError("worker_failed", "the answer was cut off", {
    hint: "See `tug logs` for why the engine stopped.",
  });
}

/** The `data` of each Server-Sent Event. */
export async function* eventData(response: Response): AsyncIterable<string> {
  const { createParser } = await import("eventsource-parser");
  const ready: string[] = [];
  const parser = createParser({ onEvent: ({ data }) => void ready.push(data) });
  const decoder = new TextDecoder();
  for await (const bytes of response.body ?? []) {
    parser.feed(decoder.decode(bytes, { stream: true }));
    yield* ready.splice(0);
  }
}

/** Each line of a body that is not empty. @throws internal (one is too long) */
export async function* lines(response: Response): AsyncIterable<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const bytes of response.body ?? []) {
    rest += decoder.decode(bytes, { stream: true });
    const parts = rest.split("\n");
    rest = parts.pop() ?? "";
    yield* parts.filter((line) => line.trim() !== "");
    if (rest.length > MAX_LINE_LENGTH)
      throw new AppError("internal", "the runner sent a line that is too long");
  }
  if (rest.trim() !== "") yield rest;
}

// --- internal ---

type Done = ChatEvent & { kind: "done" };

interface Message {
  readonly content?: string | null;
  readonly reasoning_content?: string | null;
}

interface Chunk {
  readonly choices?: readonly {
    readonly delta?: Message;
    readonly message?: Message;
    readonly finish_reason?: string | null;
  }[];
  readonly usage?: Usage | null;
  readonly timings?: Timings | null;
  readonly error?: { readonly message?: string };
}

function parseChunk(data: string): Chunk {
  const chunk = JSON.parse(data) as Chunk;
  if (chunk.error === undefined) return chunk;
  throw (
    fromErrorObject(chunk.error) ??
    new AppError("worker_failed", chunk.error.message ?? "the engine failed")
  );
}

function* deltas(message: Message | undefined): Iterable<ChatEvent> {
  if (message?.reasoning_content) yield { kind: "reasoning", text: message.reasoning_content };
  if (message?.content) yield { kind: "content", text: message.content };
}

function* wholeCompletion(body: Chunk): Iterable<ChatEvent> {
  const choice = body.choices?.[0];
  yield* deltas(choice?.message);
  yield {
    kind: "done",
    finishReason: choice?.finish_reason ?? null,
    usage: body.usage ?? null,
    timings: body.timings ?? null,
  };
}
