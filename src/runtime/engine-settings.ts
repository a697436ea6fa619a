/**
 * `[engines."NAME"]` of config.toml, of engines that Tug knows. A table with `command` makes an engine of the user's
 * own, and is not read here. Pure.
 */
import { AppError } from "../errors.ts";
import { isCustomTable } from "./custom-definition.ts";

export interface EngineSettings {
  /** The version that is installed where none is named. */
  readonly version?: string | undefined;
}

/** What a name or value in a message may be long. Characters. */
const MAX_SHOWN = 80;
/** What versions of all sources are made of: tags of releases and images, Debian's, Python's. */
const VERSION = /^[\w][\w.+~:!-]{0,127}$/;
const KNOWN_SETTINGS: ReadonlySet<string> = new Set(["version"]);

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
    if (!known.includes(name)) throw unknownEngine(name, known);
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

// --- internal ---

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
      "Known is `version`; an engine of your own has a `command`, and a name of its own.";
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

function unknownEngine(name: string, known: readonly string[]): AppError {
  const hint = `Known are ${known.join(", ")}; an engine of your own needs a \`command\`.`;
  return unreadable(name, "there is no such engine, and it has no `command`", hint);
}

function shown(text: string): string {
  return text.slice(0, MAX_SHOWN);
}
