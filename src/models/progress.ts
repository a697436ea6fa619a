/** Byte counts as progress events, few enough to send over a wire. */
import type { ProgressListener } from "../api/progress.ts";

/** More often than this nobody can see. Milliseconds. */
const INTERVAL_MS = 100;

/** @returns what to call with bytes done and bytes in all; the first and the last call always come through */
export function reportBytes(
  onProgress: ProgressListener | undefined,
  what: { readonly id: string; readonly phase: string },
): (done: number, total: number) => void {
  let reportedAt = Number.NEGATIVE_INFINITY;
  return (done, total) => {
    const now = performance.now();
    if (done < total && now - reportedAt < INTERVAL_MS) return;
    reportedAt = now;
    onProgress?.({ type: "progress", ...what, done_bytes: done, total_bytes: total });
  };
}
