/** API keys: who may ask over TCP when a key is set. The unix socket belongs to its owner and needs none. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Context, MiddlewareHandler } from "hono";
import { AppError } from "../errors.ts";
import type { AppEnv } from "./deps.ts";

/** Probes of an orchestrator carry no key and learn nothing. */
const PUBLIC_PATHS: readonly string[] = ["/health/live", "/health/ready"];

/** @param apiKey undefined: everyone whom the guard lets through may ask */
export function requireApiKey(apiKey: string | undefined): MiddlewareHandler<AppEnv> {
  return async function checkApiKey(c, next) {
    const isOpen = apiKey === undefined || c.env?.trusted === true;
    if (!isOpen && !PUBLIC_PATHS.includes(c.req.path) && c.req.method !== "OPTIONS") {
      const given = givenKey(c.req.raw.headers);
      if (given === undefined || !isSame(given, apiKey)) throw unauthorized(given !== undefined);
    }
    await next();
  };
}

/**
 * Whether what others asked may be shown: to the runner's own user, and to who has its API key. Any user of this machine
 * can reach a port of loopback, so that alone is not enough.
 */
export function maySeePrompts(c: Context<AppEnv>, apiKey: string | undefined): boolean {
  // With a key, `requireApiKey` has let nobody in without it.
  return c.env?.trusted === true || apiKey !== undefined;
}

// --- internal ---

/** OpenAI's clients send `Authorization: Bearer`, Anthropic's `x-api-key`. */
function givenKey(headers: Headers): string | undefined {
  const bearer = /^Bearer +(\S+)$/i.exec(headers.get("authorization") ?? "")?.[1];
  return bearer ?? headers.get("x-api-key") ?? undefined;
}

/** In constant time, whatever the lengths. */
function isSame(one: string, other: string): boolean {
  return timingSafeEqual(sha256(one), sha256(other));
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function unauthorized(wasGiven: boolean): AppError {
  const problem = wasGiven ? "the API key is wrong" : "it needs an API key";
  return new AppError("unauthorized", `cannot answer this request: ${problem}`, {
    hint: "Send the key of the runner's TUG_API_KEY as `Authorization: Bearer KEY`.",
  });
}
