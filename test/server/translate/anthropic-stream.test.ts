import { describe, expect, test } from "bun:test";
import type { AnswerOptions } from "../../../src/server/translate/anthropic/answer.ts";
import { MessageStream } from "../../../src/server/translate/anthropic/stream.ts";
import type { ChatChunk } from "../../../src/server/translate/chat.ts";
import { StreamTranslator } from "../../../src/server/translate/translation.ts";

const TIMINGS = { cache_n: 8, prompt_n: 4 };
const USAGE: ChatChunk = {
  choices: [],
  usage: {
    prompt_tokens: 12,
    completion_tokens: 5,
    prompt_tokens_details: { cached_tokens: 8 },
  },
};
const ROLE: ChatChunk = { choices: [{ index: 0, delta: { content: null }, finish_reason: null }] };

const START = `event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":8,"output_tokens":0,"service_tier":"standard"}}}

event: ping
data: {"type":"ping"}

`;

function ending(reason: string, sequence = "null"): string {
  return `event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"${reason}","stop_sequence":${sequence},"stop_details":null,"container":null},"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":8,"output_tokens":5}}

event: message_stop
data: {"type":"message_stop"}

`;
}

function options(overrides: Partial<AnswerOptions> = {}): AnswerOptions {
  let count = 0;
  return {
    model: "claude-x",
    maxTokens: 5,
    stops: [],
    prefill: "",
    isThinkingShown: true,
    newId: () => String((count += 1)),
    ...overrides,
  };
}

function said(content: string): ChatChunk {
  return { choices: [{ delta: { content }, finish_reason: null }], timings: TIMINGS };
}

function thought(reasoning_content: string): ChatChunk {
  return { choices: [{ delta: { reasoning_content }, finish_reason: null }], timings: TIMINGS };
}

function called(
  index: number,
  piece: string,
  first?: { readonly id?: string; readonly name: string },
): ChatChunk {
  const { id, name } = first ?? {};
  const call = {
    index,
    ...(id === undefined ? {} : { id }),
    function: { ...(name === undefined ? {} : { name }), arguments: piece },
  };
  return { choices: [{ delta: { tool_calls: [call] }, finish_reason: null }], timings: TIMINGS };
}

function finished(
  finish_reason: "stop" | "length" | "tool_calls" | "content_filter",
  stopping_word?: string,
): ChatChunk {
  const verbose =
    stopping_word === undefined ? {} : { __verbose: { stop_type: "word", stopping_word } };
  return { choices: [{ delta: {}, finish_reason }], ...verbose };
}

function translator(overrides: Partial<AnswerOptions> = {}): StreamTranslator {
  return new StreamTranslator(new MessageStream(options(overrides)), (message) => ({
    type: "error",
    error: { type: "api_error", message },
  }));
}

/** What a client gets of an engine's events, the end included. */
function translate(chunks: readonly object[], overrides: Partial<AnswerOptions> = {}): string {
  const stream = translator(overrides);
  const bytes = chunks.map((chunk) => Buffer.from(`data: ${JSON.stringify(chunk)}\n\n`));
  const sent = [...bytes, Buffer.from("data: [DONE]\n\n")].map((piece) => stream.push(piece));
  return Buffer.concat([...sent, stream.end()]).toString();
}

function errorEvent(message: string): string {
  return `event: error\ndata: {"type":"error","error":{"type":"api_error","message":"${message}"}}\n\n`;
}

describe("a streamed message", () => {
  test("of text", () => {
    const events = translate([ROLE, said("Hel"), said("lo"), finished("stop"), USAGE]);

    expect(events).toBe(
      `${START}event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"","citations":null}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

${ending("end_turn")}`,
    );
  });

  const THOUGHT_THEN_TEXT = `event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"dW5zaWduZWQ="}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":"","citations":null}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Paris"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

${ending("end_turn")}`;
  const THINKING_START = `event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

`;

  test("of thinking and text", () => {
    const events = translate([ROLE, thought("Hm."), said("Paris"), finished("stop"), USAGE]);

    expect(events).toBe(
      `${START}${THINKING_START}event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}

${THOUGHT_THEN_TEXT}`,
    );
  });

  test("of thinking that is not to be shown", () => {
    const events = translate([ROLE, thought("Hm."), said("Paris"), finished("stop"), USAGE], {
      isThinkingShown: false,
    });

    expect(events).toBe(`${START}${THINKING_START}${THOUGHT_THEN_TEXT}`);
  });

  test("of much thinking that is not to be shown, pings", () => {
    const pieces = Array.from({ length: 100 }, () => thought("a"));
    const events = translate([...pieces, finished("stop")], { isThinkingShown: false });

    // One begins it.
    expect(events.split("event: ping")).toHaveLength(1 + 1 + 3);
  });

  test("of one call", () => {
    const events = translate([
      ROLE,
      called(0, "{", { id: "abc", name: "get_weather" }),
      called(0, '"city": "Paris"}'),
      finished("tool_calls"),
      USAGE,
    ]);

    expect(events).toBe(
      `${START}event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"toolu_abc","name":"get_weather","input":{},"caller":{"type":"direct"}}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"\\"city\\": \\"Paris\\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

${ending("tool_use")}`,
    );
  });

  test("of text and two calls, the second without arguments", () => {
    const events = translate([
      ROLE,
      said("Both."),
      called(0, "{}", { id: "toolu_one", name: "a" }),
      called(1, "", { id: "two", name: "b" }),
      finished("tool_calls"),
      USAGE,
    ]);

    expect(events).toBe(
      `${START}event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"","citations":null}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Both."}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_one","name":"a","input":{},"caller":{"type":"direct"}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_two","name":"b","input":{},"caller":{"type":"direct"}}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

${ending("tool_use")}`,
    );
  });

  test("of characters of several bytes", () => {
    const stream = translator();
    const text = [said("日本"), said("語 🦊"), finished("stop"), USAGE]
      .map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`)
      .join("");
    const sent = Buffer.concat([stream.push(Buffer.from(text)), stream.end()]).toString();

    expect(sent).toBe(
      `${START}event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"","citations":null}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"日本"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"語 🦊"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

${ending("end_turn")}`,
    );
  });

  test("without a word", () => {
    const withoutSize = [ROLE, finished("stop"), USAGE];

    expect(translate(withoutSize)).toBe(`${START}${ending("end_turn")}`);
  });
});

describe("the end of a streamed message", () => {
  test.each([
    ["a stop sequence", finished("stop", "END"), ending("stop_sequence", '"END"')],
    ["a word of the template", finished("stop", "<|im_end|>"), ending("end_turn")],
    ["the limit", finished("length"), ending("max_tokens")],
    ["a filter", finished("content_filter"), ending("refusal")],
  ])("tells %s", (_, finish, expected) => {
    const events = translate([said("a"), finish, USAGE], { stops: ["END"] });

    expect(events.slice(events.indexOf("event: message_delta"))).toBe(expected);
  });

  test("calls a tool also where the engine only says that it stopped", () => {
    const events = translate([called(0, "{}", { name: "a" }), finished("stop")]);

    expect(events).toContain('"stop_reason":"tool_use"');
  });

  test("tells the context's end from the limit", () => {
    const events = translate([said("a"), finished("length"), USAGE], { maxTokens: 6 });

    expect(events).toContain('"stop_reason":"model_context_window_exceeded"');
  });

  test("counts by the timings of an engine that tells no usage", () => {
    const timings = { cache_n: 8, prompt_n: 4, predicted_n: 5 };
    const events = translate([{ ...said("a"), timings }, finished("stop")]);

    expect(events).toEndWith(ending("end_turn"));
  });
});

describe("a streamed message that fails", () => {
  test("by the engine's word, says so and nothing more", () => {
    const events = translate([
      said("a"),
      { error: { message: "it broke", code: 500 } },
      said("b"),
      finished("stop"),
    ]);

    expect(events).toEndWith(errorEvent("it broke"));
    expect(events).not.toContain("message_stop");
    expect(events).not.toContain('"text":"b"');
  });

  test.each([
    ["ends without a reason", [said("a")], "it ended without a reason"],
    [
      "goes back to a call that had ended",
      [called(0, "{", { name: "a" }), called(1, "{", { name: "b" }), called(0, "}")],
      "it goes on with a call that had ended",
    ],
    ["calls nothing", [called(0, "{")], "it calls a tool without a name"],
  ])("because the engine %s", (_, chunks, reason) => {
    expect(translate(chunks)).toEndWith(
      errorEvent(`cannot read the answer of the engine: ${reason}`),
    );
  });

  test("because the client has gone, is not ended", () => {
    const stream = translator();
    stream.push(Buffer.from(`data: ${JSON.stringify(said("a"))}\n\n`));

    stream.left();

    expect(stream.end()).toHaveLength(0);
  });

  test("pings while its client waits", () => {
    expect(new MessageStream(options()).comment()).toBe('event: ping\ndata: {"type":"ping"}\n\n');
  });
});
