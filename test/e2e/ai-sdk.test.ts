/** The AI SDK with each of its providers, unmodified, which speak to the compiled binary and the real engine. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  embed,
  embedMany,
  type EmbeddingModel,
  generateObject,
  generateText,
  isStepCount,
  type LanguageModel,
  Output,
  streamObject,
  streamText,
  tool,
} from "ai";
import { createOllama } from "ollama-ai-provider-v2";
import { z } from "zod";
import { ROOT } from "../../scripts/compile/freshness.ts";
import { eventually } from "../helpers/eventually.ts";
import { QUESTION } from "../helpers/pebble.ts";
import {
  numberedPieces,
  type Script,
  toolCallPiece,
  writeScriptedModel,
} from "../helpers/scripted-model.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const EMBED = join(ROOT, "test", "fixtures", "pebble", "pebble-embed-f16.gguf");
/** A red square of 8 × 8. */
const RED_PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC";
const PARIS = { city: "Paris" };
const ROME = { city: "Rome" };
const City = z.object({ city: z.string(), celsius: z.number() });
const PARIS_21 = { city: "Paris", celsius: 21 };

const SCRIPTS = {
  text: { pieces: ["Grü", "ße", ", ", "world", " 🍕"] },
  thinker: { pieces: ["<think>\n", "One moment", ".", "\n</think>\n\n", "It is", " Paris."] },
  caller: {
    pieces: [
      "<tool_call>\n",
      '{"name": "get_weather", ',
      '"arguments": {"city": ',
      '"Paris"}}',
      "\n</tool_call>",
    ],
    afterTool: ["It is", " sunny."],
  },
  "two-calls": {
    pieces: [
      "Both. ",
      toolCallPiece("get_weather", PARIS),
      "\n",
      toolCallPiece("get_weather", ROME),
    ],
    afterTool: ["Sun", " everywhere."],
  },
  json: { pieces: ['{"city": ', '"Paris", ', '"celsius": ', "21}"] },
  list: {
    pieces: [
      '{"elements": [',
      '{"city": "Paris", "celsius": 21}',
      ", ",
      '{"city": "Rome", "celsius": 25}',
      "]}",
    ],
  },
  choice: { pieces: ['{"result": ', '"rainy"', "}"] },
  endless: { pieces: numberedPieces(2000) },
} satisfies Record<string, Script>;

// It would tell of what the tests do on purpose.
(globalThis as { AI_SDK_LOG_WARNINGS?: boolean }).AI_SDK_LOG_WARNINGS = false;

let home: TugHome;
beforeAll(async () => {
  home = await tugHome({ engine: true });
  for (const [name, script] of Object.entries(SCRIPTS)) {
    const path = join(home.path, `${name}.gguf`);
    await writeScriptedModel(path, script);
    await must(["package", "--gguf", path, `me/${name}`]);
  }
  await must(["package", "--gguf", EMBED, "me/embed"]);
  await must(["run", "pebble", QUESTION]);
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

async function must(args: readonly string[]): Promise<void> {
  const { exitCode, stderr } = await home.tug(args);
  if (exitCode !== 0) throw new Error(`tug ${args.join(" ")}:\n${stderr}`);
}

/** A proxy of the environment has no way to this loopback. */
const direct = ((url: string, init?: RequestInit) =>
  fetch(url, { ...init, proxy: false })) as typeof fetch;

function compatible() {
  return createOpenAICompatible({
    name: "tug",
    baseURL: `${home.url}/v1`,
    includeUsage: true,
    supportsStructuredOutputs: true,
    fetch: direct,
  });
}

function openai() {
  return createOpenAI({ baseURL: `${home.url}/v1`, apiKey: "unused", fetch: direct });
}

function ollama() {
  return createOllama({ baseURL: `${home.url}/api`, fetch: direct });
}

type ProviderOptions = NonNullable<Parameters<typeof generateText>[0]["providerOptions"]>;

interface Settings {
  readonly temperature?: number;
  readonly maxOutputTokens?: number;
  readonly stopSequences?: string[];
  readonly providerOptions?: ProviderOptions;
}

interface Provider {
  readonly model: (name: string) => LanguageModel;
  readonly exact: Settings;
  readonly limited: Settings;
  /** False: its API has no words for stop sequences. */
  readonly stopped: Settings | false;
  /** What it has to be told to hand reasoning on; false: it never does. */
  readonly reasoning: Settings | false;
  /** It takes the words of an error for its message. */
  readonly readsErrors: boolean;
}

const USUAL: Omit<Provider, "model"> = {
  exact: { temperature: 0 },
  limited: { maxOutputTokens: 3 },
  stopped: { stopSequences: ["w4"] },
  reasoning: {},
  readsErrors: true,
};

const PROVIDERS: Readonly<Record<string, Provider>> = {
  "@ai-sdk/openai-compatible": { ...USUAL, model: (name) => compatible().chatModel(name) },
  "@ai-sdk/openai, chat": { ...USUAL, model: (name) => openai().chat(name), reasoning: false },
  "@ai-sdk/openai, responses": {
    ...USUAL,
    model: (name) => openai().responses(name),
    stopped: false,
    reasoning: { providerOptions: { openai: { reasoningSummary: "auto", forceReasoning: true } } },
  },
  "ollama-ai-provider-v2": {
    // It sends its own settings where Ollama reads none, and expects errors of OpenAI's shape.
    model: (name) => ollama().languageModel(name),
    exact: { providerOptions: { ollama: { options: { temperature: 0 } } } },
    limited: { providerOptions: { ollama: { options: { num_predict: 3 } } } },
    stopped: false,
    reasoning: { providerOptions: { ollama: { think: true } } },
    readsErrors: false,
  },
};

async function failure(promise: PromiseLike<unknown>): Promise<unknown> {
  return promise.then(
    () => new Error("it did not fail"),
    (thrown: unknown) => thrown,
  );
}

/** What an error says, in its message if the provider reads it. */
function expectToSay(error: unknown, words: string, readsErrors: boolean): void {
  expect(error).toBeInstanceOf(APICallError);
  const { message, responseBody = "" } = error as APICallError;
  expect(responseBody).toContain(words);
  if (readsErrors) expect(message).toContain(words);
}

async function isBusy(model: keyof typeof SCRIPTS): Promise<boolean> {
  const response = await fetch(`${home.url}/engines/ps`, { proxy: false });
  const workers = (await response.json()) as { model_name: string; requests: number }[];
  return workers.some(({ model_name: name, requests }) => name.includes(model) && requests > 0);
}

describe.each(Object.entries(PROVIDERS))("%s", (_, provider) => {
  const { model, exact, limited, stopped, reasoning, readsErrors } = provider;
  const asked: unknown[] = [];
  const tools = {
    get_weather: tool({
      description: "Get the weather for a city",
      inputSchema: z.object({ city: z.string().describe("The city") }),
      execute: (input) => {
        asked.push(input);
        return `${input.city}: sun`;
      },
    }),
  };
  const ask = (name: keyof typeof SCRIPTS) => ({
    model: model(`me/${name}`),
    prompt: "Weather?",
    maxRetries: 0,
  });

  test("ai: generates a text, and counts", async () => {
    const { text, usage, finishReason, response } = await generateText(ask("text"));

    expect(text).toBe("Grüße, world 🍕");
    expect(finishReason).toBe("stop");
    expect(usage.outputTokens).toBe(6);
    expect(usage.inputTokens).toBeGreaterThan(8);
    expect(response.headers?.["x-request-id"]).toBeString();
  });

  test("ai: asks the small model of Tug's own", async () => {
    const { text } = await generateText({
      ...exact,
      model: model("ai/pebble"),
      prompt: QUESTION,
    });

    expect(text).toBe("The capital of France is Paris.");
  });

  test("ai: obeys the system, and remembers the turns", async () => {
    const { text } = await generateText({
      ...exact,
      model: model("ai/pebble"),
      instructions: "Answer in one word.",
      messages: [{ role: "user", content: QUESTION }],
    });
    const named = await generateText({
      ...exact,
      model: model("ai/pebble"),
      messages: [
        { role: "user", content: "My name is Alice." },
        { role: "assistant", content: "Nice to meet you, Alice!" },
        { role: "user", content: "What is my name?" },
      ],
    });

    expect(text).toBe("Paris");
    expect(named.text).toContain("Alice");
  });

  test("ai: streams a text, piece by piece, and counts", async () => {
    const result = streamText(ask("text"));
    const pieces = await Array.fromAsync(result.textStream);

    expect(pieces.filter((piece) => piece !== "")).toEqual(SCRIPTS.text.pieces);
    expect(await result.finishReason).toBe("stop");
    expect(await result.usage).toMatchObject({ outputTokens: 6 });
  });

  test("ai: ends at the limit", async () => {
    const whole = await generateText({ ...ask("endless"), ...limited });
    const stream = streamText({ ...ask("endless"), ...limited });

    expect(whole).toMatchObject({ text: "w1 w2 w3 ", finishReason: "length" });
    expect(await stream.text).toBe("w1 w2 w3 ");
    expect(await stream.finishReason).toBe("length");
  });

  test.skipIf(stopped === false)(
    "ai: ends before a stop sequence (not with a provider that sends none)",
    async () => {
      const request = { ...ask("endless"), ...(stopped !== false && stopped) };
      const whole = await generateText(request);

      expect(whole).toMatchObject({ text: "w1 w2 w3 ", finishReason: "stop" });
      expect(await streamText(request).text).toBe("w1 w2 w3 ");
    },
  );

  test("ai: settings of sampling are taken", async () => {
    const { text } = await generateText({
      ...ask("text"),
      temperature: 0.7,
      topP: 0.9,
      topK: 40,
      seed: 7,
      presencePenalty: 0.1,
      frequencyPenalty: 0.1,
    });

    expect(text).toBe("Grüße, world 🍕");
  });

  test.skipIf(reasoning === false)(
    "ai: reasoning comes apart (the provider for OpenAI's chats hands none on)",
    async () => {
      const thinking = { ...ask("thinker"), ...(reasoning !== false && reasoning) };
      const whole = await generateText(thinking);
      const stream = streamText(thinking);

      expect(whole.text).toBe("It is Paris.");
      expect(whole.reasoningText?.trim()).toBe("One moment.");
      expect(await stream.text).toBe("It is Paris.");
      expect((await stream.reasoningText)?.trim()).toBe("One moment.");
    },
  );

  test("ai: a tool is called, and its result is answered", async () => {
    asked.length = 0;
    const { text, steps } = await generateText({
      ...ask("caller"),
      tools,
      stopWhen: isStepCount(3),
    });

    expect(asked).toEqual([PARIS]);
    expect(steps.map(({ finishReason }) => finishReason)).toEqual(["tool-calls", "stop"]);
    expect(steps[0]?.toolResults).toMatchObject([{ output: "Paris: sun" }]);
    expect(text).toBe("It is sunny.");
  });

  test("ai: two tools are called in a step, after a word", async () => {
    asked.length = 0;
    const { text, steps } = await generateText({
      ...ask("two-calls"),
      tools,
      stopWhen: isStepCount(3),
    });

    expect(asked).toEqual([PARIS, ROME]);
    expect(steps[0]?.text.trim()).toBe("Both.");
    expect(new Set(steps[0]?.toolCalls.map(({ toolCallId }) => toolCallId)).size).toBe(2);
    expect(text).toBe("Sun everywhere.");
  });

  test("ai: a streamed call comes together, and its result is answered", async () => {
    asked.length = 0;
    const result = streamText({ ...ask("caller"), tools, stopWhen: isStepCount(3) });
    const parts = await Array.fromAsync(result.fullStream);
    const types = parts.map(({ type }) => type);
    const calls = parts.filter((part) => part.type === "tool-call");

    expect(asked).toEqual([PARIS]);
    expect(calls).toMatchObject([{ toolName: "get_weather", input: PARIS }]);
    expect(types.indexOf("tool-input-start")).toBeGreaterThan(-1);
    expect(types.indexOf("tool-input-start")).toBeLessThan(types.indexOf("tool-call"));
    expect(types.indexOf("tool-call")).toBeLessThan(types.indexOf("tool-result"));
    expect(types).not.toContain("error");
    expect(await result.text).toBe("It is sunny.");
  });

  test("ai: two streamed calls stay apart", async () => {
    asked.length = 0;
    const result = streamText({ ...ask("two-calls"), tools, stopWhen: isStepCount(3) });

    expect(await result.text).toBe("Sun everywhere.");
    expect(asked).toEqual([PARIS, ROME]);
  });

  test("ai: no tool is called where none may be", async () => {
    const { toolCalls, text } = await generateText({ ...ask("text"), tools, toolChoice: "none" });

    expect(toolCalls).toEqual([]);
    expect(text).toBe("Grüße, world 🍕");
  });

  test("ai: generates an object", async () => {
    const { object } = await generateObject({ ...ask("json"), schema: City });
    const { output } = await generateText({
      ...ask("json"),
      output: Output.object({ schema: City }),
    });

    expect(object).toEqual(PARIS_21);
    expect(output).toEqual(PARIS_21);
  });

  test("ai: a schema shapes what a model would not say", async () => {
    const { object } = await generateObject({
      ...exact,
      model: model("ai/pebble"),
      prompt: QUESTION,
      schema: z.object({ city: z.enum(["Paris", "Rome"]) }),
    });

    expect(["Paris", "Rome"]).toContain(object.city);
  });

  test("ai: streams an object, which grows", async () => {
    const old = streamObject({ ...ask("json"), schema: City });
    const partials = await Array.fromAsync(old.partialObjectStream);
    const { output } = streamText({ ...ask("json"), output: Output.object({ schema: City }) });

    expect(partials.length).toBeGreaterThan(1);
    expect(partials.at(-1)).toEqual(PARIS_21);
    expect(await old.object).toEqual(PARIS_21);
    expect(await output).toEqual(PARIS_21);
  });

  test("ai: generates a list, and a choice", async () => {
    const list = await generateText({ ...ask("list"), output: Output.array({ element: City }) });
    const options = ["sunny", "rainy"];
    const choice = await generateText({ ...ask("choice"), output: Output.choice({ options }) });

    expect(list.output).toEqual([PARIS_21, { city: "Rome", celsius: 25 }]);
    expect(choice.output).toBe("rainy");
  });

  test("ai: an unknown model is an APICallError that names it", async () => {
    const error = await failure(
      generateText({ model: model("me/absent"), prompt: "x", maxRetries: 0 }),
    );

    expect(error).toMatchObject({ statusCode: 404, isRetryable: false });
    expectToSay(error, "me/absent", readsErrors);
  });

  test("ai: a stream of an unknown model has the error, too", async () => {
    const errors: unknown[] = [];
    const { fullStream } = streamText({
      model: model("me/absent"),
      prompt: "x",
      maxRetries: 0,
      onError: ({ error }) => void errors.push(error),
    });
    const parts = await Array.fromAsync(fullStream);

    expect(parts.map(({ type }) => type)).toContain("error");
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatchObject({ statusCode: 404 });
  });

  test("ai: a prompt beyond the context is an APICallError, whole and streamed", async () => {
    const tooLong = { model: model("ai/pebble"), prompt: "word ".repeat(20_000), maxRetries: 0 };
    const whole = await failure(generateText(tooLong));
    const errors: unknown[] = [];
    const stream = streamText({ ...tooLong, onError: ({ error }) => void errors.push(error) });
    await stream.consumeStream();

    expect(whole).toMatchObject({ statusCode: 400, isRetryable: false });
    expectToSay(whole, "context", readsErrors);
    expect(JSON.stringify(errors)).toContain("context");
  });

  test("ai: an image to a model of text is an APICallError", async () => {
    const error = await failure(
      generateText({
        model: model("ai/pebble"),
        maxRetries: 0,
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: "What is this?" },
              { type: "file", mediaType: "image/png", data: RED_PNG },
            ],
          },
        ],
      }),
    );

    expect(error).toMatchObject({ statusCode: 400 });
    expectToSay(error, "image", readsErrors);
  });

  test("ai: an embedding model does not chat", async () => {
    const error = await failure(
      generateText({ model: model("me/embed"), prompt: "x", maxRetries: 0 }),
    );

    expect(error).toMatchObject({ statusCode: 400 });
    expectToSay(error, "embed", readsErrors);
  });

  test("ai: an aborted stream frees the worker", async () => {
    const left = new AbortController();
    let isAborted = false;
    const { textStream } = streamText({
      ...ask("endless"),
      abortSignal: left.signal,
      onAbort: () => void (isAborted = true),
    });
    const iterator = textStream[Symbol.asyncIterator]();
    await iterator.next();
    const wasBusy = await isBusy("endless");

    left.abort();

    while ((await iterator.next()).done !== true);
    expect(isAborted).toBe(true);
    expect(wasBusy).toBe(true);
    await eventually(async () => !(await isBusy("endless")));
  });

  test("ai: an aborted request frees the worker", async () => {
    const left = new AbortController();
    const answer = failure(generateText({ ...ask("endless"), abortSignal: left.signal }));
    await eventually(async () => isBusy("endless"));

    left.abort();

    expect(await answer).toMatchObject({ name: "AbortError" });
    await eventually(async () => !(await isBusy("endless")));
  });

  test("ai: many at once get each their own answer", async () => {
    const names = ["text", "json", "choice"] as const;
    const answers = await Promise.all(
      Array.from({ length: 12 }, async (__, index) => {
        const name = names[index % names.length] ?? "text";
        const { text } = await generateText(ask(name));
        return { name, text };
      }),
    );

    for (const { name, text } of answers) expect(text).toBe(SCRIPTS[name].pieces.join(""));
  });
});

const EMBEDDERS: Readonly<Record<string, (name: string) => EmbeddingModel>> = {
  "@ai-sdk/openai-compatible": (name) => compatible().embeddingModel(name),
  "@ai-sdk/openai": (name) => openai().embedding(name),
  "ollama-ai-provider-v2": (name) => ollama().embedding(name),
};

describe.each(Object.entries(EMBEDDERS))("%s, embeddings", (_, model) => {
  test("ai: of one text", async () => {
    const { embedding } = await embed({ model: model("me/embed"), value: "hello world" });

    expect(embedding).toHaveLength(128);
    expect(Math.hypot(...embedding)).toBeCloseTo(1, 3);
  });

  test("ai: of many texts, in their order", async () => {
    const values = ["one", "two", "three"];
    const { embeddings, usage } = await embedMany({ model: model("me/embed"), values });
    const alone = await embed({ model: model("me/embed"), value: "three" });
    const product = embeddings[2]?.reduce(
      (sum, value, index) => sum + value * (alone.embedding[index] ?? 0),
      0,
    );

    expect(embeddings).toHaveLength(3);
    expect(product).toBeCloseTo(1, 3);
    expect(usage.tokens).toBeGreaterThan(2);
  });

  test("ai: of a model for chats are an APICallError", async () => {
    const error = await failure(
      embed({ model: model("ai/pebble"), value: "hello", maxRetries: 0 }),
    );

    expect(error).toBeInstanceOf(APICallError);
    expect(error).toMatchObject({ statusCode: 400 });
  });
});

describe("what only one provider has", () => {
  test.each([
    ["@ai-sdk/openai-compatible", () => compatible().completionModel("me/text")],
    ["@ai-sdk/openai", () => openai().completion("me/text")],
  ])("ai: completions of %s, whole and streamed", async (_, model) => {
    const whole = await generateText({ model: model(), prompt: "x" });
    const stream = streamText({ model: model(), prompt: "x" });

    expect(whole).toMatchObject({ text: "Grüße, world 🍕", finishReason: "stop" });
    expect(await stream.text).toBe("Grüße, world 🍕");
  });

  test.each([
    [
      "@ai-sdk/openai-compatible",
      () => compatible().embeddingModel("me/embed"),
      { tug: { dimensions: 16 } },
    ],
    ["@ai-sdk/openai", () => openai().embedding("me/embed"), { openai: { dimensions: 16 } }],
  ])("ai: fewer dimensions with %s", async (_, model, providerOptions) => {
    const { embedding } = await embed({ model: model(), value: "hello", providerOptions });

    expect(embedding).toHaveLength(16);
    expect(Math.hypot(...embedding)).toBeCloseTo(1, 3);
  });

  test("ai: log-probabilities of OpenAI's chats", async () => {
    const { providerMetadata } = await generateText({
      model: openai().chat("me/text"),
      prompt: "x",
      providerOptions: { openai: { logprobs: 2 } },
    });

    const tokens = providerMetadata?.["openai"]?.["logprobs"] as { token: string }[];
    // The last one ends the answer.
    expect(tokens.map(({ token }) => token)).toEqual([...SCRIPTS.text.pieces, ""]);
  });

  test("ai: a response goes on from another, and from none that is gone", async () => {
    const first = await generateText({
      model: openai().responses("ai/pebble"),
      prompt: "My name is Ada.",
      temperature: 0,
    });
    const goOn = (previousResponseId: string) =>
      generateText({
        model: openai().responses("ai/pebble"),
        prompt: "What is my name?",
        temperature: 0,
        maxRetries: 0,
        providerOptions: { openai: { previousResponseId } },
      });
    const second = await goOn(first.response.id);
    const gone = await failure(goOn("resp_0"));

    expect(second.text).toContain("Ada");
    expect(gone).toMatchObject({ statusCode: 404 });
  });

  test("ai: a tool's result is answered without anything stored", async () => {
    const { steps } = await generateText({
      model: openai().responses("me/caller"),
      prompt: "Weather?",
      providerOptions: { openai: { store: false } },
      stopWhen: isStepCount(3),
      tools: {
        get_weather: tool({
          inputSchema: z.object({ city: z.string() }),
          execute: () => "sun",
        }),
      },
    });

    expect(steps.at(-1)?.text).toBe("It is sunny.");
  });
});
