/** Ollama's official client, unmodified, and the AI SDK's provider for it, which speak to the compiled binary. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { embedMany, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { type ChatResponse, Ollama, type Tool } from "ollama";
import { createOllama } from "ollama-ai-provider-v2";
import { ROOT } from "../../scripts/compile/freshness.ts";
import { engineSlots } from "../helpers/engine-socket.ts";
import { eventually } from "../helpers/eventually.ts";
import { LONG_REQUEST, QUESTION } from "../helpers/pebble.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const MODEL = "ai/pebble";
const EMBEDDER = "me/embedder";
const EMBEDDER_FILE = join(ROOT, "test", "fixtures", "pebble", "pebble-embed-f16.gguf");
const MESSAGES = [{ role: "user", content: QUESTION }];
const EXACT = { temperature: 0 };
const WEATHER_QUESTION = "What is the weather in Paris?";
const CITY = {
  type: "object",
  properties: { city: { type: "string", description: "The city" } },
  required: ["city"],
};
const WEATHER: Tool = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the weather for a city",
    parameters: CITY,
  },
};
const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

let home: TugHome;
let ollama: Ollama;
beforeAll(async () => {
  home = await tugHome({ engine: true });
  ollama = new Ollama({ host: home.url, fetch: direct });
  for (const args of [
    ["run", "pebble", QUESTION],
    ["package", "--gguf", EMBEDDER_FILE, EMBEDDER],
  ]) {
    const { exitCode, stderr } = await home.tug(args);
    if (exitCode !== 0) throw new Error(`cannot set up: tug ${args.join(" ")}\n${stderr}`);
  }
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

/** A proxy of the environment has no way to this loopback. */
const direct = ((url: string, init?: RequestInit) =>
  fetch(url, { ...init, proxy: false })) as typeof fetch;

describe("ollama.chat", () => {
  test("gets a whole answer with durations and counts", async () => {
    const answer = await ollama.chat({ model: MODEL, messages: MESSAGES, options: EXACT });

    expect(answer.message).toEqual({
      role: "assistant",
      content: "The capital of France is Paris.",
    });
    expect(answer).toMatchObject({ model: MODEL, done: true, done_reason: "stop" });
    expect(answer.prompt_eval_count).toBe(15);
    expect(answer.eval_count).toBeGreaterThan(5);
    expect(answer.total_duration).toBeGreaterThan(answer.eval_duration);
    expect(answer.prompt_eval_duration).toBeGreaterThan(0);
    expect(answer.load_duration).toBeGreaterThan(0);
    expect(Math.abs(Date.parse(String(answer.created_at)) - Date.now())).toBeLessThan(60_000);
  });

  test("gets a streamed answer, a token a chunk, and counts with the last", async () => {
    const parts = await Array.fromAsync(
      await ollama.chat({ model: MODEL, messages: MESSAGES, options: EXACT, stream: true }),
    );

    expect(parts.map(({ message }) => message.content).join("")).toContain("Paris");
    expect(parts.length).toBeGreaterThan(5);
    expect(parts.map(({ done }) => done).lastIndexOf(false)).toBe(parts.length - 2);
    expect(parts.at(-1)).toMatchObject({ done: true, done_reason: "stop", prompt_eval_count: 15 });
  });

  test("remembers the conversation", async () => {
    const messages = [
      { role: "user", content: "My name is Alice." },
      { role: "assistant", content: "Nice to meet you, Alice!" },
      { role: "user", content: "What is my name?" },
    ];

    const { message } = await ollama.chat({ model: MODEL, messages, options: EXACT });

    expect(message.content).toContain("Alice");
  });

  test("obeys the system", async () => {
    const messages = [{ role: "system", content: "Answer in one word." }, ...MESSAGES];

    const { message } = await ollama.chat({ model: MODEL, messages, options: EXACT });

    expect(message.content).toBe("Paris");
  });

  test("ends at the limit", async () => {
    const options = { ...EXACT, num_predict: 2 };

    const answer = await ollama.chat({ model: MODEL, messages: MESSAGES, options });

    expect(answer).toMatchObject({ done_reason: "length", eval_count: 2 });
  });

  test("has no limit with -1", async () => {
    const options = { ...EXACT, num_predict: -1 };

    const answer = await ollama.chat({ model: MODEL, messages: MESSAGES, options });

    expect(answer).toMatchObject({ done_reason: "stop" });
  });

  test("ends before a stop string", async () => {
    const options = { ...EXACT, stop: ["France"] };

    const { message } = await ollama.chat({ model: MODEL, messages: MESSAGES, options });

    expect(message.content).toBe("The capital of ");
  });

  test("repeats itself with the same seed", async () => {
    const messages = [{ role: "user", content: "Tell me a story about a fox." }];
    const options = { temperature: 1.5, seed: 7, num_predict: 20 };

    const first = await ollama.chat({ model: MODEL, messages, options });
    const second = await ollama.chat({ model: MODEL, messages, options });

    expect(second.message.content).toBe(first.message.content);
  });

  test("takes every option that Ollama documents", async () => {
    const options = {
      numa: false,
      num_ctx: 1024,
      num_batch: 2,
      num_gpu: 1,
      main_gpu: 0,
      use_mmap: true,
      num_thread: 8,
      num_keep: 5,
      seed: 42,
      num_predict: 5,
      top_k: 20,
      top_p: 0.9,
      min_p: 0.01,
      typical_p: 0.7,
      repeat_last_n: -1,
      temperature: 0.8,
      repeat_penalty: 1.2,
      presence_penalty: 1.5,
      frequency_penalty: 1,
      mirostat: 0,
      mirostat_tau: 5,
      mirostat_eta: 0.1,
      penalize_newline: true,
      stop: ["\n", "user:"],
    };

    const answer = await ollama.chat({ model: MODEL, messages: MESSAGES, options });

    expect(answer.eval_count).toBeLessThanOrEqual(5);
  });

  test("with a smaller context is served by the worker that is there", async () => {
    const before = await workers();

    await ollama.chat({ model: MODEL, messages: MESSAGES, options: { ...EXACT, num_ctx: 256 } });

    expect(before).toHaveLength(1);
    expect(await workers()).toEqual(before);
  });

  test("gets JSON", async () => {
    const messages = [{ role: "user", content: `${QUESTION} Answer in JSON.` }];

    const { message } = await ollama.chat({
      model: MODEL,
      messages,
      format: "json",
      options: EXACT,
    });

    expect(JSON.parse(message.content)).toMatchObject({ capital: "Paris" });
  });

  test("gets JSON of a schema", async () => {
    const format = {
      type: "object",
      properties: { answer: { type: "string", enum: ["yes", "no"] } },
      required: ["answer"],
    };

    const { message } = await ollama.chat({ model: MODEL, messages: MESSAGES, format });

    expect(["yes", "no"]).toContain((JSON.parse(message.content) as { answer: string }).answer);
  });

  test("calls a tool, and answers with its result", async () => {
    const messages: ChatResponse["message"][] = [{ role: "user", content: WEATHER_QUESTION }];
    const ask = { model: MODEL, tools: [WEATHER], options: EXACT };

    const { message } = await ollama.chat({ ...ask, messages });
    const result = { role: "tool", tool_name: "get_weather", content: "rain" };
    const answer = await ollama.chat({ ...ask, messages: [...messages, message, result] });

    expect(message.tool_calls).toMatchObject([
      { function: { name: "get_weather", arguments: { city: "Paris" } } },
    ]);
    expect(answer.done_reason).toBe("stop");
    expect(answer.message.content.length).toBeGreaterThan(0);
  });

  test("streams a call of a tool as one chunk", async () => {
    const messages = [{ role: "user", content: WEATHER_QUESTION }];
    const ask = { model: MODEL, messages, tools: [WEATHER], options: EXACT };

    const parts = await Array.fromAsync(await ollama.chat({ ...ask, stream: true }));

    const calls = parts.flatMap(({ message }) => message.tool_calls ?? []);
    expect(calls).toMatchObject([{ function: { arguments: { city: "Paris" } } }]);
    expect(parts.at(-1)).toMatchObject({ done: true, done_reason: "stop" });
  });

  test("gets logprobs", async () => {
    const options = { ...EXACT, num_predict: 2 };
    const ask = { model: MODEL, messages: MESSAGES, options, logprobs: true, top_logprobs: 2 };

    const { logprobs } = await ollama.chat(ask);

    expect(logprobs?.map(({ token }) => token)).toEqual(["The", " capital"]);
    expect(logprobs?.[0]?.top_logprobs).toHaveLength(2);
  });

  test("need not think", async () => {
    const ask = { model: MODEL, messages: MESSAGES, options: EXACT, think: false };

    expect((await ollama.chat(ask)).message.thinking).toBeUndefined();
  });

  test("is told that the model cannot think", async () => {
    const ask = { model: MODEL, messages: MESSAGES, think: "high" as const };

    expect(await failureOf(ollama.chat(ask))).toMatchObject({
      status_code: 400,
      error: expect.stringContaining("does not support thinking"),
    });
  });

  test("is told that the model takes no images", async () => {
    const messages = [{ role: "user", content: "What is this?", images: [PNG] }];

    expect(await failureOf(ollama.chat({ model: MODEL, messages }))).toMatchObject({
      status_code: 400,
      error: expect.stringContaining("image"),
    });
  });

  test("is told which model there is not", async () => {
    expect(await failureOf(ollama.chat({ model: "me/absent", messages: MESSAGES }))).toMatchObject({
      status_code: 404,
      error: expect.stringContaining("model 'me/absent' not found"),
    });
  });

  test("with a keep-alive of 0 is the last that the worker answers", async () => {
    const before = await workers();

    await ollama.chat({ model: MODEL, messages: MESSAGES, options: EXACT, keep_alive: 0 });

    expect(before).toHaveLength(1);
    await eventually(async () => (await workers()).length === 0);
  });

  test("aborted in the middle frees its slot", async () => {
    const messages = [{ role: "user", content: LONG_REQUEST }];
    const client = new Ollama({ host: home.url, fetch: direct });
    const stream = await client.chat({ model: MODEL, messages, options: EXACT, stream: true });

    const parts = (async () => {
      let count = 0;
      for await (const _ of stream) if (++count === 3) client.abort();
    })();

    expect(await failureOf(parts)).toMatchObject({ name: "AbortError" });
    await eventually(async () => (await engineSlots(home.path)).every((one) => !one.is_processing));
  });

  test.each(["pebble", "pebble:latest", "ai/pebble:latest", "docker.io/ai/pebble:latest"])(
    "finds %s",
    async (model) => {
      const answer = await ollama.chat({ model, messages: MESSAGES, options: EXACT });

      expect(answer.model).toBe(model);
      expect(answer.message.content).toContain("Paris");
    },
  );
});

describe("ollama.generate", () => {
  test("gets a whole answer", async () => {
    const answer = await ollama.generate({ model: MODEL, prompt: QUESTION, options: EXACT });

    expect(answer.response).toBe("The capital of France is Paris.");
    expect(answer).toMatchObject({ model: MODEL, done: true, done_reason: "stop" });
    expect(answer.eval_count).toBeGreaterThan(5);
    expect(answer).not.toHaveProperty("context");
  });

  test("gets a streamed answer", async () => {
    const parts = await Array.fromAsync(
      await ollama.generate({ model: MODEL, prompt: QUESTION, options: EXACT, stream: true }),
    );

    expect(parts.map(({ response }) => response).join("")).toContain("Paris");
    expect(parts.length).toBeGreaterThan(5);
    expect(parts.at(-1)).toMatchObject({ done: true, done_reason: "stop" });
  });

  test("obeys the system", async () => {
    const system = "Answer in one word.";

    const answer = await ollama.generate({
      model: MODEL,
      prompt: QUESTION,
      system,
      options: EXACT,
    });

    expect(answer.response).toBe("Paris");
  });

  test("goes past the template with a raw prompt", async () => {
    const options = { ...EXACT, num_predict: 3 };
    const ask = { model: MODEL, prompt: "Once upon", raw: true, options };

    const whole = await ollama.generate(ask);
    const parts = await Array.fromAsync(await ollama.generate({ ...ask, stream: true }));

    expect(whole).toMatchObject({ prompt_eval_count: 2, eval_count: 3, done_reason: "length" });
    expect(parts.map(({ response }) => response).join("")).toBe(whole.response ?? "");
  });

  test("gets JSON for a raw prompt", async () => {
    const format = { type: "object", properties: { a: { enum: [1] } }, required: ["a"] };
    const options = { ...EXACT, num_predict: 40 };

    const answer = await ollama.generate({ model: MODEL, prompt: "{", raw: true, format, options });

    expect(JSON.parse(answer.response ?? "")).toMatchObject({ a: 1 });
  });

  test("is told that the model cannot fill in", async () => {
    const asked = ollama.generate({ model: MODEL, prompt: "def f(", suffix: "return" });

    expect(await failureOf(asked)).toMatchObject({
      status_code: 400,
      error: expect.stringContaining("does not support insert"),
    });
  });

  test("is told that templates of Ollama's are not understood", async () => {
    const asked = ollama.generate({ model: MODEL, prompt: "x", template: "{{ .Prompt }}" });

    expect(await failureOf(asked)).toMatchObject({
      status_code: 400,
      error: expect.stringContaining("`raw`"),
    });
  });

  test("without a prompt loads, with a keep-alive of 0 unloads", async () => {
    const loaded = await ollama.generate({ model: MODEL, prompt: "", keep_alive: "10m" });
    const unloaded = await ollama.generate({ model: MODEL, prompt: "", keep_alive: 0 });

    expect(loaded).toMatchObject({ done: true, done_reason: "load", response: "" });
    expect(unloaded).toMatchObject({ done: true, done_reason: "unload", response: "" });
  });

  test("ends with an error line where the stream has begun", async () => {
    const prompt = "word ".repeat(20_000);

    const failure = await failureOf(
      (async () =>
        Array.fromAsync(await ollama.generate({ model: MODEL, prompt, stream: true })))(),
    );

    expect((failure as Error).message).toContain("tokens");
  });
});

describe("ollama.embed", () => {
  test("gets a vector of length 1 for each input", async () => {
    const answer = await ollama.embed({ model: EMBEDDER, input: ["hello", "good morning"] });

    expect(answer.model).toBe(EMBEDDER);
    expect(answer.embeddings.map((vector) => vector.length)).toEqual([128, 128]);
    expect(answer.embeddings.map(lengthOf)).toEqual([expect.closeTo(1), expect.closeTo(1)]);
    expect(answer.prompt_eval_count).toBeGreaterThan(1);
    expect(answer.total_duration).toBeGreaterThan(0);
  });

  test("gets as many dimensions as it asks for", async () => {
    const answer = await ollama.embed({ model: EMBEDDER, input: "hello", dimensions: 16 });

    expect(answer.embeddings[0]).toHaveLength(16);
    expect(lengthOf(answer.embeddings[0] ?? [])).toBeCloseTo(1);
  });

  test("has what is too long cut", async () => {
    const long = "hello world ".repeat(5000);

    const answer = await ollama.embed({ model: EMBEDDER, input: ["hello", long] });

    expect(answer.embeddings).toHaveLength(2);
    expect(answer.prompt_eval_count).toBeLessThan(2100);
  });

  test("is told that it is too long if it wants nothing cut", async () => {
    const input = "hello world ".repeat(5000);

    const asked = ollama.embed({ model: EMBEDDER, input, truncate: false });

    expect(await failureOf(asked)).toMatchObject({ status_code: 400 });
  });

  test("of nothing gets nothing", async () => {
    expect((await ollama.embed({ model: EMBEDDER, input: [] })).embeddings).toEqual([]);
  });

  test("is told that the model is for chats", async () => {
    const failure = await failureOf(ollama.embed({ model: MODEL, input: "hello" }));

    expect(failure).toMatchObject({ status_code: 400 });
  });
});

describe("ollama.embeddings", () => {
  test("gets the vector that embed gets", async () => {
    const { embedding } = await ollama.embeddings({ model: EMBEDDER, prompt: "hello" });
    const { embeddings } = await ollama.embed({ model: EMBEDDER, input: "hello" });

    expect(embedding).toEqual(embeddings[0] ?? []);
  });
});

describe("the AI SDK's provider", () => {
  const weather = tool({
    description: "Get the weather for a city",
    inputSchema: jsonSchema<{ city: string }>(CITY as Parameters<typeof jsonSchema>[0]),
    execute: ({ city }) => Promise.resolve(`${city}: rain`),
  });

  /** It sends settings of its own where Ollama reads none. */
  const EXACTLY = { providerOptions: { ollama: { options: EXACT } } };

  test("gets a text", async () => {
    const { text, usage, finishReason } = await generateText({
      model: provider()(MODEL),
      prompt: QUESTION,
      ...EXACTLY,
    });

    expect(text).toBe("The capital of France is Paris.");
    expect(usage.outputTokens).toBeGreaterThan(5);
    expect(finishReason).toBe("stop");
  });

  test("gets a streamed text", async () => {
    const { textStream } = streamText({
      model: provider()(MODEL),
      prompt: QUESTION,
      ...EXACTLY,
    });

    const pieces = await Array.fromAsync(textStream);

    expect(pieces.join("")).toBe("The capital of France is Paris.");
    expect(pieces.length).toBeGreaterThan(3);
  });

  test("calls a tool and goes on", async () => {
    const { steps } = await generateText({
      model: provider()(MODEL),
      prompt: WEATHER_QUESTION,
      ...EXACTLY,
      tools: { get_weather: weather },
      stopWhen: stepCountIs(2),
    });

    expect(steps[0]?.toolCalls).toMatchObject([
      { toolName: "get_weather", input: { city: "Paris" } },
    ]);
    expect(steps[0]?.toolResults).toMatchObject([{ output: "Paris: rain" }]);
    expect(steps).toHaveLength(2);
  });

  test("streams a call of a tool", async () => {
    const { toolCalls } = streamText({
      model: provider()(MODEL),
      prompt: WEATHER_QUESTION,
      ...EXACTLY,
      tools: { get_weather: weather },
    });

    expect(await toolCalls).toMatchObject([{ toolName: "get_weather", input: { city: "Paris" } }]);
  });

  test("gets embeddings", async () => {
    const { embeddings } = await embedMany({
      model: provider().embedding(EMBEDDER),
      values: ["hello", "good morning"],
    });

    expect(embeddings.map((vector) => vector.length)).toEqual([128, 128]);
  });
});

function provider(): ReturnType<typeof createOllama> {
  return createOllama({ baseURL: `${home.url}/api`, fetch: direct });
}

/** Processes of the model for chats. */
async function workers(): Promise<unknown[]> {
  const response = await fetch(`${home.url}/engines/ps`, { proxy: false });
  const listed = (await response.json()) as { model_name: string; pid: number; mode: string }[];
  return listed.filter(({ mode }) => mode === "completion").map(({ pid }) => pid);
}

function lengthOf(vector: readonly number[]): number {
  return Math.hypot(...vector);
}

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}
