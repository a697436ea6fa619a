/** Durations as Go's `time.Duration` writes and reads them: it knows no days, and no number without a unit. */

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

/** @returns `1h0m0s`, `5m0s`, `1.5s`; `-1` for ever */
export function toGoDuration(ms: number): string {
  if (ms < 0) return "-1";
  const hours = Math.floor(ms / HOUR_MS);
  const minutes = Math.floor((ms % HOUR_MS) / MINUTE_MS);
  const seconds = `${(ms % MINUTE_MS) / 1000}s`;
  if (hours > 0) return `${hours}h${minutes}m${seconds}`;
  return minutes > 0 ? `${minutes}m${seconds}` : seconds;
}
