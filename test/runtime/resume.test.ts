import { describe, expect, test } from "bun:test";
import { createSleepDetector } from "../../src/runtime/resume.ts";

describe("createSleepDetector", () => {
  test("tells once of a sleep: the wall clock went on, the other did not", () => {
    const clock = { wallMs: 1_000_000, monotonicMs: 50 };
    const detector = createSleepDetector({
      now: () => clock.wallMs,
      monotonic: () => clock.monotonicMs,
    });
    expect(detector.check()).toBe(false);

    clock.wallMs += 3_600_000;
    clock.monotonicMs += 20;

    expect(detector.check()).toBe(true);
    expect(detector.check()).toBe(false);
  });

  test("tells nothing of time that merely passes, however much between two calls", () => {
    const clock = { wallMs: 0, monotonicMs: 0 };
    const detector = createSleepDetector({
      now: () => clock.wallMs,
      monotonic: () => clock.monotonicMs,
    });

    clock.wallMs += 86_400_000;
    clock.monotonicMs += 86_400_000;

    expect(detector.check()).toBe(false);
  });

  test("tells nothing of a clock set right by a little, or back", () => {
    const clock = { wallMs: 10_000_000, monotonicMs: 0 };
    const detector = createSleepDetector({
      now: () => clock.wallMs,
      monotonic: () => clock.monotonicMs,
    });

    clock.wallMs += 4000;
    expect(detector.check()).toBe(false);
    clock.wallMs -= 3_600_000;
    expect(detector.check()).toBe(false);
    clock.wallMs += 60_000;
    expect(detector.check()).toBe(true);
  });

  test("uses the clocks of the machine, which did not sleep since", () => {
    const detector = createSleepDetector();

    expect(detector.check()).toBe(false);
  });
});
