/** Refusals of registries, in their own words. */
import { AppError, type ErrorCode } from "../errors.ts";
import { discard, readBounded } from "../http/body.ts";
import { printable } from "../http/host.ts";
import { meaningOf, retryHint } from "../http/status-error.ts";
import { isRecord } from "./descriptor.ts";

/** A few sentences; proxies answer with pages. */
const MAX_BODY_BYTES = 64 * 1024;
/** The reason matters less than not to hang over it: without a byte, and in all. */
const BODY_STALL_MS = 5_000;
const BODY_MS = 15_000;
/** More of them say the same again. */
const MAX_WORDS = 3;

/** Who asked. */
export interface Account {
  readonly username: string;
  /** For people: where the credential comes from. */
  readonly source: string;
}

export interface RefusalContext {
  /** What was asked for, such as `docker.io/ai/pebble:latest`. */
  readonly subject: string;
  readonly verb: "read" | "write to" | "delete" | "log in to";
  /** As in references. */
  readonly registry: string;
  readonly account: Account | undefined;
  /** It is the account that is refused, not what it asks for. */
  readonly isAboutAccount?: boolean;
  readonly signal: AbortSignal;
}

/**
 * The error for a response of status 400 and above; reads its body.
 *
 * @returns details: `status`, `codes` (the registry's, such as `DIGEST_INVALID`), `registry`, `retry_after_ms`, `permanent`
 */
export async function registryError(
  response: Response,
  context: RefusalContext,
): Promise<AppError> {
  const { code, details } = meaningOf(response);
  const words = await readWords(response, context.signal);
  context.signal.throwIfAborted();
  const said = words.map((word) => word.text).filter((text) => text !== "");
  const quoted = said.length === 0 ? "" : ` (the registry says: ${printable(said.join("; "))})`;
  const codes = words.flatMap((word) => (word.code === "" ? [] : [word.code]));
  return new AppError(
    code,
    `cannot ${context.verb} \`${printable(context.subject)}\`: ${reason(code, context, response)}${quoted}`,
    {
      hint: hint(code, context, details),
      details: { ...details, registry: context.registry, ...(codes.length === 0 ? {} : { codes }) },
    },
  );
}

/** One thing that a registry says is wrong. */
export interface RegistryWord {
  /** Such as `MANIFEST_UNKNOWN`; empty if it has none. */
  readonly code: string;
  /** For people, bounded, without control characters; may be empty. */
  readonly text: string;
}

/**
 * Reads the body of a refusal, whatever its shape: the specification's list, OAuth's error, Docker Hub's, or a line of text.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes
 * @see https://www.rfc-editor.org/rfc/rfc6749#section-5.2
 */
export function parseWords(bytes: Uint8Array): readonly RegistryWord[] {
  const text = new TextDecoder().decode(bytes).trim();
  const value = tryJson(text);
  if (value === undefined) {
    const isMarkup = text.startsWith("<");
    return text === "" || isMarkup ? [] : [{ code: "", text: printable(text) }];
  }
  if (!isRecord(value)) return [];
  const { errors } = value;
  const entries = Array.isArray(errors) ? errors.slice(0, MAX_WORDS) : [value];
  return entries.filter((entry) => isRecord(entry)).map((entry) => toWord(entry));
}

// --- internal ---

async function readWords(
  response: Response,
  signal: AbortSignal,
): Promise<readonly RegistryWord[]> {
  try {
    const options = {
      maxBytes: MAX_BODY_BYTES,
      signal: AbortSignal.any([signal, AbortSignal.timeout(BODY_MS)]),
      stallMs: BODY_STALL_MS,
    };
    return parseWords(await readBounded(response, options));
  } catch {
    // The status says enough.
    await discard(response);
    return [];
  }
}

function toWord(entry: Record<string, unknown>): RegistryWord {
  const { code, error, message, detail, details, error_description: description } = entry;
  const text = [message, description, details, detail, error].find(
    (part) => typeof part === "string" && part.trim() !== "",
  );
  return {
    code: typeof code === "string" ? printable(code).slice(0, 64) : "",
    text: typeof text === "string" ? printable(text) : "",
  };
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

type Words = (context: RefusalContext, who: string | undefined) => string;

function reason(code: ErrorCode, context: RefusalContext, { status }: Response): string {
  const { account } = context;
  const who =
    account === undefined ? undefined : `\`${printable(account.username)}\` from ${account.source}`;
  return REASONS[code]?.(context, who) ?? `the registry answered with status ${status}`;
}

const ACTS: Readonly<Record<RefusalContext["verb"], string>> = {
  read: "read it",
  "write to": "write to it",
  delete: "delete it",
  "log in to": "use it",
};

const REASONS: Partial<Record<ErrorCode, Words>> = {
  unauthorized: ({ verb, isAboutAccount }, who) =>
    isAboutAccount === true && who !== undefined
      ? `the registry does not accept ${who}`
      : // Registries do not tell strangers what exists.
        `it does not exist, or ${who ?? "you, without logging in,"} may not ${ACTS[verb]}`,
  forbidden: ({ verb }, who) =>
    who === undefined
      ? `you may not ${ACTS[verb]} without logging in`
      : `${who} may not ${ACTS[verb]}`,
  not_found: () => "the registry does not have it",
  too_many_requests: (_context, who) =>
    `the registry was asked too often ${who === undefined ? "without logging in" : `by ${who}`}`,
};

function hint(
  code: ErrorCode,
  context: RefusalContext,
  details: Readonly<Record<string, unknown>>,
): string | undefined {
  const { account, registry } = context;
  if (code === "unauthorized" || code === "forbidden") return accessHint(context);
  if (code === "not_found") {
    return context.verb === "write to"
      ? "Check the name; some registries, such as Amazon ECR, want the repository made before."
      : "Check the name and the tag.";
  }
  if (code === "too_many_requests") {
    return account === undefined
      ? `${retryHint(details)} Logging in with \`tug login ${registry}\` may raise the limit.`
      : retryHint(details);
  }
  return details["permanent"] === true ? undefined : "Try again later.";
}

function accessHint({ account, registry, isAboutAccount }: RefusalContext): string {
  const logIn = `\`tug login ${registry}\``;
  if (account === undefined) return `Check the name, or log in with ${logIn}.`;
  return isAboutAccount === true
    ? `Log in with ${logIn}; many registries want an access token instead of the password.`
    : `Check the name, or log in with another account: ${logIn}.`;
}
