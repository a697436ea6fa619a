/**
 * Who may ask from a browser. A page of the web must not reach a model runner on the visitor's machine: neither by a
 * name that it lets resolve to 127.0.0.1 (DNS rebinding: the Host header gives it away) nor across origins.
 */
import type { MiddlewareHandler } from "hono";
import { AppError } from "../errors.ts";
import type { AppEnv } from "./deps.ts";

const ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/** Seconds a browser may remember the answer to a preflight; ten minutes is what Chromium's own cap allows for long. */
const PREFLIGHT_MAX_AGE = "600";

/** Refuses what comes from elsewhere, and answers CORS for the origins that may ask. */
export function guard(
  allowedOrigins: readonly string[],
  options: { readonly anyHost?: boolean } = {},
): MiddlewareHandler<AppEnv> {
  return async function guardRequest(c, next) {
    const { trusted, hostname } = c.env ?? {};
    if (
      trusted !== true &&
      options.anyHost !== true &&
      !isOwnHost(c.req.header("host") ?? new URL(c.req.url).host, hostname)
    ) {
      throw forbidden("its Host header names another machine", "Use localhost or 127.0.0.1.");
    }
    const origin = c.req.header("origin");
    const verdict = origin === undefined ? "none" : judgeOrigin(origin, allowedOrigins);
    if (verdict === "refused") {
      throw forbidden(
        `the origin \`${(origin ?? "").slice(0, 200)}\` is not allowed`,
        "Add it to TUG_ORIGINS, or to `origins` in config.toml.",
      );
    }
    if (isPreflight(c.req.raw) && origin !== undefined) {
      return corsHeaders(preflightAnswer(c.req.raw), origin, verdict);
    }
    await next();
    corsHeaders(c.res, origin, verdict);
    return undefined;
  };
}

/** @param host a Host header: name or address, with or without a port */
export function isOwnHost(host: string, boundHostname: string | undefined): boolean {
  const name = /^(\[[0-9a-f:.]+\]|[^:/@[\]]+)(:\d{1,5})?$/i.exec(host)?.[1]?.toLowerCase();
  if (name === undefined) return false;
  return isLoopbackName(name) || name === bracketed(boundHostname?.toLowerCase());
}

/** `listed` came from the list, `any` from a `*` in it. */
export type OriginVerdict = "none" | "loopback" | "listed" | "any" | "refused";

/** @param origin the header; `null` (a sandboxed page, a file) is refused unless everything is allowed */
export function judgeOrigin(origin: string, allowed: readonly string[]): OriginVerdict {
  const url = /^https?:\/\/[^/]+$/i.test(origin) ? URL.parse(origin) : null;
  if (url !== null && isLoopbackName(url.hostname)) return "loopback";
  if (allowed.some((pattern) => pattern !== "*" && matchesOrigin(pattern, origin))) return "listed";
  return allowed.includes("*") ? "any" : "refused";
}

// --- internal ---

function isLoopbackName(name: string): boolean {
  if (name === "localhost" || name.endsWith(".localhost") || name === "[::1]") return true;
  return /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name);
}

function bracketed(hostname: string | undefined): string | undefined {
  return hostname?.includes(":") === true && !hostname.startsWith("[") ? `[${hostname}]` : hostname;
}

/** A `*` stands for a port, or for labels in front of a name; everything else is literal. */
function matchesOrigin(pattern: string, origin: string): boolean {
  const source = pattern
    .replace(/\/$/, "")
    .replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`)
    .replace(/:\*$/, String.raw`(:\d+)?`)
    .replace("://*", String.raw`://[a-z0-9.-]+`);
  return new RegExp(`^${source}$`, "i").test(origin);
}

function isPreflight(request: Request): boolean {
  return request.method === "OPTIONS" && request.headers.has("access-control-request-method");
}

function preflightAnswer({ headers: asked }: Request): Response {
  const headers = new Headers({
    "access-control-allow-methods": ALLOWED_METHODS,
    "access-control-max-age": PREFLIGHT_MAX_AGE,
  });
  // Named one by one: a `*` does not cover Authorization.
  const names = asked.get("access-control-request-headers");
  if (names !== null) headers.set("access-control-allow-headers", names);
  if (asked.has("access-control-request-private-network")) {
    headers.set("access-control-allow-private-network", "true");
  }
  return new Response(null, { status: 204, headers });
}

function corsHeaders(
  response: Response,
  origin: string | undefined,
  verdict: OriginVerdict,
): Response {
  const { headers } = response;
  headers.append("vary", "Origin");
  if (origin === undefined) return response;
  headers.set("access-control-expose-headers", "Retry-After");
  if (verdict === "any") {
    headers.set("access-control-allow-origin", "*");
    return response;
  }
  headers.set("access-control-allow-origin", origin);
  headers.set("access-control-allow-credentials", "true");
  return response;
}

function forbidden(reason: string, hint: string): AppError {
  return new AppError("forbidden", `cannot answer this request: ${reason}`, { hint });
}
