/** What Ollama refuses before it loads a model: clients tell by its words what to leave out. */
import type { Context } from "hono";
import { AppError } from "../../../errors.ts";
import type { ModelProfile } from "../../../models/capabilities.ts";
import type { AppDeps, AppEnv } from "../../deps.ts";

type Ability = "thinking" | "insert";

/**
 * A model of which nothing is known is taken to be able, as is one that is no GGUF: its template may be anywhere.
 *
 * @throws invalid_request, and what resolving the name throws
 */
export async function requireAbility(
  { c, deps }: { readonly c: Context<AppEnv>; readonly deps: AppDeps },
  modelName: string,
  ability: Ability,
): Promise<void> {
  const { id, format } = await deps.resolve(modelName, { trusted: c.env?.trusted === true });
  if (format !== "gguf") return;
  const profile = await tryProfile(deps, id);
  if (profile !== undefined && !profile.capabilities.includes(ability)) {
    throw unable(modelName, ability);
  }
}

export function unable(modelName: string, ability: Ability): AppError {
  const name = modelName.slice(0, 200);
  return new AppError("invalid_request", `cannot answer: "${name}" does not support ${ability}`, {
    hint: `Leave out \`${FIELDS[ability]}\`, or use a model that supports it.`,
  });
}

/** A file that cannot be read is found out by whoever loads it. */
export async function tryProfile(deps: AppDeps, id: string): Promise<ModelProfile | undefined> {
  try {
    return await deps.profileOf?.(id);
  } catch {
    return undefined;
  }
}

// --- internal ---

const FIELDS: Readonly<Record<Ability, string>> = { thinking: "think", insert: "suffix" };
