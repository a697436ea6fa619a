/** LangChain's package for OpenAI, unmodified, which speaks to the compiled binary and the real engine. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import {
  type AIMessageChunk,
  HumanMessage,
  ToolMessage,
  type UsageMetadata,
} from "@langchain/core/messages";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, type ChatOpenAIFields, OpenAI, OpenAIEmbeddings } from "@langchain/openai";
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
const PARIS = { city: "Paris" };
const ROME = { city: "Rome" };
const City = z.object({ city: z.string(), celsius: z.number() });
const PARIS_21 = { city: "Paris", celsius: 21 };

const SCRIPTS = {
  text: { pieces: ["Grü", "ße", ", ", "world", " 🍕"] },
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
  extractor: { pieces: [toolCallPiece("extract", PARIS_21)] },
  endless: { pieces: numberedPieces(2000) },
} satisfies Record<string, Script>;

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

function configuration(): NonNullable<ChatOpenAIFields["configuration"]> {
  return {
    baseURL: `${home.url}/v1`,
    // A proxy of the environment has no way to this loopback.
    fetch: ((url: string, init?: RequestInit) =>
      fetch(url, { ...init, proxy: false })) as typeof fetch,
  };
}

function common(model: string) {
  return { model, apiKey: "unused", maxRetries: 0, configuration: configuration() };
}

function completion(model: string, more: object = {}): OpenAI {
  return new OpenAI({ ...common(model), ...more });
}

function embeddings(model: string, more: object = {}): OpenAIEmbeddings {
  return new OpenAIEmbeddings({ ...common(model), ...more });
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => new Error("it did not fail"),
    (thrown: unknown) => thrown,
  );
}

async function isBusy(model: keyof typeof SCRIPTS): Promise<boolean> {
  const response = await fetch(`${home.url}/engines/ps`, { proxy: false });
  const workers = (await response.json()) as { model_name: string; requests: number }[];
  return workers.some(({ model_name: name, requests }) => name.includes(model) && requests > 0);
}

const weather = tool(({ city }: { city: string }) => `${city}: sun`, {
  name: "get_weather",
  description: "Get the weather for a city",
  schema: z.object({ city: z.string().describe("The city") }),
});

describe.each([
  ["chats", false],
  ["responses", true],
])("ChatOpenAI, %s", (_, useResponsesApi) => {
  const chat = (model: string, more: Partial<ChatOpenAIFields> = {}): ChatOpenAI =>
    new ChatOpenAI({ ...common(model), useResponsesApi, ...more });

  test("langchain: invokes, and counts", async () => {
    const answer = await chat("me/text").invoke("Hello?");

    expect(answer.text).toBe("Grüße, world 🍕");
    const usage = answer.usage_metadata as UsageMetadata | undefined;
    expect(usage?.output_tokens).toBe(6);
    expect(usage?.total_tokens).toBe((usage?.input_tokens ?? 0) + 6);
  });

  test("langchain: a system and turns", async () => {
    const pebble = chat("ai/pebble", { temperature: 0 });
    const named = await pebble.invoke([
      ["human", "My name is Alice."],
      ["ai", "Nice to meet you, Alice!"],
      ["human", "What is my name?"],
    ]);
    const short = await pebble.invoke([
      ["system", "Answer in one word."],
      ["human", QUESTION],
    ]);

    expect(named.text).toContain("Alice");
    expect(short.text).toBe("Paris");
  });

  test("langchain: streams, and counts", async () => {
    const chunks = await Array.fromAsync(await chat("me/text").stream("Hello?"));
    const pieces = chunks.map(({ text }) => text).filter((text) => text !== "");
    const whole = sum(chunks);

    expect(pieces).toEqual(SCRIPTS.text.pieces);
    expect(whole.usage_metadata).toMatchObject({ output_tokens: 6 });
  });

  test("langchain: a batch keeps its order", async () => {
    const answers = await chat("ai/pebble", { temperature: 0 }).batch([
      QUESTION,
      "What is the capital of Italy?",
      QUESTION,
    ]);

    expect(answers.map(({ text }) => text)).toEqual([
      expect.stringContaining("Paris"),
      expect.stringContaining("Rome"),
      expect.stringContaining("Paris"),
    ]);
  });

  test("langchain: a chain of prompt, model and parser, whole and streamed", async () => {
    const chain = ChatPromptTemplate.fromMessages([
      ["system", "You are {who}."],
      ["human", "{question}"],
    ])
      .pipe(chat("me/text"))
      .pipe(new StringOutputParser());
    const input = { who: "Pebble", question: "Hello?" };
    const pieces = await Array.fromAsync(await chain.stream(input));

    expect(await chain.invoke(input)).toBe("Grüße, world 🍕");
    expect(pieces.join("")).toBe("Grüße, world 🍕");
  });

  test("langchain: events of a stream", async () => {
    const events = await Array.fromAsync(chat("me/text").streamEvents("Hello?", { version: "v2" }));
    const names = events.map(({ event }) => event);

    expect(names[0]).toBe("on_chat_model_start");
    expect(names).toContain("on_chat_model_stream");
    expect(names.at(-1)).toBe("on_chat_model_end");
  });

  test("langchain: ends at the limit", async () => {
    const { text, response_metadata: metadata } = await chat("me/endless", {
      maxTokens: 3,
    }).invoke("Hello?");

    expect(text).toBe("w1 w2 w3 ");
    expect(useResponsesApi ? metadata["status"] : metadata["finish_reason"]).toBe(
      useResponsesApi ? "incomplete" : "length",
    );
  });

  test("langchain: a tool is called, and its result is answered", async () => {
    const model = chat("me/caller").bindTools([weather]);
    const question = new HumanMessage("Weather?");
    const asked = await model.invoke([question]);
    const [call] = asked.tool_calls ?? [];
    if (call === undefined) throw new Error(`no call: ${asked.text}`);
    const result = await weather.invoke(call);
    const answer = await model.invoke([question, asked, result]);

    expect(call).toMatchObject({ name: "get_weather", args: PARIS, id: expect.any(String) });
    expect(result).toBeInstanceOf(ToolMessage);
    expect(result.content).toBe("Paris: sun");
    expect(answer.text).toBe("It is sunny.");
  });

  test("langchain: two calls, each with its result", async () => {
    const model = chat("me/two-calls").bindTools([weather]);
    const question = new HumanMessage("Weather?");
    const asked = await model.invoke([question]);
    const calls = asked.tool_calls ?? [];
    const results = await Promise.all(calls.map(async (call) => weather.invoke(call)));
    const answer = await model.invoke([question, asked, ...results]);

    expect(calls.map(({ args }) => args)).toEqual([PARIS, ROME]);
    expect(answer.text).toBe("Sun everywhere.");
  });

  test("langchain: streamed calls come together, and stay apart", async () => {
    const one = sum(
      await Array.fromAsync(await chat("me/caller").bindTools([weather]).stream("Weather?")),
    );
    const two = sum(
      await Array.fromAsync(await chat("me/two-calls").bindTools([weather]).stream("Weather?")),
    );

    expect(one.tool_calls?.map(({ args }) => args)).toEqual([PARIS]);
    expect(two.tool_calls?.map(({ args }) => args)).toEqual([PARIS, ROME]);
    expect(two.text).toBe("Both. ");
  });

  test("langchain: a tool that must be called is called", async () => {
    const { tool_calls: calls } = await chat("ai/pebble", { temperature: 0, maxTokens: 100 })
      .bindTools([weather], { tool_choice: "get_weather" })
      .invoke("What is the weather in Paris?");

    expect(calls).toMatchObject([{ name: "get_weather", args: PARIS }]);
  });

  test.each(["jsonSchema", "jsonMode"] as const)("langchain: structure by %s", async (method) => {
    const model = chat("me/json").withStructuredOutput(City, { method });

    expect(await model.invoke("Give JSON.")).toEqual(PARIS_21);
  });

  test("langchain: structure by a call, with the raw message", async () => {
    const model = chat("me/extractor").withStructuredOutput(City, {
      method: "functionCalling",
      name: "extract",
      includeRaw: true,
    });
    const { parsed, raw } = await model.invoke("Give data.");

    expect(parsed).toEqual(PARIS_21);
    expect((raw as AIMessageChunk).tool_calls).toMatchObject([{ name: "extract" }]);
  });

  test("langchain: a schema shapes what a model would not say", async () => {
    const schema = z.object({ city: z.enum(["Paris", "Rome"]) });
    const model = chat("ai/pebble", { temperature: 0 }).withStructuredOutput(schema, {
      method: "jsonSchema",
    });

    expect(["Paris", "Rome"]).toContain((await model.invoke(QUESTION)).city);
  });

  test("langchain: an unknown model is an error with the status and the model's name", async () => {
    const whole = await failure(chat("me/absent").invoke("x"));
    const streamed = await failure(chat("me/absent").stream("x"));

    for (const error of [whole, streamed]) {
      expect(error).toMatchObject({ status: 404, code: "model_not_found" });
      expect((error as Error).message).toContain("me/absent");
    }
  });

  test("langchain: a prompt beyond the context is its error of that name", async () => {
    const error = await failure(chat("ai/pebble").invoke("word ".repeat(20_000)));

    expect(error).toMatchObject({ name: "ContextOverflowError" });
    expect((error as Error).message).toContain("context");
  });

  test("langchain: an image to a model of text is refused", async () => {
    const image_url = { url: "data:image/png;base64,AAAA" };
    const error = await failure(
      chat("ai/pebble").invoke([new HumanMessage({ content: [{ type: "image_url", image_url }] })]),
    );

    expect(error).toMatchObject({ status: 400 });
    expect((error as Error).message).toContain("image");
  });

  test("langchain: an aborted stream frees the worker", async () => {
    const left = new AbortController();
    const stream = await chat("me/endless").stream("Hello?", { signal: left.signal });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    const wasBusy = await isBusy("endless");

    left.abort();

    const ended = await failure(
      (async () => {
        while ((await iterator.next()).done !== true);
      })(),
    );
    expect(ended).toBeInstanceOf(Error);
    expect((ended as Error).message).toMatch(/abort/iu);
    expect(wasBusy).toBe(true);
    await eventually(async () => !(await isBusy("endless")));
  });
});

describe("ChatOpenAI, what only chats have", () => {
  test("langchain: ends before a stop sequence", async () => {
    const model = new ChatOpenAI({ ...common("me/endless"), stop: ["w4"] });

    expect((await model.invoke("Hello?")).text).toBe("w1 w2 w3 ");
  });

  test("langchain: log-probabilities", async () => {
    const model = new ChatOpenAI({ ...common("me/text"), logprobs: true, topLogprobs: 2 });
    const { response_metadata: metadata } = await model.invoke("Hello?");
    const { content } = metadata["logprobs"] as { content: { token: string }[] };

    expect(content.map(({ token }) => token).join("")).toBe("Grüße, world 🍕");
  });
});

describe("ChatOpenAI, what only responses have", () => {
  test("langchain: goes on from a response", async () => {
    const model = new ChatOpenAI({
      ...common("ai/pebble"),
      temperature: 0,
      useResponsesApi: true,
    });
    const first = await model.invoke("My name is Ada.");
    const second = await model.invoke("What is my name?", {
      previous_response_id: first.response_metadata["id"] as string,
    });

    expect(second.text).toContain("Ada");
  });
});

describe("OpenAI", () => {
  test("langchain: completes, whole and streamed", async () => {
    const pieces = await Array.fromAsync(await completion("me/text").stream("x"));

    expect(await completion("me/text").invoke("x")).toBe("Grüße, world 🍕");
    expect(pieces.join("")).toBe("Grüße, world 🍕");
  });

  test("langchain: completes several prompts in one request", async () => {
    const { generations } = await completion("me/text", { maxTokens: 2 }).generate(["a", "b"]);

    expect(generations.map(([one]) => one?.text)).toEqual(["Grüße", "Grüße"]);
  });
});

describe("OpenAIEmbeddings", () => {
  test("langchain: of a query", async () => {
    const vector = await embeddings("me/embed").embedQuery("hello world");

    expect(vector).toHaveLength(128);
    expect(Math.hypot(...vector)).toBeCloseTo(1, 3);
  });

  test("langchain: of documents in several requests, in their order", async () => {
    const model = embeddings("me/embed", { batchSize: 2 });
    const vectors = await model.embedDocuments(["one", "two", "three", "four", "five"]);
    const alone = await model.embedQuery("five");
    const product = vectors[4]?.reduce((total, value, at) => total + value * (alone[at] ?? 0), 0);

    expect(vectors.map(({ length }) => length)).toEqual([128, 128, 128, 128, 128]);
    expect(product).toBeCloseTo(1, 3);
  });

  test("langchain: fewer dimensions", async () => {
    const vector = await embeddings("me/embed", { dimensions: 16 }).embedQuery("hello");

    expect(vector).toHaveLength(16);
    expect(Math.hypot(...vector)).toBeCloseTo(1, 3);
  });

  test("langchain: of a model for chats are an error", async () => {
    const error = await failure(embeddings("ai/pebble").embedQuery("hello"));

    expect(error).toMatchObject({ status: 400 });
    expect((error as Error).message).toContain("it is for chat, not for embeddings");
  });
});

/** Chunks as the message that they make. */
function sum(chunks: readonly AIMessageChunk[]): AIMessageChunk {
  const [first, ...rest] = chunks;
  if (first === undefined) throw new Error("the stream was empty");
  return rest.reduce((whole, chunk) => whole.concat(chunk), first);
}
