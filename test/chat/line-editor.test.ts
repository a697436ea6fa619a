import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { KeyDecoder, type Key, type KeyName } from "../../src/chat/keys.ts";
import { INPUT_LIMIT, LineEditor, type Effect } from "../../src/chat/line-editor.ts";

const CTRL = (letter: string): string => String.fromCodePoint(letter.codePointAt(0)! - 64);
const LEFT = "\u001B[D";
const RIGHT = "\u001B[C";
const UP = "\u001B[A";
const DOWN = "\u001B[B";
const paste = (text: string): string => `\u001B[200~${text}\u001B[201~`;

function type(editor: LineEditor, input: string): Effect | undefined {
  return new KeyDecoder()
    .push(input)
    .map((key) => editor.apply(key))
    .at(-1);
}

/** The text after typing, with `|` where the cursor is. */
function shown(input: string, history: readonly string[] = []): string {
  const editor = new LineEditor(history);
  type(editor, input);
  return `${editor.text.slice(0, editor.cursor)}|${editor.text.slice(editor.cursor)}`;
}

describe("LineEditor", () => {
  test.each([
    ["Left and typing", `ab${LEFT}x`, "ax|b"],
    ["Ctrl+B, Ctrl+F", `ab${CTRL("B")}${CTRL("B")}${CTRL("F")}x`, "ax|b"],
    ["Ctrl+A", `ab${CTRL("A")}x`, "x|ab"],
    ["Ctrl+E", `ab${CTRL("A")}${CTRL("E")}x`, "abx|"],
    ["Left at the start", `a${LEFT}${LEFT}x`, "x|a"],
    ["Right at the end", `a${RIGHT}x`, "ax|"],
    ["Ctrl+H", `ab${CTRL("H")}`, "a|"],
    ["Backspace at the start", `${CTRL("H")}a`, "a|"],
    ["Delete", `ab${LEFT}\u001B[3~`, "a|"],
    ["Ctrl+D within text", `ab${LEFT}${LEFT}${CTRL("D")}`, "|b"],
    ["Ctrl+W", `one two  ${CTRL("W")}`, "one |"],
    ["Alt+Backspace", "one two\u001B\u007F", "one |"],
    ["Alt+D", `one two${CTRL("A")}\u001Bd`, "| two"],
    ["Alt+B", "one two\u001Bbx", "one x|two"],
    ["Alt+F", `one two${CTRL("A")}\u001Bfx`, "onex| two"],
    ["Ctrl+U", `one two\u001Bb${CTRL("U")}`, "|two"],
    ["Ctrl+K", `one two\u001Bb${CTRL("K")}`, "one |"],
    ["Tab", "a\t", "a        |"],
    ["Tab after the begin of a command", "/ret\t", "/retry |"],
    ["Alt+Enter", "a\u001B\rb", "a\nb|"],
    ["Up and Down between lines", `abc\u001B\rde${UP}x${DOWN}y`, "abxc\ndey|"],
    ["Backspace over a line break", `a\u001B\r${CTRL("H")}b`, "ab|"],
    ["Left over an emoji of several code points", `a👩‍👩‍👧${LEFT}x`, "ax|👩‍👩‍👧"],
    ["Backspace over a combined letter", `ae\u0301${CTRL("H")}`, "a|"],
    ["Backspace over a wide letter", `日本${CTRL("H")}`, "日|"],
    ["a paste with foreign line breaks", paste("a\r\nb\rc\u0007"), "a\nb\nc|"],
  ])("editor: %s", (_, input, expected) => {
    expect(shown(input)).toBe(expected);
  });

  test("editor: the history is walked and the draft comes back", () => {
    const history = ["one", "two"];

    expect(shown(`draft${UP}`, history)).toBe("two|");
    expect(shown(`draft${UP}${UP}${UP}`, history)).toBe("one|");
    expect(shown(`draft${UP}${UP}${DOWN}${DOWN}`, history)).toBe("draft|");
    expect(shown(`draft${CTRL("P")}${CTRL("N")}${CTRL("N")}`, history)).toBe("draft|");
  });

  test.each<[string, string, string, boolean]>([
    ["a line", "hello\r", "hello", false],
    ["a quoted message", '"""one\rtwo"""\r', "one\ntwo", true],
    ["a message quoted on one line", '"""/bye"""\r', "/bye", true],
    ["a message with the quotes on their own lines", '"""\rone\r"""\r', "one", true],
    ["an empty quoted message", '""""""\r', "", true],
    ["a pasted command", `${paste("/bye")}\r`, "/bye", true],
    ["a typed command with pasted words", `/set system ${paste("a")}\r`, "/set system a", false],
    ["a quoted system message", '/set system """a\rb"""\r', '/set system """a\nb"""', false],
    ["a paste that begins with quotes", `${paste('"""doc')}\r`, '"""doc', true],
  ])("editor: Enter sends %s", (...[, input, text, isLiteral]) => {
    const effect = type(new LineEditor(), input);

    expect(effect).toMatchObject({ kind: "submit", submission: { text, isLiteral } });
  });

  test("editor: Ctrl+C forgets the text, its quotes, and says whether there was any", () => {
    const editor = new LineEditor();

    expect(type(editor, `"""one\r${CTRL("C")}`)).toEqual({ kind: "interrupt", wasEmpty: false });
    expect(editor.isOpen).toBe(false);
    expect(type(editor, CTRL("C"))).toEqual({ kind: "interrupt", wasEmpty: true });
  });

  test.each<[string, Effect["kind"]]>([
    [CTRL("D"), "exit"],
    [CTRL("L"), "clear-screen"],
    [CTRL("X"), "edit"],
    [CTRL("Z"), "suspend"],
  ])("editor: %j on an empty line", (input, kind) => {
    expect(type(new LineEditor(), input)).toEqual({ kind } as Effect);
  });

  test("editor: text past the limit is cut and said", () => {
    const editor = new LineEditor([], "x".repeat(INPUT_LIMIT - 1));

    expect(editor.apply({ kind: "text", text: "ab" })).toEqual({ kind: "full" });
    expect(editor.text).toHaveLength(INPUT_LIMIT);
  });

  test("editor: the cursor stays between two graphemes whatever is pressed", () => {
    const names: KeyName[] = [
      "left",
      "right",
      "word-left",
      "word-right",
      "home",
      "end",
      "up",
      "down",
    ];
    const changes: KeyName[] = [
      "backspace",
      "delete",
      "delete-word-left",
      "delete-to-end",
      "newline",
    ];
    const anyKey = fc.oneof(
      fc.constantFrom(...names, ...changes).map((name): Key => ({ kind: "key", name })),
      fc.constantFrom("a", " ", "日", "👩‍👩‍👧", "é").map((text): Key => ({ kind: "text", text })),
    );
    const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });

    fc.assert(
      fc.property(fc.array(anyKey, { maxLength: 40 }), (keys) => {
        const editor = new LineEditor(["x\ny"]);
        for (const key of keys) editor.apply(key);
        const edges = [...segmenter.segment(editor.text)].map(({ index }) => index);
        expect([...edges, editor.text.length]).toContain(editor.cursor);
      }),
    );
  });
});
