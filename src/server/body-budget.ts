/** A bound on the request bodies that are held in memory at once. The runner's own user is trusted to keep it. */
import type { MiddlewareHandler } from "hono";
import { AppError } from "../errors.ts";
import type { AppEnv } from "./deps.ts";
import { MAX_JSON_BODY_BYTES } from "./request-body.ts";

/** Two of the largest bodies; ten thousand ordinary ones. Bytes. */
const MAX_HELD_BYTES = 2 * MAX_JSON_BODY_BYTES;
/** Read as a stream and never held. */
const STREAMED_PATHS: readonly string[] = ["/models/load"];

/**
 * Reserves what a body declares until its request is answered; one that declares nothing counts as the largest.
 *
 * @throws queue_full
 */
export function bodyBudget(maxBytes: number = MAX_HELD_BYTES): MiddlewareHandler<AppEnv> {
  let heldBytes = 0;
  return async function reserveBody(c, next) {
    const isFree = c.env?.trusted === true || STREAMED_PATHS.includes(c.req.path);
    const sizeBytes = isFree ? 0 : sizeOf(c.req.raw);
    if (sizeBytes > 0 && heldBytes > 0 && heldBytes + sizeBytes > maxBytes) {
      throw new AppError("queue_full", "cannot take the request: too many large ones are waiting", {
        hint: "Try again in a moment.",
      });
    }
    heldBytes += sizeBytes;
    try {
      await next();
    } finally {
      heldBytes -= sizeBytes;
    }
  };
}

// --- internal ---

function sizeOf(request: Request): number {
  if (request.body === null) return 0;
  const declared = request.headers.get("content-length");
  if (declared === null || request.headers.has("transfer-encoding")) return MAX_JSON_BODY_BYTES;
  return Math.min(Number(declared) || 0, MAX_JSON_BODY_BYTES);
}
