import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { TokenBucket } from "../../src/transfer/token-bucket.ts";

describe("TokenBucket", () => {
  test("token-bucket: what exceeds the rate waits, and a pause earns a burst and no more", () => {
    const bucket = new TokenBucket(1000, 0);

    expect(bucket.take(100, 0)).toBe(0);
    expect(bucket.take(500, 0)).toBe(500);
    expect(bucket.take(100, 600)).toBe(0);
    // After an hour: the burst is free, the rest is not.
    expect(bucket.take(1100, 3_600_000)).toBe(1000);
  });

  test("token-bucket: a clock that goes back gives nothing away", () => {
    const bucket = new TokenBucket(1000, 1000);
    bucket.take(100, 1000);

    expect(bucket.take(100, 0)).toBe(100);
    expect(bucket.take(0, 1000)).toBe(100);
  });

  test("token-bucket: who waits as told never exceeds the rate by more than a burst and a chunk", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1000, max: 1_000_000 }),
        fc.array(fc.integer({ min: 1, max: 500_000 }), { minLength: 1, maxLength: 100 }),
        (rate, chunks) => {
          const bucket = new TokenBucket(rate, 0);
          let [now, total] = [0, 0];
          for (const chunk of chunks) {
            expect(total).toBeLessThanOrEqual((rate * now) / 1000 + rate / 10 + 1);
            total += chunk;
            now += bucket.take(chunk, now);
          }
        },
      ),
    );
  });
});
