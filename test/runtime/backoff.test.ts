import { describe, expect, test } from "bun:test";

import { AppError } from "../../src/errors.ts";
import { CrashLog } from "../../src/runtime/backoff.ts";

const ERROR = new AppError("worker_failed", "cannot load `a`: it broke");

/** The pause after each of `count` crashes at once. */
function pauses(count: number): readonly number[] {
  const crashes = new CrashLog();
  return Array.from({ length: count }, () => {
    crashes.record("a", ERROR, 0);
    return crashes.holding("a", 0)?.retryAtMs ?? 0;
  });
}

describe("CrashLog", () => {
  test("backoff: the first retry is free, then the pause doubles up to a minute", () => {
    expect(pauses(10)).toEqual([0, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
  });

  test("backoff: a thousand crashes do not overflow the pause", () => {
    expect(pauses(2000).at(-1)).toBe(60_000);
  });

  test("backoff: a key is held back until its pause is over", () => {
    const crashes = new CrashLog();
    crashes.record("a", ERROR, 0);
    crashes.record("a", ERROR, 0);

    expect(crashes.holding("a", 999)?.error).toBe(ERROR);
    expect(crashes.holding("a", 1000)).toBeUndefined();
    expect(crashes.holding("b", 0)).toBeUndefined();
  });

  test("backoff: crashes far apart are no loop", () => {
    const crashes = new CrashLog();
    crashes.record("a", ERROR, 0);
    crashes.record("a", ERROR, 600_000);

    expect(crashes.holding("a", 600_000)).toBeUndefined();
  });

  test("backoff: a key that has shown to work starts anew", () => {
    const crashes = new CrashLog();
    crashes.record("a", ERROR, 0);
    crashes.clear("a");
    crashes.record("a", ERROR, 0);

    expect(crashes.holding("a", 0)).toBeUndefined();
  });

  test("backoff: the oldest is forgotten when too many are remembered", () => {
    const crashes = new CrashLog();
    for (let n = 0; n < 2; n++) crashes.record("first", ERROR, 0);
    for (let n = 0; n < 256; n++) crashes.record(`other-${n}`, ERROR, 0);

    expect(crashes.holding("first", 0)).toBeUndefined();
  });
});
