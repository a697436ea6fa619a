/** The reasons for which the scheduler refuses a ticket. Pure. */
import { AppError } from "../errors.ts";
import type { Ticket } from "./scheduler.ts";

/** For `Retry-After`: in the order of one load, not of one request. */
const QUEUE_RETRY_SECONDS = 5;

export function shuttingDown({ modelName }: Ticket): AppError {
  return new AppError(
    "shutting_down",
    `cannot load \`${modelName}\`: the runner is shutting down`,
    {
      hint: "Try again: the next command starts a new runner.",
    },
  );
}

export function queueFull({ modelName }: Ticket, limit: number): AppError {
  return new AppError(
    "queue_full",
    `cannot serve \`${modelName}\`: ${limit} requests are waiting`,
    {
      hint: "Try again later.",
      details: { queue_limit: limit, retry_after_seconds: QUEUE_RETRY_SECONDS },
    },
  );
}

export function crashLoop(last: AppError, retryAfterMs: number): AppError {
  return new AppError(last.code, last.message, {
    hint: last.hint,
    details: { ...last.details, retry_after_ms: retryAfterMs },
    cause: last,
  });
}

export function tooBig({ modelName, bytes }: Ticket, maxBytes: number): AppError {
  const reason = `it needs ${bytes} bytes and the budget is ${maxBytes}`;
  return new AppError("insufficient_memory", `cannot load \`${modelName}\`: ${reason}`, {
    hint: "Choose a smaller model or a smaller context, or raise the memory budget.",
    details: { needed_bytes: bytes, budget_bytes: maxBytes },
  });
}

export function allPinned({ modelName, bytes }: Ticket, pinned: number): AppError {
  const reason = `models with keep-alive -1 leave no room (${pinned} of them)`;
  return new AppError("insufficient_memory", `cannot load \`${modelName}\`: ${reason}`, {
    hint: "Unload one of them with `tug unload MODEL`; `tug ps` lists them.",
    details: { needed_bytes: bytes, pinned_workers: pinned },
  });
}
