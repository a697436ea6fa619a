/** What goes into `Authorization` towards one registry: found out from its challenges, kept while it is good. */
import { AppError } from "../errors.ts";
import type { Http } from "../http/http.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import type { Credential, CredentialStore } from "./credentials.ts";
import type { Account, RefusalContext } from "./registry-error.ts";
import { orAbort } from "./shared.ts";
import { basic, fetchToken, type Token } from "./token.ts";

/** A runner that lives on meets many repositories; the oldest tokens are asked for again. */
const MAX_TOKENS = 256;
/** Tokens are renewed a little early: the registry's clock may be ahead, and a request takes time to arrive. */
const LONGEST_MARGIN_MS = 10_000;
/** Scopes of a challenge that are asked for besides our own. */
const MAX_CHALLENGE_SCOPES = 8;
/** All of it: the helper that knows the password, and the token server. It serves several callers, whose signals do not end it. */
const AUTHORIZE_MS = 90_000;

export interface Authorization {
  /** The header's value. */
  readonly value: string;
  readonly account: Account | undefined;
}

export interface AuthorizerOptions {
  readonly http: Http;
  readonly credentials: CredentialStore;
  /** As credentials are kept for: as in references. */
  readonly host: string;
  /** Milliseconds, monotonic; for tests. */
  readonly now?: () => number;
}

export interface AuthorizeRequest {
  /** Such as `repository:ai/pebble:pull`. */
  readonly scopes: readonly string[];
  readonly registryUrl: string;
  /** For the error, without its account. */
  readonly refusal: RefusalContext;
}

interface Kept {
  readonly authorization: Authorization;
  /** On the authorizer's clock. */
  readonly expiresAt: number;
}

/** What the registry wants, since its first challenge. */
type Scheme =
  | { readonly kind: "basic" }
  | { readonly kind: "bearer"; readonly realm: string; readonly service: string | undefined };

export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #now: () => number;
  readonly #kept = new Map<string, Kept>();
  readonly #pending = new Map<string, Promise<Authorization | undefined>>();
  #scheme: Scheme | undefined;

  constructor(options: AuthorizerOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /** What to send without being asked; undefined as long as the registry has asked for nothing. */
  async authorize(request: AuthorizeRequest): Promise<Authorization | undefined> {
    const scheme = this.#scheme;
    if (scheme === undefined) return undefined;
    return this.#current(keyOf(scheme, request.scopes)) ?? this.#renew(scheme, request);
  }

  /**
   * Answers a 401.
   *
   * @param refused what the refused request had sent: it is not used again
   * @returns undefined if there is nothing better to send
   * @throws unauthorized, … from the token server or the credential helper
   */
  async answer(
    header: string | null,
    refused: Authorization | undefined,
    request: AuthorizeRequest,
  ): Promise<Authorization | undefined> {
    const challenges = parseChallenges(header);
    const bearer = challenges.find(isUsableBearer);
    const scheme = bearer === undefined ? basicOf(challenges) : bearerOf(bearer);
    if (scheme === undefined) return undefined;
    this.#scheme = scheme;
    const key = keyOf(scheme, request.scopes);
    const current = this.#current(key);
    // Several requests were refused for the same token; the first of them has renewed it.
    if (current !== undefined && current.value !== refused?.value) return current;
    this.#kept.delete(key);
    const scopes = mergeScopes(request.scopes, bearer?.params.get("scope"));
    const renewed = await this.#renew(scheme, request, scopes);
    return renewed?.value === refused?.value ? undefined : renewed;
  }

  #current(key: string): Authorization | undefined {
    const kept = this.#kept.get(key);
    return kept !== undefined && kept.expiresAt > this.#now() ? kept.authorization : undefined;
  }

  /** One at a time for each set of scopes. */
  #renew(
    scheme: Scheme,
    request: AuthorizeRequest,
    scopes = request.scopes,
  ): Promise<Authorization | undefined> {
    const key = keyOf(scheme, request.scopes);
    const pending = this.#pending.get(key) ?? this.#start(key, scheme, { ...request, scopes });
    return orAbort(pending, request.refusal.signal);
  }

  #start(
    key: string,
    scheme: Scheme,
    request: AuthorizeRequest,
  ): Promise<Authorization | undefined> {
    const work = this.#obtain(key, scheme, request).finally(() => this.#pending.delete(key));
    this.#pending.set(key, work);
    return work;
  }

  async #obtain(
    key: string,
    scheme: Scheme,
    request: AuthorizeRequest,
  ): Promise<Authorization | undefined> {
    const { http, credentials, host } = this.#options;
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(tooSlow(host)), AUTHORIZE_MS);
    const { signal } = controller;
    try {
      const credential = await credentials.find(host, { signal });
      const account = accountOf(credential);
      if (scheme.kind === "basic") return this.#keepBasic(key, credential);
      const refusal = { ...request.refusal, account, signal };
      const token = await fetchToken(http, { ...scheme, ...request, credential, refusal });
      return this.#keepToken(key, token, account);
    } finally {
      clearTimeout(timer);
    }
  }

  #keepBasic(key: string, credential: Credential | undefined): Authorization | undefined {
    if (credential === undefined || credential.password === "") return undefined;
    const authorization = { value: basic(credential), account: accountOf(credential) };
    this.#keep(key, { authorization, expiresAt: Number.POSITIVE_INFINITY });
    return authorization;
  }

  #keepToken(key: string, token: Token, account: Account | undefined): Authorization {
    const margin = Math.min(LONGEST_MARGIN_MS, token.lifetimeMs / 5);
    const authorization = { value: `Bearer ${token.value}`, account };
    this.#keep(key, { authorization, expiresAt: this.#now() + token.lifetimeMs - margin });
    return authorization;
  }

  #keep(key: string, kept: Kept): void {
    this.#kept.delete(key);
    this.#kept.set(key, kept);
    const oldest = this.#kept.keys().next().value;
    if (this.#kept.size > MAX_TOKENS && oldest !== undefined) this.#kept.delete(oldest);
  }
}

// --- internal ---

function isUsableBearer({ scheme, params }: Challenge): boolean {
  return scheme === "bearer" && (params.get("realm") ?? "") !== "";
}

function bearerOf({ params }: Challenge): Scheme {
  return { kind: "bearer", realm: params.get("realm") ?? "", service: params.get("service") };
}

function basicOf(challenges: readonly Challenge[]): Scheme | undefined {
  return challenges.some(({ scheme }) => scheme === "basic") ? { kind: "basic" } : undefined;
}

function keyOf(scheme: Scheme, scopes: readonly string[]): string {
  return scheme.kind === "basic" ? "" : [scheme.realm, scheme.service, ...scopes].join(" ");
}

/**
 * A registry may want more than the specification says, such as to read before deleting. Where nothing is asked of a
 * repository its words are left aside: on `/v2/` GHCR names one that nobody has, and gives no token for it.
 */
function mergeScopes(own: readonly string[], asked: string | undefined): readonly string[] {
  if (own.length === 0) return [];
  const extra = (asked ?? "").split(" ").filter((scope) => scope !== "");
  return [...new Set([...own, ...extra.slice(0, MAX_CHALLENGE_SCOPES)])];
}

function accountOf(credential: Credential | undefined): Account | undefined {
  return credential === undefined
    ? undefined
    : { username: credential.username, source: credential.source };
}

function tooSlow(host: string): AppError {
  return new AppError(
    "timed_out",
    `cannot log in to \`${host}\`: it took longer than ${AUTHORIZE_MS / 1000} s`,
    { hint: "Try again later." },
  );
}
