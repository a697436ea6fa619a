/** What went wrong below HTTP, in words. */
import { AppError, errnoOf } from "../errors.ts";
import { shownUrl } from "./host.ts";

interface Failure {
  /** `details.reason`, for callers. */
  readonly reason:
    | "dns"
    | "refused"
    | "unreachable"
    | "closed"
    | "timeout"
    | "tls"
    | "certificate"
    | "proxy";
  readonly text: string;
  readonly hint: string;
  /** Trying again does not help. */
  readonly isPermanent?: boolean;
}

/**
 * A failed connection. Everything that is no failure of the network comes back as it is.
 *
 * @returns registry_unavailable, with `details.reason`; `details.permanent` where trying again does not help
 */
export function connectionError(url: string, thrown: unknown): unknown {
  const code = errnoOf(thrown);
  const failure = code === "ERR_PROXY_TUNNEL" ? proxyFailure(thrown) : failureOf(code ?? "");
  if (failure === undefined) return thrown;
  const { reason, text, hint, isPermanent = false } = failure;
  const host = URL.parse(url)?.host ?? "the server";
  const clause = text.endsWith(":") ? `${text} ${CERTIFICATE_FAULTS[code ?? ""] ?? code}` : text;
  return new AppError("registry_unavailable", `cannot reach \`${host}\`: ${clause}`, {
    hint: isProxied(reason) ? `${hint} A proxy is set in the environment; check it too.` : hint,
    details: { reason, ...(isPermanent ? { permanent: true } : {}) },
    cause: withoutSecrets(thrown),
  });
}

/** A body that ends too early, however the runtime calls that: it passes, as a failed connection does. */
export function brokenBody(url: string, thrown: unknown): AppError {
  const error = connectionError(url, thrown);
  if (error instanceof AppError) return error;
  const host = URL.parse(url)?.host ?? "the server";
  return new AppError("registry_unavailable", `cannot reach \`${host}\`: ${CLOSED.text}`, {
    hint: CLOSED.hint,
    details: { reason: CLOSED.reason },
    cause: withoutSecrets(thrown),
  });
}

/** Whether the failure came before any answer, so that nothing was done on the other side. */
export function isConnectionFailure(error: unknown): boolean {
  const reason = reasonOf(error);
  return reason === "dns" || reason === "refused" || reason === "unreachable";
}

/** `details.reason` of what `connectionError` made. */
export function reasonOf(error: unknown): string | undefined {
  const reason = error instanceof AppError ? error.details?.["reason"] : undefined;
  return typeof reason === "string" ? reason : undefined;
}

// --- internal ---

const NETWORK_HINT = "Check the name and the network, then try again.";
const CERTIFICATE_HINT = "Set TUG_CA_BUNDLE to a PEM file with the authority that signed it.";

const CLOSED: Failure = {
  reason: "closed",
  text: "it closed the connection",
  hint: "Try again in a moment.",
};
const REFUSED: Failure = {
  reason: "refused",
  text: "it refused the connection",
  hint: "Check the host, the port and that the server runs.",
};
const UNREACHABLE: Failure = {
  reason: "unreachable",
  text: "there is no way to it",
  hint: NETWORK_HINT,
};
const UNKNOWN_NAME: Failure = { reason: "dns", text: "its name is unknown", hint: NETWORK_HINT };
const NO_TLS: Failure = {
  reason: "tls",
  text: "it does not speak TLS on this port",
  hint: "If it speaks plain http, allow that with `--insecure` or TUG_INSECURE_REGISTRIES.",
  isPermanent: true,
};
const TIMEOUT: Failure = {
  reason: "timeout",
  text: "the connection timed out",
  hint: NETWORK_HINT,
};

/** Those of the system, and Bun's own. */
const FAILURES: Readonly<Record<string, Failure>> = {
  ECONNREFUSED: REFUSED,
  ConnectionRefused: REFUSED,
  FailedToOpenSocket: REFUSED,
  ENOTFOUND: UNKNOWN_NAME,
  EAI_AGAIN: { ...UNKNOWN_NAME, text: "its name cannot be looked up now" },
  EAI_FAIL: UNKNOWN_NAME,
  DNS_ENOTFOUND: UNKNOWN_NAME,
  EHOSTUNREACH: UNREACHABLE,
  ENETUNREACH: UNREACHABLE,
  ENETDOWN: UNREACHABLE,
  // A firewall on this machine.
  EACCES: UNREACHABLE,
  EPERM: UNREACHABLE,
  EADDRNOTAVAIL: UNREACHABLE,
  ECONNRESET: CLOSED,
  ConnectionClosed: CLOSED,
  EPIPE: CLOSED,
  ECONNABORTED: CLOSED,
  UnexpectedEOF: CLOSED,
  ETIMEDOUT: TIMEOUT,
  Timeout: TIMEOUT,
  EPROTO: NO_TLS,
  UnsupportedProxyProtocol: {
    reason: "proxy",
    text: "the proxy in the environment is of a kind that is not supported",
    hint: "Set HTTPS_PROXY to an address that begins with `http://` or `https://`.",
    isPermanent: true,
  },
};

/** @see https://docs.openssl.org/master/man1/openssl-verification-options/ */
const CERTIFICATE_FAULTS: Readonly<Record<string, string>> = {
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "it is signed by an unknown authority",
  UNABLE_TO_GET_ISSUER_CERT: "it is signed by an unknown authority",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "it is signed by an unknown authority",
  SELF_SIGNED_CERT_IN_CHAIN: "it is signed by an unknown authority",
  DEPTH_ZERO_SELF_SIGNED_CERT: "it is signed by itself",
  ERR_TLS_CERT_ALTNAME_INVALID: "it is for another host",
  HOSTNAME_MISMATCH: "it is for another host",
  CERT_HAS_EXPIRED: "it has expired",
  CERT_NOT_YET_VALID: "it is not valid yet",
  CERT_REVOKED: "it was revoked",
  CERT_UNTRUSTED: "it is not trusted",
};

function failureOf(code: string): Failure | undefined {
  const known = FAILURES[code];
  if (known !== undefined) return known;
  if (/CERT|^UNABLE_TO_|^HOSTNAME_MISMATCH|^INVALID_CA$/.test(code)) {
    return {
      reason: "certificate",
      text: "its certificate is not accepted:",
      hint: certificateHint(code),
      isPermanent: true,
    };
  }
  if (code.startsWith("ERR_SSL_")) return { ...NO_TLS, text: "the TLS handshake failed" };
  // HTTP/2, HPACK, chunks, header lines: what the other side sent cannot be read.
  if (/^(?:HTTP2|HTTP|HPE|Invalid|Malformed|Protocol)/i.test(code))
    return { ...CLOSED, text: `its answer is not HTTP (${code.slice(0, 50)})` };
  // So Bun calls what it has no number of the system's for, such as `ResponseHeadersTooLarge`.
  if (/^(?:[A-Z][a-z]+){2,}$/.test(code))
    return { ...CLOSED, text: `the exchange failed (${code.slice(0, 50)})` };
  return undefined;
}

/** Its answer to CONNECT: what it says besides the status could be made up by anybody on the way to it. */
function proxyFailure(thrown: unknown): Failure {
  const status = /: ([1-5]\d\d)\b/.exec(thrown instanceof Error ? thrown.message : "")?.[1];
  return {
    reason: "proxy",
    text: `the proxy refuses to connect to it (${status ?? "no status"})`,
    hint:
      status === "407"
        ? "Put the account into HTTPS_PROXY, such as `http://USER:PASSWORD@proxy.example.com:3128`."
        : "Check HTTPS_PROXY, or name the host in NO_PROXY.",
    isPermanent: status?.startsWith("5") !== true,
  };
}

/** What Bun throws has the whole address in its message, and in a member: queries are signatures. */
function withoutSecrets(thrown: unknown): Error {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return new Error(text.replaceAll(/https?:\/\/[^\s"]+/gi, (url) => shownUrl(url)));
}

function certificateHint(code: string): string {
  if (/EXPIRED|NOT_YET_VALID/.test(code))
    return "Check this machine's clock, or ask the operator of the host for a valid certificate.";
  return /ALTNAME|HOSTNAME/.test(code)
    ? "Check the name of the host; `--insecure` skips the check."
    : CERTIFICATE_HINT;
}

function isProxied(reason: Failure["reason"]): boolean {
  if (reason === "certificate" || reason === "tls" || reason === "proxy") return false;
  return ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"].some(
    (name) => (process.env[name] ?? "") !== "",
  );
}
