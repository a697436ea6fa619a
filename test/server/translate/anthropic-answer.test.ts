import { describe, expect, test } from "bun:test";
import { AppError } from "../../../src/errors.ts";
import {
  type AnswerOptions,
  toCallId,
  toMessage,
} from "../../../src/server/translate/anthropic/answer.ts";
import type { ChatAnswer, FinishReason } from "../../../src/server/translate/chat.ts";

const OPTIONS: AnswerOptions = {
  model: "claude-x",
  maxTokens: 100,
  stops: ["END"],
  prefill: "",
  isThinkingShown: true,
  newId: () => "1",
};

type Message = NonNullable<NonNullable<ChatAnswer["choices"]>[number]["message"]>;

function answer(message: Message, finish_reason: FinishReason = "stop"): ChatAnswer {
  return {
    choices: [{ message, finish_reason }],
    usage: {
      prompt_tokens: 12,
      completion_tokens: 5,
      prompt_tokens_details: { cached_tokens: 8 },
    },
  };
}

describe("toMessage", () => {
  test("gives the whole message", () => {
    expect(toMessage(answer({ content: "Hello" }), OPTIONS)).toEqual({
      id: "msg_1",
      type: "message",
      role: "assistant",
      model: "claude-x",
      content: [{ type: "text", text: "Hello", citations: null }],
      stop_reason: "end_turn",
      stop_sequence: null,
      stop_details: null,
      container: null,
      usage: {
        input_tokens: 4,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: 8,
        output_tokens: 5,
        service_tier: "standard",
      },
    });
  });

  test("puts thinking first, then text, then calls", () => {
    const { content, stop_reason } = toMessage(
      answer(
        {
          reasoning_content: "Hm.",
          content: "Let me see.",
          tool_calls: [
            { id: "a", function: { name: "add", arguments: '{"a": 1}' } },
            { id: "b", function: { name: "now", arguments: "" } },
          ],
        },
        "tool_calls",
      ),
      OPTIONS,
    );

    expect(stop_reason).toBe("tool_use");
    expect(content).toEqual([
      { type: "thinking", thinking: "Hm.", signature: "dW5zaWduZWQ=" },
      { type: "text", text: "Let me see.", citations: null },
      {
        type: "tool_use",
        id: "toolu_a",
        name: "add",
        input: { a: 1 },
        caller: { type: "direct" },
      },
      { type: "tool_use", id: "toolu_b", name: "now", input: {}, caller: { type: "direct" } },
    ]);
  });

  test("leaves out the beginning that the client gave", () => {
    const { content } = toMessage(answer({ content: "The capital is Paris" }), {
      ...OPTIONS,
      prefill: "The capital",
    });

    expect(content).toEqual([{ type: "text", text: " is Paris", citations: null }]);
  });

  test("tells the stop sequence", () => {
    const whole = {
      ...answer({ content: "a" }),
      __verbose: { stop_type: "word", stopping_word: "END" },
    };

    expect(toMessage(whole, OPTIONS)).toMatchObject({
      stop_reason: "stop_sequence",
      stop_sequence: "END",
    });
  });

  test("calls a tool also where the engine only says that it stopped", () => {
    const call = { id: "a", function: { name: "add", arguments: "{}" } };

    expect(toMessage(answer({ tool_calls: [call] }, "stop"), OPTIONS).stop_reason).toBe("tool_use");
  });

  test("answers nothing if nothing was wanted", () => {
    const message = toMessage(answer({ content: "The" }, "length"), { ...OPTIONS, maxTokens: 0 });

    expect(message).toMatchObject({ content: [], usage: { output_tokens: 0 } });
    expect(message.stop_reason).toBe("max_tokens");
  });

  test.each(['{"a": ', "5", "null", "[1]"])("fails for arguments that are %s", (json) => {
    const call = { id: "a", function: { name: "add", arguments: json } };

    expect(() => toMessage(answer({ tool_calls: [call] }, "tool_calls"), OPTIONS)).toThrow(
      AppError,
    );
  });

  test("keeps a call that the limit cut off, without its arguments", () => {
    const call = { id: "a", function: { name: "add", arguments: '{"a": ' } };
    const { content } = toMessage(answer({ tool_calls: [call] }, "length"), OPTIONS);

    expect(content).toMatchObject([{ type: "tool_use", name: "add", input: {} }]);
  });

  test.each([
    ["no message", { choices: [{}] }],
    ["no usage", { choices: [{ message: { content: null } }], usage: null }],
  ])("makes an empty message of an answer with %s", (_, whole) => {
    expect(toMessage(whole, OPTIONS)).toMatchObject({
      content: [],
      stop_reason: "end_turn",
      usage: { input_tokens: 0, output_tokens: 0 },
    });
  });
});

test.each([{}, { choices: [] }])("%j is no message", (whole) => {
  expect(() => toMessage(whole, OPTIONS)).toThrow("it has no choices");
});

describe("toCallId", () => {
  test.each([
    ["abc", "toolu_abc"],
    ["toolu_abc", "toolu_abc"],
    [undefined, "toolu_1"],
    ["", "toolu_1"],
    ["a b", "toolu_1"],
  ])("makes of %p %p", (id, expected) => {
    expect(toCallId(id, () => "1")).toBe(expected);
  });
});
