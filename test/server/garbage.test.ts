import { afterEach, beforeEach, expect, jest, mock, spyOn, test } from "bun:test";
import { Garbage } from "../../src/server/garbage.ts";

/** Whether each collection was one that is waited for. */
let collected: boolean[] = [];
let garbage: Garbage;

beforeEach(() => {
  jest.useFakeTimers();
  spyOn(Bun, "gc").mockImplementation((isForced) => {
    collected.push(isForced === true);
    return 0;
  });
  garbage = new Garbage();
  collected = [];
});

afterEach(() => {
  mock.restore();
  jest.useRealTimers();
});

function requests(count: number): void {
  for (let index = 0; index < count; index += 1) garbage.countRequest();
}

test("garbage: few requests are left to the collector itself", () => {
  requests(31);
  jest.advanceTimersByTime(10_000);
  expect(collected).toEqual([]);
});

test("garbage: a burst is collected once it is over, once", () => {
  requests(32);
  jest.advanceTimersByTime(400);
  garbage.countRequest();
  jest.advanceTimersByTime(400);
  expect(collected).toEqual([]);
  jest.advanceTimersByTime(10_000);
  expect(collected).toEqual([true]);
});

test("garbage: of many requests it is collected on the way, without waiting", () => {
  requests(300);
  expect(collected).toEqual([false, false]);
  jest.advanceTimersByTime(10_000);
  expect(collected).toEqual([false, false, true]);
});

test("garbage: what a large body leaves is collected soon", () => {
  garbage.collectSoon();
  jest.advanceTimersByTime(10_000);
  expect(collected).toEqual([true]);
});
