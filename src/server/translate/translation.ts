/**
 * Answers of one API made of answers of another. A request is translated once, before it is sent; its answer either as a
 * whole, or as a stream piece by piece. Translations do no I/O and know no workers.
 */
import { AppError, toAppError } from "../../errors.ts";
import { log } from "../../log.ts";
import { isRecord } from "../../oci/descriptor.ts";
import type { ChatAnswer, ChatChunk } from "./chat.ts";

/** What is known of a request when its answer begins. */
export interface AnswerFacts {
  /** How long it waited for its worker, loading included. Milliseconds. */
  readonly waitedMs: number;
}

/** One request's. */
export interface Translation {
  /**
   * @param answer the engine's, whatever it is: members are to be checked where it matters
   * @returns the body of a 200
   */
  whole(answer: ChatAnswer, facts: AnswerFacts): object;
  /** Absent where there are no streams. Called once, before anything is awaited. */
  readonly stream?: AnswerStream;
}

/** Each member returns what is to be sent now, framed as the API frames its streams; empty for nothing. */
export interface AnswerStream {
  /** Called once, before the first `push`. */
  begin?(facts: AnswerFacts): void;
  push(chunk: ChatChunk): string;
  /** The engine's stream has ended well. */
  end(): string;
  /** The last of a stream that fails. @param body the dialect's own body of a failed request */
  fail(body: object): string;
  /** For a client that waits. Shown by nobody. */
  comment?(text: string): string;
  /** The client has gone: neither `end` nor `fail` will come. */
  left?(): void;
}

/** Turns the bytes of an engine's event stream into those of an `AnswerStream`. */
export class StreamTranslator {
  readonly #stream: AnswerStream;
  readonly #toErrorBody: (message: string) => object;
  readonly #decoder = new TextDecoder();
  readonly #encoder = new TextEncoder();
  #isOver = false;
  /** Some engines' streams end with the connection, which a process that dies closes just so. */
  #isComplete = false;

  /** @param toErrorBody for what an engine says went wrong in the middle of its stream */
  constructor(stream: AnswerStream, toErrorBody: (message: string) => object) {
    this.#stream = stream;
    this.#toErrorBody = toErrorBody;
  }

  /** Nothing comes any more, whatever is pushed. */
  get isOver(): boolean {
    return this.#isOver;
  }

  begin(facts: AnswerFacts): void {
    this.#stream.begin?.(facts);
  }

  /** @param bytes whole events @returns empty if there is nothing to send yet */
  push(bytes: Uint8Array): Uint8Array {
    let text = "";
    for (const data of dataOf(this.#decoder.decode(bytes, { stream: true }))) {
      if (data === "[DONE]") this.#isComplete = true;
      else if (!this.#isOver) text += this.#tryTo(() => this.#take(data));
    }
    return this.#encoder.encode(text);
  }

  end(): Uint8Array {
    if (this.#isOver) return new Uint8Array();
    const text = this.#tryTo(() => {
      if (!this.#isComplete) throw brokenOff();
      return this.#stream.end();
    });
    this.#isOver = true;
    return this.#encoder.encode(text);
  }

  left(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stream.left?.();
  }

  /** Nothing comes after a failure that was told. */
  over(): void {
    this.#isOver = true;
  }

  /** An answer that cannot be translated fails as one that the engine broke off. */
  #tryTo(translate: () => string): string {
    try {
      return translate();
    } catch (thrown) {
      const { message } = toAppError(thrown);
      log.error(`server: answer not translated reason=${message}`);
      this.#isOver = true;
      return this.#stream.fail(this.#toErrorBody(message));
    }
  }

  #take(data: string): string {
    const event = parseEvent(data);
    const error = event["error"];
    if (error === undefined || error === null) {
      if (hasReasonToEnd(event)) this.#isComplete = true;
      return this.#stream.push(event);
    }
    this.#isOver = true;
    const said = isRecord(error) ? error["message"] : error;
    return this.#stream.fail(this.#toErrorBody(typeof said === "string" ? said : data));
  }
}

// --- internal ---

/** @throws worker_failed */
function parseEvent(data: string): ChatChunk & Readonly<Record<string, unknown>> {
  try {
    const event: unknown = JSON.parse(data);
    if (isRecord(event)) return event;
  } catch {
    // Said below.
  }
  throw new AppError(
    "worker_failed",
    "cannot read the answer: the engine sent an event that is not JSON",
    {
      hint: "Try again; see `tug logs` if it happens again.",
    },
  );
}

function hasReasonToEnd({ choices }: ChatChunk): boolean {
  return (
    Array.isArray(choices) && choices.some((one) => isRecord(one) && one.finish_reason != null)
  );
}

function brokenOff(): AppError {
  return new AppError("worker_failed", "cannot end the answer: the engine broke it off", {
    hint: "Try again; see `tug logs` if it happens again.",
  });
}

/** Engines write an event as one `data:` line. */
function dataOf(text: string): string[] {
  const found: string[] = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("data:")) found.push(line.slice(line[5] === " " ? 6 : 5).trimEnd());
  }
  return found;
}
