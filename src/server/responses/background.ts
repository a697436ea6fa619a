/** Responses that are made without their clients. They end with the runner; what they were then is seen at the next look. */
import type { ResponseObject } from "../../api/responses.ts";
import { AppError, toAppError } from "../../errors.ts";
import { toErrorBody } from "../error-response.ts";
import type { ResponseAnswer } from "../translate/responses/answer.ts";
import type { EventLog } from "./event-log.ts";

/** Each holds its request and what it has said; as many wait for a worker, and more would keep others from it. */
const MAX_BACKGROUND = 128;

export interface BackgroundJob {
  readonly answer: ResponseAnswer;
  /** As of `StoredResponse`. */
  readonly owner: string | null;
  /** Undefined: nobody asked for a stream. */
  readonly log: EventLog | undefined;
  readonly controller: AbortController;
  /** Asks a worker. */
  readonly ask: (signal: AbortSignal) => Promise<Response>;
  /** Called when it is over; throws nothing. */
  readonly done: () => void;
  /** From now on nothing of it is kept. */
  readonly forget: () => void;
}

export class BackgroundResponses {
  readonly #jobs = new Map<string, BackgroundJob>();
  readonly #limit: number;

  constructor(limit: number = MAX_BACKGROUND) {
    this.#limit = limit;
  }

  /** @throws queue_full */
  requireRoom(): void {
    if (this.#jobs.size < this.#limit) return;
    throw new AppError(
      "queue_full",
      `cannot begin another response in the background: ${this.#limit} are being made`,
      { hint: "Try again in a moment, or ask without `background`." },
    );
  }

  find(id: string): BackgroundJob | undefined {
    return this.#jobs.get(id);
  }

  start(job: BackgroundJob): void {
    this.#jobs.set(job.answer.response.id, job);
    void this.#run(job);
  }

  /** @returns how it was left */
  cancel(job: BackgroundJob): ResponseObject {
    job.answer.cancel();
    job.controller.abort();
    return job.answer.response;
  }

  forget(job: BackgroundJob): void {
    job.forget();
    this.cancel(job);
  }

  // --- internal ---

  async #run({ answer, log, controller, ask, done }: BackgroundJob): Promise<void> {
    const { id } = answer.response;
    const { signal } = controller;
    try {
      const response = await ask(signal);
      if (response.ok) await drain(response);
      else answer.stream.fail((await response.json()) as object);
    } catch (thrown) {
      if (!signal.aborted) answer.stream.fail(toErrorBody(toAppError(thrown)));
    } finally {
      if (signal.aborted) answer.cancel();
      else answer.stream.fail(toErrorBody(unanswered()));
      log?.end();
      this.#jobs.delete(id);
      done();
    }
  }
}

// --- internal ---

/** What is said goes through the translation on its way here. */
async function drain({ body }: Response): Promise<void> {
  for await (const _ of body ?? []);
}

function unanswered(): AppError {
  return new AppError("worker_failed", "cannot make the response: nothing was answered", {
    hint: "Try again; see `tug logs` if it happens again.",
  });
}
