/** Loading a model, with what there is to wait for on stderr: an engine's download, room, then the load. */
import type { LoadRequest, LoadResult } from "../api/engines.ts";
import type { Progress } from "../api/progress.ts";
import type { Client } from "../client/client.ts";
import { createProgress } from "../terminal/progress.ts";

export async function loadModel(
  client: Client,
  request: LoadRequest,
  options: { readonly signal: AbortSignal; readonly quiet: boolean },
): Promise<LoadResult> {
  using progress = createProgress({
    quiet: options.quiet || !process.stderr.isTTY,
    transient: true,
  });
  const result = await client.load(request, {
    signal: options.signal,
    onProgress: (event) => progress.listener(event.type === "progress" ? withPlace(event) : event),
  });
  progress.finish();
  return result;
}

/** The place in line is part of what is shown: `waiting (3rd in line, behind big)`. */
export function withPlace(event: Progress): Progress {
  const { position, waiting_for: other } = event;
  const facts = [
    ...(position === undefined ? [] : [`no. ${position} in line`]),
    ...(other === undefined ? [] : [`behind ${other.slice(0, MAX_NAME)}`]),
  ];
  return facts.length === 0 ? event : { ...event, phase: `${event.phase} (${facts.join(", ")})` };
}

// --- internal ---

/** Characters. */
const MAX_NAME = 60;
