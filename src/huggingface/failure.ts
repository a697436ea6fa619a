/** What the Hub's refusals mean, in words. */
import { AppError, type AppErrorOptions, type ErrorCode } from "../errors.ts";
import { discard } from "../http/body.ts";
import { printable } from "../http/host.ts";
import { LONGEST_RETRY_AFTER_MS } from "../http/retry.ts";
import { meaningOf, retryHint, type StatusMeaning } from "../http/status-error.ts";

/** A request, for what is said about its failure. */
export interface Asked {
  /** `cannot pull \`hf.co/org/repo\``. */
  readonly attempt: string;
  /** Address of the repository's page, where terms are accepted; absent for searches. */
  readonly page?: string;
  readonly revision?: string;
  readonly hasToken: boolean;
}

/**
 * The Hub says why in `X-Error-Code` (`GatedRepo`, `RepoNotFound`, `RevisionNotFound`, `EntryNotFound`) and
 * `X-Error-Message`. To strangers it answers 401 for private repositories and for those that do not exist alike.
 *
 * @see https://huggingface.co/docs/huggingface_hub/package_reference/utilities#handle-http-errors
 * @see https://huggingface.co/docs/hub/rate-limits
 */
export async function toFailure(response: Response, asked: Asked): Promise<AppError> {
  await discard(response);
  const meaning = withRateLimit(meaningOf(response), response);
  const refusal: Refusal = {
    asked,
    meaning,
    status: response.status,
    reason: response.headers.get("x-error-code") ?? "",
    message: printable(response.headers.get("x-error-message") ?? ""),
  };
  const { code, text, hint } = explain(refusal);
  const options: AppErrorOptions = { hint, details: meaning.details };
  return new AppError(code, `${asked.attempt}: ${text}`, options);
}

/** For answers that are not what the Hub's documentation says. */
export function senseless(attempt: string, what: string, cause?: unknown): AppError {
  return new AppError("registry_unavailable", `${attempt}: ${what} cannot be understood`, {
    hint: "Try again later; if HF_ENDPOINT is set, check it.",
    details: { permanent: true },
    cause,
  });
}

// --- internal ---

interface Refusal {
  readonly asked: Asked;
  readonly meaning: StatusMeaning;
  readonly status: number;
  readonly reason: string;
  readonly message: string;
}

interface Explanation {
  readonly code: ErrorCode;
  readonly text: string;
  readonly hint?: string;
}

const TOKEN_HINT = "Set HF_TOKEN to a token of an account that may read it.";

function explain(refusal: Refusal): Explanation {
  const { meaning, status, reason, message } = refusal;
  if (reason === "GatedRepo") return gated(refusal);
  if (status === 451 || /disabled/i.test(message)) {
    const text = status === 451 ? "it may not be distributed" : "Hugging Face has disabled it";
    return { code: "forbidden", text, hint: "Choose another repository." };
  }
  if (status === 401) return unknownCaller(refusal);
  if (status === 403) {
    const text = message === "" ? "Hugging Face denies access" : `Hugging Face says: ${message}`;
    return { code: "forbidden", text, hint: TOKEN_HINT };
  }
  if (status === 404 || status === 410) return missing(refusal);
  if (status === 429) return tooMany(refusal);
  const said = message === "" ? "" : `: ${message}`;
  return { code: meaning.code, text: `Hugging Face answered with status ${status}${said}` };
}

function gated({ asked }: Refusal): Explanation {
  const used = asked.hasToken
    ? "the account of the token that was sent has not been let in"
    : "no token was sent";
  const steps = asked.hasToken ? "" : ", and set HF_TOKEN to a token of the account that did";
  return {
    code: asked.hasToken ? "forbidden" : "unauthorized",
    text: `it is gated: its owner wants terms accepted first, and ${used}`,
    hint: `Accept the terms at ${asked.page ?? "its page"}${steps}.`,
  };
}

function unknownCaller({ asked }: Refusal): Explanation {
  if (asked.hasToken) {
    return {
      code: "unauthorized",
      text: "Hugging Face does not accept the token that was sent",
      hint: "Make a new token at https://huggingface.co/settings/tokens, and set HF_TOKEN to it.",
    };
  }
  if (asked.page === undefined) {
    return { code: "unauthorized", text: "no token was sent", hint: TOKEN_HINT };
  }
  return {
    code: "unauthorized",
    text: "it does not exist, or it is private and no token was sent",
    hint: `Check the name; for a private repository, set HF_TOKEN.`,
  };
}

function missing({ asked, reason }: Refusal): Explanation {
  if (reason === "RevisionNotFound") {
    return {
      code: "model_not_found",
      text: `it has no revision \`${printable(asked.revision ?? "")}\``,
      hint: "Give a branch, a tag or a whole commit after `@`.",
    };
  }
  if (reason === "EntryNotFound") {
    return { code: "model_not_found", text: "a file that it lists is not there" };
  }
  const used = asked.hasToken ? ", or the token that was sent may not see it" : "";
  return {
    code: "model_not_found",
    text: `Hugging Face has no such model${used}`,
    hint: "Check the name: `tug search` finds models.",
  };
}

function tooMany({ asked, meaning }: Refusal): Explanation {
  const advice = asked.hasToken ? "" : " Callers with a token (HF_TOKEN) may ask more often.";
  return {
    code: "too_many_requests",
    text: "Hugging Face was asked too often",
    hint: `${retryHint(meaning.details)}${advice}`,
  };
}

/** `RateLimit: "api";r=0;t=55`: 55 s until the window ends. Windows last 5 minutes, longer than we wait. */
function withRateLimit(meaning: StatusMeaning, response: Response): StatusMeaning {
  const seconds = /;\s*t=(\d{1,6})\b/.exec(response.headers.get("ratelimit") ?? "")?.[1];
  if (meaning.code !== "too_many_requests" || seconds === undefined) return meaning;
  if (meaning.details["retry_after_ms"] !== undefined) return meaning;
  const retryAfterMs = Number(seconds) * 1000;
  const permanent = retryAfterMs > LONGEST_RETRY_AFTER_MS ? { permanent: true } : {};
  return {
    ...meaning,
    details: { ...meaning.details, retry_after_ms: retryAfterMs, ...permanent },
  };
}
