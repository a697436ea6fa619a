/** Hashing in a thread of its own: see `digest-thread.js` for what happens there. */
import { type Digest, digestOfHex } from "../oci/digest.ts";
// oxlint-disable-next-line import/default -- what is imported is the path of the file
import threadPath from "./digest-thread.js" with { type: "file" };
import type { Digester } from "./digester.ts";
import type { Piece } from "./pieces.ts";

/** Enough that the thread is not idle between two messages, and little enough to end soon when it is to. */
const BATCH_BYTES = 16 * 1024 * 1024;

type Task =
  | { readonly kind: "hash"; readonly file: number; readonly pieces: readonly Readonly<Piece>[] }
  | { readonly kind: "rewind"; readonly to: number }
  | { readonly kind: "digest" };

interface Answer {
  readonly value?: unknown;
  readonly error?: { readonly message: string; readonly code: string | undefined };
}

export class ThreadDigester implements Digester {
  readonly batchBytes = BATCH_BYTES;
  readonly update = undefined;
  readonly #file: number;
  readonly #thread: Worker;
  /** Who waits for an answer, in the order of the tasks. */
  readonly #waiting: PromiseWithResolvers<unknown>[] = [];
  #hashedBytes = 0;
  /** Why there is no thread any more: nobody would answer. */
  #failure: Error | undefined;

  /**
   * @param file its descriptor, open for as long as this is used
   * @param script what runs in the thread; for tests
   */
  constructor(file: number, script: string = threadPath) {
    this.#file = file;
    this.#thread = new Worker(script, { smol: true });
    this.#thread.unref();
    this.#thread.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
      const waiting = this.#waiting.shift();
      if (data.error === undefined) waiting?.resolve(data.value);
      else waiting?.reject(Object.assign(new Error(data.error.message), { code: data.error.code }));
    });
    this.#thread.addEventListener("error", ({ message }: ErrorEvent) =>
      this.#fail(new Error(`the hashing thread failed: ${message}`)),
    );
    // A thread may also end without a word.
    this.#thread.addEventListener("close", () => this.#fail(new Error("the hashing thread ended")));
  }

  get hashedBytes(): number {
    return this.#hashedBytes;
  }

  async hash(pieces: readonly Readonly<Piece>[]): Promise<number> {
    const sound = (await this.#ask({ kind: "hash", file: this.#file, pieces })) as number;
    this.#hashedBytes = pieces[sound - 1]?.end ?? this.#hashedBytes;
    return sound;
  }

  async rewind(to: number): Promise<void> {
    this.#hashedBytes = (await this.#ask({ kind: "rewind", to })) as number;
  }

  async digest(): Promise<Digest> {
    return digestOfHex((await this.#ask({ kind: "digest" })) as string);
  }

  [Symbol.dispose](): void {
    this.#thread.terminate();
    this.#fail(new Error("the hashing thread was ended"));
  }

  #ask(task: Task): Promise<unknown> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.push(waiting);
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    this.#thread.postMessage(task);
    return waiting.promise;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#failure);
  }
}
