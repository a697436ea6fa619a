/** Failures as HTTP: status, headers and the body that OpenAI's clients parse. */
import { type AppError, type ErrorCode, toErrorObject } from "../errors.ts";

/** In seconds, where the error does not say. A worker frees up when an answer ends, which is a matter of seconds. */
const RETRY_AFTER_SECONDS: Partial<Record<ErrorCode, number>> = { queue_full: 5 };

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    /** OpenAI's coarse class; `code` is the exact one. */
    readonly type: string;
    readonly param: null;
    readonly code: ErrorCode;
    readonly hint?: string;
    readonly details?: Readonly<Record<string, unknown>>;
  };
}

/** @see https://platform.openai.com/docs/guides/error-codes/api-errors */
export function toErrorBody(error: AppError): ErrorBody {
  const { code, message, hint, details } = toErrorObject(error);
  return {
    error: {
      message,
      type: errorType(error.status),
      param: null,
      code,
      ...(hint === null ? {} : { hint }),
      ...(details === undefined ? {} : { details }),
    },
  };
}

export function toErrorResponse(error: AppError): Response {
  const headers = new Headers({ "content-type": "application/json" });
  const said = error.details?.["retry_after_seconds"];
  const seconds = typeof said === "number" ? Math.ceil(said) : RETRY_AFTER_SECONDS[error.code];
  if (seconds !== undefined) headers.set("retry-after", String(seconds));
  return new Response(JSON.stringify(toErrorBody(error)), { status: error.status, headers });
}

// --- internal ---

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
