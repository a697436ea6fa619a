/**
 * Tokens of token servers.
 *
 * @see https://distribution.github.io/distribution/spec/auth/token/
 * @see https://distribution.github.io/distribution/spec/auth/oauth/
 */
import { AppError } from "../errors.ts";
import { discard, readBounded } from "../http/body.ts";
import { isLoopback } from "../http/host.ts";
import type { Http, HttpRequest } from "../http/http.ts";
import type { Credential } from "./credentials.ts";
import { isRecord } from "./descriptor.ts";
import { type RefusalContext, registryError } from "./registry-error.ts";

export interface TokenRequest {
  /** As the registry names it. */
  readonly realm: string;
  readonly service: string | undefined;
  /** Such as `repository:ai/pebble:pull`; may be empty. */
  readonly scopes: readonly string[];
  readonly credential: Credential | undefined;
  /** Base URL of the registry that asks for the token. */
  readonly registryUrl: string;
  readonly refusal: RefusalContext;
}

export interface Token {
  readonly value: string;
  /** Milliseconds. */
  readonly lifetimeMs: number;
}

/** A token has up to a few KiB; some have a key of hundreds of scopes in them. */
const MAX_ANSWER_BYTES = 256 * 1024;
/** Below what servers take in a header. */
const MAX_TOKEN_LENGTH = 64 * 1024;
const TOKEN_TIMEOUT_MS = 30_000;

/** What the specification says where the server says nothing. */
const DEFAULT_LIFETIME_S = 60;
const MAX_LIFETIME_S = 24 * 3600;

const CLIENT_ID = "tug";

/**
 * Asks the token server. With a password by GET, as Docker does, and by POST where the server does not take that; with an
 * identity token by POST; else anonymously.
 *
 * @throws unauthorized, forbidden, registry_unavailable, …
 */
export async function fetchToken(http: Http, request: TokenRequest): Promise<Token> {
  const realm = checkedRealm(request);
  const { credential, refusal } = request;
  const isOAuthOnly = credential?.identityToken !== undefined && credential.identityToken !== "";
  const first = await http.send(
    isOAuthOnly ? realm.href : withQuery(realm, request),
    isOAuthOnly ? formRequest(request) : queryRequest(request),
  );
  const isRefused = !isOAuthOnly && credential !== undefined && OTHER_WAY.has(first.status);
  if (!isRefused) return readToken(first, refusal);
  const second = await http.send(realm.href, formRequest(request));
  // A server that knows no POST means what it said to the GET.
  if (second.ok || !NO_SUCH_WAY.has(second.status)) {
    await discard(first);
    return readToken(second, refusal);
  }
  await discard(second);
  return readToken(first, refusal);
}

// --- internal ---

const OTHER_WAY: ReadonlySet<number> = new Set([400, 401, 404, 405]);
const NO_SUCH_WAY: ReadonlySet<number> = new Set([404, 405]);

/**
 * A realm is reached over TLS, unless the registry itself is spoken to without. A secret goes in the clear only to the
 * registry's own machine, never to one that it merely names.
 */
function checkedRealm({ realm, registryUrl, credential, refusal }: TokenRequest): URL {
  const url = URL.parse(realm);
  const registry = new URL(registryUrl);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "")
    throw badRealm(refusal, "it names no address of a token server");
  if (url.protocol === "https:") return url;
  if (registry.protocol === "https:") throw badRealm(refusal, "its token server does not use TLS");
  const isSameMachine =
    url.hostname === registry.hostname || (isLoopback(url.host) && isLoopback(registry.host));
  if (credential !== undefined && !isSameMachine)
    throw badRealm(refusal, `it wants the password sent in the clear to \`${url.host}\``);
  return url;
}

function withQuery(realm: URL, { service, scopes }: TokenRequest): string {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set("service", service);
  for (const scope of scopes) url.searchParams.append("scope", scope);
  return url.href;
}

function queryRequest({ credential, refusal: { signal } }: TokenRequest): HttpRequest {
  return {
    headersTimeoutMs: TOKEN_TIMEOUT_MS,
    signal,
    authorization: credential === undefined ? undefined : basic(credential),
  };
}

function formRequest({ credential, service, scopes, refusal }: TokenRequest): HttpRequest {
  const form = new URLSearchParams({ client_id: CLIENT_ID });
  if (credential?.identityToken === undefined || credential.identityToken === "") {
    form.set("grant_type", "password");
    form.set("username", credential?.username ?? "");
    form.set("password", credential?.password ?? "");
  } else {
    form.set("grant_type", "refresh_token");
    form.set("refresh_token", credential.identityToken);
  }
  if (service !== undefined) form.set("service", service);
  if (scopes.length > 0) form.set("scope", scopes.join(" "));
  return {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: () => form.toString(),
    headersTimeoutMs: TOKEN_TIMEOUT_MS,
    signal: refusal.signal,
    // The form has the secret in it, and a redirect of status 307 would repeat it elsewhere.
    redirect: "manual",
  };
}

/** RFC 7617, in UTF-8. */
export function basic({ username, password }: Credential): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}

async function readToken(response: Response, refusal: RefusalContext): Promise<Token> {
  if (response.status >= 400)
    throw await registryError(response, { ...refusal, isAboutAccount: true });
  const value = await readAnswer(response, refusal);
  const { token, access_token: accessToken, expires_in: expiresIn } = value;
  const text = typeof token === "string" && token !== "" ? token : accessToken;
  // Printable ASCII only: it becomes a header.
  if (typeof text !== "string" || !/^[\x21-\x7e]+$/.test(text) || text.length > MAX_TOKEN_LENGTH)
    throw badAnswer(refusal, "its answer has no usable token");
  const seconds = typeof expiresIn === "number" && expiresIn > 0 ? expiresIn : DEFAULT_LIFETIME_S;
  return { value: text, lifetimeMs: Math.min(seconds, MAX_LIFETIME_S) * 1000 };
}

async function readAnswer(
  response: Response,
  refusal: RefusalContext,
): Promise<Record<string, unknown>> {
  if (!response.ok) {
    await discard(response);
    throw badAnswer(refusal, `it answered with status ${response.status}`);
  }
  const { signal } = refusal;
  const bytes = await readBounded(response, { maxBytes: MAX_ANSWER_BYTES, signal });
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    if (isRecord(value)) return value;
  } catch {
    // Below.
  }
  throw badAnswer(refusal, "its answer is not JSON");
}

function badRealm({ subject, verb }: RefusalContext, reason: string): AppError {
  return new AppError("registry_unavailable", `cannot ${verb} \`${subject}\`: ${reason}`, {
    hint: "Ask whoever runs the registry.",
    details: { permanent: true },
  });
}

function badAnswer({ subject, verb }: RefusalContext, reason: string): AppError {
  return new AppError(
    "registry_unavailable",
    `cannot ${verb} \`${subject}\`: the token server is of no use: ${reason}`,
    { hint: "Ask whoever runs the registry.", details: { permanent: true } },
  );
}
