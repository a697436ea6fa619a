import { describe, expect, test } from "bun:test";
import { says, setUp } from "./responses-setup.ts";

const HELLO = { model: "pebble", input: "hello" };
const says42 = says({ text: ["forty", "-two"] });

const BAD: readonly [string, unknown, string][] = [
  ["no model", { input: "x" }, "model"],
  ["a model of the wrong type", { model: 3, input: "x" }, "model"],
  ["no input", { model: "pebble" }, "input"],
  ["an empty list", { model: "pebble", input: [] }, "input"],
  ["a number as input", { model: "pebble", input: 7 }, "input"],
  ["an item that is none", { model: "pebble", input: ["x"] }, "input.0"],
  ["an unknown item", { model: "pebble", input: [{ type: "web_search_call" }] }, "input.0.type"],
  [
    "a role that there is not",
    { model: "pebble", input: [{ role: "boss", content: "x" }] },
    "input.0.role",
  ],
  ["no content", { model: "pebble", input: [{ role: "user" }] }, "input.0.content"],
  [
    "a file",
    { model: "pebble", input: [{ role: "user", content: [{ type: "input_file", file_id: "f" }] }] },
    "input.0.content.0.type",
  ],
  [
    "an image elsewhere",
    {
      model: "pebble",
      input: [
        { role: "user", content: [{ type: "input_image", image_url: "http://169.254.169.254/" }] },
      ],
    },
    "input.0.content.0.image_url",
  ],
  [
    "an image by file",
    {
      model: "pebble",
      input: [{ role: "user", content: [{ type: "input_image", file_id: "f" }] }],
    },
    "input.0.content.0.image_url",
  ],
  [
    "an output without a call",
    { model: "pebble", input: [{ type: "function_call_output", call_id: "c", output: "x" }] },
    "input",
  ],
  [
    "a call without an output",
    {
      model: "pebble",
      input: [{ type: "function_call", call_id: "c", name: "f", arguments: "{}" }],
    },
    "input",
  ],
  ["a conversation", { model: "pebble", input: "x", conversation: "conv_1" }, "conversation"],
  ["a prompt template", { model: "pebble", input: "x", prompt: { id: "p" } }, "prompt"],
  ["truncation", { model: "pebble", input: "x", truncation: "auto" }, "truncation"],
  [
    "background without store",
    { model: "pebble", input: "x", background: true, store: false },
    "background",
  ],
  [
    "a tool of OpenAI's",
    { model: "pebble", input: "x", tools: [{ type: "web_search" }] },
    "tools.0",
  ],
  [
    "a tool without a name",
    { model: "pebble", input: "x", tools: [{ type: "function" }] },
    "tools.0.name",
  ],
  [
    "a choice that is no tool",
    { model: "pebble", input: "x", tool_choice: { type: "function", name: "f" } },
    "tool_choice",
  ],
  [
    "required without tools",
    { model: "pebble", input: "x", tool_choice: "required" },
    "tool_choice",
  ],
  [
    "a format without a schema",
    { model: "pebble", input: "x", text: { format: { type: "json_schema", name: "n" } } },
    "text.format.schema",
  ],
  ["metadata of numbers", { model: "pebble", input: "x", metadata: { a: 1 } }, "metadata.a"],
  ["long metadata", { model: "pebble", input: "x", metadata: { a: "x".repeat(513) } }, "metadata"],
  ["half a token", { model: "pebble", input: "x", max_output_tokens: 0.5 }, "max_output_tokens"],
  [
    "an effort that there is not",
    { model: "pebble", input: "x", reasoning: { effort: "huge" } },
    "reasoning.effort",
  ],
  ["store of the wrong type", { model: "pebble", input: "x", store: "no" }, "store"],
];

describe("a wrong request", () => {
  test.each(BAD)("with %s is refused, and the field is named", async (_, body, field) => {
    await using it = await setUp(says42);

    const response = await it.post(body);
    const { error } = (await response.json()) as { error: Record<string, unknown> };

    expect(response.status).toBe(400);
    expect(error["type"]).toBe("invalid_request_error");
    expect(error["message"]).toContain(`\`${field}\``);
    expect(it.engine.requests).toEqual([]);
  });

  test("to an item that is not kept is a 404 naming it", async () => {
    await using it = await setUp(says42);

    const response = await it.post({
      model: "pebble",
      input: [{ type: "item_reference", id: "msg_x" }],
    });

    expect(response.status).toBe(404);
    expect(await response.text()).toContain("msg_x");
  });

  test.each([
    "/resp_x?stream=true",
    "/resp_x",
    "/resp_x/input_items",
    `/${"x".repeat(5000)}`,
    "/..%2f..%2fetc",
    "/%00",
  ])("for %s finds nothing", async (path) => {
    await using it = await setUp(says42);

    expect((await it.get(path)).status).toBe(404);
  });

  test.each(["?order=up", "?limit=0", "?limit=101", "?limit=x", "?after=item_x"])(
    "for input items with %s is refused",
    async (query) => {
      await using it = await setUp(says42);
      const { id } = await it.openai.responses.create(HELLO);

      expect((await it.get(`/${id}/input_items${query}`)).status).toBe(400);
    },
  );

  test("to resume what cannot be, to cancel what is whole, to compact", async () => {
    await using it = await setUp(says42);
    const { id } = await it.openai.responses.create(HELLO);
    const post = (path: string) => fetch(`${it.url}/v1/responses${path}`, { method: "POST" });

    expect((await it.get(`/${id}?stream=true`)).status).toBe(400);
    expect((await it.get(`/${id}?stream=true&starting_after=-1`)).status).toBe(400);
    expect((await post(`/${id}/cancel`)).status).toBe(400);
    expect((await post("/compact")).status).toBe(501);
  });
});
