/** Text of other machines, and amounts, in messages. Pure. */
import { printable } from "../http/host.ts";

/** Decimal units with one place, as the Hub's pages have them: `4.9 GB`. */
export function formatSize(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let step = 0;
  while (value >= 999.95 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${step === 0 ? value : value.toFixed(1)} ${units[step] ?? ""}`;
}

/** Names in backticks, in order; no more than `max`, then how many there are besides. */
export function listed(names: readonly string[], max = 20): string {
  const few = names.slice(0, max).map((name) => `\`${printable(name)}\``);
  const more = names.length - few.length;
  return more > 0 ? `${few.join(", ")} and ${more} more` : few.join(", ");
}

/** The last part of a path. */
export function basename(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** What is before the last part of a path; empty for one at the top. */
export function dirname(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}
