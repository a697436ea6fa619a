/**
 * Every failure a user can meet, as one class and one table.
 *
 * `exit` is the process exit code (0, 1, 2 and 130 only: scripts that need more read `--json`); `status` is the
 * HTTP status of the same failure. The code is the type: callers switch on `code`, never on the message.
 */
export const ERROR_CODES = {
  usage: { exit: 2, status: 400 },
  invalid_reference: { exit: 2, status: 400 },
  invalid_request: { exit: 1, status: 400 },
  /** OpenAI's own word: clients look for it. */
  context_length_exceeded: { exit: 1, status: 400 },
  invalid_model_file: { exit: 1, status: 422 },
  unauthorized: { exit: 1, status: 401 },
  forbidden: { exit: 1, status: 403 },
  not_found: { exit: 1, status: 404 },
  model_not_found: { exit: 1, status: 404 },
  blob_not_found: { exit: 1, status: 404 },
  backend_not_found: { exit: 1, status: 404 },
  method_not_allowed: { exit: 1, status: 405 },
  model_in_use: { exit: 1, status: 409 },
  conflict: { exit: 1, status: 409 },
  backend_not_installed: { exit: 1, status: 412 },
  request_too_large: { exit: 1, status: 413 },
  unsupported_model: { exit: 1, status: 422 },
  queue_full: { exit: 1, status: 429 },
  too_many_requests: { exit: 1, status: 429 },
  cancelled: { exit: 130, status: 499 },
  internal: { exit: 1, status: 500 },
  not_supported: { exit: 1, status: 501 },
  digest_mismatch: { exit: 1, status: 502 },
  registry_unavailable: { exit: 1, status: 502 },
  worker_failed: { exit: 1, status: 502 },
  install_failed: { exit: 1, status: 503 },
  insufficient_memory: { exit: 1, status: 503 },
  sandbox_unavailable: { exit: 1, status: 503 },
  shutting_down: { exit: 1, status: 503 },
  runner_unreachable: { exit: 1, status: 503 },
  offline: { exit: 1, status: 503 },
  timed_out: { exit: 1, status: 504 },
  insufficient_storage: { exit: 1, status: 507 },
} as const satisfies Record<string, { exit: 0 | 1 | 2 | 130; status: number }>;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface AppErrorOptions {
  /** What to do next: an imperative sentence, shown after `hint:`. */
  readonly hint?: string | undefined;
  /** JSON-safe facts for `--json` and API clients. */
  readonly details?: Readonly<Record<string, unknown>> | undefined;
  readonly cause?: unknown;
}

/** The one error class. `message` has the form `cannot <verb> <object>: <reason>`, lower case, no full stop. */
export class AppError extends Error {
  // A literal: the minifier renames classes, so constructor.name would lie.
  override readonly name = "AppError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.details = options.details;
  }

  get exitCode(): number {
    return ERROR_CODES[this.code].exit;
  }

  get status(): number {
    return ERROR_CODES[this.code].status;
  }
}

/** The JSON form of an error, in `--json` output and in the body of every failed request. */
export interface ErrorObject {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string | null;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** Wraps anything thrown. An abort becomes `cancelled`, a full disk `insufficient_storage`, the rest `internal`. */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (isAbort(thrown)) return new AppError("cancelled", "cancelled", { cause: thrown });
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (errnoOf(thrown) === "ENOSPC" || errnoOf(thrown) === "EDQUOT") {
    return new AppError("insufficient_storage", `no space left on the disk: ${message}`, {
      hint: "Free some space (`tug df` and `tug prune` help) and try again.",
      cause: thrown,
    });
  }
  const refused = REFUSALS[errnoOf(thrown) ?? ""];
  const { path } = (thrown ?? {}) as { path?: unknown };
  if (refused !== undefined && typeof path === "string") {
    return new AppError("forbidden", `cannot use \`${path}\`: ${refused}`, {
      hint: "Check who owns it, or set TUG_HOME to a directory of your own.",
      cause: thrown,
    });
  }
  return new AppError("internal", message, { cause: thrown });
}

export function toErrorObject(error: AppError): ErrorObject {
  const { code, message, hint, details } = error;
  return { code, message, hint: hint ?? null, ...(details === undefined ? {} : { details }) };
}

/** Rebuilds the error a server described, so that it prints as if it had happened here. */
export function fromErrorObject(value: unknown): AppError | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { code, message, hint, details } = value as Record<string, unknown>;
  if (typeof code !== "string" || !(code in ERROR_CODES) || typeof message !== "string")
    return undefined;
  return new AppError(code as ErrorCode, message, {
    hint: typeof hint === "string" ? hint : undefined,
    details:
      typeof details === "object" && details !== null
        ? (details as Record<string, unknown>)
        : undefined,
  });
}

/** `ENOENT` and friends, or undefined for anything that is not a system error. */
export function errnoOf(thrown: unknown): string | undefined {
  const code = (thrown as { code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}

/** For programmer errors only: a failed assertion crashes the request, not the runner. */
export function assert(condition: unknown, invariant: string): asserts condition {
  if (!condition) throw new Error(`broken invariant: ${invariant}`);
}

// --- internal ---

/** System errors that say how a path is kept from us. */
const REFUSALS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EPERM: "the system does not permit it",
  EROFS: "its file system is read-only",
  ENOTDIR: "something on the way to it is not a directory",
  EISDIR: "it is a directory",
};

function isAbort(thrown: unknown): boolean {
  return (
    thrown instanceof Error && (thrown.name === "AbortError" || errnoOf(thrown) === "ABORT_ERR")
  );
}
