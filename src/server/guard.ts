/**
 * Who may ask from a browser. A page of the web must not reach a model runner on the visitor's machine: neither by a
 * name that it lets resolve to 127.0.0.1 (DNS rebinding: the Host header gives it away) nor across origins. Requests are
 * refused before anything is done: what a page sends without a preflight (`text/plain`, a form) has effects, too.
 */
import type { Context, MiddlewareHandler } from "hono";
import { AppError } from "../errors.ts";
import type { AppEnv } from "./deps.ts";
import { createOriginJudge, isLoopbackName, type OriginVerdict } from "./origins.ts";

export interface GuardOptions {
  /** Whoever asks needs a key, which a page that rebinds a name has not: the Host header may be any. */
  readonly anyHost?: boolean;
  /** Names besides loopback's, as `parseHosts` returns them: what a reverse proxy is asked for. */
  readonly hosts?: readonly string[];
}

const ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/** Seconds a browser may remember the answer to a preflight; it is also how long a withdrawn origin still tries. */
const PREFLIGHT_MAX_AGE = "600";
const PREFLIGHT_VARY =
  "Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network";
/** A browser names the headers that a script sets, which are few. */
const MAX_HEADER_NAMES_CHARACTERS = 4096;
const EXPOSED_HEADERS = "Retry-After, X-Request-Id, Request-Id";
/**
 * What containers call the machine they run on, forwarded to its loopback. `internal` is reserved and resolves nowhere
 * in public, so that no page of the web can have such a name.
 */
const CONTAINER_HOSTS: readonly string[] = [
  "host.docker.internal",
  "gateway.docker.internal",
  "model-runner.docker.internal",
  "host.containers.internal",
  "host.lima.internal",
];

/**
 * Refuses what comes from elsewhere, and answers CORS for the origins that may ask.
 *
 * @param allowedOrigins as `parseOrigins` returns them
 */
export function guard(
  allowedOrigins: readonly string[],
  options: GuardOptions = {},
): MiddlewareHandler<AppEnv> {
  const judge = createOriginJudge(allowedOrigins);
  const hosts = options.hosts ?? [];
  return async function guardRequest(c, next) {
    const host = c.req.header("host") ?? new URL(c.req.url).host;
    const trusted = c.env?.trusted === true;
    if (!trusted && options.anyHost !== true) checkHost(host, hosts, c.env?.hostname);
    const origin = c.req.header("origin");
    if (origin === undefined) {
      refuseForeignPage(c);
      await next();
      c.res.headers.append("vary", "Origin");
      return undefined;
    }
    const verdict = isSameOrigin(origin, host, hosts) ? "listed" : judge(origin);
    if (verdict === "refused") {
      throw refusedOrigin(origin, options.anyHost === true ? undefined : allowedOrigins);
    }
    if (isPreflight(c.req.raw)) return withCors(preflightAnswer(c.req.raw), origin, verdict);
    await next();
    withCors(c.res, origin, verdict);
    return undefined;
  };
}

/**
 * @param host a Host header: name or address, with or without a port
 * @param boundHostname what the listener is bound to
 * @param hosts names besides
 */
export function isOwnHost(
  host: string,
  boundHostname: string | undefined,
  hosts: readonly string[] = [],
): boolean {
  const name = hostName(host);
  if (name === undefined) return false;
  if (isLoopbackName(name) || CONTAINER_HOSTS.includes(name)) return true;
  return name === bracketed(boundHostname?.toLowerCase()) || isListedHost(name, hosts);
}

// --- internal ---

function checkHost(host: string, hosts: readonly string[], bound: string | undefined): void {
  if (isOwnHost(host, bound, hosts)) return;
  const name = hostName(host);
  const isName = name !== undefined && name.length <= 253 && /^[a-z0-9._-]+$/.test(name);
  const hint = isName
    ? ` Behind a reverse proxy, allow the name with \`TUG_HOSTS=${[...hosts, name].join(",")} tug restart-runner\`, or for good with \`hosts\` in config.toml.`
    : "";
  throw forbidden("its Host header names another machine", `Use localhost or 127.0.0.1.${hint}`);
}

function hostName(host: string): string | undefined {
  return /^(\[[0-9a-f:.]+\]|[^:/@[\]]+)(:\d{1,5})?$/i.exec(host)?.[1]?.toLowerCase();
}

function isListedHost(name: string, hosts: readonly string[]): boolean {
  return hosts.some((pattern) =>
    pattern.startsWith("*.")
      ? name.endsWith(pattern.slice(1))
      : pattern === name || pattern === "*",
  );
}

function bracketed(hostname: string | undefined): string | undefined {
  return hostname?.includes(":") === true && !hostname.startsWith("[") ? `[${hostname}]` : hostname;
}

/** A page that a reverse proxy serves beside the API. Only for names that the user listed one by one or by domain. */
function isSameOrigin(origin: string, host: string, hosts: readonly string[]): boolean {
  const name = hostName(host);
  const named = hosts.filter((pattern) => pattern !== "*");
  if (name === undefined || !isListedHost(name, named)) return false;
  return origin === `https://${host}` || origin === `http://${host}`;
}

/**
 * An image, a script or a style of a page elsewhere has no Origin, but browsers say where it came from. A person may
 * follow a link.
 *
 * @see https://www.w3.org/TR/fetch-metadata/
 */
function refuseForeignPage(c: Context<AppEnv>): void {
  if (c.req.header("sec-fetch-site") !== "cross-site") return;
  if (c.req.header("sec-fetch-mode") === "navigate" && isReading(c.req.method)) return;
  throw forbidden(
    "a page of another origin asks for it",
    "Ask with `fetch` from a page whose origin is allowed.",
  );
}

function isReading(method: string): boolean {
  return method === "GET" || method === "HEAD";
}

function isPreflight(request: Request): boolean {
  return request.method === "OPTIONS" && request.headers.has("access-control-request-method");
}

function preflightAnswer({ headers: asked }: Request): Response {
  const headers = new Headers({
    "access-control-allow-methods": ALLOWED_METHODS,
    "access-control-max-age": PREFLIGHT_MAX_AGE,
    vary: PREFLIGHT_VARY,
  });
  // Named one by one: a `*` does not cover Authorization.
  const names = asked.get("access-control-request-headers") ?? "";
  if (
    names.length <= MAX_HEADER_NAMES_CHARACTERS &&
    /^[\w!#$%&'*+.^`|~-]+([ ,]+[\w!#$%&'*+.^`|~-]+)*$/.test(names)
  ) {
    headers.set("access-control-allow-headers", names);
  }
  if (asked.has("access-control-request-private-network")) {
    headers.set("access-control-allow-private-network", "true");
  }
  return new Response(null, { status: 204, headers });
}

function withCors(response: Response, origin: string, verdict: OriginVerdict): Response {
  const { headers } = response;
  headers.append("vary", "Origin");
  headers.set("access-control-expose-headers", EXPOSED_HEADERS);
  if (verdict === "any") {
    headers.set("access-control-allow-origin", "*");
    return response;
  }
  headers.set("access-control-allow-origin", origin);
  headers.set("access-control-allow-credentials", "true");
  return response;
}

/** @param allowed what is allowed now, to keep it in the command; undefined where strangers may ask, too */
function refusedOrigin(origin: string, allowed: readonly string[] | undefined): AppError {
  const shown = origin.slice(0, 200);
  return forbidden(`the origin \`${shown}\` is not allowed`, originHint(origin, allowed));
}

function originHint(origin: string, allowed: readonly string[] | undefined): string {
  if (origin === "null") {
    return "A file or a sandboxed page has no origin: serve it from http://localhost, which is allowed.";
  }
  // What is not plainly an origin does not become part of a command that somebody may paste into a shell.
  if (
    !/^(?:https?:\/\/(?=.)|(?!https?:)[a-z][a-z0-9+.-]*:\/\/)[a-z0-9._:[\]-]{0,260}$/i.test(origin)
  ) {
    return "Send an origin such as `https://app.example.com`.";
  }
  const forGood = `\`origins\` in config.toml`;
  if (allowed === undefined) {
    // Mostly `tug serve --lan` at a terminal, which `restart-runner` would replace by one on loopback.
    return `Add \`${origin}\` to TUG_ORIGINS or to ${forGood}, and start the runner again as it was started.`;
  }
  const list = [...allowed, origin].join(",");
  const value = /^[\w.:/,-]+$/.test(list) ? list : `'${list}'`;
  return `Allow it with \`TUG_ORIGINS=${value} tug restart-runner\`, or for good with ${forGood}.`;
}

function forbidden(reason: string, hint: string): AppError {
  return new AppError("forbidden", `cannot answer this request: ${reason}`, { hint });
}
