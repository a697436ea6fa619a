/** The sources of one blob, and what became of them. */
import { AppError } from "../errors.ts";
import type { BlobSource } from "../http/blob-source.ts";
import type { Digest } from "../oci/digest.ts";

export class SourceList {
  readonly #digest: Digest;
  #sources: readonly BlobSource[] = [];
  readonly #refused = new Set<BlobSource>();
  readonly #rangeless = new Set<BlobSource>();
  #failure: { readonly error: unknown } | undefined;
  #isReversed = false;

  constructor(digest: Digest) {
    this.#digest = digest;
  }

  add(sources: readonly BlobSource[]): void {
    this.#sources = [...this.#sources, ...sources.filter((one) => !this.#sources.includes(one))];
  }

  /**
   * The source to ask now.
   *
   * @throws what the last one said when it refused, not_found if there is none at all
   */
  get current(): BlobSource {
    const usable = this.#usable;
    const source = this.#isReversed ? usable.at(-1) : usable[0];
    if (source !== undefined) return source;
    throw this.#failure === undefined ? this.#nobody() : this.#failure.error;
  }

  /** Whether a source is left after the current one. */
  get hasNext(): boolean {
    return this.#usable.length > 1;
  }

  /** Whether the source stands in for the last one, which is the original. */
  isMirror(source: BlobSource): boolean {
    return source !== this.#sources.at(-1);
  }

  /** Asks the last one first: what came from another is in doubt. */
  reverse(): void {
    this.#isReversed = true;
  }

  /** It is not asked again. */
  refuse(source: BlobSource, error: unknown): void {
    this.#refused.add(source);
    this.#failure = { error };
  }

  isRangeless(source: BlobSource): boolean {
    return this.#rangeless.has(source);
  }

  markRangeless(source: BlobSource): void {
    this.#rangeless.add(source);
  }

  get #usable(): BlobSource[] {
    return this.#sources.filter((source) => !this.#refused.has(source));
  }

  #nobody(): AppError {
    return new AppError("not_found", `cannot fetch blob \`${this.#digest}\`: no source has it`);
  }
}
