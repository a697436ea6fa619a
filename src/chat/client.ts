/** What a conversation needs of the client; `client/client.ts` implements it. */
import type { ChatEvent, ChatRequest } from "../api/chat.ts";
import type { LoadRequest, LoadResult } from "../api/engines.ts";
import type { ModelDetails } from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";

export interface ChatClient {
  /** @throws AppError, before the first event or between two */
  chat(request: ChatRequest, options: { signal: AbortSignal }): AsyncIterable<ChatEvent>;
  load(
    request: LoadRequest,
    options: { signal: AbortSignal; onProgress: ProgressListener },
  ): Promise<LoadResult>;
  inspect(model: string, options: { signal: AbortSignal }): Promise<ModelDetails>;
}
