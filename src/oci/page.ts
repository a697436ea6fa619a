/** Lists that come page by page. */
import { AppError } from "../errors.ts";
import { discard, readBounded } from "../http/body.ts";
import { isTransient, withRetry } from "../http/retry.ts";
import type { Exchange } from "./exchange.ts";

/** A body that was cut; failures before it are the exchange's to repeat. */
const ATTEMPTS_AT_BODY = 3;

export interface Page {
  readonly response: Response;
  /** Empty unless the status is one of success. */
  readonly bytes: Uint8Array;
}

export interface PageOptions {
  readonly signal: AbortSignal;
  readonly maxBytes: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Statuses that the caller handles itself. */
  readonly accept?: readonly number[];
}

/** One page, read whole; asked for again if it is cut off. @throws request_too_large, what the exchange throws */
export async function fetchPage(
  exchange: Exchange,
  target: string,
  { signal, maxBytes, headers = {}, accept = [] }: PageOptions,
): Promise<Page> {
  let isAnswered = false;
  const read = async (): Promise<Page> => {
    isAnswered = false;
    const request = { method: "GET", access: "pull", headers, accept, signal } as const;
    const response = await exchange.send(target, request);
    isAnswered = true;
    if (!response.ok) {
      await discard(response);
      return { response, bytes: new Uint8Array() };
    }
    return { response, bytes: await readBounded(response, { maxBytes, signal }) };
  };
  return withRetry(read, {
    signal,
    attempts: ATTEMPTS_AT_BODY,
    isRetryable: (error) => isAnswered && isTransient(error),
    ...(exchange.wait === undefined ? {} : { wait: exchange.wait }),
  });
}

/**
 * Address of the next page, which lies at the registry itself, or there is none. One behind a proxy that speaks TLS for it may call itself
 * `http://`: the host is the same, so the scheme of the request is kept.
 *
 * @throws registry_unavailable if the list goes on at another host
 * @see https://www.rfc-editor.org/rfc/rfc8288#section-3
 */
export function nextPage(
  { registry, repository }: Exchange,
  response: Response,
): string | undefined {
  const link = (response.headers.get("link") ?? "").slice(0, 8192);
  const target = /<([^<>]*)>\s*;[^<]*\brel="?next\b/i.exec(link)?.[1];
  if (target === undefined) return undefined;
  const base = URL.parse(response.url);
  const url = URL.parse(target, response.url);
  if (base === null || url === null || url.hostname !== base.hostname) {
    throw new AppError(
      "registry_unavailable",
      `cannot read a list of \`${registry}/${repository}\`: it goes on at another host`,
      { hint: "Ask whoever runs the registry.", details: { permanent: true } },
    );
  }
  return `${base.origin}${url.pathname}${url.search}`;
}
