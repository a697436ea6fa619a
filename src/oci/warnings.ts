/** What a registry wants people to know. */
import { printable } from "../http/host.ts";

/** Later ones are as good as repetitions. */
const MAX_WARNINGS = 32;

/**
 * The texts of `Warning: 299 - "…"` headers.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#warnings
 */
export function parseWarnings(header: string | null): readonly string[] {
  return [...(header ?? "").slice(0, MAX_HEADER).matchAll(WARNING)]
    .map(([, text = ""]) => printable(text.replaceAll(/\\(.)/g, "$1")))
    .filter((text) => text !== "");
}

/** Passes on each text once. */
export function warnOnce(
  onWarning: ((message: string) => void) | undefined,
): (header: string | null) => void {
  const seen = new Set<string>();
  return (header) => {
    for (const text of parseWarnings(header)) {
      if (seen.has(text) || seen.size >= MAX_WARNINGS) continue;
      seen.add(text);
      onWarning?.(text);
    }
  };
}

// --- internal ---

/** The specification's limit is 4096 bytes for all warnings of a response together. */
const MAX_HEADER = 4096;
const WARNING = /(?:^|,)\s*299\s+[^\s"]+\s+"((?:[^"\\]|\\.)*)"/g;
