/**
 * `[engines."NAME"]` of config.toml, of engines that Tug knows. A table with `command` makes an engine of the user's
 * own, and is not read here. Pure.
 */
import { AppError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import type { Backend } from "./backend.ts";
import { isCustomTable } from "./custom-definition.ts";

export interface EngineSettings {
  /** The version that is installed where none is named. */
  readonly version?: string | undefined;
}

/** What a name or value in a message may be long. Characters. */
const MAX_SHOWN = 80;
/** What versions of all sources are made of: tags of releases and images, Debian's, Python's. */
const VERSION = /^[\w][\w.+~:!-]{0,127}$/;
const COMMAND = "command";
const KNOWN_SETTINGS: ReadonlySet<string> = new Set(["version", "ray_address"]);
/** IPv4 address or name, and port. */
const RAY_ADDRESS = /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?:\d{1,5}$/i;

/**
 * @param tables as they stand in the file, by name
 * @param known names of the engines
 * @throws usage
 */
export function readEngineSettings(
  tables: Readonly<Record<string, unknown>>,
  known: readonly string[],
): ReadonlyMap<string, EngineSettings> {
  const read = Object.entries(tables).flatMap(([name, table]): [string, EngineSettings][] => {
    if (isCustomTable(table)) return [];
    if (!known.includes(name)) throw unknownEngine(name, table, known);
    return [[name, readTable(name, table)]];
  });
  return new Map(read);
}

/** By engine. @throws usage, as `readEngineSettings` */
export function readPinnedVersions(
  tables: Readonly<Record<string, unknown>>,
  known: readonly string[],
): ReadonlyMap<string, string> {
  const settings = [...readEngineSettings(tables, known)];
  return new Map(
    settings.flatMap(([name, { version }]): [string, string][] =>
      version === undefined ? [] : [[name, version]],
    ),
  );
}

/**
 * Addresses of Ray clusters, by engine: of its variable, such as `TUG_VLLM_RAY_ADDRESS`, else of the file.
 *
 * @throws usage
 */
export function readClusters(
  tables: Readonly<Record<string, unknown>>,
  backends: readonly Pick<Backend, "name" | "joinsCluster">[],
  env: Readonly<Record<string, string | undefined>>,
): ReadonlyMap<string, string> {
  return new Map(
    backends.flatMap(({ name, joinsCluster }): [string, string][] => {
      const variable = `TUG_${name.toUpperCase()}_RAY_ADDRESS`;
      const named = env[variable] || undefined;
      const table = tables[name];
      const said = named ?? (isTable(table) ? table["ray_address"] : undefined);
      if (said === undefined || isCustomTable(table)) return [];
      if (joinsCluster !== true) {
        const able = backends.filter((one) => one.joinsCluster === true).map((one) => one.name);
        const hint = `Take out \`ray_address\`; known to it is ${able.join(", ")}.`;
        throw unreadable(name, "it cannot compute with a cluster", hint);
      }
      return [[name, toRayAddress(said, named === undefined ? undefined : variable)]];
    }),
  );
}

// --- internal ---

/** @param variable that says it; undefined: the file */
function toRayAddress(said: unknown, variable: string | undefined): string {
  const isGood = typeof said === "string" && RAY_ADDRESS.test(said);
  if (isGood && Number(said.split(":")[1]) <= MAX_PORT) return said;
  const where = variable === undefined ? "`ray_address` in config.toml" : variable;
  throw new AppError("usage", `cannot read ${where}: it is not the address of a Ray cluster`, {
    hint: "Write the address of its head as `HOST:6379`.",
  });
}

const MAX_PORT = 65_535;

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function readTable(name: string, table: unknown): EngineSettings {
  if (!isTable(table)) {
    throw unreadable(name, "it is not a table", `Write \`[engines."${shown(name)}"]\`.`);
  }
  const stray = Object.keys(table).find((key) => !KNOWN_SETTINGS.has(key));
  if (stray !== undefined) {
    const hint =
      "Known are `version` and, of vllm, `ray_address`; an engine of your own has a `command`, and a name of its own.";
    throw unreadable(name, `unknown setting \`${shown(stray)}\``, hint);
  }
  const { version } = table;
  if (version === undefined) return {};
  if (typeof version === "string" && VERSION.test(version)) return { version };
  const hint = 'Write it as `version = "VERSION"`; `tug engines` shows what is installed.';
  throw unreadable(name, "`version` is not the text of a version", hint);
}

function unreadable(name: string, reason: string, hint: string): AppError {
  const what = `cannot read \`[engines."${shown(name)}"]\` in config.toml`;
  return new AppError("usage", `${what}: ${reason}`, { hint });
}

function unknownEngine(name: string, table: unknown, known: readonly string[]): AppError {
  const stray = Object.keys(isTable(table) ? table : {}).find((key) => nearest(key, [COMMAND]));
  const engine = nearest(name, known);
  const guess = stray === undefined ? engine : COMMAND;
  const meant = guess === undefined ? "" : `Did you mean \`${guess}\`? `;
  const hint = `${meant}Known are ${known.join(", ")}; an engine of your own needs a \`command\`.`;
  return unreadable(name, "there is no such engine, and it has no `command`", hint);
}

function shown(text: string): string {
  return text.slice(0, MAX_SHOWN);
}
