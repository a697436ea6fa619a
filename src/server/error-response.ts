/** Failures as HTTP: status, headers and the body that OpenAI's clients parse. */
import { type AppError, type ErrorCode, toErrorObject } from "../errors.ts";

/** In seconds, where the error does not say. A worker frees up when an answer ends, which is a matter of seconds. */
const RETRY_AFTER_SECONDS: Partial<Record<ErrorCode, number>> = { queue_full: 5 };

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    /** OpenAI's coarse class; `code` is the exact one. */
    readonly type: string;
    /** The field of the request that is wrong. */
    readonly param: string | null;
    readonly code: ErrorCode;
    readonly hint?: string;
    readonly details?: Readonly<Record<string, unknown>>;
  };
}

/** @see https://platform.openai.com/docs/guides/error-codes/api-errors */
export function toErrorBody(error: AppError): ErrorBody {
  const { code, message, hint, details: facts } = toErrorObject(error);
  const { param = null, ...details } = facts ?? {};
  return {
    error: {
      message,
      type: errorType(error.status),
      param: typeof param === "string" ? param : null,
      code,
      ...(hint === null ? {} : { hint }),
      ...(Object.keys(details).length === 0 ? {} : { details }),
    },
  };
}

/** What an engine refuses, as if it had been refused here. @param status 400 or more */
export function toRefusalBody(status: number, message: string): ErrorBody {
  return { error: { message, type: errorType(status), param: null, code: refusalCode(status) } };
}

/** @param dialect in whose words; default: OpenAI's */
export function toErrorResponse(
  error: AppError,
  dialect: { errorBody(error: AppError): object } = { errorBody: toErrorBody },
): Response {
  const headers = new Headers({ "content-type": "application/json" });
  const said = error.details?.["retry_after_seconds"];
  const seconds = typeof said === "number" ? Math.ceil(said) : RETRY_AFTER_SECONDS[error.code];
  if (seconds !== undefined) headers.set("retry-after", String(seconds));
  // RFC 9110 §11.6.1 demands it of every 401.
  if (error.status === 401) headers.set("www-authenticate", "Bearer");
  return new Response(JSON.stringify(dialect.errorBody(error)), { status: error.status, headers });
}

// --- internal ---

function refusalCode(status: number): ErrorCode {
  if (status === 501) return "not_supported";
  return status < 500 ? "invalid_request" : "worker_failed";
}

function errorType(status: number): string {
  if (status >= 500) return "server_error";
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 409:
      return "conflict_error";
    case 429:
      return "rate_limit_error";
    default:
      return "invalid_request_error";
  }
}
