/** What a server said went wrong, as the error it would have been here. */
import { AppError, fromErrorObject } from "../errors.ts";

/** An error body is small; what exceeds this is cut. Bytes. */
const MAX_ERROR_BODY = 64 * 1024;

/** @param target whom the user asked */
export async function toError(response: Response, target: string): Promise<AppError> {
  const text = (await response.text()).slice(0, MAX_ERROR_BODY);
  let described: unknown;
  try {
    described = (JSON.parse(text) as { error?: unknown }).error;
  } catch {
    // Not ours: a proxy's page, or an engine's plain text.
  }
  const known = fromErrorObject(described);
  if (known?.code === "context_length_exceeded") {
    return new AppError(known.code, known.message, { hint: CONTEXT_HINT, details: known.details });
  }
  if (known !== undefined) return known;
  const said = (described as { message?: unknown } | undefined)?.message;
  if (typeof said === "string") return engineError(said, response.status);
  return new AppError(
    "internal",
    `${target} answered ${response.status}: ${text.slice(0, 200) || response.statusText}`,
  );
}

/** For whoever sits at a terminal. */
const CONTEXT_HINT =
  "Load the model with a larger one (`--ctx-size N`, in a chat `/set num_ctx N`), or say less (`/undo`, `/clear`).";

// --- internal ---

/** What an engine itself refuses, in its own words but for what a person can do something about. */
function engineError(message: string, status: number): AppError {
  const full = /\((\d+) tokens\) exceeds the available context size \((\d+) tokens\)/.exec(message);
  if (full !== null) {
    const [, needed, size] = full;
    return new AppError(
      "invalid_request",
      `the conversation (${needed} tokens) does not fit into the context of ${size} tokens`,
      {
        hint: CONTEXT_HINT,
      },
    );
  }
  if (/image input is not supported/.test(message)) {
    return new AppError("unsupported_model", "this model cannot read images", {
      hint: "Package one that can with its projector: `tug package --gguf FILE --mmproj FILE NAME`.",
    });
  }
  return new AppError(status < 500 ? "invalid_request" : "worker_failed", message.slice(0, 500));
}
