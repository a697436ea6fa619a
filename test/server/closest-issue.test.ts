import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { closestIssue } from "../../src/server/closest-issue.ts";

const Block = v.variant("type", [
  v.looseObject({ type: v.literal("text"), text: v.string() }),
  v.looseObject({
    type: v.literal("result"),
    content: v.union([v.string(), v.array(v.looseObject({ text: v.string() }))]),
  }),
]);
const Schema = v.looseObject({ content: v.union([v.string(), v.array(Block)]) });

describe("closestIssue", () => {
  test.each([
    [{ content: 1 }, "content", "(string | Array)"],
    [{ content: [{ type: "text" }] }, "content.0.text", '"text"'],
    [{ content: [{ type: "none" }] }, "content.0.type", '("text" | "result")'],
    [
      { content: [{ type: "result", content: [{ text: 1 }] }] },
      "content.0.content.0.text",
      "string",
    ],
    [{}, "content", '"content"'],
  ])("of %j is at %s", (value, path, expected) => {
    const { issues } = v.safeParse(Schema, value);
    const issue = closestIssue(issues?.[0] as v.BaseIssue<unknown>);

    expect(v.getDotPath(issue)).toBe(path);
    expect(issue.expected).toBe(expected);
  });
});
