/** A name for each request, for logs, traces and records: the client's own if it can be one. */
import type { MiddlewareHandler } from "hono";
import type { AppEnv } from "./deps.ts";
import { dialectOf } from "./dialect.ts";

/** Everybody's; Anthropic's clients look for theirs without the `x-`. */
const REQUEST_ID = "x-request-id";

/** Printable ASCII without spaces, as long as anybody's ids are: it is kept and shown. */
const SANE = /^[\x21-\x7E]{1,128}$/;

export function requestIds(): MiddlewareHandler<AppEnv> {
  return async function nameRequest(c, next) {
    const id = toRequestId(c.req.raw.headers);
    c.set("requestId", id);
    await next();
    c.res.headers.set(REQUEST_ID, id);
    if (dialectOf(c.req.path).name === "anthropic") c.res.headers.set("request-id", id);
  };
}

export function toRequestId(headers: Headers): string {
  const own = headers.get(REQUEST_ID);
  return own !== null && SANE.test(own) ? own : crypto.randomUUID();
}
