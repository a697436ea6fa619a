/**
 * Reasoning for a client that keeps its conversations itself and sends back only what it was told is encrypted. There is
 * nobody to hide it from, so it is only packed.
 */

/** Others' encrypted contents have another beginning, and mean nothing here. */
const PREFIX = "tug1.";

export function sealReasoning(text: string): string {
  return PREFIX + Buffer.from(text).toString("base64url");
}

/** @returns undefined if it is not ours */
export function openReasoning(sealed: string | undefined): string | undefined {
  if (sealed?.startsWith(PREFIX) !== true) return undefined;
  return Buffer.from(sealed.slice(PREFIX.length), "base64url").toString();
}
