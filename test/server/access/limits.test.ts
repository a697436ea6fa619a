import { describe, expect, test } from "bun:test";
import { AppError } from "../../../src/errors.ts";
import { KeyLimits } from "../../../src/server/access/limits.ts";

const KEY = { hash: "h", name: "me", maxConcurrent: null, ratePerMinute: null };

function rig() {
  let nowMs = 1000;
  const limits = new KeyLimits(() => nowMs);
  return { limits, pass: (ms: number) => void (nowMs += ms) };
}

function refusal(work: () => unknown): AppError {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("it was not refused");
}

describe("KeyLimits", () => {
  test("a key without limits is not counted", () => {
    const { limits } = rig();

    for (let times = 0; times < 1000; times += 1) expect(limits.enter(KEY)).toBeUndefined();
  });

  test("a bucket is refilled as time goes by, and never beyond its size", () => {
    const { limits, pass } = rig();
    const key = { ...KEY, ratePerMinute: 60 };
    for (let times = 0; times < 60; times += 1) limits.enter(key);

    expect(refusal(() => limits.enter(key)).details).toEqual({ retry_after_seconds: 1 });
    pass(999);
    refusal(() => limits.enter(key));
    pass(2);
    limits.enter(key);
    refusal(() => limits.enter(key));
    pass(3_600_000);
    for (let times = 0; times < 60; times += 1) limits.enter(key);
    refusal(() => limits.enter(key));
  });

  test("who is told when to come again, may then", () => {
    const { limits, pass } = rig();
    const key = { ...KEY, ratePerMinute: 7 };
    for (let times = 0; times < 7; times += 1) limits.enter(key);

    const { details } = refusal(() => limits.enter(key));
    pass(Number(details?.["retry_after_seconds"]) * 1000);

    limits.enter(key);
  });

  test("what is refused for the requests in flight takes nothing from the minute", () => {
    const { limits } = rig();
    const key = { ...KEY, maxConcurrent: 1, ratePerMinute: 2 };
    const first = limits.enter(key);

    for (let times = 0; times < 5; times += 1) refusal(() => limits.enter(key));
    first?.[Symbol.dispose]();

    limits.enter(key)?.[Symbol.dispose]();
    expect(refusal(() => limits.enter(key)).message).toContain("2 requests a minute");
  });

  test("a request leaves once, however often it says so", () => {
    const { limits } = rig();
    const key = { ...KEY, maxConcurrent: 2 };
    const first = limits.enter(key);
    limits.enter(key);

    first?.[Symbol.dispose]();
    first?.[Symbol.dispose]();

    limits.enter(key);
    refusal(() => limits.enter(key));
  });

  test("a key made anew under the same name begins anew", () => {
    const { limits } = rig();
    limits.enter({ ...KEY, ratePerMinute: 1 });

    refusal(() => limits.enter({ ...KEY, ratePerMinute: 1 }));
    limits.enter({ ...KEY, hash: "another", ratePerMinute: 1 });
  });
});
