/** A setting's value as a line of a person's terminal. Pure. */

/** Of a system prompt, the beginning says which it is. Characters. */
const MAX_LENGTH = 100;

export function formatSetting(value: unknown): string {
  if (Array.isArray(value)) return shorten(value.map(toWord).join(" "));
  if (typeof value === "object" && value !== null) return shorten(JSON.stringify(value));
  return shorten(String(value));
}

/** As a shell would take it. */
export function toWord(value: unknown): string {
  const word = String(value);
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

// --- internal ---

function shorten(text: string): string {
  const line = text.replaceAll(/\s+/g, " ");
  return line.length > MAX_LENGTH ? `${line.slice(0, MAX_LENGTH)}…` : line;
}
