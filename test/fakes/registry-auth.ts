/** Who may do what at the fake registry: Basic, or tokens as the distribution specification's token servers give them. */
import type { RawAnswer, RawRequest, RequestRecord } from "./raw-http.ts";

export interface FakeAuth {
  readonly scheme: "basic" | "bearer";
  readonly username?: string;
  readonly password?: string;
  /** OAuth2 refresh token that is good for everything. */
  readonly identityToken?: string;
  /** Tokens to pull are given to everybody. */
  readonly allowsAnonymousPull?: boolean;
  /** Where tokens are to be had; this server's own `/token` unless given. */
  readonly realm?: string;
  /** `expires_in` of tokens; left out unless given. */
  readonly tokenSeconds?: number;
  /** Answers POST (OAuth2) at the realm; false: 405. */
  readonly allowsPost?: boolean;
}

/** What a request needs. */
export interface Need {
  readonly repository: string;
  readonly action: "pull" | "push" | "delete";
}

export class TokenServer {
  readonly #auth: FakeAuth;
  /** Scopes of each token that is good. */
  readonly #tokens = new Map<string, readonly string[]>();
  readonly #protocol: string;
  #issued = 0;

  /** @param options.isSecure this server speaks HTTPS */
  constructor(auth: FakeAuth, options: { readonly isSecure: boolean }) {
    this.#auth = auth;
    this.#protocol = options.isSecure ? "https" : "http";
  }

  expireAll(): void {
    this.#tokens.clear();
  }

  /** @returns the 401, or undefined if the request may pass */
  refuse(record: RequestRecord, needs: readonly Need[]): RawAnswer | undefined {
    const authorization = record.headers["authorization"] ?? "";
    const isAllowed =
      this.#auth.scheme === "basic"
        ? this.#isPassword(authorization)
        : this.#isGranted(authorization.replace(/^Bearer /, ""), needs);
    return isAllowed ? undefined : this.challenge(record, needs);
  }

  challenge(record: RequestRecord, needs: readonly Need[]): RawAnswer {
    const scope = needs
      .map(({ repository, action }) => `repository:${repository}:${actions(action)}`)
      .join(" ");
    const { scheme, realm = `${this.#protocol}://${record.headers["host"]}/token` } = this.#auth;
    const header =
      scheme === "basic"
        ? 'Basic realm="fake"'
        : `Bearer realm="${realm}",service="fake"${scope === "" ? "" : `,scope="${scope}"`}`;
    return refusal(401, "UNAUTHORIZED", { "www-authenticate": header });
  }

  async answer(request: RawRequest): Promise<RawAnswer> {
    const { record } = request;
    const isPost = record.method === "POST";
    if (isPost && this.#auth.allowsPost === false) return refusal(405, "UNSUPPORTED");
    const form = isPost ? new URLSearchParams(await text(request.body)) : record.query;
    const isKnown = isPost ? this.#isForm(form) : this.#isPassword(record.headers["authorization"]);
    const isAnonymous = !isPost && record.headers["authorization"] === undefined;
    if (!isKnown && !(isAnonymous && this.#auth.allowsAnonymousPull === true))
      return refusal(401, "UNAUTHORIZED");
    const scopes = form.getAll("scope").flatMap((scope) => scope.split(" "));
    const granted = isAnonymous ? scopes.map((scope) => scope.replace(/:[^:]*$/, ":pull")) : scopes;
    this.#issued += 1;
    const token = `token-${this.#issued}`;
    this.#tokens.set(token, granted);
    const { tokenSeconds } = this.#auth;
    const body = { token, ...(tokenSeconds === undefined ? {} : { expires_in: tokenSeconds }) };
    return {
      status: 200,
      headers: { "content-type": "application/json" },
      body: new TextEncoder().encode(JSON.stringify(body)),
    };
  }

  #isPassword(authorization: string | undefined): boolean {
    const { username, password } = this.#auth;
    if (username === undefined) return false;
    return authorization === `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
  }

  #isForm(form: URLSearchParams): boolean {
    const { username, password, identityToken } = this.#auth;
    if (form.get("grant_type") === "refresh_token")
      return identityToken !== undefined && form.get("refresh_token") === identityToken;
    return (
      form.get("grant_type") === "password" &&
      username !== undefined &&
      form.get("username") === username &&
      form.get("password") === password
    );
  }

  #isGranted(token: string, needs: readonly Need[]): boolean {
    const scopes = this.#tokens.get(token);
    return (
      scopes !== undefined &&
      needs.every(({ repository, action }) =>
        scopes.some((scope) => {
          const [, name, granted = ""] = /^repository:(.+):([^:]*)$/.exec(scope) ?? [];
          return name === repository && granted.split(",").includes(action);
        }),
      )
    );
  }
}

/** An error in the registry's words. */
export function refusal(
  status: number,
  code: string,
  headers: Readonly<Record<string, string>> = {},
): RawAnswer {
  return {
    status,
    headers: { "content-type": "application/json", ...headers },
    body: new TextEncoder().encode(
      JSON.stringify({ errors: [{ code, message: code.toLowerCase().replaceAll("_", " ") }] }),
    ),
  };
}

export async function text(body: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const part of body) parts.push(part.slice());
  return Buffer.concat(parts).toString();
}

// --- internal ---

function actions(action: Need["action"]): string {
  return action === "push" ? "pull,push" : action;
}
