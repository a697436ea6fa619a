import { describe, expect, test } from "bun:test";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { rejection } from "./fake-deps.ts";
import { says, setUp } from "./responses-setup.ts";

const HELLO = { model: "pebble", input: "hello" };
const WEATHER = {
  type: "function" as const,
  name: "get_weather",
  description: "The weather of a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  strict: true,
};
const says42 = says({ text: ["forty", "-two"] });
const calls = says((request) =>
  JSON.stringify(request["messages"]).includes('"tool"')
    ? { text: ["It is sunny."] }
    : {
        calls: [{ id: "call_a", name: "get_weather", args: ['{"city":', '"Paris"}'] }],
        finish: "tool_calls",
      },
);

describe("the openai package", () => {
  test("gets a whole response", async () => {
    await using it = await setUp(says42);

    const response = await it.openai.responses.create({ ...HELLO, instructions: "Be brief." });

    expect(response.output_text).toBe("forty-two");
    expect(response).toMatchObject({
      object: "response",
      status: "completed",
      model: "pebble",
      error: null,
      incomplete_details: null,
      instructions: "Be brief.",
      parallel_tool_calls: true,
      previous_response_id: null,
      store: true,
      background: false,
      text: { format: { type: "text" }, verbosity: "medium" },
      tool_choice: "auto",
      tools: [],
      truncation: "disabled",
      usage: {
        input_tokens: 11,
        input_tokens_details: { cached_tokens: 4 },
        output_tokens: 7,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: 18,
      },
    });
    expect(response.id).toMatch(/^resp_[0-9a-f]{48}$/);
    expect(response.completed_at).toBeGreaterThanOrEqual(response.created_at);
    expect(it.asked()).toEqual({
      model: "pebble",
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "hello" },
      ],
      stream: false,
    });
    expect(it.leases.map(({ releases }) => releases)).toEqual([1]);
  });

  test("streams events in their order, numbered from 0", async () => {
    await using it = await setUp(says({ reasoning: ["hm"], text: ["a", "b"] }));

    const stream = await it.openai.responses.create({ ...HELLO, stream: true });
    const events = await Array.fromAsync(stream);

    expect(events.map(({ type }) => type)).toEqual([
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.reasoning_text.delta",
      "response.reasoning_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed",
    ]);
    expect(events.map((one) => (one as { sequence_number: number }).sequence_number)).toEqual(
      events.map((_, index) => index),
    );
    expect(it.asked()).toMatchObject({ stream: true, stream_options: { include_usage: true } });
  });

  test("assembles a stream with its own helper", async () => {
    await using it = await setUp(says42);
    const pieces: string[] = [];

    const stream = it.openai.responses.stream(HELLO);
    stream.on("response.output_text.delta", ({ delta }) => pieces.push(delta));
    const final = await stream.finalResponse();

    expect(pieces).toEqual(["forty", "-two"]);
    expect(final.output_text).toBe("forty-two");
    expect(final.usage?.total_tokens).toBe(18);
  });

  test("retrieves what was streamed, and what was whole", async () => {
    await using it = await setUp(says42);
    const streamed = await it.openai.responses.stream(HELLO).finalResponse();
    const whole = await it.openai.responses.create(HELLO);

    expect(await it.openai.responses.retrieve(streamed.id)).toMatchObject({
      id: streamed.id,
      status: "completed",
      output_text: "forty-two",
      usage: streamed.usage,
    });
    expect(await it.openai.responses.retrieve(whole.id)).toMatchObject({ ...whole });
  });

  test("makes a round trip with a tool and previous_response_id", async () => {
    await using it = await setUp(calls);
    const question = { model: "pebble", tools: [WEATHER] };
    const first = await it.openai.responses.create({ ...question, input: "Weather in Paris?" });
    const [call] = first.output;
    if (call?.type !== "function_call") throw new Error("it called nothing");

    const second = await it.openai.responses.create({
      ...question,
      previous_response_id: first.id,
      input: [{ type: "function_call_output", call_id: call.call_id, output: "sunny" }],
    });

    expect(call).toMatchObject({
      call_id: "call_a",
      name: "get_weather",
      arguments: '{"city":"Paris"}',
      status: "completed",
    });
    expect(second.output_text).toBe("It is sunny.");
    expect(it.asked()["messages"]).toEqual([
      { role: "user", content: "Weather in Paris?" },
      {
        role: "assistant",
        content: null,
        tool_calls: [
          {
            id: "call_a",
            type: "function",
            function: { name: "get_weather", arguments: '{"city":"Paris"}' },
          },
        ],
      },
      { role: "tool", tool_call_id: "call_a", content: "sunny" },
    ]);
    expect(it.asked()["tools"]).toEqual([
      {
        type: "function",
        function: {
          name: "get_weather",
          description: WEATHER.description,
          parameters: WEATHER.parameters,
          strict: true,
        },
      },
    ]);
  });

  test("streams the arguments of a call", async () => {
    await using it = await setUp(calls);
    const pieces: string[] = [];

    const stream = it.openai.responses.stream({ ...HELLO, tools: [WEATHER] });
    stream.on("response.function_call_arguments.delta", ({ delta }) => pieces.push(delta));
    const final = await stream.finalResponse();

    expect(pieces.join("")).toBe('{"city":"Paris"}');
    expect(final.output).toMatchObject([{ type: "function_call", name: "get_weather" }]);
  });

  test("parses structured output", async () => {
    await using it = await setUp(says({ text: ['{"city":"Paris",', '"people":2}'] }));
    const City = z.object({ city: z.string(), people: z.number() });

    const response = await it.openai.responses.parse({
      ...HELLO,
      text: { format: zodTextFormat(City, "city") },
    });

    expect(response.output_parsed).toEqual({ city: "Paris", people: 2 });
    expect(it.asked()["response_format"]).toMatchObject({
      type: "json_schema",
      json_schema: { name: "city", strict: true, schema: { type: "object" } },
    });
  });

  test("deletes a response, which is then not found", async () => {
    await using it = await setUp(says42);
    const { id } = await it.openai.responses.create(HELLO);

    await it.openai.responses.delete(id);

    expect(await rejection(it.openai.responses.retrieve(id))).toBeInstanceOf(OpenAI.NotFoundError);
    const again = await rejection(it.openai.responses.delete(id));
    expect(again).toBeInstanceOf(OpenAI.NotFoundError);
  });

  test("lists the input items of a whole conversation, by pages", async () => {
    await using it = await setUp(says42);
    const first = await it.openai.responses.create(HELLO);
    const second = await it.openai.responses.create({
      ...HELLO,
      input: "and?",
      previous_response_id: first.id,
    });

    const all = await Array.fromAsync(
      it.openai.responses.inputItems.list(second.id, { order: "asc", limit: 2 }),
    );
    const newest = await it.openai.responses.inputItems.list(second.id, { limit: 1 });

    expect(all).toMatchObject([
      { type: "message", role: "user", content: [{ type: "input_text", text: "hello" }] },
      { type: "message", role: "assistant", content: [{ type: "output_text", text: "forty-two" }] },
      { type: "message", role: "user", content: [{ type: "input_text", text: "and?" }] },
    ]);
    expect(newest.data.map(({ id }) => id)).toEqual([all[2]?.id ?? ""]);
    expect(newest.has_more).toBe(true);
  });

  test("does not carry instructions over", async () => {
    await using it = await setUp(says42);
    const { id } = await it.openai.responses.create({ ...HELLO, instructions: "Be brief." });

    await it.openai.responses.create({
      ...HELLO,
      instructions: "Rhyme.",
      previous_response_id: id,
    });

    const [system] = it.asked()["messages"] as { content: string }[];
    expect(system?.content).toBe("Rhyme.");
  });

  test("gets reasoning as a summary if it asks for one", async () => {
    await using it = await setUp(says({ reasoning: ["let me ", "see"], text: ["42"] }));
    const pieces: string[] = [];

    const stream = it.openai.responses.stream({
      ...HELLO,
      reasoning: { effort: "low", summary: "auto" },
    });
    stream.on("response.reasoning_summary_text.delta", ({ delta }) => pieces.push(delta));
    const final = await stream.finalResponse();

    expect(pieces.join("")).toBe("let me see");
    expect(final.output[0]).toMatchObject({
      type: "reasoning",
      summary: [{ type: "summary_text", text: "let me see" }],
      content: [],
    });
    expect(it.asked()).toMatchObject({ chat_template_kwargs: { reasoning_effort: "low" } });
  });

  test("is told what there is not, by its error classes", async () => {
    await using it = await setUp(says42);
    const { openai } = it;

    const model = await rejection(openai.responses.create({ ...HELLO, model: "absent" }));
    const previous = await rejection(
      openai.responses.create({ ...HELLO, previous_response_id: "resp_gone" }),
    );
    const wrong = await rejection(openai.responses.create({ ...HELLO, temperature: 9 }));
    const streamed = await rejection(
      openai.responses.stream({ ...HELLO, model: "absent" }).finalResponse(),
    );

    expect(model).toBeInstanceOf(OpenAI.NotFoundError);
    expect(model).toMatchObject({ code: "model_not_found" });
    expect(previous).toBeInstanceOf(OpenAI.NotFoundError);
    expect(previous).toMatchObject({
      param: "previous_response_id",
      message: expect.stringContaining("resp_gone"),
    });
    expect(wrong).toBeInstanceOf(OpenAI.BadRequestError);
    expect(wrong).toMatchObject({ message: expect.stringContaining("temperature") });
    expect(streamed).toBeInstanceOf(OpenAI.NotFoundError);
  });

  test("gets what the length ends as incomplete", async () => {
    await using it = await setUp(says({ text: ["too "], finish: "length" }));

    const whole = await it.openai.responses.create({ ...HELLO, max_output_tokens: 16 });
    const types: string[] = [];
    for await (const { type } of await it.openai.responses.create({ ...HELLO, stream: true })) {
      types.push(type);
    }

    expect(whole).toMatchObject({
      status: "incomplete",
      incomplete_details: { reason: "max_output_tokens" },
      completed_at: null,
      output: [{ status: "incomplete" }],
    });
    expect(it.engine.requests.map(({ body }) => JSON.parse(body))[0]).toMatchObject({
      max_tokens: 16,
    });
    expect(types.at(-1)).toBe("response.incomplete");
  });

  test("counts the tokens of a request", async () => {
    await using it = await setUp((exchange) => exchange.json(200, { input_tokens: 23 }));

    const counted = await it.openai.responses.inputTokens.count(HELLO);

    expect(counted).toMatchObject({ object: "response.input_tokens", input_tokens: 23 });
  });
});

test.each([
  "/responses",
  "/v1/responses",
  "/engines/responses",
  "/engines/v1/responses",
  "/engines/llama.cpp/v1/responses",
])("%s answers, and so does what is under it", async (path) => {
  await using it = await setUp(says42);

  const made = await fetch(`${it.url}${path}`, { method: "POST", body: JSON.stringify(HELLO) });
  const { id } = (await made.json()) as { id: string };
  const found = await fetch(`${it.url}${path}/${id}`);

  expect(made.status).toBe(200);
  expect(found.status).toBe(200);
});
