/** The `openai` package as it comes, against the compiled binary and the real engine. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import type { WorkerStatus } from "../../src/api/engines.ts";
import { ROOT } from "../../scripts/compile/freshness.ts";
import { eventually } from "../helpers/eventually.ts";
import { expectedAnswers, LONG_REQUEST, QUESTION } from "../helpers/pebble.ts";
import { writeRandomModel } from "../helpers/random-model.ts";
import { toolCallPiece, writeScriptedModel } from "../helpers/scripted-model.ts";
import { writeTinyProjector, writeTinyReranker } from "../helpers/tiny-models.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const EMBED = join(ROOT, "test", "fixtures", "pebble", "pebble-embed-f16.gguf");
const MESSAGES = [{ role: "user" as const, content: QUESTION }];
const CHAT = { model: "ai/pebble", messages: MESSAGES, temperature: 0 };
/** A red square of 8 × 8. */
const RED_PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC";
const VISION_WIDTH = 64;
const MIB = 1024 * 1024;

let home: TugHome;
beforeAll(async () => {
  home = await tugHome({ engine: true });
  await must(["run", "pebble", QUESTION]);
  const file = (name: string): string => join(home.path, name);
  await writeTinyReranker(file("rank.gguf"));
  await writeTinyProjector(file("mmproj.gguf"), VISION_WIDTH);
  const text = { layers: 1, embedding: VISION_WIDTH, heads: 2, feedForward: 64, context: 512 };
  await writeRandomModel(file("text.gguf"), { ...text, vocabulary: 512 });
  await writeScriptedModel(file("caller.gguf"), {
    pieces: [toolCallPiece("get_weather", { city: "Paris" })],
    afterTool: ["It is", " sunny."],
  });
  await must(["package", "--gguf", file("caller.gguf"), "me/caller"]);
  await must(["package", "--gguf", EMBED, "me/embed"]);
  await must(["package", "--gguf", file("rank.gguf"), "me/rank"]);
  const seeing = ["--gguf", file("text.gguf"), "--mmproj", file("mmproj.gguf")];
  await must(["package", ...seeing, "me/vision"]);
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

async function must(args: readonly string[]): Promise<void> {
  const { exitCode, stderr } = await home.tug(args);
  if (exitCode !== 0) throw new Error(`tug ${args.join(" ")}:\n${stderr}`);
}

function client(base = "/v1"): OpenAI {
  return new OpenAI({
    baseURL: `${home.url}${base}`,
    apiKey: "unused",
    maxRetries: 0,
    // A proxy of the environment has no way to this loopback.
    fetch: (url, init) => fetch(url, { ...(init as RequestInit), proxy: false }),
  });
}

function post(path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(`${home.url}${path}`, {
    method: "POST",
    body: JSON.stringify(body),
    proxy: false,
    ...init,
  });
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => new Error("it did not fail"),
    (thrown: unknown) => thrown,
  );
}

function cosine(one: readonly number[], other: readonly number[]): number {
  const dot = one.reduce((sum, value, index) => sum + value * (other[index] ?? 0), 0);
  return dot / (Math.hypot(...one) * Math.hypot(...other));
}

function deep(count: number): unknown {
  return Array.from({ length: count }).reduce((inner) => [inner], 1);
}

async function workers(): Promise<WorkerStatus[]> {
  const response = await fetch(`${home.url}/engines/ps`, { proxy: false });
  return (await response.json()) as WorkerStatus[];
}

/** Of all workers: another one is another process. */
async function pids(): Promise<unknown[]> {
  return (await workers()).map(({ pid }) => pid);
}

describe("embeddings", () => {
  test("sdk: a text; the package asks for base64 and gives numbers", async () => {
    const { data, usage, model } = await client().embeddings.create({
      model: "me/embed",
      input: "hello world",
    });

    expect(data[0]?.embedding).toHaveLength(128);
    expect(Math.hypot(...(data[0]?.embedding ?? []))).toBeCloseTo(1, 3);
    expect(usage.prompt_tokens).toBeGreaterThan(0);
    expect(model).toBe("me/embed");
  });

  test("sdk: as numbers they are the same", async () => {
    const request = { model: "me/embed", input: "hello world" };
    const packed = await client().embeddings.create(request);
    const plain = await client().embeddings.create({ ...request, encoding_format: "float" });

    expect(cosine(packed.data[0]?.embedding ?? [], plain.data[0]?.embedding ?? [])).toBeCloseTo(
      1,
      5,
    );
  });

  test("sdk: a batch keeps its order", async () => {
    const input = ["one", "two", "three"];
    const { data } = await client().embeddings.create({ model: "me/embed", input });
    const alone = await client().embeddings.create({ model: "me/embed", input: "three" });

    expect(data.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(cosine(data[2]?.embedding ?? [], alone.data[0]?.embedding ?? [])).toBeCloseTo(1, 3);
  });

  test("sdk: tokens stand for their text", async () => {
    const tokens = (await (
      await post("/tokenize", { model: "me/embed", content: "hello" })
    ).json()) as { tokens: number[] };
    const ofTokens = await client().embeddings.create({ model: "me/embed", input: tokens.tokens });
    const ofText = await client().embeddings.create({ model: "me/embed", input: "hello" });

    expect(cosine(ofTokens.data[0]?.embedding ?? [], ofText.data[0]?.embedding ?? [])).toBeCloseTo(
      1,
      3,
    );
  });

  test.each(["float", "base64"] as const)("sdk: fewer dimensions as %s", async (format) => {
    const { data } = await client().embeddings.create({
      model: "me/embed",
      input: ["hello", "world"],
      dimensions: 16,
      encoding_format: format,
    });

    expect(data).toHaveLength(2);
    const vector = data[0]?.embedding as unknown as number[] | string;
    expect(typeof vector === "string" ? Buffer.from(vector, "base64").length : vector.length).toBe(
      format === "float" ? 16 : 64,
    );
  });

  test("sdk: more dimensions than there are is a BadRequestError that names them", async () => {
    const error = await failure(
      client().embeddings.create({ model: "me/embed", input: "a", dimensions: 129 }),
    );

    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect(error).toMatchObject({ status: 400, param: "dimensions", code: "invalid_request" });
  });

  test("sdk: an empty batch is a BadRequestError", async () => {
    const error = await failure(client().embeddings.create({ model: "me/embed", input: [] }));

    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect(error).toMatchObject({ param: "input" });
  });

  test("sdk: a chat model gives none, and says what it is for", async () => {
    const error = await failure(client().embeddings.create({ model: "ai/pebble", input: "a" }));

    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect(error).toMatchObject({
      param: "model",
      message: expect.stringContaining("it is for chat, not for embeddings"),
    });
  });
});

describe("models", () => {
  test("sdk: are listed", async () => {
    const models = await Array.fromAsync(client("/engines/v1").models.list());

    expect(models.map(({ id }) => id)).toEqual(
      expect.arrayContaining(["docker.io/ai/pebble:latest", "docker.io/me/embed:latest"]),
    );
    expect(models.every(({ object, created }) => object === "model" && created >= 0)).toBe(true);
  });

  test.each(["ai/pebble", "pebble", "docker.io/ai/pebble:latest", "index.docker.io/ai/pebble"])(
    "sdk: %s is retrieved, and answers",
    async (name) => {
      const { id } = await client().models.retrieve(name);
      const answer = await client().chat.completions.create({ ...CHAT, model: name });

      expect(id).toBe("docker.io/ai/pebble:latest");
      expect(answer.choices[0]?.message.content).toContain("Paris");
      // The name by which its worker was loaded: one worker serves all names of a model.
      expect(answer.model).toBe("docker.io/ai/pebble:latest");
    },
  );

  test("sdk: one that is not there is a NotFoundError", async () => {
    const error = await failure(client().models.retrieve("me/absent"));

    expect(error).toBeInstanceOf(OpenAI.NotFoundError);
    expect(error).toMatchObject({ code: "model_not_found" });
  });
});

describe("completions", () => {
  test("sdk: a text is completed", async () => {
    const { choices, usage } = await client().completions.create({
      model: "ai/pebble",
      prompt: "Once upon a time",
      max_tokens: 8,
      temperature: 0,
    });

    expect(choices[0]?.finish_reason).toBe("length");
    expect(usage?.completion_tokens).toBe(8);
  });

  test("sdk: several prompts give several choices", async () => {
    const { choices } = await client().completions.create({
      model: "ai/pebble",
      prompt: ["Once", "Hello"],
      max_tokens: 2,
    });

    expect(choices.map(({ index }) => index)).toEqual([0, 1]);
  });

  test("sdk: a stream gives the same text as a whole answer", async () => {
    const request = { model: "ai/pebble", prompt: "Once upon", max_tokens: 12, temperature: 0 };
    const whole = await client().completions.create(request);
    let text = "";
    for await (const chunk of await client().completions.create({ ...request, stream: true })) {
      text += chunk.choices[0]?.text ?? "";
    }

    expect(text).toBe(whole.choices[0]?.text ?? "none");
  });

  test("sdk: `echo` and `logprobs` are the engine's to heed", async () => {
    const { choices } = await client().completions.create({
      model: "ai/pebble",
      prompt: "Once",
      max_tokens: 2,
      echo: true,
      logprobs: 1,
    });

    expect(choices[0]?.text.length).toBeGreaterThan(0);
    expect(choices[0]?.logprobs).not.toBeNull();
  });

  test("sdk: a prompt that is no text is a BadRequestError", async () => {
    const prompt = { a: 1 } as unknown as string;
    const error = await failure(client().completions.create({ model: "ai/pebble", prompt }));

    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect(error).toMatchObject({ param: "prompt" });
  });
});

describe("chats", () => {
  test("sdk: logprobs of each token, the likeliest first", async () => {
    const { choices } = await client().chat.completions.create({
      ...CHAT,
      logprobs: true,
      top_logprobs: 3,
      max_completion_tokens: 4,
    });

    const tokens = choices[0]?.logprobs?.content ?? [];
    expect(tokens).toHaveLength(4);
    expect(tokens[0]?.top_logprobs).toHaveLength(3);
    expect(tokens[0]?.logprob).toBe(tokens[0]?.top_logprobs[0]?.logprob as number);
  });

  test("sdk: a stop sequence ends the answer before it", async () => {
    const { choices } = await client().chat.completions.create({ ...CHAT, stop: ["Paris"] });

    expect(choices[0]).toMatchObject({ finish_reason: "stop" });
    expect(choices[0]?.message.content).not.toContain("Paris");
  });

  test("sdk: two answers at once", async () => {
    const { choices } = await client().chat.completions.create({ ...CHAT, n: 2 });

    expect(choices.map(({ index }) => index)).toEqual([0, 1]);
  });

  test("sdk: one seed gives one answer", async () => {
    const request = { ...CHAT, temperature: 1.5, seed: 7, max_tokens: 16 };
    const [one, other] = [
      await client().chat.completions.create(request),
      await client().chat.completions.create(request),
    ];

    expect(one.choices[0]?.message.content).toBe(other.choices[0]?.message.content as string);
  });

  test("sdk: a schema shapes the answer, and `parse` reads it", async () => {
    const City = z.object({ city: z.enum(["Paris", "Rome"]) });
    const { choices } = await client().chat.completions.parse({
      ...CHAT,
      response_format: zodResponseFormat(City, "city"),
    });

    expect(["Paris", "Rome"]).toContain(choices[0]?.message.parsed?.city as string);
  });

  test("sdk: a tool is called, and its result is answered", async () => {
    const entry = (await expectedAnswers()).find(({ tools }) => tools !== undefined);
    const tools = entry?.tools as OpenAI.ChatCompletionTool[];
    const question = entry?.messages as unknown as OpenAI.ChatCompletionMessageParam[];
    const request = { model: "ai/pebble", temperature: 0, tools };
    const asked = await client().chat.completions.create({ ...request, messages: question });
    const message = asked.choices[0]?.message;
    const [call] = message?.tool_calls ?? [];
    if (message === undefined || call?.type !== "function") throw new Error("no call");
    const answer = await client().chat.completions.create({
      ...request,
      messages: [
        ...question,
        message,
        { role: "tool", tool_call_id: call.id, content: '{"celsius": 21}' },
      ],
    });

    expect(asked.choices[0]?.finish_reason).toBe("tool_calls");
    expect(`${call.function.name} ${call.function.arguments}`).toContain("Paris");
    expect(answer.choices[0]?.message.role).toBe("assistant");
  });

  test("sdk: a streamed call comes together", async () => {
    const entry = (await expectedAnswers()).find(({ tools }) => tools !== undefined);
    const stream = client().chat.completions.stream({
      model: "ai/pebble",
      temperature: 0,
      tools: entry?.tools as OpenAI.ChatCompletionTool[],
      messages: entry?.messages as unknown as OpenAI.ChatCompletionMessageParam[],
    });
    const { choices } = await stream.finalChatCompletion();
    const [call] = choices[0]?.message.tool_calls ?? [];

    expect(call?.type === "function" ? JSON.parse(call.function.arguments) : null).toEqual({
      city: "Paris",
    });
  });

  const WEATHER = z.object({ city: z.string() });
  const ASK_CALLER = {
    model: "me/caller",
    messages: [{ role: "user" as const, content: "Weather?" }],
  };

  test("sdk: `parse` reads the arguments of a call", async () => {
    const { choices } = await client().chat.completions.parse({
      ...ASK_CALLER,
      tools: [zodFunction({ name: "get_weather", parameters: WEATHER })],
    });
    const [call] = choices[0]?.message.tool_calls ?? [];

    expect(call).toMatchObject({ function: { parsed_arguments: { city: "Paris" } } });
  });

  test.each([false, true])(
    "sdk: `runTools` goes on until nothing is called (stream: %p)",
    async (stream) => {
      const asked: unknown[] = [];
      const tools = [
        {
          type: "function" as const,
          function: {
            name: "get_weather",
            description: "Get the weather for a city",
            parameters: z.toJSONSchema(WEATHER) as Record<string, unknown>,
            parse: (text: string) => WEATHER.parse(JSON.parse(text)),
            function: (input: z.infer<typeof WEATHER>) => {
              asked.push(input);
              return "sun";
            },
          },
        },
      ];
      const { completions } = client().chat;
      const runner = stream
        ? completions.runTools({ ...ASK_CALLER, tools, stream })
        : completions.runTools({ ...ASK_CALLER, tools });

      expect(await runner.finalContent()).toBe("It is sunny.");
      expect(asked).toEqual([{ city: "Paris" }]);
    },
  );

  test("sdk: a schema shapes a stream, which is parsed at the end", async () => {
    const City = z.object({ city: z.enum(["Paris", "Rome"]) });
    const stream = client().chat.completions.stream({
      ...CHAT,
      response_format: zodResponseFormat(City, "city"),
    });
    const { choices } = await stream.finalChatCompletion();

    expect(["Paris", "Rome"]).toContain(choices[0]?.message.parsed?.city as string);
  });

  test("sdk: a stream of an unknown model fails before it begins", async () => {
    const error = await failure(
      client().chat.completions.create({ ...CHAT, model: "me/absent", stream: true }),
    );

    expect(error).toBeInstanceOf(OpenAI.NotFoundError);
    expect(error).toMatchObject({ code: "model_not_found" });
  });

  test("sdk: a stream ends with the usage that was asked for", async () => {
    const stream = await client().chat.completions.create({
      ...CHAT,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await Array.fromAsync(stream);
    const last = chunks.at(-1);

    expect(last?.choices).toEqual([]);
    expect(last?.usage?.completion_tokens).toBeGreaterThan(3);
    expect(chunks.slice(0, -1).every(({ usage }) => usage === undefined || usage === null)).toBe(
      true,
    );
  });

  test("sdk: a long stream arrives whole", async () => {
    const stream = client().chat.completions.stream({
      ...CHAT,
      messages: [{ role: "user", content: LONG_REQUEST }],
    });

    // Which story it is depends on what the slot has seen before: rounding differs with the batch.
    expect(await stream.finalContent()).toMatch(/^Once upon a time .{800,}\.$/);
  });

  test("sdk: an aborted stream frees its slot", async () => {
    const stream = await client().chat.completions.create({
      ...CHAT,
      stream: true,
      ...({ ignore_eos: true } as object),
    });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    stream.controller.abort();

    await eventually(async () => (await workers()).every(({ requests }) => requests === 0));
  });

  test("sdk: an image is looked at by a model with a projector", async () => {
    const image_url = { url: `data:image/png;base64,${RED_PNG}` };
    const { usage } = await client().chat.completions.create({
      model: "me/vision",
      messages: [
        {
          role: "user",
          content: [
            { type: "text", text: "?" },
            { type: "image_url", image_url },
          ],
        },
      ],
      max_tokens: 2,
    });

    expect(usage?.completion_tokens).toBeGreaterThan(0);
  });

  test.each([
    ["that is none", "data:image/png;base64,AAAA"],
    ["from another server", "http://127.0.0.1:1/x.png"],
    ["from this machine's files", "file:///etc/passwd"],
  ])("sdk: an image %s is a BadRequestError", async (_, url) => {
    const content = [{ type: "image_url" as const, image_url: { url } }];
    const error = await failure(
      client().chat.completions.create({
        model: "me/vision",
        messages: [{ role: "user", content }],
      }),
    );

    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
  });
});

describe("errors", () => {
  const image_url = { url: `data:image/png;base64,${RED_PNG}` };
  const picture = [{ role: "user", content: [{ type: "image_url", image_url }] }];

  test.each<[string, object, string | null]>([
    ["an image to a text model", { messages: picture }, "messages"],
    ["no messages", { messages: [] }, "messages"],
    ["messages that are none", { messages: "x" }, "messages"],
    ["a model that is none", { model: 7 }, "model"],
    ["an embedding model", { model: "me/embed" }, "model"],
    ["a reranker", { model: "me/rank" }, "model"],
    ["tools that are none", { tools: "x" }, "tools"],
    ["a tool without a function", { tools: [{ type: "function" }] }, null],
    [
      "a schema of nonsense",
      {
        response_format: {
          type: "json_schema",
          json_schema: { name: "x", schema: { type: "banana" } },
        },
      },
      null,
    ],
    ["a number of answers beyond all slots", { n: 1000 }, null],
    ["an effort that is none", { reasoning_effort: "banana" }, "reasoning_effort"],
    ["a context larger than the model's", { context_size: 10_000_000 }, null],
    ["a keep-alive that is none", { keep_alive: "soon" }, null],
  ])("sdk: %s is a BadRequestError", async (_, wrong, param) => {
    const error = await failure(client().chat.completions.create({ ...CHAT, ...wrong }));

    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect(error).toMatchObject({ param, type: "invalid_request_error" });
    expect((error as { code: unknown }).code).toBeString();
    expect((error as { requestID: unknown }).requestID).toBeString();
  });

  test("sdk: a prompt larger than the context has OpenAI's code", async () => {
    const content = "word ".repeat(5000);
    const messages = [{ role: "user" as const, content }];
    const error = await failure(client().chat.completions.create({ ...CHAT, messages }));

    expect(error).toMatchObject({ status: 400, code: "context_length_exceeded" });
  });

  test("sdk: audio needs an engine that there is not", async () => {
    const file = new File(["x".repeat(MIB)], "a.wav");
    const errors = await Promise.all([
      failure(client().audio.speech.create({ input: "a", model: "x", voice: "alloy" })),
      failure(client().audio.transcriptions.create({ file, model: "whisper-1" })),
    ]);

    for (const error of errors) {
      expect(error).toBeInstanceOf(OpenAI.InternalServerError);
      expect(error).toMatchObject({ status: 501, code: "not_supported" });
    }
  });

  test("sdk: a request id of the client's own comes back", async () => {
    const { response } = await client()
      .chat.completions.create({ ...CHAT, max_tokens: 1 }, { headers: { "X-Request-Id": "mine" } })
      .withResponse();

    expect(response.headers.get("x-request-id")).toBe("mine");
  });

  test("sdk: nothing that was wrong has ended the engine", async () => {
    const before = await pids();
    const statuses = await Promise.all(
      [250, 300, 5000].map(async (depth) => {
        const response = await post("/v1/chat/completions", { ...CHAT, x: deep(depth) });
        await response.text();
        return response.status;
      }),
    );

    expect(statuses).toEqual([200, 400, 400]);
    expect(await pids()).toEqual(before);
  });
});

describe("what a request says of its worker", () => {
  test("sdk: words about thinking load nothing anew", async () => {
    await client().chat.completions.create({ ...CHAT, max_tokens: 1 });
    const before = await pids();

    for (const said of [{ think: false }, { think: "high" }, { reasoning_effort: "low" }]) {
      const request = { ...CHAT, ...said } as OpenAI.ChatCompletionCreateParamsNonStreaming;
      const { choices } = await client().chat.completions.create(request);
      expect(choices[0]?.message.content).toContain("Paris");
    }

    expect(await pids()).toEqual(before);
  });

  test("sdk: a smaller context is served by the worker that is there", async () => {
    const before = await pids();
    const request = { ...CHAT, context_size: 512, keep_alive: "10m" };
    const { choices } = await client().chat.completions.create(request);

    expect(choices[0]?.message.content).toContain("Paris");
    expect(await pids()).toEqual(before);
  });
});

describe("rerank and tokens", () => {
  test("rerank: a ranking model ranks, the best first", async () => {
    const response = await post("/v1/rerank", {
      model: "me/rank",
      query: "a",
      documents: ["b", { text: "cde" }, "hello world"],
      top_n: 2,
      return_documents: true,
    });
    const { results } = (await response.json()) as {
      results: { relevance_score: number; document: { text: string } }[];
    };

    expect(response.status).toBe(200);
    expect(results).toHaveLength(2);
    expect(results[0]?.relevance_score).toBeGreaterThan(results[1]?.relevance_score ?? Infinity);
    expect(["b", "cde", "hello world"]).toContain(results[0]?.document.text as string);
  });

  test("rerank: scores come in the order of the texts, and agree with the ranking", async () => {
    const texts = ["b", "cde", "hello world"];
    const score = await post("/score", { model: "me/rank", text_1: "a", text_2: texts });
    const rank = await post("/rerank", { model: "me/rank", query: "a", documents: texts });
    const { data } = (await score.json()) as { data: { score: number }[] };
    const { results } = (await rank.json()) as {
      results: { index: number; relevance_score: number }[];
    };

    expect(data).toHaveLength(3);
    for (const { index, relevance_score: relevance } of results) {
      expect(data[index]?.score).toBeCloseTo(relevance, 3);
    }
  });

  test.each(["ai/pebble", "me/embed"])("rerank: %s does not rank", async (model) => {
    const response = await post("/rerank", { model, query: "a", documents: ["b"] });

    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { param: "model" } });
  });

  test.each(["ai/pebble", "me/embed", "me/rank"])("tokens: %s, there and back", async (model) => {
    const content = "Grüße, 世界 🦆";
    const there = await post("/tokenize", { model, content });
    const { tokens, count } = (await there.json()) as { tokens: number[]; count: number };
    const back = await post("/detokenize", { model, tokens });

    expect(tokens).toHaveLength(count);
    expect(count).toBeGreaterThan(0);
    expect(await back.json()).toMatchObject({ content: expect.stringContaining("世界 🦆") });
  });

  test("tokens: of a chat are those that its answer counts", async () => {
    const counted = await post("/v1/chat/completions/input_tokens", CHAT);
    const { input_tokens: tokens } = (await counted.json()) as { input_tokens: number };
    const { usage } = await client().chat.completions.create({ ...CHAT, max_tokens: 1 });

    expect(tokens).toBe(usage?.prompt_tokens as number);
  });

  test("tokens: one that no model has is refused", async () => {
    const response = await post("/detokenize", { model: "ai/pebble", tokens: [99_999_999] });

    expect(response.status).toBe(400);
  });
});

describe.skipIf(process.platform !== "linux")("a body of 300 MiB (reads /proc: Linux)", () => {
  test.each([
    ["with its length", true],
    ["without its length", false],
  ])("limits: %s is refused, and the runner does not grow by it", async (_, isDeclared) => {
    const before = await runnerBytes();
    const chunk = new Uint8Array(MIB).fill(0x20);
    let sent = 0;
    const stream = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (sent >= 300) return controller.close();
        sent += 1;
        controller.enqueue(chunk);
      },
    });
    const response = await post("/v1/chat/completions", null, {
      body: isDeclared ? new Blob(Array.from({ length: 300 }, () => chunk)) : stream,
    }).catch(() => undefined);

    // Who is refused early may be cut off before it has read why.
    expect([413, undefined]).toContain(response?.status);
    const answer = await client().chat.completions.create(CHAT);
    expect(answer.choices[0]?.message.content).toContain("Paris");
    await eventually(async () => (await runnerBytes()) < before + 100 * MIB, 30_000);
  });
});

async function runnerBytes(): Promise<number> {
  const response = await fetch(`${home.url}/version`, { proxy: false });
  const { pid } = (await response.json()) as { pid: number };
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}
