/** One repository's authorized HTTP exchanges: the right base URL, tokens, retries, errors in the registry's words. */
import { AppError } from "../errors.ts";
import { discard } from "../http/body.ts";
import { isConnectionFailure, reasonOf } from "../http/connection-error.ts";
import type { Http, RequestBody } from "../http/http.ts";
import { type RetryOptions, withRetry } from "../http/retry.ts";
import { meaningOf } from "../http/status-error.ts";
import { log } from "../log.ts";
import type { Authorization, AuthorizeRequest, Authorizer } from "./authorizer.ts";
import { type RefusalContext, registryError } from "./registry-error.ts";

/** Enough to outlast a restart. */
const ATTEMPTS = 5;
/** A host that was never reached is more likely misspelt than restarting; one that is silent costs a minute each time. */
const ATTEMPTS_AT_FIRST_CONTACT = 3;
const ATTEMPTS_AT_SILENCE = 2;

/** What a token must allow. */
export type Access = "pull" | "push" | "delete";

export interface ExchangeRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly access: Access;
  readonly headers?: Readonly<Record<string, string>>;
  /** Made anew for each attempt. */
  readonly body?: (() => RequestBody) | undefined;
  readonly signal: AbortSignal;
  /** Statuses of 300 and above that the caller handles itself; all others are thrown. 401 comes after logging in anew. */
  readonly accept?: readonly number[];
  /** Another repository on this host that must be readable too: for mounts. */
  readonly alsoPull?: string;
  /** Attempts on transient failures; 5 unless given. 1 where the caller repeats something larger. */
  readonly attempts?: number;
  /** As `HttpRequest.headersTimeoutMs`: for answers that take work. */
  readonly headersTimeoutMs?: number;
}

export interface Exchange {
  /** As in references, `docker.io` for Docker Hub. */
  readonly registry: string;
  readonly repository: string;
  /** Waits between attempts of what is larger than one exchange; for tests. */
  readonly wait?: RetryOptions["wait"] | undefined;
  /**
   * @param target `/blobs/sha256:…`, a path below `/v2/<repository>`; a path from `/v2/` on; or an absolute URL such as an
   *        upload's location: the credential goes along only if that is the registry's own origin
   * @throws unauthorized, forbidden, not_found, too_many_requests, registry_unavailable, timed_out, offline, cancelled; with
   *         `details.status`, `details.codes` (the registry's, such as `DIGEST_INVALID`) and `details.retry_after_ms`
   */
  send(target: string, request: ExchangeRequest): Promise<Response>;
}

export interface ExchangeOptions {
  readonly http: Http;
  readonly authorizer: Authorizer;
  readonly registry: string;
  /** Empty for what belongs to no repository. */
  readonly repository: string;
  /** Without a slash at the end; looked up before each exchange. */
  readonly baseUrl: (options: { readonly signal: AbortSignal }) => Promise<string>;
  /** After a failure over plain http: whether the base URL has changed to https. */
  readonly isTlsAfterAll?:
    | ((options: { readonly signal: AbortSignal }) => Promise<boolean>)
    | undefined;
  /** Told when nothing could be reached. */
  readonly onUnreachable?: (() => void) | undefined;
  /** Goes along with every request to the base URL; mirrors want `ns`. */
  readonly query?: Readonly<Record<string, string>> | undefined;
  readonly onWarning?: ((header: string | null) => void) | undefined;
  readonly wait?: RetryOptions["wait"] | undefined;
}

export function createExchange(options: ExchangeOptions): Exchange {
  const { registry, repository, wait } = options;
  let wasReached = false;
  const attemptsAfter = (error: unknown): number => {
    if (wasReached) return ATTEMPTS;
    if (reasonOf(error) === "timeout") return ATTEMPTS_AT_SILENCE;
    return isConnectionFailure(error) ? ATTEMPTS_AT_FIRST_CONTACT : ATTEMPTS;
  };
  return {
    registry,
    repository,
    wait,
    send: (target, request) =>
      withRetry(
        async () => {
          const response = await attempt(options, target, request);
          wasReached = true;
          return response;
        },
        {
          signal: request.signal,
          attempts: request.attempts ?? attemptsAfter,
          onRetry: (error, waitMs) =>
            log.debug(
              `oci: trying again registry=${registry} wait_ms=${Math.round(waitMs)} after=${codeOf(error)}`,
            ),
          ...(wait === undefined ? {} : { wait }),
        },
      ),
  };
}

// --- internal ---

async function attempt(
  options: ExchangeOptions,
  target: string,
  request: ExchangeRequest,
): Promise<Response> {
  const baseUrl = await options.baseUrl(request);
  try {
    return await attemptAt(options, baseUrl, { target, request });
  } catch (error) {
    const isPlain = baseUrl.startsWith("http:") && !/^https?:/i.test(target);
    if (!isPlain || !mayWantTls(error) || (await options.isTlsAfterAll?.(request)) !== true)
      throw error;
    return attemptAt(options, await options.baseUrl(request), { target, request });
  }
}

async function attemptAt(
  options: ExchangeOptions,
  baseUrl: string,
  { target, request }: { readonly target: string; readonly request: ExchangeRequest },
): Promise<Response> {
  const url = targetUrl(options, baseUrl, target);
  const refusal = refusalOf(options, target, request);
  // What lies elsewhere has its own secrets in its address.
  const isOwn = url.origin === new URL(baseUrl).origin;
  const wanted = isOwn
    ? { scopes: scopesOf(options, request), registryUrl: baseUrl, refusal }
    : undefined;
  const { response, authorization } = await sendAuthorized(options, url.href, { request, wanted });
  if (isOwn && originOf(response) === url.origin)
    options.onWarning?.(response.headers.get("warning"));
  if (response.status < 300 || request.accept?.includes(response.status) === true) return response;
  throw await refusalError(response, { ...refusal, account: authorization?.account }, baseUrl);
}

/** Servers that expect TLS answer plain http with 400, or not at all. */
function mayWantTls(error: unknown): boolean {
  return (
    error instanceof AppError && (error.details?.["status"] === 400 || reasonOf(error) === "closed")
  );
}

interface Sending {
  readonly request: ExchangeRequest;
  /** Undefined: nobody is to know who asks. */
  readonly wanted: AuthorizeRequest | undefined;
}

interface Sent {
  readonly response: Response;
  readonly authorization: Authorization | undefined;
}

/** A refused token is renewed once: that it has run out is no failure. */
async function sendAuthorized(
  options: ExchangeOptions,
  url: string,
  { request, wanted }: Sending,
): Promise<Sent> {
  const { authorizer } = options;
  if (wanted === undefined) return sendOnce(options, url, { request, authorization: undefined });
  const authorization = await authorizer.authorize(wanted);
  const sent = await sendOnce(options, url, { request, authorization });
  const { response } = sent;
  if (response.status !== 401 || originOf(response) !== new URL(url).origin) return sent;
  const challenge = response.headers.get("www-authenticate");
  const renewed = await authorizer.answer(challenge, authorization, wanted);
  if (renewed === undefined) return sent;
  await discard(response);
  return sendOnce(options, url, { request, authorization: renewed });
}

async function sendOnce(
  { http, onUnreachable }: ExchangeOptions,
  url: string,
  { request, authorization }: { request: ExchangeRequest; authorization: Sent["authorization"] },
): Promise<Sent> {
  const { method, headers, body, signal, headersTimeoutMs } = request;
  try {
    const response = await http.send(url, {
      method,
      signal,
      body,
      authorization: authorization?.value,
      ...(headers === undefined ? {} : { headers }),
      ...(headersTimeoutMs === undefined ? {} : { headersTimeoutMs }),
    });
    return { response, authorization };
  } catch (error) {
    if (isConnectionFailure(error)) onUnreachable?.();
    throw error;
  }
}

function targetUrl({ repository, query }: ExchangeOptions, baseUrl: string, target: string): URL {
  if (/^https?:\/\//i.test(target)) return new URL(target);
  const path = target.startsWith("/v2/") ? target : `/v2/${repository}${target}`;
  const url = new URL(baseUrl + path);
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value);
  return url;
}

/** @see https://distribution.github.io/distribution/spec/auth/scope/ */
function scopesOf(
  { repository }: ExchangeOptions,
  { access, alsoPull }: ExchangeRequest,
): readonly string[] {
  const own = repository === "" ? [] : [`repository:${repository}:${ACTIONS[access]}`];
  return alsoPull === undefined || alsoPull === repository
    ? own
    : [...own, `repository:${alsoPull}:pull`];
}

const ACTIONS: Readonly<Record<Access, string>> = {
  pull: "pull",
  push: "pull,push",
  delete: "pull,delete",
};

const VERBS = { pull: "read", push: "write to", delete: "delete" } as const;

function refusalOf(
  { registry, repository }: ExchangeOptions,
  target: string,
  { access, signal }: ExchangeRequest,
): RefusalContext {
  const name = repository === "" ? registry : `${registry}/${repository}`;
  const ref = /^\/(?:manifests|blobs)\/([^/?]+)$/.exec(target)?.[1];
  const separator = ref?.includes(":") === true ? "@" : ":";
  return {
    subject: ref === undefined ? name : `${name}${separator}${ref}`,
    verb: repository === "" ? "log in to" : VERBS[access],
    registry,
    account: undefined,
    signal,
    ...(repository === "" ? { isAboutAccount: true } : {}),
  };
}

async function refusalError(
  response: Response,
  refusal: RefusalContext,
  baseUrl: string,
): Promise<AppError> {
  const storage = URL.parse(response.url);
  const isElsewhere = storage !== null && storage.origin !== new URL(baseUrl).origin;
  const isDenied = response.status === 401 || response.status === 403;
  if (!isElsewhere || !isDenied) return registryError(response, refusal);
  await discard(response);
  // The registry allowed it and sent us there with a signature, which has run out: the next one is good.
  return new AppError(
    "registry_unavailable",
    `cannot ${refusal.verb} \`${refusal.subject}\`: its storage \`${storage.host}\` denies access`,
    { hint: "Try again later.", details: { ...meaningOf(response).details } },
  );
}

function originOf(response: Response): string | undefined {
  return URL.parse(response.url)?.origin;
}

function codeOf(error: unknown): string {
  return error instanceof AppError ? error.code : "unknown";
}
