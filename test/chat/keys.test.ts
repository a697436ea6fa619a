import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { KeyDecoder, PASTE_LIMIT, type Key, type KeyName } from "../../src/chat/keys.ts";

const key = (name: KeyName): Key => ({ kind: "key", name });
const text = (value: string): Key => ({ kind: "text", text: value });

/** Runs of text may be cut anywhere; joined they are the same. */
function decode(chunks: readonly string[]): Key[] {
  const decoder = new KeyDecoder();
  const keys = chunks.flatMap((chunk) => decoder.push(chunk));
  const joined: Key[] = [];
  for (const one of [...keys, ...decoder.flush()]) {
    const last = joined.at(-1);
    if (one.kind === "text" && last?.kind === "text")
      joined[joined.length - 1] = text(last.text + one.text);
    else joined.push(one);
  }
  return joined;
}

describe("KeyDecoder", () => {
  test.each<[string, string, KeyName]>([
    ["Enter", "\r", "submit"],
    ["Ctrl+J", "\n", "submit"],
    ["Alt+Enter", "\u001B\r", "newline"],
    ["Shift+Enter of kitty", "\u001B[13;2u", "newline"],
    ["Shift+Enter of xterm", "\u001B[27;2;13~", "newline"],
    ["Up", "\u001B[A", "up"],
    ["Up in application mode", "\u001BOA", "up"],
    ["Ctrl+Left", "\u001B[1;5D", "word-left"],
    ["Alt+Right", "\u001B[1;3C", "word-right"],
    ["Shift+Left", "\u001B[1;2D", "left"],
    ["Home", "\u001B[H", "home"],
    ["Home of rxvt", "\u001B[7~", "home"],
    ["End", "\u001B[4~", "end"],
    ["Delete", "\u001B[3~", "delete"],
    ["Ctrl+Delete", "\u001B[3;5~", "delete-word-right"],
    ["Alt+B", "\u001Bb", "word-left"],
    ["Alt+Backspace", "\u001B\u007F", "delete-word-left"],
    ["Ctrl+C", "\u0003", "interrupt"],
    ["Ctrl+D", "\u0004", "end-of-input"],
    ["Ctrl+X", "\u0018", "edit"],
    ["Ctrl+Z", "\u001A", "suspend"],
  ])("keys: %s is read", (_, bytes, name) => {
    expect(decode([bytes])).toEqual([key(name)]);
  });

  test("keys: sequences it does not know are dropped", () => {
    expect(decode(["a\u001B[99~\u001B[5;7;9zb\u001BPc"])).toEqual([text("abc")]);
  });

  test("keys: a lone escape is known only when nothing follows", () => {
    const decoder = new KeyDecoder();

    expect(decoder.push("\u001B")).toEqual([]);
    expect(decoder.isPending).toBe(true);
    expect(decoder.flush()).toEqual([key("escape")]);
    expect(decoder.isPending).toBe(false);
  });

  test("keys: a paste keeps its line breaks and its control sequences are not keys", () => {
    expect(decode(["\u001B[200~a\rb\u001B[Ac\u001B[201~\r"])).toEqual([
      { kind: "paste", text: "a\rb\u001B[Ac", isCut: false },
      key("submit"),
    ]);
  });

  test("keys: a paste past the limit is cut and says so", () => {
    const [paste] = decode([`\u001B[200~${"x".repeat(PASTE_LIMIT + 1)}\u001B[201~`]);

    expect(paste).toMatchObject({ kind: "paste", isCut: true });
    expect((paste as { text: string }).text).toHaveLength(PASTE_LIMIT);
  });

  test("keys: a sequence that never ends is given up", () => {
    const decoder = new KeyDecoder();

    decoder.push(`\u001B[${"1;".repeat(100)}`);

    expect(decoder.isPending).toBe(false);
  });

  test("keys: input cut at any place gives the same keys", () => {
    const input = "ab\u001B[1;5C日本\u001B[200~x\ny\u001B[201~\u001Bf\u001BOB\u0003é\u001B[13;2u";
    const whole = decode([input]);

    fc.assert(
      fc.property(fc.array(fc.nat(input.length), { maxLength: 8 }), (cuts) => {
        const edges = [0, ...cuts.toSorted((a, b) => a - b), input.length];
        const chunks = edges.slice(1).map((edge, index) => input.slice(edges[index], edge));
        expect(decode(chunks)).toEqual(whole);
      }),
    );
  });

  test("keys: any text whatever is read without end", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom("\u001B", "[", "O", "1", ";", "~", "a", "\r", "é") }),
        (input) => {
          const decoder = new KeyDecoder();
          decoder.push(input);
          decoder.flush();
          expect(decoder.isPending).toBe(false);
        },
      ),
    );
  });
});
