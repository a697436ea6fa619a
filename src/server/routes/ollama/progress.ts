/**
 * Long work in Ollama's words: a line a status, `success` at the end.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md#pull-a-model
 */
import type { Context } from "hono";
import type { ProgressEvent } from "../../../api/progress.ts";
import { AppError, fromErrorObject } from "../../../errors.ts";
import { hexOf, tryParseDigest } from "../../../oci/digest.ts";
import type { AppEnv, WorkOptions } from "../../deps.ts";
import { OLLAMA } from "../../dialect.ts";
import { progressResponse } from "../../progress-response.ts";

/** A line of a stream that pulls, pushes or creates. */
export interface OllamaStatus {
  readonly status: string;
  /** Of the file that is being moved; what it is called where it has no digest yet. */
  readonly digest?: string;
  /** Bytes. */
  readonly total?: number;
  /** Bytes; absent before the first. */
  readonly completed?: number;
}

export interface StatusOptions {
  /** False: one answer when all is done, with the status of a failure. */
  readonly stream: boolean;
  /** In front of a file's name, such as `pulling`. */
  readonly verb: string;
  /** Statuses between the last file and `success`. */
  readonly ending: readonly string[];
}

/** Digits of a digest that people are shown. */
const SHOWN_DIGITS = 12;

/** @param work tells statuses of its own by `sayStatus` */
export async function answerWithStatuses(
  c: Context<AppEnv>,
  options: StatusOptions,
  work: (options: WorkOptions) => Promise<unknown>,
): Promise<Response> {
  const { signal } = c.req.raw;
  if (options.stream) return progressResponse(signal, work, (event) => encode(event, options));
  await work({ signal, onProgress: () => undefined });
  return c.json<OllamaStatus>({ status: "success" });
}

/** A status that is about no file. */
export function sayStatus({ onProgress }: Pick<WorkOptions, "onProgress">, status: string): void {
  onProgress({ type: "progress", id: status, phase: status, done_bytes: null, total_bytes: null });
}

/** Pure. @returns lines; none for what Ollama has no words for */
export function encode(event: ProgressEvent<unknown>, options: StatusOptions): string {
  return toStatuses(event, options)
    .map((status) => `${JSON.stringify(status)}\n`)
    .join("");
}

// --- internal ---

function toStatuses(
  event: ProgressEvent<unknown>,
  { verb, ending }: StatusOptions,
): readonly object[] {
  if (event.type === "progress") return [toFileStatus(event, verb)];
  if (event.type === "warning") return [{ status: `warning: ${event.message}` }];
  if (event.type === "success") return [...ending, "success"].map((status) => ({ status }));
  const { message } = event.error;
  return [OLLAMA.errorBody(fromErrorObject(event.error) ?? new AppError("internal", message))];
}

function toFileStatus(
  {
    id,
    phase,
    done_bytes: done,
    total_bytes: total,
  }: ProgressEvent<unknown> & { type: "progress" },
  verb: string,
): OllamaStatus {
  if (done === null) return { status: phase };
  const digest = tryParseDigest(id);
  const shown = digest === undefined ? id : hexOf(digest).slice(0, SHOWN_DIGITS);
  return {
    status: `${verb} ${shown}`,
    digest: id,
    ...(total === null ? {} : { total }),
    ...(done === 0 ? {} : { completed: done }),
  };
}
