/** An engine's answer as a whole: bounded, and JSON. */
import { AppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";

/** An embedding of some thousand texts; answers of chats are far smaller. Bytes. */
const MAX_WHOLE_BYTES = 256 * 1024 * 1024;

/**
 * @param heard called for every piece
 * @returns an object, or a list where the engine answers with one
 * @throws worker_failed (too large, or no JSON)
 */
export async function readWhole(response: Response, heard: () => void): Promise<object> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    heard();
    size += chunk.byteLength;
    if (size > MAX_WHOLE_BYTES) throw unreadable("it is too large");
    chunks.push(chunk);
  }
  return parseAnswer(Buffer.concat(chunks).toString());
}

// --- internal ---

function parseAnswer(text: string): object {
  try {
    const answer: unknown = JSON.parse(text);
    if (isRecord(answer) || Array.isArray(answer)) return answer;
  } catch {
    // Said below.
  }
  throw unreadable("it is not JSON");
}

function unreadable(reason: string): AppError {
  return new AppError("worker_failed", `cannot read the answer of the engine: ${reason}`, {
    hint: "Try again; see `tug logs` if it happens again.",
  });
}
