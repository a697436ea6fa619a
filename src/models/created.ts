/** The one moment that is written into an artifact, wherever a time is asked for. Pure. */
import { AppError } from "../errors.ts";

/** What a reproducible artifact says unless told otherwise: the same bytes packaged anywhere get the same digest. */
const FIXED = "1970-01-01T00:00:00Z";
/** @see https://www.rfc-editor.org/rfc/rfc3339#section-5.6 */
const RFC_3339 = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})$/;
/** RFC 3339 has four digits for the year: 9999-12-31T23:59:59Z. */
const MAX_SECONDS = 253_402_300_799;

/**
 * @param created RFC 3339; wins
 * @param sourceDateEpoch seconds, the value of `SOURCE_DATE_EPOCH`
 * @returns RFC 3339 in UTC, whole seconds
 * @throws usage
 * @see https://reproducible-builds.org/specs/source-date-epoch/
 */
export function resolveCreated(
  created: string | undefined,
  sourceDateEpoch: string | undefined,
): string {
  if (created !== undefined) return fromRfc3339(created);
  return sourceDateEpoch ? fromEpoch(sourceDateEpoch) : FIXED;
}

/** @returns Unix seconds, or 0 for what is no time */
export function toUnixSeconds(text: unknown): number {
  const milliseconds = typeof text === "string" ? Date.parse(text) : Number.NaN;
  return Number.isNaN(milliseconds) ? 0 : Math.floor(milliseconds / 1000);
}

/** @param seconds since 1970. @returns RFC 3339 in UTC */
export function toRfc3339(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
}

// --- internal ---

function fromRfc3339(text: string): string {
  const milliseconds = RFC_3339.test(text) ? Date.parse(text) : Number.NaN;
  const seconds = Math.floor(milliseconds / 1000);
  // JavaScript takes 30 February for 1 March.
  const isDay = Number(text.slice(8, 10)) <= daysInMonth(text);
  if (isDay && seconds <= MAX_SECONDS && seconds >= -62_135_596_800) return toRfc3339(seconds);
  throw new AppError("usage", `cannot read the creation time \`${text.slice(0, 100)}\``, {
    hint: "Give it as in `2026-01-02T03:04:05Z`.",
  });
}

function daysInMonth(text: string): number {
  return new Date(Date.UTC(Number(text.slice(0, 4)), Number(text.slice(5, 7)), 0)).getUTCDate();
}

function fromEpoch(text: string): string {
  const seconds = /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN;
  if (seconds <= MAX_SECONDS) return toRfc3339(seconds);
  throw new AppError("usage", `cannot read SOURCE_DATE_EPOCH \`${text.slice(0, 100)}\``, {
    hint: "Set it to whole seconds since 1970, or unset it.",
  });
}
