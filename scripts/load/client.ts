/** Asking a runner under load. */

export interface Answer {
  readonly status: number;
  /** Whole and as the API promises it: JSON, or a stream that ends with `[DONE]`. */
  readonly isWhole: boolean;
  readonly text: string;
  readonly startedMs: number;
  readonly firstByteMs: number;
  readonly endedMs: number;
}

export interface Question {
  readonly model: string;
  readonly contextSize?: number;
  readonly tokens?: number;
  readonly isStream?: boolean;
  /** A field that means nothing, of so many bytes. */
  readonly padding?: number;
  readonly signal?: AbortSignal;
}

/** HTTP_PROXY would be asked about this machine. Bun knows `false`, its types do not. */
const LOCAL: object = { proxy: false, timeout: false };

/** Never throws: a connection that breaks is an answer with status 0. */
export async function ask(url: string, question: Question): Promise<Answer> {
  const { model, contextSize, tokens = 8, isStream = false, padding = 0, signal } = question;
  const startedMs = performance.now();
  let firstByteMs = startedMs;
  const body = JSON.stringify({
    model,
    messages: [{ role: "user", content: "Tell me a story." }],
    max_tokens: tokens,
    stream: isStream,
    ignore_eos: true,
    ...(contextSize === undefined ? {} : { context_size: contextSize }),
    ...(padding === 0 ? {} : { metadata: { padding: "x".repeat(padding) } }),
  });
  try {
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      body,
      keepalive: false,
      ...(signal === undefined ? {} : { signal }),
      ...LOCAL,
    });
    const chunks: Uint8Array[] = [];
    for await (const chunk of response.body ?? []) {
      if (chunks.length === 0) firstByteMs = performance.now();
      chunks.push(chunk);
    }
    const text = Buffer.concat(chunks).toString();
    const isWhole = isStream && response.ok ? text.endsWith("[DONE]\n\n") : isJson(text);
    const { status } = response;
    return { status, isWhole, text, startedMs, firstByteMs, endedMs: performance.now() };
  } catch (error) {
    const endedMs = performance.now();
    return { status: 0, isWhole: false, text: String(error), startedMs, firstByteMs, endedMs };
  }
}

/** Runs `work` on every item, at most `limit` at once. */
export async function eachAtOnce<T>(
  items: readonly T[],
  limit: number,
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const runners = Array.from({ length: Math.min(limit, items.length) }, async () => {
    while (next < items.length) {
      const index = next++;
      await work(items[index] as T, index);
    }
  });
  await Promise.all(runners);
}

/** A number generator that gives the same numbers for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// --- internal ---

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
