/** What a status of 400 and above means, for servers that are no registries. */
import { AppError, type ErrorCode } from "../errors.ts";
import { shownUrl } from "./host.ts";
import { parseRetryAfter } from "./retry.ts";

/** What a status means for us. */
export interface StatusMeaning {
  readonly code: ErrorCode;
  /** For `details`: `status`, `retry_after_ms`, `permanent`. */
  readonly details: Readonly<Record<string, unknown>>;
}

/** 408, 429 and the passing ones of 5xx are transient; everything else is for good. */
export function meaningOf(response: Response): StatusMeaning {
  const { status } = response;
  const retryAfterMs = parseRetryAfter(response.headers.get("retry-after"));
  const code = codeOf(status);
  return {
    code,
    details: {
      status,
      ...(retryAfterMs === undefined ? {} : { retry_after_ms: retryAfterMs }),
      ...(code === "registry_unavailable" && !PASSING.has(status) ? { permanent: true } : {}),
    },
  };
}

/** "in 2 min" and the like, for messages; undefined where the server does not say. */
export function retryHint(details: Readonly<Record<string, unknown>> | undefined): string {
  const ms = details?.["retry_after_ms"];
  if (typeof ms !== "number") return "Try again later.";
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 120) return `Try again in ${seconds} s.`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 120) return `Try again in ${minutes} minutes.`;
  const hours = Math.ceil(minutes / 60);
  // A date far away is a mistake or a joke.
  return hours <= LONGEST_SHOWN_HOURS ? `Try again in ${hours} hours.` : "Try again later.";
}

/** @param url what was asked for; shown without its query */
export function statusError(response: Response, url: string): AppError {
  const { code, details } = meaningOf(response);
  const reason = REASONS[code] ?? `the server answered with status ${response.status}`;
  return new AppError(code, `cannot fetch \`${shownUrl(url)}\`: ${reason}`, {
    ...(code === "too_many_requests" ? { hint: retryHint(details) } : {}),
    details,
  });
}

// --- internal ---

const LONGEST_SHOWN_HOURS = 48;

/** From 520 on: Cloudflare's words for what is wrong behind it; the storage of several registries is there. */
const PASSING: ReadonlySet<number> = new Set([500, 502, 503, 504, 520, 521, 522, 523, 524]);

const CODES: Readonly<Record<number, ErrorCode>> = {
  401: "unauthorized",
  403: "forbidden",
  404: "not_found",
  408: "timed_out",
  410: "not_found",
  429: "too_many_requests",
};

const REASONS: Partial<Record<ErrorCode, string>> = {
  unauthorized: "the server wants to know who asks",
  forbidden: "the server denies access",
  not_found: "there is no such file",
  too_many_requests: "the server was asked too often",
};

function codeOf(status: number): ErrorCode {
  return CODES[status] ?? "registry_unavailable";
}
