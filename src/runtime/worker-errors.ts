/** Why a worker is not there, in one sentence each. Pure. */
import { constants } from "node:os";
import { AppError } from "../errors.ts";
import type { Backend, ExitFacts } from "./backend.ts";
import type { EngineAddress } from "./engine-address.ts";
import type { WorkerPlan } from "./planner.ts";

/** What engines answer while they load. */
const LOADING = 503;

export interface WorkerNames {
  readonly modelName: string;
  readonly backend: Backend;
  readonly logFile: string;
}

/** The caller has gone. */
export function cancelledError({ model }: WorkerPlan, signal: AbortSignal): AppError {
  return new AppError("cancelled", `cannot run \`${model.name}\`: the request was cancelled`, {
    cause: signal.reason,
  });
}

/** @param isReady whether it was serving; else it was loading */
export function exitError(
  { modelName, backend, logFile }: WorkerNames,
  facts: ExitFacts,
  isReady: boolean,
): AppError {
  const { reason, hint, isOutOfMemory } = backend.explainExit(facts);
  const code = isOutOfMemory === true ? "insufficient_memory" : "worker_failed";
  const verb = isReady ? "serve" : "load";
  return new AppError(code, `cannot ${verb} \`${modelName}\`: ${reason}`, {
    hint: hint ?? `Read the engine's log: ${logFile}.`,
    details: {
      backend: backend.name,
      exit_code: facts.exitCode,
      signal: facts.signal,
      log_file: logFile,
    },
  });
}

export interface StallFacts {
  readonly stallMs: number;
  /** What it was given at all, if it was. */
  readonly boundMs?: number | undefined;
  /** The last status of its readiness path; undefined: it did not answer. */
  readonly answer?: number | undefined;
}

export function stalledError(
  { modelName, backend, logFile }: WorkerNames,
  { stallMs, boundMs, answer }: StallFacts,
): AppError {
  const isOdd = answer !== undefined && answer !== LOADING;
  const status = isOdd ? `; it answers ${backend.readinessPath} with ${answer}` : "";
  const what =
    boundMs === undefined
      ? `made no progress for ${stallMs / 1000} s`
      : `was not ready within ${boundMs / 1000} s`;
  const reason = `${backend.name} ${what}${status}`;
  return new AppError("worker_failed", `cannot load \`${modelName}\`: ${reason}`, {
    hint: `Read the engine's log: ${logFile}.`,
    details: { backend: backend.name, stall_ms: stallMs, log_file: logFile },
  });
}

export function stoppedError(modelName: string): AppError {
  return new AppError("shutting_down", `cannot serve \`${modelName}\`: its worker was stopped`, {
    hint: "Try again: the model is loaded again when it is asked for.",
  });
}

export function unresponsiveError({ modelName, backend, logFile }: WorkerNames): AppError {
  const reason = `${backend.name} stopped responding and was ended`;
  return new AppError("worker_failed", `cannot serve \`${modelName}\`: ${reason}`, {
    hint: `Try again: the model is loaded again. The engine's log is ${logFile}.`,
    details: { backend: backend.name, log_file: logFile },
  });
}

export function wakeError({ modelName, backend, logFile }: WorkerNames): AppError {
  const reason = `${backend.name} did not wake and was ended`;
  return new AppError("worker_failed", `cannot serve \`${modelName}\`: ${reason}`, {
    hint: `Try again: the model is loaded again. The engine's log is ${logFile}.`,
    details: { backend: backend.name, log_file: logFile },
  });
}

export function socketGoneError(at: {
  readonly names: WorkerNames;
  readonly address: EngineAddress;
}): AppError {
  const { modelName } = at.names;
  return new AppError(
    "worker_failed",
    `cannot serve \`${modelName}\`: its engine's socket \`${at.address}\` is gone`,
    { hint: "Try again: the model is loaded again. Leave the run directory alone." },
  );
}

/**
 * What bubblewrap tells of the process that it ran: a signal becomes an exit code of 128 and its number, as in a shell.
 *
 * @see https://github.com/containers/bubblewrap/blob/v0.8.0/bubblewrap.c propagate_exit_status()
 */
export function unwrapExit(facts: ExitFacts): ExitFacts {
  const number = (facts.exitCode ?? 0) - 128;
  const signal = Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
  return facts.signal === null && signal !== undefined
    ? { ...facts, exitCode: null, signal }
    : facts;
}
