import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import { isTransient, parseRetryAfter, retryWaitMs, withRetry } from "../../src/http/retry.ts";
import { rejectionOf } from "./failure-of.ts";

const signal = new AbortController().signal;
const passing = new AppError("registry_unavailable", "cannot reach it");
const permanent = new AppError("registry_unavailable", "no", { details: { permanent: true } });

function asking(ms: number): AppError {
  return new AppError("too_many_requests", "slowly", { details: { retry_after_ms: ms } });
}

/** Fails so many times, then succeeds; waits without waiting. */
function flaky(failures: number, error: unknown = passing) {
  const waits: number[] = [];
  let calls = 0;
  const work = async (): Promise<number> => {
    calls += 1;
    if (calls <= failures) throw error;
    return calls;
  };
  const wait = async (ms: number): Promise<void> => void waits.push(ms);
  return { work, waits, wait, calls: () => calls };
}

describe("withRetry", () => {
  test("what passes is tried again until it succeeds", async () => {
    const { work, waits, wait } = flaky(4);

    expect(await withRetry(work, { signal, wait })).toBe(5);

    expect(waits).toHaveLength(4);
  });

  test("the fifth failure is thrown", async () => {
    const { work, wait, calls } = flaky(5);

    expect(await rejectionOf(withRetry(work, { signal, wait }))).toBe(passing);

    expect(calls()).toBe(5);
  });

  test("what is for good is thrown at once", async () => {
    const { work, wait, calls } = flaky(1, permanent);

    expect(await rejectionOf(withRetry(work, { signal, wait }))).toBe(permanent);

    expect(calls()).toBe(1);
  });

  test("waits double, with jitter, up to 15 s", async () => {
    const { work, waits, wait } = flaky(9);

    await withRetry(work, { signal, wait, attempts: 10 });

    const ceilings = [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000, 15_000];
    expect(
      waits.every((ms, at) => ms >= (ceilings[at] ?? 0) / 2 && ms <= (ceilings[at] ?? 0)),
    ).toBe(true);
  });

  test("the number of attempts may depend on the failure", async () => {
    const { work, wait, calls } = flaky(9);

    expect(await rejectionOf(withRetry(work, { signal, wait, attempts: () => 2 }))).toBe(passing);

    expect(calls()).toBe(2);
  });

  test("it is said what failed and how long the wait is", async () => {
    const { work, wait, waits } = flaky(1);
    const told: unknown[] = [];

    await withRetry(work, { signal, wait, onRetry: (error, ms) => told.push([error, ms]) });

    expect(told).toEqual([[passing, waits[0]]]);
  });

  test("an abort during the wait ends it with the signal's reason", async () => {
    const controller = new AbortController();
    const { work, calls } = flaky(9);
    const wait = async (): Promise<void> => controller.abort(new Error("enough"));

    expect(await rejectionOf(withRetry(work, { signal: controller.signal, wait }))).toHaveProperty(
      "message",
      "enough",
    );

    expect(calls()).toBe(1);
  });

  test("without a wait of its own it waits for real", async () => {
    const { work } = flaky(1);

    expect(await withRetry(work, { signal })).toBe(2);
  });
});

test("retryWaitMs: the server's wish is a lower bound, and too long a wish ends it", () => {
  expect(retryWaitMs(asking(7000), 1)).toBe(7000);
  expect(retryWaitMs(asking(0), 1)).toBeGreaterThanOrEqual(250);
  expect(retryWaitMs(asking(120_001), 1)).toBeUndefined();
});

test.each([
  ["registry_unavailable", true],
  ["too_many_requests", true],
  ["timed_out", true],
  ["not_found", false],
  ["unauthorized", false],
  ["offline", false],
  ["cancelled", false],
  ["digest_mismatch", false],
] as const)("isTransient: %s is %p", (code, expected) => {
  expect(isTransient(new AppError(code, "x"))).toBe(expected);
});

test("isTransient: what is marked permanent, and what is no error of ours, is not", () => {
  expect(isTransient(permanent)).toBe(false);
  expect(isTransient(new Error("x"))).toBe(false);
});

const NOW = Date.parse("2026-01-01T00:00:00Z");

test.each([
  ["3", 3000],
  ["0", 0],
  [" 1.5 ", 1500],
  ["Thu, 01 Jan 2026 00:00:09 GMT", 9000],
  ["Thu, 01 Jan 2025 00:00:09 GMT", 0],
  ["-3", undefined],
  ["soon", undefined],
  ["99999999999999999999", undefined],
  ["", undefined],
  [null, undefined],
])("parseRetryAfter: %p is %p ms", (text, expected) => {
  expect(parseRetryAfter(text, NOW)).toBe(expected as never);
});
