import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import type { AppError } from "../../../src/errors.ts";
import { requireName } from "../../../src/server/routes/ollama/requests.ts";
import { toInputs } from "../../../src/server/translate/ollama/embeddings.ts";
import {
  toChatRequest,
  toGenerateRequest,
} from "../../../src/server/translate/ollama/engine-requests.ts";
import { toSampling, toSettings } from "../../../src/server/translate/ollama/options.ts";
import {
  type ChatInput,
  type GenerateInput,
  OllamaChatRequest,
  OllamaGenerateRequest,
} from "../../../src/server/translate/ollama/requests.ts";

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk";

function chat(body: object): Readonly<Record<string, unknown>> {
  const input: ChatInput = v.parse(OllamaChatRequest, {
    messages: [{ role: "user", content: "hi" }],
    ...body,
  });
  return toChatRequest(input, "pebble").body;
}

function generate(body: object): ReturnType<typeof toGenerateRequest> {
  const input: GenerateInput = v.parse(OllamaGenerateRequest, { prompt: "hi", ...body });
  return toGenerateRequest(input, "pebble");
}

function refusal(work: () => unknown): AppError {
  try {
    work();
  } catch (error) {
    return error as AppError;
  }
  throw new Error("it was taken");
}

describe("a chat", () => {
  test("is streamed unless it says not to be, with its counts", () => {
    expect(chat({})).toEqual({
      model: "pebble",
      messages: [{ role: "user", content: "hi" }],
      stream: true,
      stream_options: { include_usage: true },
    });
    expect(chat({ stream: false })).toMatchObject({ stream: false });
    expect(chat({ stream: false })).not.toHaveProperty("stream_options");
  });

  test.each([
    ["json", { type: "json_object" }],
    [
      { type: "object" },
      {
        type: "json_schema",
        json_schema: { name: "format", strict: true, schema: { type: "object" } },
      },
    ],
    ["", undefined],
    [null, undefined],
  ])("format %p", (format, expected) => {
    expect(chat({ format })["response_format"]).toEqual(expected);
  });

  test("a format that is none is refused", () => {
    const error = refusal(() => chat({ format: "yaml" }));

    expect(error).toMatchObject({ code: "invalid_request", status: 400 });
    expect(error.message).toContain("`format`");
  });

  test("thinking is a matter of the request", () => {
    expect(chat({ think: false })).toMatchObject({ think: false });
    expect(chat({ think: "high" })).toMatchObject({ think: "high" });
    expect(chat({ think: "max" })).toMatchObject({ think: "max" });
    expect(chat({ think: null })).not.toHaveProperty("think");
  });

  test("logprobs go with the number of others", () => {
    expect(chat({ logprobs: true, top_logprobs: 3 })).toMatchObject({
      logprobs: true,
      top_logprobs: 3,
    });
    expect(chat({ top_logprobs: 3 })).not.toHaveProperty("top_logprobs");
  });

  test("tools get what engines want and Ollama does not", () => {
    const { tools } = chat({ tools: [{ type: "function", function: { name: "now" } }] });

    expect(tools).toEqual([
      {
        type: "function",
        function: { name: "now", parameters: { type: "object", properties: {} } },
      },
    ]);
    expect(chat({ tools: [] })).not.toHaveProperty("tools");
  });
});

describe("messages", () => {
  test("results of tools are given to the calls they are of", () => {
    const { messages } = chat({
      messages: [
        { role: "user", content: "weather?" },
        {
          role: "assistant",
          content: "",
          thinking: "two cities",
          tool_calls: [
            { function: { name: "weather", arguments: { city: "Paris" } } },
            { id: "mine", function: { name: "time", arguments: {} } },
            { function: { name: "weather" } },
          ],
        },
        { role: "tool", tool_name: "time", content: "noon" },
        { role: "tool", tool_name: "weather", content: "rain" },
        { role: "tool", content: "sun" },
        { role: "tool", tool_call_id: "other", content: "?" },
      ],
    });

    expect(messages).toEqual([
      { role: "user", content: "weather?" },
      {
        role: "assistant",
        content: "",
        reasoning_content: "two cities",
        tool_calls: [
          {
            id: "call_0",
            type: "function",
            function: { name: "weather", arguments: '{"city":"Paris"}' },
          },
          { id: "mine", type: "function", function: { name: "time", arguments: "{}" } },
          { id: "call_2", type: "function", function: { name: "weather", arguments: "{}" } },
        ],
      },
      { role: "tool", content: "noon", name: "time", tool_call_id: "mine" },
      { role: "tool", content: "rain", name: "weather", tool_call_id: "call_0" },
      { role: "tool", content: "sun", tool_call_id: "call_2" },
      { role: "tool", content: "?", tool_call_id: "other" },
    ]);
  });

  test("ids of calls without one are different in all of a conversation", () => {
    const call = { role: "assistant", tool_calls: [{ function: { name: "now" } }] };

    const { messages } = chat({
      messages: [call, { role: "tool", content: "1" }, call, { role: "tool", content: "2" }],
    });

    expect(messages).toMatchObject([
      { tool_calls: [{ id: "call_0" }] },
      { tool_call_id: "call_0" },
      { tool_calls: [{ id: "call_1" }] },
      { tool_call_id: "call_1" },
    ]);
  });

  test.each([
    ["image/png", PNG],
    ["image/jpeg", "/9j/4AAQSkZJRgABAQ=="],
    ["image/gif", "R0lGODlhAQABAIAAAAAAAP=="],
    ["image/webp", "UklGRiQAAABXRUJQVlA4IBgA"],
    ["image/bmp", "Qk1GAAAAAAAAADYAAAAoAAAA"],
  ])("an image is known by its beginning: %s", (type, data) => {
    const { messages } = chat({ messages: [{ role: "user", content: "see", images: [data] }] });

    expect(messages).toEqual([
      {
        role: "user",
        content: [
          { type: "image_url", image_url: { url: `data:${type};base64,${data}` } },
          { type: "text", text: "see" },
        ],
      },
    ]);
  });

  test.each([
    ["a role that is none", { role: "martian", content: "x" }, "messages.0.role"],
    ["no base64", { role: "user", images: ["<svg>"] }, "messages.0.images[0]"],
    ["no image", { role: "user", images: ["aGVsbG8="] }, "messages.0.images[0]"],
    ["an address", { role: "user", images: ["https://e.org/x.png"] }, "messages.0.images[0]"],
    ["an empty image", { role: "user", images: [""] }, "messages.0.images[0]"],
  ])("%s is refused by its name", (_, message, field) => {
    const error = refusal(() => chat({ messages: [message] }));

    expect(error.code).toBe("invalid_request");
    expect(error.message).toContain(`\`${field}\``);
  });

  test("an image may be broken into lines", () => {
    const images = [`${PNG.slice(0, 20)}\r\n${PNG.slice(20)}\n`];
    const { messages } = chat({ messages: [{ role: "user", images }] });

    expect(JSON.stringify(messages)).toContain(`"data:image/png;base64,${PNG}"`);
  });

  test("halves of characters are mended", () => {
    const { messages } = chat({ messages: [{ role: "user", content: "a\ud83d" }] });

    expect(messages).toEqual([{ role: "user", content: "a\ufffd" }]);
    expect(generate({ prompt: "\ude00b", raw: true }).body).toMatchObject({ prompt: "\ufffdb" });
    expect(toInputs(["\ud83d\ude00", "a\ud83d"])).toEqual(["\ud83d\ude00", "a\ufffd"]);
  });

  test("an image that is a million spaces is refused at once", () => {
    const startedAt = performance.now();

    const error = refusal(() =>
      chat({ messages: [{ role: "user", images: [`${" ".repeat(1_000_000)}!`] }] }),
    );

    expect(error.code).toBe("invalid_request");
    expect(performance.now() - startedAt).toBeLessThan(1000);
  });
});

describe("options", () => {
  test("each goes by the engine's word for it", () => {
    const sampling = toSampling({
      temperature: 0.5,
      top_k: 40.9,
      top_p: 0.9,
      min_p: 0.05,
      typical_p: 0.7,
      repeat_last_n: 33,
      repeat_penalty: 1.2,
      presence_penalty: 1.5,
      frequency_penalty: 1,
      mirostat: 1,
      mirostat_tau: 0.8,
      mirostat_eta: 0.6,
      seed: 42,
      stop: ["\n", "user:"],
      num_predict: 100,
      num_keep: 5,
      num_ctx: 1024,
      num_gpu: 1,
      numa: false,
      penalize_newline: true,
    });

    expect(sampling).toEqual({
      temperature: 0.5,
      top_k: 40,
      top_p: 0.9,
      min_p: 0.05,
      typical_p: 0.7,
      repeat_last_n: 33,
      repeat_penalty: 1.2,
      presence_penalty: 1.5,
      frequency_penalty: 1,
      mirostat: 1,
      mirostat_tau: 0.8,
      mirostat_eta: 0.6,
      seed: 42,
      stop: ["\n", "user:"],
      max_tokens: 100,
      n_keep: 5,
    });
  });

  test.each([[-1], [-2], [0], [-0.5]])("num_predict %p is no limit", (num_predict) => {
    expect(toSampling({ num_predict })).toEqual({ max_tokens: null });
  });

  test("what is not said is not there: the model's defaults stay", () => {
    expect(toSampling({ temperature: null, stop: null, seed: null, num_predict: null })).toEqual(
      {},
    );
    expect(toSampling(null)).toEqual({});
  });

  test.each([
    [-1, 4_294_967_295],
    [2 ** 32 + 7, 7],
  ])("seed %p", (seed, expected) => {
    expect(toSampling({ seed })).toEqual({ seed: expected });
  });

  test.each([
    [{ repeat_last_n: -1, num_ctx: 4096 }, 4096],
    [{ repeat_last_n: -1 }, 65_536],
    [{ repeat_last_n: 2 ** 31 - 1 }, 65_536],
  ])("%p looks back over %p tokens", (options, expected) => {
    expect(toSampling(options)["repeat_last_n"]).toBe(expected);
  });

  test.each([
    ["temperature", "hot"],
    ["top_k", 1e300],
    ["seed", 1e300],
    ["num_ctx", 0],
    ["num_ctx", "4096"],
    ["stop", [1]],
    ["num_predict", true],
  ])("a wrong %s is refused", (name, value) => {
    const result = v.safeParse(OllamaChatRequest, { options: { [name]: value } });

    expect(result.success).toBe(false);
    expect(result.issues?.[0] && v.getDotPath(result.issues[0])).toContain(`options.${name}`);
  });

  test.each([
    [{ keep_alive: 300 }, { keep_alive: "300" }],
    [{ keep_alive: "5m" }, { keep_alive: "5m" }],
    [{ keep_alive: -1 }, { keep_alive: "-1" }],
    [{ keep_alive: "-1m" }, { keep_alive: "-1m" }],
    [{ keep_alive: 0 }, { keep_alive: "0" }],
    [{ options: { num_ctx: 2048.5 } }, { context_size: 2048 }],
    [{}, {}],
  ])("settings of %p", (body, expected) => {
    expect(toSettings(body, new Headers())).toEqual(expected);
  });

  test("a keep-alive that is none is refused", () => {
    expect(refusal(() => toSettings({ keep_alive: "soon" }, new Headers())).code).toBe(
      "invalid_request",
    );
  });
});

describe("a prompt", () => {
  test("is a chat of one message, and one of the system", () => {
    const { enginePath, body } = generate({ system: "Be short.", images: [PNG] });

    expect(enginePath).toBe("/v1/chat/completions");
    expect(body["messages"]).toEqual([
      { role: "system", content: "Be short." },
      {
        role: "user",
        content: [
          { type: "image_url", image_url: { url: `data:image/png;base64,${PNG}` } },
          { type: "text", text: "hi" },
        ],
      },
    ]);
  });

  test("a raw one goes past the template", () => {
    const { enginePath, body } = generate({
      raw: true,
      format: "json",
      logprobs: true,
      options: { num_predict: 3 },
    });

    expect(enginePath).toBe("/v1/completions");
    expect(body).toEqual({
      model: "pebble",
      prompt: "hi",
      stream: true,
      stream_options: { include_usage: true },
      max_tokens: 3,
      json_schema: { type: "object" },
      logprobs: 1,
    });
  });

  test("with a suffix the engine fills in", () => {
    const { enginePath, body } = generate({ suffix: "}", options: { num_predict: -1 } });

    expect(enginePath).toBe("/infill");
    expect(body).toEqual({
      model: "pebble",
      input_prefix: "hi",
      input_suffix: "}",
      stream: true,
      n_predict: -1,
    });
  });

  test("tokens of an older answer are ignored", () => {
    expect(generate({ context: [1, 2, 3] }).body).toEqual(generate({}).body);
  });

  test.each([
    [{ template: "{{ .Prompt }}" }, "`template`"],
    [{ raw: true, system: "x" }, "`system`"],
    [{ raw: true, suffix: "x" }, "`suffix`"],
    [{ raw: true, images: [PNG] }, "`images`"],
    [{ suffix: "x", format: "json" }, "`format`"],
  ])("%p is refused", (body, word) => {
    const error = refusal(() => generate(body));

    expect(error).toMatchObject({ code: "invalid_request", status: 400 });
    expect(error.message).toContain(word);
  });

  test("an empty template is none", () => {
    expect(generate({ template: "" }).enginePath).toBe("/v1/chat/completions");
  });
});

test("`name` is an older word for `model`", () => {
  expect(requireName({ name: "a" })).toBe("a");
  expect(requireName({ model: "b", name: "a" })).toBe("b");
  for (const model of ["", "  ", null]) {
    expect(refusal(() => requireName({ model })).message).toContain("`model` is required");
  }
});
