import { describe, expect, test } from "bun:test";
import type { ResponseItem } from "../../../src/api/responses.ts";
import type { MakeId } from "../../../src/server/translate/responses/ids.ts";
import { toItems } from "../../../src/server/translate/responses/items.ts";
import { toMessages } from "../../../src/server/translate/responses/messages.ts";
import { openReasoning, sealReasoning } from "../../../src/server/translate/responses/reasoning.ts";
import { type ResponsesBody, toEcho } from "../../../src/server/translate/responses/request.ts";
import { toChatRequest } from "../../../src/server/translate/responses/to-chat.ts";

const makeId: MakeId = (kind) => `${kind}_made`;
const findItem = (): ResponseItem => {
  throw new Error("there is none");
};

const items = (input: readonly Record<string, unknown>[]) => toItems(input, { makeId, findItem });
const messages = (input: readonly Record<string, unknown>[], instructions: string | null = null) =>
  toMessages(items(input), instructions);

function chat(more: Partial<ResponsesBody>) {
  const echo = toEcho({ model: "pebble", ...more });
  return toChatRequest({
    echo,
    items: toItems("hello", { makeId, findItem }),
    isStream: false,
    wantsLogprobs: false,
  });
}

const TOOLS = ["a", "b"].map((name) => ({ type: "function", name }));

const call = (id: string) => ({
  type: "function_call",
  call_id: id,
  name: "f",
  arguments: "{}",
});
const output = (id: string, said: unknown) => ({
  type: "function_call_output",
  call_id: id,
  output: said,
});
const sealed = (encrypted_content: string) =>
  messages([
    { type: "reasoning", summary: [], encrypted_content },
    { role: "assistant", content: "x" },
  ]);

describe("messages", () => {
  test("of all roles and ways to write them", () => {
    expect(
      messages([
        { role: "developer", content: "Be brief." },
        { type: "message", role: "user", content: [{ type: "input_text", text: "hi" }] },
        {
          role: "assistant",
          content: [
            { type: "output_text", text: "yes" },
            { type: "refusal", refusal: "!" },
          ],
        },
        { role: "system", content: "Now rhyme." },
        { role: "user", content: "go" },
      ]),
    ).toEqual([
      { role: "system", content: "Be brief." },
      { role: "user", content: "hi" },
      { role: "assistant", content: "yes!" },
      { role: "system", content: "Now rhyme." },
      { role: "user", content: "go" },
    ]);
  });

  test("begin with one system message", () => {
    const said = [
      { role: "system", content: [{ type: "input_text", text: "a" }] },
      { role: "developer", content: "b" },
      { role: "user", content: "c" },
    ];

    expect(messages(said, "first")).toEqual([
      { role: "system", content: "first\n\na\n\nb" },
      { role: "user", content: "c" },
    ]);
  });

  test("have images and sound", () => {
    const image = "data:image/png;base64,AAAA";
    const sound = { data: "AAAA", format: "wav" };

    expect(
      messages([
        {
          role: "user",
          content: [
            { type: "input_text", text: "what?" },
            { type: "input_image", image_url: image, detail: "low" },
            { type: "input_audio", input_audio: sound },
          ],
        },
      ]),
    ).toEqual([
      {
        role: "user",
        content: [
          { type: "text", text: "what?" },
          { type: "image_url", image_url: { url: image } },
          { type: "input_audio", input_audio: sound },
        ],
      },
    ]);
  });

  test("join what an assistant said in one turn", () => {
    expect(
      messages([
        { role: "user", content: "go" },
        { type: "reasoning", summary: [], content: [{ type: "reasoning_text", text: "hm" }] },
        { role: "assistant", content: "wait" },
        call("1"),
        call("2"),
        output("1", "one"),
        output("2", [{ type: "input_text", text: "two" }]),
        call("3"),
        output("3", ""),
      ]),
    ).toEqual([
      { role: "user", content: "go" },
      {
        role: "assistant",
        content: "wait",
        reasoning_content: "hm",
        tool_calls: ["1", "2"].map((id) => ({
          id,
          type: "function",
          function: { name: "f", arguments: "{}" },
        })),
      },
      { role: "tool", tool_call_id: "1", content: "one" },
      { role: "tool", tool_call_id: "2", content: "two" },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: "3", type: "function", function: { name: "f", arguments: "{}" } }],
      },
      { role: "tool", tool_call_id: "3", content: "" },
    ]);
  });

  test("keep an assistant's turn together, so that outputs follow their calls", () => {
    const [assistant, ...rest] = messages([
      { role: "assistant", content: "first" },
      call("1"),
      { type: "reasoning", summary: [{ type: "summary_text", text: "hm" }] },
      { role: "assistant", content: "then" },
      output("1", "one"),
    ]);

    expect(assistant).toMatchObject({
      content: "first\nthen",
      reasoning_content: "hm",
      tool_calls: [{ id: "1" }],
    });
    expect(rest).toEqual([{ role: "tool", tool_call_id: "1", content: "one" }]);
  });

  test.each(["", "{", "7", "[1]", "null", "[".repeat(100_000)])(
    "have no arguments where a model's were no object: %p",
    (said) => {
      const [assistant] = messages([{ ...call("1"), arguments: said }, output("1", "wrong")]);

      expect(assistant).toMatchObject({ tool_calls: [{ function: { arguments: "{}" } }] });
    },
  );

  test("leave out half a call", () => {
    const half: ResponseItem = {
      id: "fc_1",
      type: "function_call",
      status: "incomplete",
      call_id: "1",
      name: "f",
      arguments: '{"a',
    };

    expect(toMessages([half, ...items([{ role: "user", content: "go on" }])], null)).toEqual([
      { role: "user", content: "go on" },
    ]);
  });

  test("take reasoning back that was sealed here, and none of others", () => {
    expect(sealed(sealReasoning("hm"))).toMatchObject([{ reasoning_content: "hm" }]);
    expect(sealed("gAAAAABo…")).toMatchObject([{ content: "x" }]);
    expect(openReasoning(undefined)).toBeUndefined();
  });
});

describe("a request to an engine", () => {
  test("has what was said, and nothing else", () => {
    expect(chat({})).toEqual({
      model: "pebble",
      messages: [{ role: "user", content: "hello" }],
      stream: false,
    });
    expect(
      chat({
        temperature: 0,
        top_p: 0.5,
        max_output_tokens: 9,
        reasoning: { effort: "high" },
        user: "me",
      }),
    ).toMatchObject({ temperature: 0, top_p: 0.5, max_tokens: 9, reasoning_effort: "high" });
  });

  test("offers a named tool alone, and requires it", () => {
    const asked = chat({ tools: TOOLS, tool_choice: { type: "function", name: "b" } });

    expect(asked).toMatchObject({ tools: [{ function: { name: "b" } }], tool_choice: "required" });
  });

  test("leaves out the tools of OpenAI that come with functions", () => {
    const tools = [
      { type: "web_search" },
      { type: "custom", name: "apply_patch", format: { type: "grammar" } },
      ...TOOLS,
      { type: "namespace", name: "mcp__x", tools: TOOLS },
    ];

    expect(chat({ tools })["tools"]).toMatchObject([
      { function: { name: "a" } },
      { function: { name: "b" } },
    ]);
  });

  test("offers allowed tools alone", () => {
    const tools = [{ type: "function", name: "a" }];
    const asked = chat({
      tools: TOOLS,
      tool_choice: { type: "allowed_tools", mode: "auto", tools },
    });

    expect(asked["tools"]).toHaveLength(1);
    expect(asked["tool_choice"]).toBe("auto");
  });

  test("takes tools as chat completions have them", () => {
    const tools = [{ type: "function", function: { name: "a", parameters: { type: "object" } } }];

    expect(chat({ tools, parallel_tool_calls: false })).toMatchObject({
      tools: [{ type: "function", function: { name: "a", parameters: { type: "object" } } }],
      parallel_tool_calls: false,
    });
  });

  test("asks for JSON", () => {
    expect(chat({ text: { format: { type: "json_object" } } })["response_format"]).toEqual({
      type: "json_object",
    });
    const format = {
      type: "json_schema" as const,
      name: "n",
      schema: { type: "object" },
      strict: true,
    };
    expect(chat({ text: { format } })["response_format"]).toEqual({
      type: "json_schema",
      json_schema: { name: "n", schema: { type: "object" }, strict: true },
    });
  });
});
