/**
 * One upload session of a registry: the location that moves with every answer, and what can be done with it.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs
 */
import { AppError } from "../errors.ts";
import { discard, readBounded } from "../http/body.ts";
import { printable } from "../http/host.ts";
import { log } from "../log.ts";
import { type Digest, tryParseDigest } from "./digest.ts";
import type { Exchange, ExchangeRequest } from "./exchange.ts";
import { parseWords } from "./registry-error.ts";
import type { BlobBody, ByteSpan } from "./upload-body.ts";

/**
 * After the last byte of a part: up to ten megabytes are in the system's buffers then, and a slow line takes minutes for them.
 * Milliseconds.
 */
const PART_ANSWER_MS = 180_000;

/** Farewells are a courtesy: nobody waits longer for one. Milliseconds. */
export const ABANDON_MS = 2_000;

/** Parts that a registry keeps only a piece of, or forgets again: with more, it would never end. */
const MAX_SETBACKS = 8;

/** Of an error's body: a few sentences. Bytes. */
const MAX_ERROR_BYTES = 64 * 1024;

/**
 * `moved`: it has more bytes now. `lost`: the session is gone, or nobody knows what it holds. `refused`: the registry
 * takes no parts, or not this one. `too_large`: it takes smaller ones.
 */
export type PartOutcome = "moved" | "lost" | "refused" | "too_large";

/** `rejected`: the registry says that what arrived has another digest. What was sent has the right one. */
export type CloseOutcome = "done" | "lost" | "rejected" | "too_large";

/** What registries answer that do not take parts as the specification has them. */
const REFUSALS = [400, 404, 405, 406, 409, 411, 412, 413, 415, 416, 422, 501];

export interface SessionOptions {
  readonly digest: Digest;
  readonly signal: AbortSignal;
  /** So long the registry may take to check and keep the whole. Milliseconds. */
  readonly commitMs: number;
}

/** Disposing of it tells the registry that nobody will finish it, unless it is finished or gone. */
export class UploadSession implements AsyncDisposable {
  readonly #exchange: Exchange;
  readonly #options: SessionOptions;
  #location: string;
  #isOpen = true;
  #setbacks = 0;
  /** What the registry has, as far as is known. Bytes. */
  offset = 0;
  /** The smallest part it takes, but for the last. Bytes. */
  readonly minPartBytes: number;

  /** @param opened the answer to the POST that opened it @throws registry_unavailable if it says no usable location */
  constructor(exchange: Exchange, opened: Response, options: SessionOptions) {
    this.#exchange = exchange;
    this.#options = options;
    this.#location = locationOf(opened, exchange.registry);
    const minimum = Number(opened.headers.get("oci-chunk-min-length") ?? 0);
    this.minPartBytes = Number.isSafeInteger(minimum) && minimum > 0 ? minimum : 0;
  }

  /** Everything in one exchange, which also closes the session. */
  async putWhole(body: BlobBody, size: number): Promise<CloseOutcome> {
    const target = this.#closing();
    const response =
      size === 0
        ? await this.#send(target, { method: "PUT", body: () => new Uint8Array(0) })
        : await body.send({ start: 0, end: size }, (open, signal) =>
            this.#send(target, {
              method: "PUT",
              headers: streamHeaders({ start: 0, end: size }),
              body: open,
              signal,
            }),
          );
    return this.#close(response);
  }

  /** Adds a part behind what the registry has. Throws what passes, such as a cut connection: then ask `resume`. */
  async patch(body: BlobBody, span: ByteSpan): Promise<PartOutcome> {
    const response = await body.send(span, (open, signal) =>
      this.#send(this.#location, {
        method: "PATCH",
        // Inclusive, and without the unit that RFC 9110 has.
        headers: { ...streamHeaders(span), "content-range": `${span.start}-${span.end - 1}` },
        body: open,
        signal,
        accept: REFUSALS,
        headersTimeoutMs: PART_ANSWER_MS,
      }),
    );
    await discard(response);
    if (response.status === 404) return this.#lose();
    if (response.status === 413) return "too_large";
    if (response.status === 416) return this.resume(body.sentBytes);
    if (!response.ok) return "refused";
    this.#follow(response);
    // It may have kept less than it was sent.
    const end = rangeEnd(response) ?? span.end;
    if (end < span.end) this.#setbacks += 1;
    return this.#moveTo(end, body.sentBytes);
  }

  /**
   * Asks what the registry has.
   *
   * @param sentBytes more than this it cannot have
   * @returns `refused` if it has as much as was known
   */
  async resume(sentBytes: number): Promise<PartOutcome> {
    const response = await this.#send(this.#location, {
      method: "GET",
      accept: REFUSALS,
    });
    await discard(response);
    const end = rangeEnd(response);
    if (!response.ok || end === undefined) return this.#lose();
    this.#follow(response);
    return this.#moveTo(end, sentBytes);
  }

  /** Closes the session: what it has becomes a blob. */
  async finish(): Promise<CloseOutcome> {
    return this.#close(
      await this.#send(this.#closing(), { method: "PUT", body: () => new Uint8Array(0) }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    try {
      // The work may have been cancelled: this has a signal of its own.
      const signal = AbortSignal.timeout(ABANDON_MS);
      await discard(await this.#send(this.#location, { method: "DELETE", signal }));
    } catch (error) {
      log.debug(
        `oci: an upload session was left behind registry=${this.#exchange.registry} error=${String(error)}`,
      );
    }
  }

  #moveTo(end: number, sentBytes: number): PartOutcome {
    if (end > sentBytes) return this.#lose();
    const isMoved = end !== this.offset;
    if (end < this.offset) this.#setbacks += 1;
    this.offset = end;
    return isMoved && this.#setbacks <= MAX_SETBACKS ? "moved" : "refused";
  }

  #lose(): "lost" {
    this.#isOpen = false;
    return "lost";
  }

  #follow(response: Response): void {
    if (response.headers.has("location"))
      this.#location = locationOf(response, this.#exchange.registry);
  }

  /** The query is signed by some registries: it stays as it is. */
  #closing(): string {
    const separator = this.#location.includes("?") ? "&" : "?";
    return `${this.#location}${separator}digest=${encodeURIComponent(this.#options.digest)}`;
  }

  async #close(response: Response): Promise<CloseOutcome> {
    if (response.status === 404) {
      await discard(response);
      return this.#lose();
    }
    if (response.status === 400) return this.#reject(response);
    await discard(response);
    if (response.status === 413) return "too_large";
    this.#isOpen = false;
    const { digest } = this.#options;
    const stored = response.headers.get("docker-content-digest");
    // Another algorithm is no contradiction.
    const other = stored === null ? undefined : tryParseDigest(stored);
    if (other === undefined || other === digest) return "done";
    throw wrongStored(digest, other, this.#exchange.registry);
  }

  async #reject(response: Response): Promise<"rejected"> {
    const { signal } = this.#options;
    const bytes = await readBounded(response, { maxBytes: MAX_ERROR_BYTES, signal });
    const words = parseWords(bytes);
    if (words.some(({ code }) => code === "DIGEST_INVALID" || code === "SIZE_INVALID"))
      return "rejected";
    const said = words.map(({ code, text }) => `${code} ${text}`.trim()).join("; ");
    throw unusable(this.#exchange.registry, printable(said) || "it refused the upload (400)");
  }

  async #send(
    target: string,
    request: Omit<ExchangeRequest, "access" | "signal"> & { readonly signal?: AbortSignal },
  ): Promise<Response> {
    return this.#exchange.send(target, {
      access: "push",
      signal: this.#options.signal,
      accept: request.method === "PUT" ? [400, 404, 413] : [],
      ...(request.method === "PUT" ? { headersTimeoutMs: this.#options.commitMs } : {}),
      // Whether a part arrived is asked before it is sent again.
      attempts: 1,
      ...request,
    });
  }
}

// --- internal ---

function streamHeaders({ start, end }: ByteSpan): Record<string, string> {
  return { "content-type": "application/octet-stream", "content-length": String(end - start) };
}

/**
 * Registries behind a proxy that speaks TLS for them often call themselves `http://`: the host is the same, so the scheme
 * of the request is kept. To other hosts nothing that began encrypted goes unencrypted.
 */
function locationOf(response: Response, registry: string): string {
  const base = URL.parse(response.url);
  const text = response.headers.get("location") ?? "";
  const url = base === null ? URL.parse(text) : URL.parse(text, base.href);
  if (text === "" || url === null || !/^https?:$/.test(url.protocol))
    throw unusable(registry, "it does not say where to upload to");
  url.username = "";
  url.password = "";
  url.hash = "";
  if (base?.protocol !== "https:" || url.protocol === "https:") return url.href;
  if (url.hostname !== base.hostname)
    throw unusable(registry, `it wants the upload sent to ${printable(url.host)} unencrypted`);
  url.protocol = "https:";
  if (url.port === "") url.port = base.port;
  return url.href;
}

function wrongStored(expected: Digest, actual: Digest, registry: string): AppError {
  return new AppError(
    "digest_mismatch",
    `cannot upload \`${expected}\`: ${registry} stored \`${actual}\``,
    { hint: "Ask whoever runs the registry.", details: { expected, actual } },
  );
}

function unusable(registry: string, reason: string): AppError {
  return new AppError("registry_unavailable", `cannot upload to ${registry}: ${reason}`, {
    hint: "Ask whoever runs the registry.",
    details: { permanent: true },
  });
}

/** `0-<last>`, some say `bytes=0-<last>`. `0-0` is what registries say for nothing at all. */
function rangeEnd(response: Response): number | undefined {
  const match = /^(?:bytes[= ])?0-(\d{1,15})$/.exec(response.headers.get("range") ?? "");
  if (match === null) return undefined;
  const last = Number(match[1]);
  return last === 0 ? 0 : last + 1;
}
