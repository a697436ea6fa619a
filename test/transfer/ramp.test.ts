import { describe, expect, test } from "bun:test";
import { Ramp } from "../../src/transfer/ramp.ts";

const MB = 1_000_000;
const OPTIONS = { fastBytesPerSecond: 100 * MB, most: 8, coolDownMs: 10_000 };

/** Lets it look ten times a second. @param rateOf bytes a second with so many connections */
function run(ramp: Ramp, seconds: number, rateOf: (connections: number) => number): number[] {
  const seen: number[] = [];
  for (let look = 0; look < seconds * 10; look += 1) {
    ramp.observe(rateOf(ramp.connections), look * 100);
    if (seen.at(-1) !== ramp.connections) seen.push(ramp.connections);
  }
  return seen;
}

describe("Ramp", () => {
  test("ramp: where each connection is limited, there are soon as many as there may be", () => {
    expect(run(new Ramp(OPTIONS), 2, (count) => count * 5 * MB)).toEqual([1, 2, 4, 8]);
  });

  test("ramp: a fast source gets one connection, also when it is slow for a moment", () => {
    const ramp = new Ramp(OPTIONS);
    let look = 0;

    expect(run(ramp, 5, () => ((look += 1) % 7 === 0 ? 20 * MB : 400 * MB))).toEqual([1]);
  });

  test("ramp: a line that is full is not asked for more, but now and then", () => {
    expect(run(new Ramp(OPTIONS), 9, () => 10 * MB)).toEqual([1, 2]);
    expect(run(new Ramp(OPTIONS), 25, () => 10 * MB)).toEqual([1, 2, 4, 8]);
  });

  test("ramp: connections that begin slowly are waited for", () => {
    const ramp = new Ramp(OPTIONS);
    let [connections, age] = [1, 0];
    const rateOf = (count: number): number => {
      age = count === connections ? age + 1 : 0;
      connections = count;
      return age < 2 ? (count / 2) * 5 * MB : count * 5 * MB;
    };

    expect(run(ramp, 5, rateOf)).toEqual([1, 2, 4, 8]);
  });

  test("ramp: no more connections than there may be, and none when it is fast enough with fewer", () => {
    expect(run(new Ramp({ ...OPTIONS, most: 3 }), 5, (count) => count * 5 * MB)).toEqual([1, 2, 3]);
    expect(run(new Ramp(OPTIONS), 5, (count) => count * 30 * MB)).toEqual([1, 2, 4]);
  });
});
