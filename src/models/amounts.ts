/** Amounts as Docker Model Runner writes them into configs: two decimals, no space before the unit. Pure. */

const COUNT_UNITS = ["", "K", "M", "B", "T", "Q"] as const;
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;
const DECIMAL_BYTE_UNITS = ["B", "kB", "MB", "GB", "TB", "PB"] as const;

/** Of tensor elements, base 1000: `361.82M`, `7B`. */
export function formatParameters(count: number): string {
  return scale(count, 1000, COUNT_UNITS);
}

/** Base 1024: `256.35MiB`. */
export function formatBinaryBytes(bytes: number): string {
  return scale(bytes, 1024, BYTE_UNITS);
}

/** Base 1000, as for models that are not GGUF: `4.97GB`. */
export function formatDecimalBytes(bytes: number): string {
  return scale(bytes, 1000, DECIMAL_BYTE_UNITS);
}

// --- internal ---

function scale(amount: number, base: number, units: readonly string[]): string {
  let value = amount;
  let step = 0;
  // What would be rounded up to the base reads better in the next unit.
  while (Number(value.toFixed(2)) >= base && step < units.length - 1) {
    value /= base;
    step += 1;
  }
  return `${value.toFixed(2).replace(/\.00$/, "")}${units[step] ?? ""}`;
}
