/** What `/show` tells. Pure. */
import type { ModelDetails } from "../api/models.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { stripControls } from "../terminal/style.ts";
import type { Session } from "./session.ts";

/** @param details undefined for a model that is no artifact of the store */
export function renderSession(session: Session, details: ModelDetails | undefined): string {
  const { settings, turns, model } = session;
  const config = details?.config;
  const rows: readonly (readonly [string, string | number | null | undefined])[] = [
    ["model", model],
    ["id", details?.id.slice(0, "sha256:".length + 12)],
    ["architecture", config?.architecture],
    ["parameters", config?.parameters],
    ["quantization", config?.quantization],
    ["size", details === undefined ? undefined : formatBytes(details.size_bytes)],
    ["num_ctx", settings.contextSize],
    ["backend", settings.backend],
    ["reasoning", renderReasoning(session)],
    ["system", settings.system],
    ...Object.entries(settings.parameters).map(
      ([name, value]) => [name, typeof value === "number" ? value : JSON.stringify(value)] as const,
    ),
    ["messages", turns.length],
  ];
  const shown = rows.filter(([, value]) => value !== null && value !== undefined);
  const width = Math.max(...shown.map(([name]) => name.length));
  return shown
    .map(([name, value]) => `  ${name.padEnd(width)}  ${stripControls(String(value))}\n`)
    .join("");
}

// --- internal ---

function renderReasoning(session: Session): string {
  const { think, showReasoning } = session.settings;
  const state = think === undefined ? "as the model has it" : think ? "on" : "off";
  return `${state}, ${showReasoning ? "shown" : "hidden"}`;
}
