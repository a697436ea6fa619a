import { describe, expect, test } from "bun:test";
import { AppError, fromErrorObject, toAppError, toErrorObject } from "../src/errors.ts";

describe("toAppError", () => {
  test("keeps an AppError", () => {
    const error = new AppError("model_not_found", "no");

    expect(toAppError(error)).toBe(error);
  });

  test.each([
    [new DOMException("stop", "AbortError"), "cancelled", 130],
    [Object.assign(new Error("full"), { code: "ENOSPC" }), "insufficient_storage", 1],
    [Object.assign(new Error("quota"), { code: "EDQUOT" }), "insufficient_storage", 1],
    [new Error("odd"), "internal", 1],
    ["text", "internal", 1],
  ] as const)("makes %p into %p", (thrown, code, exitCode) => {
    expect(toAppError(thrown)).toMatchObject({ code, exitCode });
  });
});

test("an error that travels as JSON arrives as it left", () => {
  const error = new AppError("conflict", "cannot x", { hint: "Do y.", details: { a: 1 } });

  const arrived = fromErrorObject(JSON.parse(JSON.stringify(toErrorObject(error))));

  expect(arrived).toMatchObject({
    code: "conflict",
    message: "cannot x",
    hint: "Do y.",
    details: { a: 1 },
  });
});

test.each([null, "x", {}, { code: "nonsense", message: "m" }, { code: "usage" }])(
  "fromErrorObject does not take %p for an error of ours",
  (value) => {
    expect(fromErrorObject(value)).toBeUndefined();
  },
);
