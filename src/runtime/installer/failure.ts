/** Why an engine could not be installed, for people. Pure. */
import { AppError, errnoOf } from "../../errors.ts";
import type { Backend } from "../backend.ts";

export interface FailedAttempt {
  readonly source: string;
  readonly reason: string;
  /** Whatever the network does, it would fail again. */
  readonly isFinal?: boolean | undefined;
}

/** Why one source could not serve. */
export class Reasons {
  readonly #all = new Set<string>();
  #isFinal = true;

  /** @throws what another source could not mend: an abort, a full disk */
  note(error: unknown, signal: AbortSignal): void {
    this.#all.add(reasonOf(error, signal));
    // What a source says of an engine that it will never have.
    this.#isFinal &&= error instanceof AppError && error.code === "not_supported";
  }

  get all(): readonly string[] {
    return [...this.#all];
  }

  toAttempt(source: string): FailedAttempt {
    return { source, reason: this.all.join("; "), isFinal: this.#isFinal };
  }
}

export interface FailureFacts {
  readonly offline: boolean;
  /** Who named the Python of an environment of their own: `--python`, or a variable. */
  readonly python: string | undefined;
}

/** One source: its own reason. Several: each with its reason, in the order they were tried. */
export function installFailed(
  backend: Backend,
  attempts: readonly FailedAttempt[],
  { offline, python }: FailureFacts,
): AppError {
  const [only] = attempts;
  const tried = attempts.map(({ source, reason }) => `${source}: ${reason}`).join("\n  ");
  const message =
    attempts.length === 1 && only !== undefined
      ? `from ${only.source}: ${only.reason}`
      : `no source can serve it\n  ${tried}`;
  return new AppError("install_failed", `cannot install ${backend.name}: ${message}`, {
    hint: python === undefined ? waysOut(backend, attempts, offline) : otherPython(backend, python),
    details: { attempts: attempts.map(({ source, reason }) => ({ source, reason })) },
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

/** @throws what another source could not mend: an abort, a full disk */
function reasonOf(error: unknown, signal: AbortSignal): string {
  signal.throwIfAborted();
  const code = errnoOf(error);
  if (code === "ENOSPC" || code === "EDQUOT" || code === "insufficient_storage") throw error;
  return error instanceof Error ? error.message : String(error);
}

function waysOut(
  { recipe }: Backend,
  attempts: readonly FailedAttempt[],
  offline: boolean,
): string {
  if (attempts.length > 0 && attempts.every((attempt) => attempt.isFinal === true)) {
    const [variable] = recipe.pypi?.environment ?? [];
    const own = variable === undefined ? "" : `, or set ${variable} to a Python that has it`;
    return `Choose another build with \`--gpu\`${own}; \`tug engines\` shows other engines.`;
  }
  const variable = recipe.path?.environment[0];
  const own = variable === undefined ? "" : `, or set ${variable} to an engine of your own`;
  return offline
    ? `Offline mode is on: turn it off${own}.`
    : `Check the network and try again, choose \`--source\` or \`--gpu\`${own}.`;
}

/** Of an environment of the user's own nothing is fetched. */
function otherPython({ recipe, name }: Backend, python: string): string {
  const needed = recipe.pypi?.package ?? name;
  const way = python.startsWith("--") ? `Leave out \`${python}\`` : `Unset ${python}`;
  return `Name the \`python\` of an environment that has \`${needed}\`. ${way} to have Tug make one.`;
}

const PIN_MAY_BE_WRONG: ReadonlySet<string> = new Set(["install_failed", "usage"]);
