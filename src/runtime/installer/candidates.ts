/** What may be done with an engine here: which sources are tried for a request, in which order, and what is refused. */
import { AppError } from "../../errors.ts";
import type { Backend, Machine } from "../backend.ts";
import { installationFromEnvironment } from "./path.ts";
import type { InstallSource } from "./source.ts";

/** What of a source's name that somebody typed is shown. */
const MAX_SHOWN = 80;

export interface CandidateRequest {
  readonly source?: string | undefined;
  readonly version?: string | undefined;
  readonly python?: string | undefined;
}

export interface CandidateFacts {
  readonly backend: Backend;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly offline: boolean;
}

/**
 * @param sources all there are, in the order in which they are tried
 * @throws usage (a source that has not this engine), install_failed (offline)
 */
export function candidates(
  sources: readonly InstallSource[],
  request: CandidateRequest,
  { backend, env, offline }: CandidateFacts,
): readonly InstallSource[] {
  const able = sources.filter((one) => Object.hasOwn(backend.recipe, one.name));
  const { source = sourceOf(backend, request.python), version } = request;
  if (request.python !== undefined) refusePython(source, backend);
  refuse(source, able, backend);
  const asked = able.filter((one) => one.isAskedFor?.({ backend, env }));
  const named =
    source === undefined && asked.length > 0
      ? asked
      : able.filter((one) => source === undefined || one.name === source);
  // Of an environment that is here nothing is fetched.
  const usable = named.filter((one) => !offline || !one.network || request.python !== undefined);
  const pinned = source === undefined && version !== undefined;
  // Whatever happens to be on PATH is not what somebody means who names a version.
  const chosen = pinned ? usable.filter((one) => one.network) : usable;
  if (chosen.length > 0) return chosen;
  if (!offline) throw nothingToInstall(backend, able);
  throw new AppError(
    "install_failed",
    `cannot install from ${source === undefined ? "the network" : `\`${source}\``}: offline mode is on`,
    { hint: `Turn offline mode off${offlineWay(backend)}.` },
  );
}

/** What names an environment of the user's own, which is then the only one that is tried: a flag, or a variable. */
export function namedPython(
  { python }: Pick<CandidateRequest, "python">,
  { backend, env }: Pick<CandidateFacts, "backend" | "env">,
): string | undefined {
  if (python !== undefined) return "--python";
  return backend.recipe.pypi?.environment.find((name) => (env[name] ?? "") !== "");
}

/** @throws not_supported if the engine does not run on such a machine */
export function refuseProblem(backend: Backend, machine: Machine): void {
  const reason = backend.problem?.(machine);
  if (reason === undefined) return;
  throw new AppError("not_supported", `cannot install ${backend.name}: ${reason}`, {
    hint: "See `tug engines` for those that run here.",
  });
}

/** @throws usage if it is configured, not installed */
export function refuseConfigured({ name, recipe }: Backend, verb: string): void {
  if (recipe.config === undefined) return;
  throw new AppError("usage", `cannot ${verb} ${name}: it is configured, not installed`, {
    hint: "Change what config.toml says of it.",
  });
}

/** @throws conflict if an environment variable names the engine: it wins over whatever is chosen */
export async function refuseNamed(
  backend: Backend,
  { env, machine }: Pick<CandidateFacts, "env"> & { readonly machine: Machine },
): Promise<void> {
  const named = await installationFromEnvironment(backend, env, machine.platform);
  if (named === undefined) return;
  const { environment = [] } = backend.recipe.path ?? {};
  const variable = environment.find((one) => (env[one] ?? "") !== "") ?? "";
  const what = `cannot choose a version of ${backend.name}`;
  throw new AppError("conflict", `${what}: ${variable} names the one that is used`, {
    hint: `Unset ${variable} first, for the runner too.`,
  });
}

// --- internal ---

/** What needs no network. */
function offlineWay({ recipe }: Backend): string {
  if (recipe.path !== undefined) return ", or use `--source path`";
  return recipe.pypi === undefined ? "" : ", or name an environment of your own with `--python`";
}

const PYTHON_SOURCE = "pypi";

function sourceOf({ recipe }: Backend, python: string | undefined): string | undefined {
  return python === undefined || recipe.pypi === undefined ? undefined : PYTHON_SOURCE;
}

/** @throws usage if nobody would look at the Python that was named */
function refusePython(source: string | undefined, { name, recipe }: Backend): void {
  if (recipe.pypi !== undefined && source === PYTHON_SOURCE) return;
  if (recipe.pypi !== undefined) {
    const what = `cannot install ${name} from \`${source?.slice(0, MAX_SHOWN)}\` with a Python`;
    throw new AppError("usage", `${what}: only ${PYTHON_SOURCE} takes one`, {
      hint: "Leave out `--source` or `--python`.",
    });
  }
  throw new AppError("usage", `cannot install ${name} with a Python: it does not run in one`, {
    hint: "Leave out `--python`; `tug engines` shows which engines come from pypi.",
  });
}

function refuse(
  source: string | undefined,
  able: readonly InstallSource[],
  backend: Backend,
): void {
  if (able.length === 0) throw nothingToInstall(backend, able);
  if (source === undefined || able.some(({ name }) => name === source)) return;
  const what = `cannot install ${backend.name} from \`${source.slice(0, MAX_SHOWN)}\``;
  throw new AppError("usage", `${what}: it does not come from there`, {
    hint: `Choose one of: ${able.map(({ name }) => name).join(", ")}.`,
  });
}

function nothingToInstall({ name }: Backend, able: readonly InstallSource[]): AppError {
  const reason =
    able.length === 0
      ? "no source has it"
      : `${able.map((one) => one.name).join(" and ")} cannot serve a version that is named`;
  return new AppError("install_failed", `cannot install ${name}: ${reason}`, {
    hint: "See `tug engines`.",
  });
}
