/** Models that an engine of the user's own brings itself: names without files, as config.toml has them. Pure. */
import { AppError } from "../errors.ts";
import { type CustomDefinition, isCustomTable, readDefinition } from "./custom-definition.ts";

export interface OwnModel {
  /** A whole reference. */
  readonly name: string;
  /** Of the engine that has it. */
  readonly engine: string;
}

/** What stands for the format of an engine's own models, so that no other engine is chosen; no format is called so. */
export function ownModelsFormat(engine: string): string {
  return `engine:${engine}`;
}

/**
 * @param tables `[engines]` of config.toml, by name
 * @throws usage (a table that cannot be understood; two engines with a model of one name)
 */
export function readOwnModels(tables: Readonly<Record<string, unknown>>): readonly OwnModel[] {
  const definitions = Object.entries(tables).flatMap(([name, table]) =>
    isCustomTable(table) && Object.hasOwn(table, "models") ? [readDefinition(name, table, [])] : [],
  );
  return toOwnModels(definitions);
}

/** @throws usage (two engines with a model of one name) */
export function toOwnModels(
  definitions: readonly Pick<CustomDefinition, "name" | "models">[],
): readonly OwnModel[] {
  const owners = new Map<string, string>();
  for (const { name: engine, models } of definitions) {
    for (const name of models) {
      const other = owners.get(name);
      if (other !== undefined) throw hasTwo(name, [other, engine]);
      owners.set(name, engine);
    }
  }
  return [...owners].map(([name, engine]) => ({ name, engine }));
}

// --- internal ---

function hasTwo(name: string, [one, other]: readonly [string, string]): AppError {
  return new AppError(
    "usage",
    `cannot read \`[engines."${other}"]\` in config.toml: its model \`${name}\` is ${one}'s, too`,
    { hint: "Give one of them another name in `models`." },
  );
}
