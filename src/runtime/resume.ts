/** Whether the machine slept: without a timer, which would wake an idle process. */

/** A wall clock that is set right by less than this is no sleep. Milliseconds. */
const JUMP_MS = 5000;

export interface SleepClocks {
  /** Wall clock. Milliseconds. */
  now(): number;
  /** A clock that stands still while the machine sleeps. Milliseconds. */
  monotonic(): number;
}

export interface SleepDetector {
  /** Whether the machine slept, or was a paused virtual one, since the last call. The first call says no. */
  check(): boolean;
}

/**
 * The wall clock goes on during sleep and the monotonic one (CLOCK_MONOTONIC under Linux, Mach's absolute time on macOS)
 * does not. Somebody who sets the clock forward looks the same: what follows from a sleep must be harmless. Windows's
 * counter may go on: there a sleep may pass unnoticed.
 *
 * @see clock_gettime(2)
 */
export function createSleepDetector(clocks: Partial<SleepClocks> = {}): SleepDetector {
  const now = clocks.now ?? Date.now;
  const monotonic = clocks.monotonic ?? (() => performance.now());
  let lead = now() - monotonic();
  return {
    check() {
      const before = lead;
      lead = now() - monotonic();
      return lead - before > JUMP_MS;
    },
  };
}
