import { describe, expect, test } from "bun:test";
import { AnswerBuffer, AnswerPool } from "../../../src/server/watch/answer-buffer.ts";
import { eventData, readAnswer } from "../../../src/server/watch/answer.ts";
import { bytes, STREAM } from "./facts.ts";

const EVENTS = "text/event-stream";
const JSON_TYPE = "application/json; charset=utf-8";
const LINES = "application/x-ndjson";

function read(contentType: string, text: string) {
  return readAnswer({ contentType, head: bytes(text), tail: bytes(""), lostBytes: 0 });
}

const delta = (piece: object) => ({ choices: [{ index: 0, delta: piece }] });

const textOf = ({ head, tail }: { head: Uint8Array; tail: Uint8Array }) =>
  Buffer.concat([head, tail]).toString();

function events(...objects: readonly object[]): string {
  return objects.map((object) => `data: ${JSON.stringify(object)}\n\n`).join("");
}

describe("readAnswer", () => {
  test("makes one completion of the chunks of a chat", () => {
    const answer = read(EVENTS, STREAM.join(""));

    expect(answer).toMatchObject({
      inputTokens: 5,
      outputTokens: 2,
      finishReasons: ["stop"],
      error: null,
      body: {
        object: "chat.completion",
        id: "c1",
        model: "pebble",
        choices: [
          {
            index: 0,
            finish_reason: "stop",
            message: { role: "assistant", content: "Hello world" },
          },
        ],
      },
    });
  });

  test("keeps reasoning, and tool calls whole", () => {
    const call = (index: number, piece: object) => delta({ tool_calls: [{ index, ...piece }] });

    const answer = read(
      EVENTS,
      events(
        delta({ reasoning_content: "Let me " }),
        delta({ reasoning_content: "see." }),
        call(0, { id: "t1", type: "function", function: { name: "weather", arguments: "" } }),
        call(0, { function: { arguments: '{"city":' } }),
        call(1, { id: "t2", function: { name: "time", arguments: "{}" } }),
        call(0, { function: { arguments: '"Paris"}' } }),
        { choices: [{ index: 0, delta: {}, finish_reason: "tool_calls" }] },
        { choices: [], usage: { prompt_tokens: 9, completion_tokens: 4 } },
      ),
    );

    expect(answer).toMatchObject({
      inputTokens: 9,
      outputTokens: 4,
      finishReasons: ["tool_calls"],
    });
    expect((answer.body as { choices: unknown[] }).choices[0]).toEqual({
      index: 0,
      finish_reason: "tool_calls",
      message: {
        role: "assistant",
        content: null,
        reasoning_content: "Let me see.",
        tool_calls: [
          {
            id: "t1",
            type: "function",
            function: { name: "weather", arguments: '{"city":"Paris"}' },
          },
          { id: "t2", type: "function", function: { name: "time", arguments: "{}" } },
        ],
      },
    });
  });

  test("keeps several choices and plain completions apart", () => {
    const answer = read(
      EVENTS,
      events(
        { choices: [{ index: 1, text: "b" }] },
        { choices: [{ index: 0, text: "a" }] },
        { choices: [{ index: 1, text: "B", finish_reason: "length" }] },
      ),
    );

    expect(answer.body).toMatchObject({
      object: "text_completion",
      choices: [
        { index: 0, text: "a" },
        { index: 1, text: "bB" },
      ],
    });
    expect(answer.finishReasons).toEqual(["length"]);
  });

  test("makes one message of Anthropic's events", () => {
    const answer = read(
      EVENTS,
      events(
        {
          type: "message_start",
          message: { id: "m1", role: "assistant", content: [], usage: { input_tokens: 7 } },
        },
        {
          type: "content_block_start",
          index: 0,
          content_block: { type: "thinking", thinking: "" },
        },
        {
          type: "content_block_delta",
          index: 0,
          delta: { type: "thinking_delta", thinking: "hm" },
        },
        { type: "content_block_start", index: 1, content_block: { type: "text", text: "" } },
        { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "Hel" } },
        { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "lo" } },
        {
          type: "content_block_start",
          index: 2,
          content_block: { type: "tool_use", id: "t", name: "f", input: {} },
        },
        {
          type: "content_block_delta",
          index: 2,
          delta: { type: "input_json_delta", partial_json: '{"a":1}' },
        },
        { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 3 } },
        { type: "message_stop" },
      ),
    );

    expect(answer).toMatchObject({
      inputTokens: 7,
      outputTokens: 3,
      finishReasons: ["end_turn"],
      body: {
        id: "m1",
        content: [
          { type: "thinking", thinking: "hm" },
          { type: "text", text: "Hello" },
          { type: "tool_use", name: "f", input: { a: 1 } },
        ],
      },
    });
  });

  test("makes one line of Ollama's lines", () => {
    const lines = [
      { model: "m", message: { role: "assistant", content: "Hel", thinking: "h" }, done: false },
      { model: "m", message: { role: "assistant", content: "lo" }, done: false },
      {
        model: "m",
        message: { content: "" },
        done: true,
        done_reason: "stop",
        eval_count: 2,
        prompt_eval_count: 4,
      },
    ];

    const answer = read(LINES, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));

    expect(answer).toMatchObject({
      inputTokens: 4,
      outputTokens: 2,
      finishReasons: ["stop"],
      body: { done: true, message: { content: "Hello", thinking: "h" } },
    });
  });

  test("makes one line of what Ollama generates", () => {
    const answer = read(LINES, '{"response":"a","done":false}\n{"response":"b","done":true}\n');

    expect(answer.body).toEqual({ response: "ab", done: true });
  });

  test("takes the last event of OpenAI's responses for the whole", () => {
    const answer = read(
      EVENTS,
      events(
        { type: "response.created", response: { status: "in_progress" } },
        { type: "response.output_text.delta", delta: "x" },
        {
          type: "response.completed",
          response: { status: "completed", usage: { input_tokens: 1, output_tokens: 2 } },
        },
      ),
    );

    expect(answer).toMatchObject({
      inputTokens: 1,
      outputTokens: 2,
      body: { status: "completed" },
    });
  });

  test.each([
    ["an error event", EVENTS, 'data: {"error":{"message":"out of memory"}}\n\n', "out of memory"],
    ["an error line of old", EVENTS, 'error: {"error":{"message":"boom"}}\n\n', "boom"],
    ["an error body", JSON_TYPE, '{"error":{"code":400,"message":"bad"}}', "bad"],
    ["Ollama's error", JSON_TYPE, '{"error":"no such model"}', "no such model"],
    ["an error without words", JSON_TYPE, '{"error":{"x":1}}', '{"x":1}'],
  ])("finds %s", (...[, type, text, message]) => {
    expect(read(type, text).error).toBe(message);
  });

  test.each([
    ["nothing", EVENTS, ""],
    ["half an event", EVENTS, 'data: {"choices":[{"ind'],
    ["no JSON", JSON_TYPE, "<html>"],
    ["an array", JSON_TYPE, "[1,2]"],
    ["null", JSON_TYPE, "null"],
    ["comments alone", EVENTS, ": loading\n\n: loading\n\n"],
    [
      "choices that are none",
      EVENTS,
      'data: {"choices":7}\n\ndata: {"choices":[null,{"index":-1},{"index":1e9,"delta":{}}]}\n\n',
    ],
    [
      "an index of another kind",
      EVENTS,
      'data: {"type":"content_block_delta","index":"x","delta":3}\n\n',
    ],
    ["usage of another kind", JSON_TYPE, '{"usage":{"prompt_tokens":"9","completion_tokens":-1}}'],
    ["a prototype", JSON_TYPE, '{"__proto__":{"usage":{"prompt_tokens":1}}}'],
    ["another type of content", "image/png", "\u0000"],
  ])("is not upset by %s", (_, type, text) => {
    const answer = read(type, text);

    expect([answer.inputTokens, answer.outputTokens, answer.finishReasons]).toEqual([
      null,
      null,
      [],
    ]);
  });

  test("ignores what it cannot read between what it can", () => {
    const answer = read(EVENTS, `data: {broken\n\n: comment\n\n${STREAM.join("")}`);

    expect(answer.body).toMatchObject({ choices: [{ message: { content: "Hello world" } }] });
  });

  test("finds the tokens at the end of an answer that was too long to keep", () => {
    const buffer = new AnswerBuffer(100);
    buffer.add(bytes(`{"choices":[{"message":{"content":"${"x".repeat(200_000)}`));
    buffer.add(bytes(String.raw`\"completion_tokens\": 99 "}}],"usage":{"completion_tokens": 12,`));
    buffer.add(bytes('"prompt_tokens":3,"total_tokens":15}}'));

    const answer = readAnswer({ contentType: JSON_TYPE, ...buffer.kept() });

    expect(answer).toMatchObject({ inputTokens: 3, outputTokens: 12, body: undefined });
  });

  test("finds the beginning and the end of a stream that was too long to keep", () => {
    const buffer = new AnswerBuffer(400);
    for (const event of STREAM.slice(0, 3)) buffer.add(bytes(event));
    for (let index = 0; index < 2000; index += 1) {
      buffer.add(bytes('data: {"choices":[{"index":0,"delta":{"content":"."}}]}\n\n'));
    }
    for (const event of STREAM.slice(3)) buffer.add(bytes(event));

    const answer = readAnswer({ contentType: EVENTS, ...buffer.kept() });

    expect(answer).toMatchObject({ inputTokens: 5, outputTokens: 2, finishReasons: ["stop"] });
  });
});

describe("AnswerBuffer", () => {
  test("gives back what it was given, cut anywhere", () => {
    const whole = "0123456789".repeat(5);
    const found = new Set<string>();
    for (let cut = 1; cut <= whole.length; cut += 1) {
      const buffer = new AnswerBuffer(20);
      for (let at = 0; at < whole.length; at += cut) buffer.add(bytes(whole.slice(at, at + cut)));
      found.add(`${textOf(buffer.kept())} ${buffer.kept().lostBytes}`);
    }

    expect([...found]).toEqual([`${whole} 0`]);
  });

  test("copies: whoever gave the bytes may use them again", () => {
    const buffer = new AnswerBuffer(4);
    const reused = bytes("abcd");
    buffer.add(reused);
    reused.fill(0x78);
    const late = bytes("efgh");
    buffer.add(late);
    late.fill(0x78);

    expect(textOf(buffer.kept())).toBe("abcdefgh");
  });

  test("keeps a bounded part of what is long, and counts the rest", () => {
    const buffer = new AnswerBuffer(1000);
    for (let index = 0; index < 100; index += 1) buffer.add(new Uint8Array(1000));

    const { head, tail, lostBytes } = buffer.kept();

    expect(head.byteLength).toBe(1000);
    expect(tail.byteLength).toBeGreaterThanOrEqual(16_384);
    expect(tail.byteLength).toBeLessThan(18_000);
    expect(head.byteLength + tail.byteLength + lostBytes).toBe(100_000);
  });
});

describe("AnswerPool", () => {
  test("an answer that finds no room keeps what it has, and its end", () => {
    const pool = new AnswerPool(8192);
    const first = new AnswerBuffer(1_000_000, pool);
    const second = new AnswerBuffer(1_000_000, pool);
    first.add(new Uint8Array(4000));
    for (let index = 0; index < 10; index += 1) second.add(new Uint8Array(1000).fill(index));

    const { head, tail, lostBytes } = second.kept();

    expect(first.kept()).toMatchObject({ lostBytes: 0 });
    expect(tail.byteLength).toBeGreaterThanOrEqual(2048);
    expect(tail.byteLength).toBeLessThanOrEqual(3048);
    expect(tail.at(-1)).toBe(9);
    expect(head.byteLength + tail.byteLength + lostBytes).toBe(10_000);
  });

  test("what has ended makes room", () => {
    const pool = new AnswerPool(20_000);
    for (let index = 0; index < 100; index += 1) {
      using buffer = new AnswerBuffer(1_000_000, pool);
      buffer.add(new Uint8Array(9000));
      expect(buffer.kept().lostBytes).toBe(0);
    }
  });
});

describe("eventData", () => {
  test.each([
    ["lines with CR LF", "data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]],
    ["no space behind the colon", "data:a\n\n", ["a"]],
    ["several lines of one event", "data: a\ndata: b\n\n", ["a\nb"]],
    ["other fields", "event: x\nid: 1\ndata: a\n\n", ["a"]],
    ["an event that does not end", "data: a", ["a"]],
  ])("reads %s", (_, text, data) => {
    expect(Array.from(eventData(text))).toEqual(data);
  });
});
