/** A client that outlives the runner: a chat may be open for longer than an idle runner stays. */
import type { ChatEvent, ChatRequest } from "../api/chat.ts";
import type { LoadRequest, LoadResult } from "../api/engines.ts";
import type { ModelDetails } from "../api/models.ts";
import { AppError, type ErrorCode } from "../errors.ts";
import type { CallOptions, Client, ProgressOptions } from "./client.ts";

type ChatCalls = Pick<Client, "chat" | "load" | "inspect">;

/** What a runner that has left, or is leaving, fails with. */
const GONE: ReadonlySet<ErrorCode> = new Set(["runner_unreachable", "shutting_down"]);

/**
 * @param connect finds a runner again, starting one if need be, until the signal of the call ends it
 * @returns calls that are made once more, on a new connection, if the runner was gone before anything came of them
 */
export function reconnecting(
  first: ChatCalls,
  connect: (signal: AbortSignal) => Promise<ChatCalls>,
): ChatCalls {
  let current = first;
  const again = async (error: unknown, signal: AbortSignal): Promise<void> => {
    if (!(error instanceof AppError) || !GONE.has(error.code)) throw error;
    current = await connect(signal);
  };
  const call = async <T>(signal: AbortSignal, attempt: () => Promise<T>): Promise<T> => {
    try {
      return await attempt();
    } catch (error) {
      await again(error, signal);
      return attempt();
    }
  };
  return {
    load: (request: LoadRequest, options: ProgressOptions): Promise<LoadResult> =>
      call(options.signal, () => current.load(request, options)),
    inspect: (model: string, options: CallOptions): Promise<ModelDetails> =>
      call(options.signal, () => current.inspect(model, options)),
    async *chat(request: ChatRequest, options: CallOptions): AsyncIterable<ChatEvent> {
      let hasBegun = false;
      try {
        for await (const event of current.chat(request, options)) {
          hasBegun = true;
          yield event;
        }
        return;
      } catch (error) {
        // What has been said cannot be taken back: then the user decides whether to ask again.
        if (hasBegun) throw error;
        await again(error, options.signal);
      }
      yield* current.chat(request, options);
    },
  };
}
