import { describe, expect, test } from "bun:test";

import { probePause } from "../../src/runtime/readiness.ts";

describe("probePause", () => {
  test("readiness: it is seen at most a sixteenth of the load too late, and 250 ms", () => {
    const pauses = [0, 40, 160, 320, 4000, 60_000].map(probePause);

    expect(pauses).toEqual([5, 5, 10, 20, 250, 250]);
  });

  test("readiness: a load of a second costs some fifty questions, one of a minute some three hundred", () => {
    expect(questionsIn(1000)).toBeWithin(40, 60);
    expect(questionsIn(60_000)).toBeWithin(250, 350);
  });
});

function questionsIn(loadMs: number): number {
  let questions = 0;
  for (let elapsedMs = 0; elapsedMs < loadMs; elapsedMs += probePause(elapsedMs)) questions += 1;
  return questions;
}
