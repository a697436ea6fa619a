import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import { toReadError } from "../../src/store/read-error.ts";

const system = (code: string): Error => Object.assign(new Error("failed"), { code });

describe("toReadError", () => {
  test.each([
    ["ENOENT", "not_found", "there is no such file"],
    ["ENOTDIR", "not_found", "there is no such file"],
    ["EACCES", "forbidden", "permission denied"],
    ["EPERM", "forbidden", "permission denied"],
    ["EIO", "invalid_model_file", "the system said EIO"],
  ])("read error: %s is %s", (code, expected, reason) => {
    const error = toReadError("/d/m.gguf", system(code)) as AppError;
    expect(error).toMatchObject({ code: expected });
    expect(error.message).toBe(`cannot read \`m.gguf\`: ${reason}`);
  });

  test("read error: a blob is called by the name of its file", () => {
    const error = toReadError("/blobs/sha256/01", system("ENOENT"), "sub/m.gguf") as AppError;
    expect(error.message).toContain("`sub/m.gguf`");
    expect(error.hint).toContain("/blobs/sha256/01");
  });

  test("read error: others stay what they are", () => {
    const abort = new DOMException("stop", "AbortError");
    const own = new AppError("usage", "no");
    expect(toReadError("/m", own)).toBe(own);
    expect(toReadError("/m", new Error("x"))).toBeInstanceOf(Error);
    expect((toReadError("/m", abort) as Error).name).toBe("AbortError");
  });
});
