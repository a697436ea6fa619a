import { describe, expect, test } from "bun:test";
import { AppError, type ErrorCode, fromErrorObject } from "../../src/errors.ts";
import { toErrorBody, toErrorResponse } from "../../src/server/error-response.ts";

describe("toErrorBody", () => {
  test.each([
    ["usage", "invalid_request_error"],
    ["unauthorized", "authentication_error"],
    ["forbidden", "permission_error"],
    ["model_not_found", "not_found_error"],
    ["model_in_use", "conflict_error"],
    ["request_too_large", "invalid_request_error"],
    ["queue_full", "rate_limit_error"],
    ["worker_failed", "server_error"],
  ])("error: %s is an OpenAI %s", (code, type) => {
    const { error } = toErrorBody(new AppError(code as ErrorCode, "m"));

    expect(error.type).toBe(type);
  });

  test("error: a client rebuilds the very error", () => {
    const error = new AppError("model_in_use", "cannot remove `x`: it is in use", {
      hint: "Unload it.",
      details: { workers: 1 },
    });

    const rebuilt = fromErrorObject(JSON.parse(JSON.stringify(toErrorBody(error))).error);

    expect(rebuilt).toMatchObject({
      code: error.code,
      message: error.message,
      hint: error.hint,
      details: { workers: 1 },
    });
  });

  test("error: what there is none of is left out", () => {
    expect(toErrorBody(new AppError("internal", "m")).error).toEqual({
      message: "m",
      type: "server_error",
      param: null,
      code: "internal",
    });
  });
});

describe("toErrorResponse", () => {
  test("error: a full queue, and what says so itself, tell when to come back", () => {
    expect(toErrorResponse(new AppError("queue_full", "m")).headers.get("retry-after")).toBe("5");
    expect(toErrorResponse(new AppError("internal", "m")).headers.get("retry-after")).toBeNull();
    const later = new AppError("worker_failed", "m", { details: { retry_after_seconds: 1.2 } });
    expect(toErrorResponse(later).headers.get("retry-after")).toBe("2");
  });

  test("error: the status is the code's", () => {
    expect(toErrorResponse(new AppError("cancelled", "m")).status).toBe(499);
    expect(toErrorResponse(new AppError("insufficient_storage", "m")).status).toBe(507);
  });
});
