/** Help texts, rendered by citty from our definitions. */
import { type ArgsDef, renderUsage } from "citty";
import type { ArgumentDefinition, ArgumentDefinitions, Command } from "./command.ts";

interface Listed {
  readonly description: string;
  readonly alias?: string;
  readonly hidden?: true;
}

/** `tug --help`. */
export async function renderOverview(
  commands: Readonly<Record<string, Listed>>,
  globals: ArgumentDefinitions,
): Promise<string> {
  const subCommands = Object.fromEntries(
    Object.entries(commands).map(([name, { description, alias, hidden }]) => [
      name,
      {
        meta: {
          name,
          description,
          ...(alias === undefined ? {} : { alias }),
          ...(hidden === undefined ? {} : { hidden }),
        },
      },
    ]),
  );
  const meta = { name: "tug", description: "Pulls, runs, packages and pushes AI models" };
  const text = await renderUsage({ meta, args: toCitty(globals), subCommands });
  // citty puts all names into one usage line, which is unreadable for more than a few.
  return `${withoutColour(text).replace(/^(USAGE tug \[OPTIONS\]) .*$/m, "$1 COMMAND [ARGUMENTS]")}\n`;
}

/** `tug COMMAND --help`. */
export async function renderCommandUsage(options: {
  name: string;
  description: string;
  command: Command;
  globals: ArgumentDefinitions;
}): Promise<string> {
  const { name, description, command, globals } = options;
  const meta = { name, description };
  const args = toCitty({ ...globals, ...command.args });
  const text = withoutColour(await renderUsage({ meta, args }, { meta: { name: "tug" } }));
  return command.details === undefined ? `${text}\n` : `${text}\n${command.details}\n`;
}

// --- internal ---

function toCitty(definitions: ArgumentDefinitions): ArgsDef {
  return Object.fromEntries(
    Object.entries(definitions).map(([name, definition]) => [name, toCittyArgument(definition)]),
  );
}

function toCittyArgument(definition: ArgumentDefinition): ArgsDef[string] {
  if (definition.type === "positional") {
    const { description, required } = definition;
    return {
      type: "positional",
      description: definition.rest ? `${description} (several words)` : description,
      required: required !== false,
    };
  }
  const alias = definition.alias === undefined ? {} : { alias: definition.alias };
  if (definition.type === "boolean") {
    const negative = definition.negatable ? { negativeDescription: "The opposite" } : {};
    return { type: "boolean", description: definition.description, ...alias, ...negative };
  }
  const hint = definition.valueHint === undefined ? {} : { valueHint: definition.valueHint };
  const description = definition.multiple
    ? `${definition.description} (repeatable)`
    : definition.description;
  if (definition.options === undefined) return { type: "string", description, ...alias, ...hint };
  return { type: "enum", description, options: [...definition.options], ...alias };
}

/** citty decides on colour by its own rules when it is loaded, and pads to the right; help is as clear without. */
function withoutColour(text: string): string {
  return Bun.stripANSI(text).replaceAll(/ +$/gm, "");
}
