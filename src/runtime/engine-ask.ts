/** Questions to a running engine, where it listens: bounded in time and size, on a connection of their own. */
import { AppError } from "../errors.ts";
import { type EngineAddress, engineTarget } from "./engine-address.ts";

export interface AskOptions {
  readonly timeoutMs?: number | undefined;
  readonly maxBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Default: GET. */
  readonly method?: "GET" | "POST" | undefined;
}

/** What an engine says of itself it knows by heart: it answers at once or it hangs. */
const ANSWER_TIMEOUT_MS = 5000;
/** llama-server's `/props` holds the whole chat template, some ten kilobytes. */
const MAX_ANSWER_BYTES = 1024 * 1024;

/** The status of the answer, or undefined if there is none in time. The body is not read. */
export async function probeEngine(
  address: EngineAddress,
  path: string,
  options: AskOptions = {},
): Promise<number | undefined> {
  try {
    return await ask({ address, path, ...options }, async (response) => {
      await response.body?.cancel();
      return response.status;
    });
  } catch {
    return undefined;
  }
}

/**
 * The JSON of an answer.
 *
 * @throws worker_failed if it is not 200, not JSON, too long or too late
 */
export async function askEngine(
  address: EngineAddress,
  path: string,
  options: AskOptions = {},
): Promise<unknown> {
  const { maxBytes = MAX_ANSWER_BYTES } = options;
  try {
    return await ask({ address, path, ...options }, async (response) => {
      if (response.status !== 200) throw new Error(`status ${response.status}`);
      return JSON.parse(await readText(response, maxBytes)) as unknown;
    });
  } catch (thrown) {
    const reason = (thrown as Error).message;
    throw new AppError("worker_failed", `cannot ask the engine for ${path}: ${reason}`, {
      cause: thrown,
    });
  }
}

// --- internal ---

async function ask<T>(
  question: AskOptions & { readonly address: EngineAddress; readonly path: string },
  read: (response: Response) => Promise<T>,
): Promise<T> {
  const timeout = new AbortController();
  const { address, path, timeoutMs = ANSWER_TIMEOUT_MS, signal, method = "GET" } = question;
  const timer = setTimeout(
    () => timeout.abort(new Error(`no answer within ${timeoutMs} ms`)),
    timeoutMs,
  );
  try {
    const { url, init } = engineTarget(address, path);
    const response = await fetch(url, {
      ...init,
      method,
      keepalive: false,
      redirect: "manual",
      signal: signal === undefined ? timeout.signal : AbortSignal.any([signal, timeout.signal]),
    });
    return await read(response);
  } finally {
    clearTimeout(timer);
  }
}

async function readText(response: Response, maxBytes: number): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > maxBytes) throw new Error(`more than ${maxBytes} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
