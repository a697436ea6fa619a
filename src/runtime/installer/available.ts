/** What is to be said of an engine on this machine, installed or not. `describeEngine` is pure. */
import { toAppError } from "../../errors.ts";
import type { Backend, Installation, Machine } from "../backend.ts";
import {
  type ListedInstallation,
  labelOf,
  listInstalled,
  matching,
  readPrevious,
} from "./installed.ts";
import { type InstallSource, variantOf } from "./source.ts";
import { availableVariants } from "./variants.ts";

export type EngineState = "installed" | "installable" | "unavailable" | "unsupported";

/** A place that the engine could come from. */
export interface AvailableSource {
  readonly name: string;
  /** Why not, as a clause; undefined: nothing that is known here speaks against it. */
  readonly problem: string | undefined;
}

export interface AvailableEngine {
  readonly backend: Pick<Backend, "name" | "formats" | "modes">;
  /** `unavailable`: no source can serve it now. `unsupported`: it does not run on such a machine. */
  readonly state: EngineState;
  readonly installed: readonly ListedInstallation[];
  /** What going back would make the active one. */
  readonly previous: Installation | undefined;
  /** The version that config.toml names. */
  readonly pinnedVersion: string | undefined;
  /** In the order in which they are tried. */
  readonly sources: readonly AvailableSource[];
  /** Those that some source has for this machine: `cpu`, `cuda`, … */
  readonly variants: readonly string[];
  /** What is missing or not as it was configured, as a clause. */
  readonly problem: string | undefined;
  /** What to run. */
  readonly hint: string | undefined;
}

export interface EngineFacts {
  readonly backend: Backend;
  readonly machine: Machine;
  readonly offline: boolean;
  readonly installed: readonly ListedInstallation[];
  readonly previous: Installation | undefined;
  readonly pinnedVersion: string | undefined;
  /** Why the active one cannot be told, with what to do. */
  readonly failure: { readonly problem: string; readonly hint: string | undefined } | undefined;
  /** Whether a program is on PATH. */
  readonly hasProgram: (name: string) => boolean;
  /** In the order in which they are tried. */
  readonly sources: readonly Pick<InstallSource, "name" | "network" | "variants">[];
}

export interface AvailableDeps extends Pick<EngineFacts, "machine" | "offline" | "sources"> {
  /** That of all engines. */
  readonly directory: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly pinnedVersions?: ReadonlyMap<string, string>;
  /** The engine that is used. Throws if what names it is wrong. */
  readonly active: () => Promise<Installation | undefined>;
}

/** No network, runs nothing. */
export async function readAvailable(
  backend: Backend,
  { directory, env, machine, offline, sources, pinnedVersions, active }: AvailableDeps,
): Promise<AvailableEngine> {
  const { name } = backend;
  const { used, failure } = await active().then(
    (found) => ({ used: found, failure: undefined }),
    (error: unknown) => ({ used: undefined, failure: toAppError(error) }),
  );
  const [installed, previous] = await Promise.all([
    listInstalled(directory, name, used),
    readPrevious(directory, name),
  ]);
  return describeEngine({
    backend,
    machine,
    offline,
    sources,
    installed,
    previous,
    pinnedVersion: pinnedVersions?.get(name),
    failure: failure && { problem: failure.message, hint: failure.hint },
    hasProgram: (program) => Bun.which(program, { PATH: env["PATH"] ?? "" }) !== null,
  });
}

export function describeEngine(facts: EngineFacts): AvailableEngine {
  const { backend, machine, installed, previous, pinnedVersion } = facts;
  const { name, formats, modes } = backend;
  const sources = facts.sources
    .filter((source) => Object.hasOwn(backend.recipe, source.name))
    .map((source) => ({ name: source.name, problem: problemOf(source, facts) }));
  const variants = availableVariants(backend, machine, facts.sources) ?? [];
  return {
    backend: { name, formats, modes },
    installed,
    previous,
    pinnedVersion,
    sources,
    variants: variants.map(variantOf),
    ...judge(facts, sources),
  };
}

// --- internal ---

type Judgement = Pick<AvailableEngine, "state" | "problem" | "hint">;

function judge(facts: EngineFacts, sources: readonly AvailableSource[]): Judgement {
  const { backend, machine, installed, failure } = facts;
  const unfit = backend.problem?.(machine);
  if (unfit !== undefined) return { state: "unsupported", problem: unfit, hint: undefined };
  if (failure !== undefined) return { state: "unavailable", ...failure };
  const active = installed.find((one) => one.active);
  if (active !== undefined) return judgePin(facts, active);
  if (installed.length > 0) return { state: "installable", ...chooseOne(facts) };
  if (sources.some(({ problem }) => problem === undefined)) {
    const hint = `\`tug install-runner --backend ${backend.name}\` installs it, and so does the first model that needs it.`;
    return { state: "installable", problem: undefined, hint };
  }
  const reasons = sources.map(({ name, problem }) => `${name}: ${problem}`);
  return {
    state: "unavailable",
    problem: reasons.length === 0 ? "no source has it" : reasons.join("; "),
    hint: waysOut(facts),
  };
}

/** Installed, and none is in use: its record was lost, or its files were for a while. */
function chooseOne({ backend, installed }: EngineFacts): Pick<Judgement, "problem" | "hint"> {
  const label = labelOf(installed.at(-1) ?? { version: "V", variant: "cpu" });
  return {
    problem: "no installed version is in use",
    hint: `Run \`tug engines use ${backend.name} ${label}\`.`,
  };
}

function judgePin(
  { backend, installed, pinnedVersion }: EngineFacts,
  active: ListedInstallation,
): Judgement {
  const state = "installed";
  if (pinnedVersion === undefined || active.version === pinnedVersion) {
    return { state, problem: undefined, hint: undefined };
  }
  const [present] = matching(installed, pinnedVersion);
  const what =
    present === undefined
      ? `run \`tug install-runner --backend ${backend.name}\` to install ${pinnedVersion}`
      : `run \`tug engines use ${backend.name} ${labelOf(present)}\``;
  // What a variable names is used whatever else is chosen.
  const variable = active.source === "path" ? backend.recipe.path?.environment[0] : undefined;
  const first = variable === undefined ? "" : `Unset ${variable} if it is set, then `;
  const sentence = `${first}${what}.`;
  return {
    state,
    problem: `version ${active.version} is in use, and config.toml says ${pinnedVersion}`,
    hint: `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}`,
  };
}

function waysOut({ backend: { recipe }, offline }: EngineFacts): string | undefined {
  const [variable] = [...(recipe.path?.environment ?? []), ...(recipe.pypi?.environment ?? [])];
  const own = variable && `set ${variable} to one of your own`;
  if (offline) return own ? `Turn offline mode off, or ${own}.` : "Turn offline mode off.";
  return own && `${own.charAt(0).toUpperCase()}${own.slice(1)}.`;
}

/** Facts that are known without asking anybody. */
function problemOf(
  source: EngineFacts["sources"][number],
  { backend, machine, offline, hasProgram }: EngineFacts,
): string | undefined {
  const { name, network } = source;
  if (name === "path") {
    const executable = backend.recipe.path?.executable ?? "";
    return hasProgram(executable) ? undefined : `no \`${executable}\` is on PATH`;
  }
  const { platform, arch } = machine;
  if (name === "apt" && (platform !== "linux" || !hasProgram("apt-get"))) {
    return "it serves Debian and its family only";
  }
  if (availableVariants(backend, machine, [source])?.length === 0) {
    return `it has nothing for ${platform} ${arch}`;
  }
  return network && offline ? "offline mode is on" : undefined;
}
