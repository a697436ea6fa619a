/**
 * What names mean in Ollama's API, and what models are called there. Its clients leave out the registry and mean
 * Ollama's library, where other commands of Tug mean Docker Hub: what is on this machine decides, then the library.
 */
import { AppError } from "../../../errors.ts";
import { ensureBuiltin, isBuiltin } from "../../../models/builtin.ts";
import { displayReference, looksLikeId, parseReference } from "../../../oci/reference.ts";
import type { Store, StoredModel } from "../../../store/store.ts";

const LIBRARY = "registry.ollama.ai/";
const OFFICIAL = "library/";

/** Finds the model that a name stands for. */
type Resolve<Model> = (name: string) => Promise<Model>;

/**
 * The shortest name, always with its tag, by which a client of Ollama's API gets the model again. Pure.
 *
 * @param tag canonical, such as `registry.ollama.ai/library/llama3.2:latest`
 * @param tags all canonical tags of the store: one of Docker Hub takes the short name of one of the library
 */
export function shownName(tag: string, tags: ReadonlySet<string>): string {
  if (tag.startsWith(LIBRARY)) {
    const path = tag.slice(LIBRARY.length);
    const short = path.startsWith(OFFICIAL) ? path.slice(OFFICIAL.length) : path;
    return tags.has(`docker.io/${path.startsWith(OFFICIAL) ? "ai/" : ""}${short}`) ? tag : short;
  }
  const short = displayReference(tag);
  return short.includes(":", short.lastIndexOf("/") + 1) ? short : `${short}:latest`;
}

/**
 * A model by its name as Tug reads it, or else as Ollama does.
 *
 * @param resolve finds a model by a name as Tug reads it
 * @throws model_not_found, in words that Ollama's clients look for; and what `resolve` throws
 */
export async function resolveOllamaName<Model>(
  name: string,
  resolve: Resolve<Model>,
): Promise<Model> {
  try {
    return await resolve(name);
  } catch (error) {
    const other = isAboutName(error) ? inLibrary(name) : undefined;
    if (other !== undefined) {
      const found = await tryResolve(other, resolve);
      if (found !== undefined) return found;
    }
    throw toNotFound(name, error);
  }
}

/** @throws model_not_found, invalid_reference, conflict (several models fit) */
export async function findModel(
  store: Store,
  name: string,
  options: { readonly signal: AbortSignal },
): Promise<StoredModel> {
  return resolveOllamaName(name, (each) =>
    isBuiltin(each) ? ensureBuiltin(store, options) : store.resolve(each),
  );
}

/**
 * The name by which Tug finds exactly the model that is meant; nothing is completed, for what cannot be undone.
 *
 * @throws model_not_found, invalid_reference
 */
export async function exactName(store: Store, name: string): Promise<string> {
  return resolveOllamaName(name, async (each) => {
    await store.find(each);
    return each;
  });
}

/**
 * Where a pull of the name gets the model from: whence the model of that name here came, or else, for a name without a
 * registry, Ollama's library. `ai/…` is Docker's namespace for models.
 *
 * @throws invalid_reference
 */
export async function pullSource(store: Store, name: string): Promise<string> {
  // Addresses and revisions only the pull itself understands.
  if (/@|:\/\//.test(name)) return name;
  parseReference(name);
  const other = inLibrary(name);
  if (other === undefined || /^ai\//i.test(name) || isBuiltin(name)) return name;
  const isHere = await store.find(name).then(
    () => true,
    () => false,
  );
  return isHere ? name : other;
}

// --- internal ---

/** What the name means to Ollama, where that is another thing than to Tug. */
function inLibrary(name: string): string | undefined {
  const text = name.trim();
  const [first = "", ...others] = text.split("/");
  const hasRegistry = others.length > 0 && (/[.:]/.test(first) || first === "localhost");
  if (hasRegistry || text.includes("@") || looksLikeId(text)) return undefined;
  return `${LIBRARY}${others.length === 0 ? OFFICIAL : ""}${text}`;
}

async function tryResolve<Model>(
  name: string,
  resolve: Resolve<Model>,
): Promise<Model | undefined> {
  try {
    return await resolve(name);
  } catch (error) {
    if (isAboutName(error)) return undefined;
    throw error;
  }
}

function isAboutName(error: unknown): error is AppError {
  if (!(error instanceof AppError)) return false;
  return error.code === "model_not_found" || error.code === "conflict";
}

/** Clients tell by these words that they have to pull it first. */
function toNotFound(name: string, error: unknown): unknown {
  if (!(error instanceof AppError) || error.code !== "model_not_found") return error;
  const shown = name.slice(0, 200);
  return new AppError(
    "model_not_found",
    `cannot find model \`${shown}\`: model '${shown}' not found`,
    {
      hint: error.hint,
      details: error.details,
      cause: error,
    },
  );
}
