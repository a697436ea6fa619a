/** Engines of the user's own: any command that serves over HTTP, as `[engines."NAME"]` of config.toml describes it. */
import { AppError } from "../errors.ts";
import type { Backend, ExitFacts, ExitReason, FlagOptions, ReadFlags } from "./backend.ts";
import { expand, findPlaceholders, valuesOf } from "./custom-command.ts";
import { type CustomDefinition, isCustomTable, readDefinition } from "./custom-definition.ts";
import { ownModelsFormat, toOwnModels } from "./custom-models.ts";
import { expandHome, findCustomEngine } from "./custom-install.ts";

/**
 * Those of the tables that have a `command`, in the order of the file. Finds and starts nothing.
 *
 * @param tables as they stand in the file, by name
 * @param reserved names of the engines that Tug knows
 * @throws usage (a table that cannot be understood; two engines with a model of one name)
 */
export function readCustomEngines(
  tables: Readonly<Record<string, unknown>>,
  reserved: readonly string[],
): readonly Backend[] {
  const definitions = Object.entries(tables).flatMap(([name, table]) =>
    isCustomTable(table) ? [readDefinition(name, table, reserved)] : [],
  );
  toOwnModels(definitions);
  return definitions.map(customEngine);
}

// --- internal ---

/** Characters of an engine's own line that are shown. */
const QUOTE_LIMIT = 200;
const NO_MEMORY = /out of memory|MemoryError|std::bad_alloc|cannot allocate memory/i;
const NO_FILE = /no such file|ENOENT|cannot find (?:the )?(?:module|package)|ModuleNotFoundError/i;
const COMPLAINT = /error|exception|panic|fatal|cannot|failed/i;
const MEMORY_HINT = "Give it a smaller context, or unload other models with `tug unload --all`.";

function customEngine(definition: CustomDefinition): Backend {
  const { name, command, env, formats, models, modes, ready, servedModel, cwd } = definition;
  const { known } = findPlaceholders([...command, ...Object.values(env)]);
  return {
    name,
    formats: models.length === 0 ? formats : [...formats, ownModelsFormat(name)],
    modes,
    recipe: { config: (variables) => findCustomEngine(definition, variables) },
    readinessPath: ready,
    readyBoundMs: definition.readyTimeoutMs,
    processBytes: definition.memoryBytes,
    startsIn: cwd && expandHome(cwd),
    listensOn: known.has("PORT") ? "port" : "socket",
    servedModel,
    args(input) {
      const values = valuesOf(input);
      const words = command.slice(1).map((word) => expand(expandHome(word), values));
      const variables = Object.entries(env).map(([key, text]) => [key, expand(text, values)]);
      return {
        args: [...words, ...input.settings.runtimeFlags],
        env: Object.fromEntries(variables) as Record<string, string>,
      };
    },
    readFlags: (flags, options) => readFlags(name, flags, options),
    explainExit,
  };
}

/** Nobody knows what the flags of such an engine do: only who owns the runner may set any. */
function readFlags(name: string, flags: readonly string[], { allowPaths }: FlagOptions): ReadFlags {
  if (flags.length > 0 && !allowPaths) {
    throw new AppError("forbidden", `cannot set runtime flags of ${name}: only its owner may`, {
      hint: "Set them with `tug configure` on the runner's own machine.",
    });
  }
  return { flags, settings: {}, files: [], stretchesContext: false };
}

/** Pure. Its own last line, for the log is one click away and seldom clearer. */
function explainExit({ exitCode, signal, stderrTail, wasMemoryShort }: ExitFacts): ExitReason {
  const how =
    signal === null
      ? `the engine ended with exit code ${exitCode ?? "unknown"}`
      : `the engine was ended by ${signal}`;
  if (signal === "SIGKILL" && wasMemoryShort === true) {
    const reason = `${how}, by the system for lack of memory`;
    return { reason, hint: MEMORY_HINT, isOutOfMemory: true };
  }
  // Somebody else's doing: what it said last has nothing to do with it.
  if (signal === "SIGKILL" || signal === "SIGTERM") return { reason: how };
  const line = lastLine(stderrTail);
  if (line === undefined) return { reason: how };
  if (NO_MEMORY.test(line)) {
    return { reason: `${how}: ${line}`, hint: MEMORY_HINT, isOutOfMemory: true };
  }
  const advice = NO_FILE.test(line)
    ? " (in the sandbox it sees only what its `command`, `reads` and `cwd` name: add what it lacks to `reads`)"
    : "";
  return { reason: `${how}: ${line}${advice}` };
}

/** The last that looks like one, else the last: runtimes say who they are when they have said what is wrong. */
function lastLine(stderr: string): string | undefined {
  const lines = stderr.split("\n").map((line) => line.replaceAll(/[\p{Cc}\s]+/gu, " ").trim());
  const line = lines.findLast((one) => COMPLAINT.test(one)) ?? lines.findLast((one) => one !== "");
  if (line === undefined) return undefined;
  return line.length > QUOTE_LIMIT ? `${line.slice(0, QUOTE_LIMIT)}…` : line;
}
