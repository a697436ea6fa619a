/** What a model is loaded for where nobody says. Pure. */
import { PIPELINE } from "../oci/media-types.ts";
import type { Mode, RunnableModel } from "./backend.ts";

/** Formats whose models draw. */
const DRAWING: ReadonlySet<string> = new Set(["dduf", PIPELINE]);

export function usualMode({ format }: Pick<RunnableModel, "format">): Mode {
  return DRAWING.has(format) ? "image-generation" : "completion";
}
