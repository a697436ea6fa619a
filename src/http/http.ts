/**
 * The one way to reach other machines: every request that leaves this one goes through here. It keeps credentials on
 * their host, follows redirects, bounds every wait, honours proxies and private certificate authorities, and opens no
 * socket when offline.
 */
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import { VERSION } from "../version.ts";
import { discard } from "./body.ts";
import { readAuthorities } from "./certificates.ts";
import { connectionError } from "./connection-error.ts";
import { startDeadline, watchedBody } from "./deadline.ts";
import { isLoopback, shownUrl } from "./host.ts";

/** As browsers and curl do; a chain that is longer turns in a circle. */
const MAX_REDIRECTS = 10;
/** A server that has work to do before it answers, as after an upload, is given longer by its caller. */
const HEADERS_TIMEOUT_MS = 60_000;

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** They say who asks, and are meant for one host. */
const PRIVATE_HEADERS: ReadonlySet<string> = new Set([
  "authorization",
  "cookie",
  "proxy-authorization",
]);

export interface HttpOptions {
  /** No socket is opened: every request fails with `offline`. */
  readonly offline: boolean;
  /** PEM file with certificate authorities that are trusted besides the system's; empty: none. */
  readonly caBundle: string;
  /** Whether this host (`host[:port]`) may be spoken to without a valid certificate. */
  readonly isInsecure: (host: string) => boolean;
}

export type RequestBody =
  | ReadableStream<Uint8Array>
  | Uint8Array<ArrayBuffer>
  | string
  | URLSearchParams;

export interface HttpRequest {
  readonly method?: "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly headers?: Readonly<Record<string, string>>;
  /** Value of `Authorization`. It goes to the origin of the URL only, never along with a redirect to another one. */
  readonly authorization?: string | undefined;
  /** Made anew for every exchange, because a stream can be read only once. A stream needs a `content-length` header. */
  readonly body?: (() => RequestBody) | undefined;
  readonly signal: AbortSignal;
  /**
   * Until the response's headers, counted from the last byte of a streamed body; 60 s unless given. Bodies of responses
   * are bounded by whoever reads them.
   */
  readonly headersTimeoutMs?: number;
  /**
   * `manual`: a redirect is an answer like others. Else safe methods follow all redirects, others those of status 307 and
   * 308, which repeat the request, and 303, which goes on with GET.
   */
  readonly redirect?: "follow" | "manual";
}

export interface Http {
  /**
   * One exchange, without retries: any status is an answer. Bodies come as they are sent, never decompressed, so that
   * lengths and ranges mean bytes.
   *
   * @throws offline, registry_unavailable (with `details.reason`; transient, see `retry.ts`, unless TLS is at fault),
   *         timed_out, usage (the CA bundle), the signal's reason
   */
  send(url: string, request: HttpRequest): Promise<Response>;
}

export function createHttp(options: HttpOptions): Http {
  let authorities: Promise<string> | undefined;
  const trusted = async (): Promise<string | undefined> => {
    if (options.caBundle === "") return undefined;
    authorities ??= readAuthorities(options.caBundle);
    try {
      return await authorities;
    } catch (error) {
      // A runner that lives on sees the file once it is there.
      authorities = undefined;
      throw error;
    }
  };
  return { send: async (url, request) => follow({ options, trusted }, parseTarget(url), request) };
}

// --- internal ---

interface Wire {
  readonly options: HttpOptions;
  readonly trusted: () => Promise<string | undefined>;
}

/** What of a request changes from one redirect to the next. */
interface Hop {
  readonly url: URL;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly hasBody: boolean;
}

/** Userinfo is dropped: fetch would make a credential of it. */
function parseTarget(text: string): URL {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new AppError("usage", `cannot reach \`${shownUrl(text)}\`: it is no http address`);
  }
  url.username = "";
  url.password = "";
  url.hash = "";
  return url;
}

async function follow(wire: Wire, url: URL, request: HttpRequest): Promise<Response> {
  let hop: Hop = {
    url,
    method: request.method ?? "GET",
    headers: {
      ...lowerCased(request.headers ?? {}),
      ...(request.authorization === undefined ? {} : { authorization: request.authorization }),
    },
    hasBody: request.body !== undefined,
  };
  for (let redirects = 0; ; redirects += 1) {
    const response = await exchange(wire, hop, request);
    const next = request.redirect === "manual" ? undefined : nextHop(wire, hop, response);
    if (next === undefined) return response;
    await discard(response);
    if (redirects === MAX_REDIRECTS) {
      throw refusedRedirect(url, `it redirects more than ${MAX_REDIRECTS} times`);
    }
    hop = next;
  }
}

async function exchange(wire: Wire, hop: Hop, request: HttpRequest): Promise<Response> {
  const { url, method } = hop;
  if (wire.options.offline) throw offline(url);
  request.signal.throwIfAborted();
  const connection = await connectionOptions(wire, url);
  const deadline = startDeadline(request.headersTimeoutMs ?? HEADERS_TIMEOUT_MS);
  const watched = hop.hasBody ? watchedBody(request.body?.(), deadline) : undefined;
  const startedMs = performance.now();
  let outcome = "failed";
  try {
    const response = await fetch(url.href, {
      ...connection,
      method,
      headers: { "user-agent": `tug/${VERSION}`, ...hop.headers, "accept-encoding": "identity" },
      signal: AbortSignal.any([request.signal, deadline.signal]),
      ...(watched === undefined ? {} : { body: watched.body }),
    });
    outcome = `status=${response.status}`;
    return response;
  } catch (error) {
    request.signal.throwIfAborted();
    if (watched?.failure !== undefined) throw watched.failure.error;
    if (deadline.signal.aborted) throw silent(url, deadline.ms);
    throw connectionError(url.href, error);
  } finally {
    deadline.stop();
    const ms = Math.round(performance.now() - startedMs);
    log.debug(`http: ${method} ${shownUrl(url.href)} ${outcome} ms=${ms}`);
  }
}

/** Bun's own options of `fetch`. */
async function connectionOptions(
  { options, trusted }: Wire,
  url: URL,
): Promise<Readonly<Record<string, unknown>>> {
  const ca = url.protocol === "https:" ? await trusted() : undefined;
  return {
    redirect: "manual",
    decompress: false,
    // Bun's own would end uploads and long answers; every wait here has a bound of its own.
    timeout: false,
    tls: {
      ...(ca === undefined ? {} : { ca }),
      ...(options.isInsecure(url.host) ? { rejectUnauthorized: false } : {}),
    },
    // A proxy would look for this machine's servers on its own.
    ...(isLoopback(url.host) ? { proxy: false } : {}),
  };
}

/** @returns undefined if the response is the answer */
function nextHop({ options }: Wire, hop: Hop, response: Response): Hop | undefined {
  const location = response.headers.get("location");
  if (!REDIRECTS.has(response.status) || location === null) return undefined;
  const repeats = response.status === 307 || response.status === 308;
  const isSafe = hop.method === "GET" || hop.method === "HEAD";
  if (!repeats && !isSafe && response.status !== 303) return undefined;
  const url = redirectTarget(options, hop.url, location);
  const hasBody = repeats && hop.hasBody;
  const isForeign = url.origin !== hop.url.origin;
  const headers = Object.entries(hop.headers).filter(
    ([name]) =>
      !(isForeign && PRIVATE_HEADERS.has(name)) &&
      !(hop.hasBody && !hasBody && name.startsWith("content-")),
  );
  return {
    url,
    method: repeats || isSafe ? hop.method : "GET",
    headers: Object.fromEntries(headers),
    hasBody,
  };
}

function redirectTarget(options: HttpOptions, from: URL, location: string): URL {
  const url = URL.parse(location, from.href);
  if (url === null || !/^https?:$/.test(url.protocol))
    throw refusedRedirect(from, "it redirects to what is no http address");
  // What was asked for over TLS is not read in the clear; the operator's own machine and exceptions apart.
  const isDowngrade = from.protocol === "https:" && url.protocol === "http:";
  const isAllowed = options.isInsecure(url.host) || (isLoopback(from.host) && isLoopback(url.host));
  if (isDowngrade && !isAllowed)
    throw refusedRedirect(from, `it redirects from https to http (\`${url.host}\`)`);
  return parseTarget(url.href);
}

function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
  );
}

function offline({ host }: URL): AppError {
  return new AppError("offline", `cannot reach \`${host}\`: offline mode is on`, {
    hint: "Leave out `--offline` and unset TUG_OFFLINE.",
  });
}

function silent({ host }: URL, ms: number): AppError {
  return new AppError(
    "timed_out",
    `cannot reach \`${host}\`: it did not answer within ${Math.round(ms / 1000)} s`,
    { hint: "Try again later.", details: { reason: "timeout" } },
  );
}

function refusedRedirect({ host }: URL, reason: string): AppError {
  return new AppError("registry_unavailable", `cannot use the answer of \`${host}\`: ${reason}`, {
    details: { reason: "redirect", permanent: true },
  });
}
