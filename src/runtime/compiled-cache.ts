/** Where an engine keeps what it compiled for a model. Pure. */
import { createHash } from "node:crypto";
import { join } from "node:path";

import type { Installation } from "./backend.ts";
import type { WorkerPlan } from "./planner.ts";

/** In the directory of an installation: it goes with the engine of that version. */
const COMPILED = "compiled";
/** Of a digest in hexadecimal digits: enough to tell all models apart. */
const NAME_LENGTH = 32;

/**
 * A place for each model, and for each draft model that it runs with: what lies there is code that the next worker loads,
 * and who writes it has read files of unknown people. What one model did to its engine must not reach another's.
 *
 * @returns a path in which no word is a model's own: it stands in variables that part words at colons
 */
export function compiledDirectory(
  { directory }: Pick<Installation, "directory">,
  { model, draft }: Pick<WorkerPlan, "draft"> & { readonly model: Pick<WorkerPlan["model"], "id"> },
): string {
  const ids = JSON.stringify([model.id, draft?.id]);
  const name = createHash("sha256").update(ids).digest("hex").slice(0, NAME_LENGTH);
  return join(directory, COMPILED, name);
}
