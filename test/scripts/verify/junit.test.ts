import { describe, expect, test } from "bun:test";
import { add, failedNames, parseCounts } from "../../../scripts/verify/junit.ts";

const REPORT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="5" assertions="2" failures="1" skipped="1" time="0.01">
  <testsuite name="test/a.test.ts" tests="5" failures="1" skipped="1">
    <testcase name="passes" file="test/a.test.ts" assertions="1" />
    <testcase name="skips" file="test/a.test.ts">
      <skipped />
    </testcase>
    <testcase name="says &quot;no&quot; &amp; fails" file="test/a.test.ts" line="3">
      <failure type="AssertionError" message="m">text</failure>
    </testcase>
    <testcase name="passes too" file="test/a.test.ts" />
    <testcase name="and this" file="test/a.test.ts" />
  </testsuite>
</testsuites>`;

describe("parseCounts", () => {
  test("what neither failed nor was skipped has passed", () => {
    expect(parseCounts(REPORT)).toEqual({ passed: 3, failed: 1, skipped: 1 });
  });

  test.each([
    ["nothing", ""],
    ["a report that was cut off", REPORT.slice(0, -20)],
    ["something else", "<html></html>"],
  ])("%s has no counts", (_, xml) => {
    expect(parseCounts(xml)).toBeUndefined();
  });
});

describe("failedNames", () => {
  test("names the file and the test, and only those that failed", () => {
    expect(failedNames(REPORT)).toEqual(['test/a.test.ts > says "no" & fails']);
  });
});

describe("add", () => {
  test("sums each count", () => {
    const sum = add({ passed: 1, failed: 2, skipped: 3 }, { passed: 10, failed: 20, skipped: 30 });

    expect(sum).toEqual({ passed: 11, failed: 22, skipped: 33 });
  });
});
