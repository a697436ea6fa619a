import { describe, expect, test } from "bun:test";
import { BodyBudget } from "../../src/server/body-budget.ts";

describe("BodyBudget", () => {
  test("refuses what does not fit beside what others hold", () => {
    const budget = new BodyBudget({ maxBytes: 10 });
    using first = budget.open();
    using second = budget.open();
    first.take(8);

    expect(() => second.take(3)).toThrow("too many large ones are waiting");
    second.take(2);
  });

  test("has room again once others have let go", () => {
    const budget = new BodyBudget({ maxBytes: 10 });
    using second = budget.open();
    {
      using first = budget.open();
      first.take(8);
    }

    second.take(9);
  });

  test("always has room for one alone, however it comes", () => {
    using only = new BodyBudget({ maxBytes: 10 }).open();

    only.take(8);
    only.take(8);
  });
});
