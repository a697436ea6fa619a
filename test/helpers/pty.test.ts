import { describe, expect, test } from "bun:test";
import { Pty } from "./pty.ts";
import { Screen } from "./screen.ts";

const isPosix = process.platform !== "win32";

describe("Screen", () => {
  test.each([
    ["text is shown as it comes", "one\r\ntwo", ["one", "two"]],
    ["a carriage return overwrites", "abc\rX", ["Xbc"]],
    ["the end of a line is erased", "abc\r\u001B[K", []],
    ["the cursor moves up and erases below", "a\r\nb\r\nc\u001B[1A\r\u001B[J", ["a"]],
    ["a full row wraps", "0123456789ab", ["0123456789", "ab"]],
    ["a wide character takes two columns", "日本\u001B[2D語", ["日語"]],
    ["a wide character does not straddle rows", "012345678日", ["012345678", "日"]],
    ["colours and titles are dropped", "\u001B]0;title\u0007\u001B[1;31mred\u001B[0m", ["red"]],
    ["rows scroll out", "1\r\n2\r\n3\r\n4\r\n5", ["3", "4", "5"]],
  ])("%s", (_, written, expected) => {
    const screen = new Screen({ columns: 10, rows: 3 });

    screen.write(written);

    expect(screen.lines()).toEqual(expected);
  });

  test("a sequence cut in two is one sequence", () => {
    const whole = "ab\u001B[1D\u001B[1;32mX";

    const shown = Array.from({ length: whole.length }, (_, index) => {
      const screen = new Screen({ columns: 10, rows: 3 });
      screen.write(whole.slice(0, index));
      screen.write(whole.slice(index));
      return screen.text();
    });

    expect(new Set(shown)).toEqual(new Set(["aX"]));
  });
});

describe.if(isPosix)("Pty", () => {
  test("a program sees a terminal, and what it writes is waited for", async () => {
    await using pty = Pty.start(["sh", "-c", "tty >/dev/null && read x && echo got-$x && exit 3"]);

    pty.submit("line");

    expect(await pty.waitFor(/got-\w+/)).toBe("got-line");
    expect(await pty.exited()).toBe(3);
  });

  test("what was found once is not found again", async () => {
    await using pty = Pty.start(["sh", "-c", "echo once; read x"]);
    await pty.waitFor("once");

    const again = pty.waitFor("once", 50);

    expect(again).rejects.toThrow("did not show");
    await again.catch(() => undefined);
  });
});
