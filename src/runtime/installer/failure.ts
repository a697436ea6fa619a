/** Why an engine could not be installed, for people. Pure. */
import { AppError, errnoOf } from "../../errors.ts";
import type { Backend } from "../backend.ts";

export interface FailedAttempt {
  readonly source: string;
  readonly reason: string;
}

/** @throws what another source could not mend: an abort, a full disk */
export function reasonOf(error: unknown, signal: AbortSignal): string {
  signal.throwIfAborted();
  const code = errnoOf(error);
  if (code === "ENOSPC" || code === "EDQUOT" || code === "insufficient_storage") throw error;
  return error instanceof Error ? error.message : String(error);
}

/** One source: its own reason. Several: each with its reason, in the order they were tried. */
export function installFailed(
  backend: Backend,
  attempts: readonly FailedAttempt[],
  offline: boolean,
): AppError {
  const [only] = attempts;
  const tried = attempts.map(({ source, reason }) => `${source}: ${reason}`).join("\n  ");
  const message =
    attempts.length === 1 && only !== undefined
      ? `from ${only.source}: ${only.reason}`
      : `no source can serve it\n  ${tried}`;
  const variable = backend.recipe.path?.environment[0];
  const own = variable === undefined ? "" : `, or set ${variable} to an engine of your own`;
  return new AppError("install_failed", `cannot install ${backend.name}: ${message}`, {
    hint: offline
      ? `Offline mode is on: turn it off${own}.`
      : `Check the network and try again, choose \`--source\` or \`--gpu\`${own}.`,
    details: { attempts },
  });
}

/** @returns what to throw instead: nobody typed the version */
export function blamePin(error: unknown, version: string): unknown {
  if (!(error instanceof AppError) || !PIN_MAY_BE_WRONG.has(error.code)) return error;
  const { code, message, details, hint = "" } = error;
  const pinned = `config.toml says version ${version}: correct it, or take it out.`;
  return new AppError(code, message, {
    hint: `${pinned} ${hint}`.trim(),
    details,
    cause: error,
  });
}

// --- internal ---

const PIN_MAY_BE_WRONG: ReadonlySet<string> = new Set(["install_failed", "usage"]);
