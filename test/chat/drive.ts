/**
 * A chat at whatever terminal it is started on, with a scripted client. Every request is appended to `$CHAT_LOG` as a
 * JSON line. The last user message says what happens: see `answer`.
 */
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import type { ChatEvent, ChatRequest } from "../../src/api/chat.ts";
import type { ModelDetails } from "../../src/api/models.ts";
import type { ChatClient } from "../../src/chat/client.ts";
import { runChat } from "../../src/chat/repl.ts";
import { DEFAULT_SETTINGS } from "../../src/chat/session.ts";
import { AppError, toAppError } from "../../src/errors.ts";

const directory = process.env["CHAT_DIRECTORY"] ?? "";
const model = process.env["CHAT_MODEL"] ?? "pebble";

function record(kind: string, request: unknown): void {
  appendFileSync(join(directory, "requests.jsonl"), `${JSON.stringify({ kind, request })}\n`);
}

function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

async function* answer(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatEvent> {
  record("chat", request);
  const content = request.messages.at(-1)?.content ?? "";
  const text = typeof content === "string" ? content : "(parts)";
  if (text === "fail")
    throw new AppError("worker_failed", "cannot answer: the engine died", { hint: "Try again." });
  if (text === "think") yield { kind: "reasoning", text: "let me see" };
  if (text === "silent") await untilAborted(signal);
  if (text === "slow") {
    yield { kind: "content", text: "part one " };
    await untilAborted(signal);
  }
  yield { kind: "content", text: `answer to ` };
  yield { kind: "content", text: `<${text}>` };
  const timings = { prompt_n: 3, predicted_n: 4, predicted_per_second: 50 };
  yield { kind: "done", finishReason: "stop", usage: null, timings };
}

const client: ChatClient = {
  chat: (request, { signal }) => answer(request, signal),
  async load(request, { onProgress }) {
    record("load", request);
    onProgress({
      type: "progress",
      id: "pebble",
      phase: "loading",
      done_bytes: null,
      total_bytes: null,
    });
    if (request.context_size === 666)
      throw new AppError("insufficient_memory", "cannot load `pebble`: too large");
    if (request.model === "missing") throw new AppError("model_not_found", "cannot find `missing`");
    return { model_id: "sha256:0", backend: "fake", load_ms: 1 };
  },
  inspect: async () => ({ id: `sha256:${"ab".repeat(32)}`, size_bytes: 3_000_000 }) as ModelDetails,
};

const stop = new AbortController();
process.on("SIGTERM", () => stop.abort());
process.on("SIGINT", () => stop.abort());
try {
  process.exitCode = await runChat({
    client,
    model,
    settings: DEFAULT_SETTINGS,
    input: process.stdin,
    output: process.stdout,
    errors: process.stderr,
    historyFile: join(directory, "history"),
    chatsDirectory: join(directory, "chats"),
    markdown: process.env["CHAT_MARKDOWN"] === "1",
    signal: stop.signal,
  });
} catch (error) {
  process.stderr.write(`thrown: ${toAppError(error).message}\n`);
  process.exitCode = toAppError(error).exitCode;
}
