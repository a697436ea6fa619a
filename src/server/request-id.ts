/** A name for each request, for logs, traces and records: the client's own if it can be one. */
import type { Context } from "hono";
import type { AppEnv } from "./deps.ts";
import { dialectOf } from "./dialect.ts";

/** Everybody's; Anthropic's clients look for theirs without the `x-`. */
const REQUEST_ID = "x-request-id";

/** Printable ASCII without spaces, as long as anybody's ids are: it is kept and shown. */
const SANE = /^[\x21-\x7E]{1,128}$/;

export function toRequestId(headers: Headers): string {
  const own = headers.get(REQUEST_ID);
  return own !== null && SANE.test(own) ? own : crypto.randomUUID();
}

/** Puts it on the answer. */
export function showRequestId({ req, res }: Context<AppEnv>, id: string): void {
  res.headers.set(REQUEST_ID, id);
  if (dialectOf(req.path).name === "anthropic") res.headers.set("request-id", id);
}
