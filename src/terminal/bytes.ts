/** Sizes, durations and ages as people read them. Pure; imports nothing. */

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"] as const;

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const WEEK = 7 * DAY;
const MONTH = 30 * DAY;
const YEAR = 365 * DAY;

/** Decimal units, two decimals, no space: `0B`, `999B`, `1.50kB`, `3.00MB`. Negative or unknown: `-`. */
export function formatBytes(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined || !(bytes >= 0) || !Number.isFinite(bytes)) return "-";
  if (bytes < 1000) return `${Math.round(bytes)}B`;
  let value = bytes;
  let unit = 0;
  // 999.995 would print as 1000.00, hence not 1000.
  while (value >= 999.995 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toFixed(2)}${BYTE_UNITS[unit]}`;
}

/** How long something took or will take: `0ms`, `850ms`, `3.2s`, `1m 05s`, `2h 03m`, `3d 04h`. */
export function formatDuration(ms: number): string {
  if (!Number.isFinite(ms) || ms < 0) return "-";
  if (Math.round(ms) < SECOND) return `${Math.round(ms)}ms`;
  if (Math.round(ms / 100) < 600) return `${(ms / SECOND).toFixed(1)}s`;
  const seconds = Math.round(ms / SECOND);
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${pad(seconds % 60)}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)}h ${pad(minutes % 60)}m`;
  const hours = Math.round(minutes / 60);
  return `${Math.floor(hours / 24)}d ${pad(hours % 24)}h`;
}

/**
 * `3 weeks ago`, `About a minute ago`, `4 minutes from now`, in the steps of Docker's own tables.
 *
 * @param time milliseconds since the epoch, a Date, or RFC 3339 text; anything unreadable gives `-`
 * @see https://github.com/docker/go-units/blob/v0.5.0/duration.go
 */
export function formatAge(time: number | string | Date, now: number = Date.now()): string {
  const at = typeof time === "number" ? time : new Date(time).getTime();
  if (!Number.isFinite(at)) return "-";
  const distance = Math.abs(now - at);
  return `${roughly(distance)} ${at > now ? "from now" : "ago"}`;
}

// --- internal ---

function pad(value: number): string {
  return String(value).padStart(2, "0");
}

function roughly(ms: number): string {
  const step = STEPS.find(({ below }) => ms < below) ?? { text: "years", unit: YEAR };
  if (!("unit" in step)) return step.text;
  const count = Math.floor(ms / step.unit);
  return `${count} ${count === 1 ? step.text.slice(0, -1) : step.text}`;
}

const STEPS: readonly (
  | { readonly below: number; readonly text: string }
  | { readonly below: number; readonly text: string; readonly unit: number }
)[] = [
  { below: SECOND, text: "Less than a second" },
  { below: MINUTE, text: "seconds", unit: SECOND },
  { below: 2 * MINUTE, text: "About a minute" },
  { below: HOUR, text: "minutes", unit: MINUTE },
  { below: 2 * HOUR, text: "About an hour" },
  { below: 2 * DAY, text: "hours", unit: HOUR },
  { below: 2 * WEEK, text: "days", unit: DAY },
  { below: 2 * MONTH, text: "weeks", unit: WEEK },
  { below: 2 * YEAR, text: "months", unit: MONTH },
];
