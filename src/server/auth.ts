/**
 * Who may ask. The whole rule:
 *
 * - The unix socket and this process belong to the runner's own user: no key, everything is allowed.
 * - A key is demanded on TCP if the runner listens beyond loopback, or if TUG_API_KEY (`--api-key`) is set. That there
 *   are keys of `tug key` does not change loopback.
 * - Where a key is demanded, TUG_API_KEY is good for everything, and a key of `tug key` for its scopes
 *   (`access/scopes.ts`) within its limits, until it expires or is revoked, which is looked up for each request. An
 *   answer that has begun is finished.
 * - Where none is demanded, what is sent as a key does not matter: SDKs insist on sending one. A real one still says
 *   who asks, for what is private (`maySeePrompts`); it is not held to its scopes, which no key at all would escape.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Context, MiddlewareHandler } from "hono";
import type { KeyScope } from "../api/keys.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { KnownKey } from "../state/api-keys.ts";
import { heldUntilEnd } from "./access/in-flight.ts";
import { KeyLimits } from "./access/limits.ts";
import { isAllowed, requirementOf, type Requirement } from "./access/scopes.ts";
import type { AppDeps, AppEnv } from "./deps.ts";

/** What has shown a key. */
export interface Caller {
  /** Of the key; null: TUG_API_KEY. */
  readonly name: string | null;
  readonly scopes: readonly KeyScope[];
}

export type AuthDeps = Pick<AppDeps, "apiKey" | "keys" | "keyRequired">;

/** Longer than any key of ours, and than what others' are; what is longer is not even hashed. Characters. */
const MAX_KEY_CHARS = 512;
/** Wrong keys are counted, and told of at most this often. Milliseconds. */
const REFUSALS_LOG_INTERVAL_MS = 60_000;

/** Whether callers over TCP must present a key. */
export function demandsKey({ apiKey, keyRequired }: AuthDeps): boolean {
  return apiKey !== undefined || keyRequired === true;
}

export function requireApiKey(deps: AuthDeps): MiddlewareHandler<AppEnv> {
  const isDemanded = demandsKey(deps);
  const limits = new KeyLimits();
  const refusals = new RefusalCount();
  return async function checkApiKey(c, next) {
    const hasQuery = (name: string): boolean => c.req.query(name) !== undefined;
    const needs = requirementOf(c.req.method, c.req.path, hasQuery);
    // The guard has answered preflights; no route takes other OPTIONS.
    const isOpen = c.env?.trusted === true || needs === "public" || c.req.method === "OPTIONS";
    if (isOpen) return next();
    const found = await findKey(c.req.raw.headers, deps);
    if (!isDemanded) {
      if (typeof found === "object") c.set("caller", found);
      return next();
    }
    if (typeof found === "string") {
      refusals.count();
      throw unauthorized(found);
    }
    c.set("caller", found);
    requireScope(found, needs);
    if (found.key === undefined) return next();
    (await deps.keys?.())?.touch(found.key);
    return enter(c, { limits, key: found.key, next });
  };
}

/**
 * Whether what others asked may be shown: to the runner's own user, and to who has its API key or one for `admin`. Any
 * user of this machine can reach a port of loopback, so that alone is not enough.
 */
export function maySeePrompts(c: Context<AppEnv>): boolean {
  return c.env?.trusted === true || c.get("caller")?.scopes.includes("admin") === true;
}

// --- internal ---

interface KeyCaller extends Caller {
  /** Undefined: TUG_API_KEY, which has no limits. */
  readonly key?: KnownKey;
}

/** Why nobody was found. */
type Problem = "none" | "basic" | "wrong" | "expired";

const PROBLEMS: Readonly<Record<Problem, string>> = {
  none: "it needs an API key",
  basic: "it has a user and password, and needs an API key",
  wrong: "the API key is wrong",
  expired: "the API key has expired",
};

async function findKey(headers: Headers, deps: AuthDeps): Promise<KeyCaller | Problem> {
  const given = givenKeys(headers);
  if (given.length === 0) {
    return /^basic\b/i.test(headers.get("authorization") ?? "") ? "basic" : "none";
  }
  const found = await Promise.all(given.map((text) => judgeKey(text, deps)));
  const caller = found.find((one) => typeof one === "object");
  return caller ?? found.find((one) => one === "expired") ?? "wrong";
}

async function judgeKey(text: string, deps: AuthDeps): Promise<KeyCaller | Problem> {
  if (text.length > MAX_KEY_CHARS) return "wrong";
  if (deps.apiKey !== undefined && isSame(text, deps.apiKey)) {
    return { name: null, scopes: ["admin"] };
  }
  // Only what looks like a key of ours is worth opening the database for.
  const key = text.startsWith("tug_") ? (await deps.keys?.())?.find(text) : undefined;
  if (key === undefined) return "wrong";
  return key.isExpired ? "expired" : { name: key.name, scopes: key.scopes, key };
}

/** OpenAI's clients send `Authorization: Bearer`, Anthropic's `x-api-key`, and some both, one of them a dummy. */
function givenKeys(headers: Headers): string[] {
  const bearer = /^Bearer +(\S.*)$/i.exec(headers.get("authorization") ?? "")?.[1];
  return [bearer, headers.get("x-api-key") ?? undefined].filter(
    (text): text is string => text !== undefined && text !== "",
  );
}

/** In constant time, whatever the lengths. */
function isSame(one: string, other: string): boolean {
  return timingSafeEqual(sha256(one), sha256(other));
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function unauthorized(problem: Problem): AppError {
  return new AppError("unauthorized", `cannot answer this request: ${PROBLEMS[problem]}`, {
    hint: "Send a key as `Authorization: Bearer KEY` or `x-api-key: KEY` (Tug's commands take it from TUG_API_KEY); `tug key create NAME` on the runner's machine makes one.",
  });
}

/** @throws forbidden */
function requireScope({ name, scopes }: Caller, needs: Requirement): void {
  if (isAllowed(scopes, needs)) return;
  throw new AppError(
    "forbidden",
    `cannot answer this request: the API key \`${name}\` lacks the scope \`${needs}\``,
    {
      hint: `Make a key that has it on the runner's machine: \`tug key create NAME --scope ${needs}\`.`,
      details: { missing_scope: needs, scopes },
    },
  );
}

/** Lets the request in as far as the key's limits go. @throws too_many_requests */
async function enter(
  c: Context<AppEnv>,
  { limits, key, next }: { limits: KeyLimits; key: KnownKey; next: () => Promise<void> },
): Promise<void> {
  const counted = limits.enter(key);
  if (counted === undefined) return next();
  try {
    await next();
    c.res = heldUntilEnd(c.res, counted, c.req.raw.signal);
  } catch (error) {
    counted[Symbol.dispose]();
    throw error;
  }
}

/** Somebody who tries keys shows in the log, as a number. */
class RefusalCount {
  #count = 0;
  #toldAtMs = -Infinity;

  count(): void {
    this.#count += 1;
    const now = performance.now();
    if (now - this.#toldAtMs < REFUSALS_LOG_INTERVAL_MS) return;
    log.warn(`server: requests refused without a valid API key count=${this.#count}`);
    this.#toldAtMs = now;
    this.#count = 0;
  }
}
