import { describe, expect, test } from "bun:test";
import type { RequestRecord } from "../../src/api/requests.ts";
import { answerError, answerText, promptText } from "../../src/commands/answer-text.ts";
import { diffLines } from "../../src/commands/line-diff.ts";
import { readAnswer, recordedText, renderDiff } from "../../src/commands/replay.ts";
import { parseLimit, tokensOf, toLine } from "../../src/commands/requests.ts";

const RECORD = {
  id: "r1",
  model: "pebble",
  started_at: "2027-01-15T08:09:10.000Z",
  status_code: 200,
  duration_ms: 1200,
  input_tokens: 12,
  output_tokens: null,
  error: null,
  request: '{"messages":[{"role":"user","content":"What is\\nthe \\u001b[31mcapital?"}]}',
  response: '{"choices":[{"message":{"content":"Paris."}}]}',
} as unknown as RequestRecord;

async function* from(...parts: unknown[]): AsyncIterable<unknown> {
  yield* await Promise.resolve(parts);
}

describe("answerText", () => {
  test.each([
    ["a chat completion", { choices: [{ message: { content: "a" } }] }, "a"],
    ["a piece of one", { choices: [{ delta: { content: "a" } }] }, "a"],
    ["a text completion", { choices: [{ text: "a" }, { text: "b" }] }, "a\nb"],
    [
      "a call of a tool",
      {
        choices: [
          {
            message: { content: null, tool_calls: [{ function: { name: "f", arguments: "{}" } }] },
          },
        ],
      },
      "f{}",
    ],
    [
      "a message of Anthropic's",
      {
        content: [
          { type: "text", text: "a" },
          { type: "tool_use", name: "f", input: { x: 1 } },
        ],
      },
      'af{"x":1}',
    ],
    ["a piece of one of those", { type: "content_block_delta", delta: { text: "a" } }, "a"],
    ["a line of Ollama's chat", { message: { content: "a" } }, "a"],
    ["a line of what Ollama generates", { response: "a" }, "a"],
    ["a response", { output: [{ content: [{ type: "output_text", text: "a" }] }] }, "a"],
    ["a piece of one of those", { type: "response.output_text.delta", delta: "a" }, "a"],
    ["an embedding", { data: [{ embedding: [1] }] }, ""],
    ["null", null, ""],
    ["text", "a", ""],
    ["nonsense", { choices: 3, content: 4, message: [5] }, ""],
  ])("reads %s", (_, value, text) => {
    expect(answerText(value)).toBe(text);
  });
});

describe("answerError", () => {
  test.each([
    [{ error: "a" }, "a"],
    [{ error: { message: "a" } }, "a"],
    [{ error: { x: 1 } }, '{"x":1}'],
    [{ error: null }, undefined],
    [{}, undefined],
    [null, undefined],
  ])("of %j is %p", (value, error) => {
    expect(answerError(value)).toBe(error as string);
  });
});

describe("promptText", () => {
  test.each([
    [
      {
        messages: [
          { content: "a" },
          { content: [{ type: "text", text: "b" }, { type: "image_url" }] },
        ],
      },
      "b",
    ],
    [{ prompt: "a" }, "a"],
    [{ input: "a" }, "a"],
    [{ query: "a" }, "a"],
    [{ input: ["a"] }, ""],
    [[], ""],
  ])("of %j is %p", (body, prompt) => {
    expect(promptText(JSON.stringify(body))).toBe(prompt);
  });

  test("of what was cut is empty", () => {
    expect(promptText('{"messages":[{"content":"ab...[truncated 3 bytes]')).toBe("");
  });
});

describe("requests", () => {
  test("shows one in a line, without what could steer a terminal", () => {
    expect(toLine(RECORD)).toBe("08:09:10 r1 pebble 200 1.2s 12+? What is the [31mcapital?\n");
  });

  test("shows why there was no answer", () => {
    expect(toLine({ ...RECORD, status_code: 429, error: "cannot\nwait" })).toContain(
      "429 1.2s 12+? cannot wait",
    );
  });

  test("names models as people do", () => {
    const line = toLine({ ...RECORD, model: "docker.io/ai/pebble:latest" });

    expect(line).toStartWith("08:09:10 r1 pebble 200 ");
  });

  test("counts tokens as far as they are known", () => {
    expect(tokensOf({ ...RECORD, output_tokens: 3 })).toBe("12+3");
    expect(tokensOf({ ...RECORD, input_tokens: null })).toBe("-");
  });

  test.each(["0", "1001", "-1", "x", "1.5", ""])("refuses %j as a limit", (text) => {
    expect(() => parseLimit(text)).toThrow("is not a number of requests");
  });
});

describe("replay", () => {
  test("shows words as they come, and gives the whole", async () => {
    const shown: string[] = [];
    const parts = from(
      { choices: [{ delta: { content: "a" } }] },
      {},
      { choices: [{ delta: { content: "b" } }] },
    );

    const text = await readAnswer(parts, (word) => {
      shown.push(word);
      return Promise.resolve(true);
    });

    expect([text, shown]).toEqual(["ab", ["a", "b"]]);
  });

  test("stops where nobody reads any more", async () => {
    const parts = from({ response: "a" }, { response: "b" });

    expect(await readAnswer(parts, () => Promise.resolve(false))).toBe("a");
  });

  test("shows an answer without words as it is", async () => {
    expect(await readAnswer(from({ data: [1] }), () => Promise.resolve(true))).toBe(
      '{\n  "data": [\n    1\n  ]\n}\n',
    );
  });

  test("fails where the answer says that something went wrong", async () => {
    const reading = readAnswer(from({ error: { message: "out of\u001b memory" } }), () =>
      Promise.resolve(true),
    );

    expect(await reading.catch((error: Error) => error.message)).toBe(
      "cannot replay: out of memory",
    );
  });

  test.each([
    ['{"choices":[{"message":{"content":"Paris."}}]}', "Paris."],
    ['{"data":1}', '{\n  "data": 1\n}\n'],
    ['{"choices":[{"mess...[truncated 3 bytes]', '{"choices":[{"mess...[truncated 3 bytes]'],
    [null, ""],
  ])("reads the recorded answer %j", (response, text) => {
    expect(recordedText({ ...RECORD, response })).toBe(text);
  });

  test("shows what differs", () => {
    expect(renderDiff("a\nb\nc", "a\nB\nc", false)).toBe("  a\n- b\n+ B\n  c\n");
    expect(renderDiff("a", "b", true)).toContain("\u001b[31m- a");
    expect(renderDiff("a", "a", true)).toBe("The answers are the same.\n");
  });
});

const apply = (lines: ReturnType<typeof diffLines>, without: "removed" | "added") =>
  lines
    .filter(({ kind }) => kind !== without)
    .map(({ text }) => text)
    .join("\n");

describe("diffLines", () => {
  test.each([
    ["", ""],
    ["", "a"],
    ["a", ""],
    ["a\nb\nc", "c\nb\na"],
    ["a\na\na", "a\na"],
    ["x\na\nb\ny", "a\nx\nb\nz\ny"],
  ])("of %j and %j gives back both", (before, after) => {
    const lines = diffLines(before, after);

    expect([apply(lines, "added"), apply(lines, "removed")]).toEqual([before, after]);
  });

  test("finds the fewest changes", () => {
    const lines = diffLines("a\nb\nc\nd", "a\nc\nd\ne");

    expect(lines.map(({ kind, text }) => kind[0] + text)).toEqual(["sa", "rb", "sc", "sd", "ae"]);
  });

  test("does not try where both are very long", () => {
    const one = Array.from({ length: 3000 }, (_, index) => `a${index}`).join("\n");
    const other = Array.from({ length: 3000 }, (_, index) => `b${index}`).join("\n");

    expect(diffLines(one, other)).toHaveLength(6000);
  });
});
