import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { AppError } from "../../../src/errors.ts";
import { MessagesRequest } from "../../../src/server/translate/anthropic/request.ts";
import {
  toChatRequest,
  type ToChatOptions,
} from "../../../src/server/translate/anthropic/to-chat.ts";
import type { ChatRequest } from "../../../src/server/translate/chat.ts";

const HI = [{ role: "user", content: "hi" }];
const WEATHER = { name: "get_weather", input_schema: { type: "object", properties: {} } };
const CLOCK = { name: "clock", description: "The time", input_schema: { type: "object" } };
const PNG = "iVBORw0KGgo=";
const IMAGE = { type: "image", source: { type: "base64", media_type: "image/png", data: PNG } };
const IMAGE_PART = { type: "image_url", image_url: { url: `data:image/png;base64,${PNG}` } };

function translate(body: object, options?: ToChatOptions): ChatRequest {
  const whole = { model: "m", max_tokens: 2000, messages: HI, ...body };
  return toChatRequest(v.parse(MessagesRequest, whole), options);
}

function messagesOf(messages: readonly object[], body: object = {}): ChatRequest["messages"] {
  return translate({ messages, ...body }).messages;
}

function refusal(make: () => unknown): string {
  try {
    make();
  } catch (error) {
    if (error instanceof AppError && error.code === "invalid_request") return error.message;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("fields", () => {
  test("a plain request gets no more than it says", () => {
    expect(translate({ metadata: { user_id: "u" }, service_tier: "auto" })).toEqual({
      model: "m",
      messages: [{ role: "user", content: "hi" }],
      max_tokens: 2000,
    });
  });

  test("sampling passes, stop sequences get the engine's word", () => {
    const sampling = { temperature: 0.5, top_p: 0.9, top_k: 10 };

    expect(translate({ ...sampling, stop_sequences: ["END"] })).toMatchObject({
      ...sampling,
      stop: ["END"],
      verbose: true,
    });
  });

  test("numbers that are no int32 are the largest one, for engines take them for something else", () => {
    const thinking = { type: "enabled", budget_tokens: 2 ** 33 };

    expect(translate({ max_tokens: 2 ** 32 - 1, top_k: 1e300 })).toMatchObject({
      max_tokens: 2 ** 31 - 1,
      top_k: 2 ** 31 - 1,
    });
    expect(translate({ max_tokens: 1e300, thinking })).toMatchObject({
      max_tokens: 2 ** 31 - 1,
      reasoning_budget_tokens: 2 ** 31 - 1,
    });
  });

  test("a stream asks for usage", () => {
    expect(translate({ stream: true })).toMatchObject({
      stream: true,
      stream_options: { include_usage: true },
      timings_per_token: true,
    });
  });

  test.each([
    [{ output_config: { format: { type: "json_schema", schema: { type: "object" } } } }],
    [{ output_format: { type: "json_schema", schema: { type: "object" } } }],
  ])("a schema of the answer: %j", (body) => {
    expect(translate(body)["response_format"]).toEqual({
      type: "json_schema",
      json_schema: { name: "answer", schema: { type: "object" }, strict: true },
    });
  });
});

describe("thinking", () => {
  test.each([
    [
      { type: "disabled" },
      { chat_template_kwargs: { enable_thinking: false }, reasoning_budget_tokens: 0 },
    ],
    [{ type: "adaptive" }, { chat_template_kwargs: { enable_thinking: true } }],
    [
      { type: "enabled", budget_tokens: 1024 },
      { chat_template_kwargs: { enable_thinking: true }, reasoning_budget_tokens: 1024 },
    ],
  ])("%j", (thinking, expected) => {
    expect(translate({ thinking })).toMatchObject(expected);
  });

  test("effort is the template's", () => {
    expect(translate({ output_config: { effort: "max" } })["chat_template_kwargs"]).toEqual({
      reasoning_effort: "high",
    });
  });

  test("no budget may leave nothing for the answer, unless it is for several", () => {
    const body = { thinking: { type: "enabled", budget_tokens: 2000 } };

    expect(refusal(() => translate(body))).toContain("`thinking.budget_tokens`");
    expect(translate(body, { betas: "a,interleaved-thinking-2025-05-14" })).toMatchObject({
      reasoning_budget_tokens: 2000,
    });
  });

  test("an answer that is begun is not thought about", () => {
    const messages = [...HI, { role: "assistant", content: "The" }];

    expect(translate({ messages })).toMatchObject({
      chat_template_kwargs: { enable_thinking: false },
    });
  });
});

describe("tools", () => {
  test("become functions", () => {
    expect(translate({ tools: [WEATHER, { ...CLOCK, type: "custom" }] })["tools"]).toEqual([
      {
        type: "function",
        function: { name: "get_weather", parameters: WEATHER.input_schema },
      },
      {
        type: "function",
        function: { name: "clock", description: "The time", parameters: { type: "object" } },
      },
    ]);
  });

  test.each([
    [{ type: "auto" }, { tool_choice: "auto" }],
    [{ type: "any" }, { tool_choice: "required" }],
    [{ type: "none" }, { tool_choice: "none" }],
    [
      { type: "auto", disable_parallel_tool_use: true },
      { tool_choice: "auto", parallel_tool_calls: false },
    ],
  ])("choice %j", (tool_choice, expected) => {
    expect(translate({ tools: [WEATHER], tool_choice })).toMatchObject(expected);
  });

  test("the one that must be used is the only one", () => {
    const made = translate({
      tools: [WEATHER, CLOCK],
      tool_choice: { type: "tool", name: "clock" },
    });

    expect(made).toMatchObject({
      tool_choice: "required",
      tools: [{ function: { name: "clock" } }],
    });
    expect(made["tools"]).toHaveLength(1);
  });

  test.each([
    [{ tools: [WEATHER, WEATHER] }, "two of the same name"],
    [{ tools: [WEATHER], tool_choice: { type: "tool", name: "gone" } }, "`gone`"],
    [{ tool_choice: { type: "any" } }, "`tools` has none"],
  ])("refuses %j", (body, reason) => {
    expect(refusal(() => translate(body))).toContain(reason);
  });
});

describe("system", () => {
  test.each([
    ["Be kind.", "Be kind."],
    [
      [
        { type: "text", text: "Be kind.", cache_control: { type: "ephemeral" } },
        { type: "text", text: "Be brief." },
      ],
      "Be kind.\nBe brief.",
    ],
    [
      [
        { type: "text", text: "x-anthropic-billing-header: cc_version=2; cch=a1b2;" },
        { type: "text", text: "Be kind." },
      ],
      "Be kind.",
    ],
  ])("%j", (system, content) => {
    expect(messagesOf(HI, { system })).toEqual([
      { role: "system", content },
      { role: "user", content: "hi" },
    ]);
  });

  test("in the middle stays there", () => {
    const made = messagesOf([...HI, { role: "system", content: "Be brief." }, ...HI]);

    expect(made.map(({ role }) => role)).toEqual(["user", "system", "user"]);
  });
});

describe("turns", () => {
  test("of one role that follow one another are one", () => {
    expect(messagesOf([...HI, { role: "user", content: [{ type: "text", text: "you" }] }])).toEqual(
      [{ role: "user", content: "hi\nyou" }],
    );
  });

  test("of the system that follow the system prompt belong to it", () => {
    const messages = [{ role: "system", content: "B" }, ...HI];

    expect(messagesOf(messages, { system: "A" })).toEqual([
      { role: "system", content: "A\nB" },
      { role: "user", content: "hi" },
    ]);
  });

  test("that are refused are named, also where they join the one before", () => {
    const wrong = [{ type: "tool_use", id: "t1", name: "add", input: {} }];
    const unasked = [{ type: "tool_result", tool_use_id: "t1" }];

    for (const content of [wrong, unasked]) {
      const messages = [...HI, ...HI, { role: "user", content }];
      expect(refusal(() => messagesOf(messages, { system: "A" }))).toContain(
        "`messages.2.content`",
      );
    }
  });

  test("with images keep their parts in order", () => {
    const content = [
      { type: "text", text: "What is this?" },
      IMAGE,
      { type: "image", source: { type: "url", url: "data:image/gif;base64,AA==" } },
    ];

    const expected: unknown = [
      {
        role: "user",
        content: [
          { type: "text", text: "What is this?" },
          IMAGE_PART,
          { type: "image_url", image_url: { url: "data:image/gif;base64,AA==" } },
        ],
      },
    ];

    const made: unknown = messagesOf([{ role: "user", content }]);
    expect(made).toEqual(expected);
  });

  test("documents and search results are text", () => {
    const content = [
      {
        type: "document",
        title: "Letter",
        context: "From home",
        source: { type: "text", media_type: "text/plain", data: "Dear you" },
      },
      { type: "document", source: { type: "content", content: [{ type: "text", text: "inner" }] } },
      {
        type: "search_result",
        title: "Found",
        source: "https://a",
        content: [{ type: "text", text: "there" }],
      },
    ];

    expect(messagesOf([{ role: "user", content }])).toEqual([
      { role: "user", content: "Letter\nFrom home\nDear you\ninner\nFound\nhttps://a\nthere" },
    ]);
  });

  test("of the assistant keep thoughts and calls, whatever the signature", () => {
    const content = [
      { type: "thinking", thinking: "Hm.", signature: "from elsewhere" },
      { type: "redacted_thinking", data: "secret" },
      { type: "text", text: "Let me see." },
      { type: "tool_use", id: "t1", name: "add", input: { a: 1 } },
    ];

    expect(messagesOf([...HI, { role: "assistant", content }])[1]).toEqual({
      role: "assistant",
      content: "Let me see.",
      reasoning_content: "Hm.",
      tool_calls: [{ id: "t1", type: "function", function: { name: "add", arguments: '{"a":1}' } }],
    });
  });
});

describe("results of calls", () => {
  const CALLS = {
    role: "assistant",
    content: [
      { type: "tool_use", id: "t1", name: "add", input: {} },
      { type: "tool_use", id: "t2", name: "add", input: {} },
    ],
  };

  test("are turns of their own, images come with what is said next", () => {
    const made: readonly unknown[] = messagesOf([
      ...HI,
      CALLS,
      {
        role: "user",
        content: [
          { type: "tool_result", tool_use_id: "t1", content: "21" },
          { type: "tool_result", tool_use_id: "t2", content: [{ type: "text", text: "a" }, IMAGE] },
          { type: "text", text: "And?" },
        ],
      },
    ]);

    expect(made.slice(2)).toEqual([
      { role: "tool", tool_call_id: "t1", content: "21" },
      { role: "tool", tool_call_id: "t2", content: "a\n[image]" },
      { role: "user", content: [IMAGE_PART, { type: "text", text: "And?" }] },
    ]);
  });

  test.each([
    [{ content: "no such city", is_error: true }, "Error: no such city"],
    [{ content: "Error: gone", is_error: true }, "Error: gone"],
    [{ is_error: true }, "Error: "],
    [{}, ""],
  ])("%j", (result, content) => {
    const turn = [{ type: "tool_result", tool_use_id: "t1", ...result }];

    expect(messagesOf([...HI, CALLS, { role: "user", content: turn }])[2]).toEqual({
      role: "tool",
      tool_call_id: "t1",
      content,
    });
  });

  test("of no call are refused", () => {
    const content = [{ type: "tool_result", tool_use_id: "t9", content: "x" }];

    expect(refusal(() => messagesOf([...HI, { role: "user", content }]))).toContain("`t9`");
  });
});

describe("blocks in a role that has none", () => {
  test.each([
    ["assistant", IMAGE],
    ["assistant", { type: "tool_result", tool_use_id: "t1" }],
    ["user", { type: "tool_use", id: "t1", name: "a", input: {} }],
    ["user", { type: "thinking", thinking: "a" }],
    ["system", IMAGE],
  ])("%s: %j", (role, block) => {
    const reason = refusal(() =>
      messagesOf([...HI, { role: "system", content: "s" }, { role, content: [block] }]),
    );

    expect(reason).toContain(`a block of type \`${block.type}\``);
  });
});
