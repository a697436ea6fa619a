/**
 * Long operations answer with NDJSON (`application/x-ndjson`), one `ProgressEvent<Result>` a line: any number of
 * `progress` and `warning`, then exactly one `success` or `error`. The status is 200 even if the last line is an error.
 * The routes that Docker Model Runner has as well do so only for who sends that type in `Accept`; others get its members
 * besides, and a status of its own for what fails before the first line.
 */
import type { ErrorObject } from "../errors.ts";

/** Work in flight. A consumer shows the newest one of each `id`. */
export interface Progress {
  readonly type: "progress";
  /** What is worked on: a digest, a file name, an engine's name. */
  readonly id: string;
  /** Such as `copying`, `downloading`, `installing`, `loading`, `verifying`. */
  readonly phase: string;
  readonly done_bytes: number | null;
  readonly total_bytes: number | null;
  /** While it waits for room: its place in line, from 1. */
  readonly position?: number | undefined;
  /** While it waits for room: what is in memory, by name. */
  readonly waiting_for?: string | undefined;
}

export interface Warning {
  readonly type: "warning";
  readonly message: string;
}

export type ProgressEvent<Result> =
  | Progress
  | Warning
  | { readonly type: "success"; readonly result: Result }
  | { readonly type: "error"; readonly error: ErrorObject };

/** What an operation calls while it works. */
export type ProgressListener = (event: Progress | Warning) => void;
