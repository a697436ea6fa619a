/** Text piped into a command. */
import { AppError } from "../errors.ts";

/**
 * A prompt of this size is beyond any context; what is larger is a mistake (a disk image, say). Bytes.
 */
const MAX_INPUT_BYTES = 64 * 1024 * 1024;
/**
 * How long an open but silent stdin is listened to when there is a prompt already. A parent that never closes its
 * pipe (cron, CI, an editor) must not hang the command; a producer that starts has begun by then.
 */
const SILENCE_MS = 1000;

/**
 * @param options.wait `end`: reads until stdin is closed. `briefly`: the same once something has come; if nothing comes
 *        within a second, there is nothing to append
 * @returns undefined if it stayed silent
 * @throws request_too_large · cancelled
 */
export async function readPipedInput(options: {
  wait: "end" | "briefly";
  signal: AbortSignal;
}): Promise<string | undefined> {
  const { wait, signal } = options;
  const chunks: Uint8Array[] = [];
  const reader = Bun.stdin.stream().getReader();
  const silence = Promise.withResolvers<"silent">();
  const timer =
    wait === "briefly" ? setTimeout(() => silence.resolve("silent"), SILENCE_MS) : undefined;
  const stop = (): void => silence.reject(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  let sizeBytes = 0;
  try {
    for (;;) {
      const next = await Promise.race([readOrEnd(reader), silence.promise]);
      if (next === "silent") return undefined;
      if (next === undefined) break;
      // It speaks: from now on the end counts.
      clearTimeout(timer);
      chunks.push(next);
      sizeBytes += next.byteLength;
      if (sizeBytes > MAX_INPUT_BYTES)
        throw new AppError(
          "request_too_large",
          `stdin holds more than ${MAX_INPUT_BYTES / 2 ** 20} MiB`,
        );
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    reader.releaseLock();
  }
  return new TextDecoder().decode(Buffer.concat(chunks)).trimEnd();
}

// --- internal ---

/** Undefined at the end. A closed stdin (`<&-`) reads as an error: there is nothing in it either. */
async function readOrEnd(reader: {
  read(): Promise<{ value?: Uint8Array | undefined }>;
}): Promise<Uint8Array | undefined> {
  try {
    return (await reader.read()).value;
  } catch {
    return undefined;
  }
}
