import { describe, expect, test } from "bun:test";
import { readThinking, saysThinking, withThinking } from "../../src/server/thinking.ts";

const NONE = new Headers();

describe("readThinking", () => {
  test.each<[object, object | undefined]>([
    [{}, undefined],
    [{ think: null, reasoning_effort: null, reasoning: null, reasoning_budget: null }, undefined],
    [{ think: true }, { isOn: true }],
    [{ think: false }, { isOn: false }],
    [{ think: "high" }, { isOn: true, effort: "high" }],
    [{ think: "none" }, { isOn: false }],
    [{ reasoning_effort: "minimal" }, { isOn: true, effort: "minimal" }],
    [{ reasoning_effort: "none" }, { isOn: false }],
    [{ reasoning: { effort: "low" } }, { isOn: true, effort: "low" }],
    [{ reasoning: { effort: null } }, undefined],
    [{ reasoning: { enabled: false } }, { isOn: false }],
    [{ reasoning: { max_tokens: 100 } }, { budgetTokens: 100 }],
    [{ reasoning_budget: 0 }, { isOn: false, budgetTokens: 0 }],
    [{ reasoning_budget_tokens: -1 }, { budgetTokens: -1 }],
    [{ thinking_budget_tokens: 7 }, { budgetTokens: 7 }],
    [
      { think: false, reasoning_effort: "high" },
      { isOn: false, effort: "high" },
    ],
  ])("thinking: %j says %j", (body, expected) => {
    expect(readThinking(body as Record<string, unknown>, NONE)).toEqual(expected as never);
  });

  test.each<[object, string]>([
    [{ think: 1 }, "think"],
    [{ think: "banana" }, "think"],
    [{ reasoning_effort: "High" }, "reasoning_effort"],
    [{ reasoning_effort: { a: 1 } }, "reasoning_effort"],
    [{ reasoning: "high" }, "reasoning"],
    [{ reasoning: [] }, "reasoning"],
    [{ reasoning: { enabled: "yes" } }, "reasoning.enabled"],
    [{ reasoning: { effort: 5 } }, "reasoning.effort"],
    [{ reasoning: { max_tokens: 1e99 } }, "reasoning.max_tokens"],
    [{ reasoning_budget: -2 }, "reasoning_budget"],
    [{ reasoning_budget_tokens: 1.5 }, "reasoning_budget_tokens"],
    [{ thinking_budget_tokens: "7" }, "thinking_budget_tokens"],
  ])("thinking: %j is refused and named", (body, param) => {
    expect(() => readThinking(body as Record<string, unknown>, NONE)).toThrow(
      expect.objectContaining({ code: "invalid_request", details: { param } }),
    );
  });

  test.each<[string, object]>([
    ["true", { isOn: true }],
    [" OFF ", { isOn: false }],
    ["0", { isOn: false }],
    ["Low", { isOn: true, effort: "low" }],
  ])("thinking: the header may say %j", (value, expected) => {
    expect(readThinking({}, new Headers({ "x-think": value }))).toEqual(expected);
  });

  test("thinking: what is null is not said", () => {
    const body = {
      think: null,
      reasoning: { effort: null, enabled: null, max_tokens: null },
      reasoning_budget: null,
    };

    expect(readThinking(body, new Headers())).toBeUndefined();
    expect(saysThinking({ think: null })).toBe(false);
  });

  test("thinking: the body wins over the header, and a header of nonsense is named", () => {
    expect(readThinking({ think: true }, new Headers({ "x-think": "off" }))).toEqual({
      isOn: true,
    });
    expect(() => readThinking({}, new Headers({ "x-think": "banana" }))).toThrow("X-Think");
  });
});

describe("withThinking", () => {
  test("thinking: off is told to the template, and no tokens are left for one that ignores it", () => {
    expect(withThinking({ a: 1 }, { isOn: false, effort: "high" })).toEqual({
      a: 1,
      chat_template_kwargs: { enable_thinking: false },
      reasoning_budget_tokens: 0,
    });
  });

  test("thinking: a level is told to the template", () => {
    expect(withThinking({}, { isOn: true, effort: "low" })).toEqual({
      chat_template_kwargs: { enable_thinking: true, reasoning_effort: "low" },
    });
  });

  test("thinking: what a request says to the template itself stands", () => {
    const body = { chat_template_kwargs: { enable_thinking: true, x: 1 } };

    expect(withThinking(body, { isOn: false })).toEqual(body);
  });

  test("thinking: what is no object stays for the engine to judge", () => {
    const body = { chat_template_kwargs: 5 };

    expect(withThinking(body, { isOn: false })).toBe(body);
  });
});

test.each<[object, boolean]>([
  [{}, false],
  [{ chat_template_kwargs: { x: 1 } }, false],
  [{ chat_template_kwargs: { enable_thinking: true } }, true],
  [{ reasoning_effort: "low" }, true],
  [{ thinking_budget_tokens: 1 }, true],
])("thinking: whether %j says anything is %p", (body, expected) => {
  expect(saysThinking(body as Record<string, unknown>)).toBe(expected);
});
