/** What a caller is told whose model is not loaded because others hold the room. Pure. */
import type { ProgressEvent } from "./worker.ts";

/** More names would be read by nobody. */
const MAX_NAMES = 3;

export interface Line {
  readonly ticketId: number;
  readonly modelName: string;
  /** Who waits, in order. */
  readonly queue: () => readonly { readonly id: number }[];
  /** The models that are in memory. */
  readonly loaded: readonly string[];
}

/** The place in line is the one at the time when it is read: nobody has to tell everybody when the line moves. */
export function waitingForRoom({ ticketId, modelName, queue, loaded }: Line): ProgressEvent {
  const names = [...new Set(loaded)];
  const more = names.length - MAX_NAMES;
  const shown = names.slice(0, MAX_NAMES).join(", ") + (more > 0 ? ` and ${more} more` : "");
  return {
    type: "progress",
    id: modelName,
    phase: "waiting",
    done_bytes: null,
    total_bytes: null,
    ...(names.length === 0 ? {} : { waiting_for: shown }),
    get position() {
      const index = queue().findIndex(({ id }) => id === ticketId);
      return index < 0 ? undefined : index + 1;
    },
  };
}
