import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, isStepCount, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { eventually } from "../helpers/eventually.ts";
import { QUESTION } from "../helpers/pebble.ts";
import { numberedPieces, writeScriptedModel } from "../helpers/scripted-model.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const ASKED = { model: "ai/pebble", input: QUESTION, temperature: 0 };
const WEATHER = {
  type: "function" as const,
  name: "get_weather",
  description: "Get the weather for a city",
  strict: false,
  parameters: {
    type: "object",
    properties: { city: { type: "string", description: "The city" } },
    required: ["city"],
  },
};
const WEATHER_QUESTION = { ...ASKED, input: "What is the weather in Paris?", tools: [WEATHER] };
const LONG = 600;

let home: TugHome;
let openai: OpenAI;
beforeAll(async () => {
  home = await tugHome({ engine: true });
  await say("me/thinker", ["<think>\n", "One moment", ".\n", "</think>\n\n", "Né", "w day"]);
  await say("me/endless", numberedPieces(LONG));
  await run(["run", "pebble", QUESTION]);
  openai = new OpenAI({
    baseURL: `${home.url}/v1`,
    apiKey: "unused",
    maxRetries: 0,
    fetch: direct,
  });
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

describe("the openai package", () => {
  test("gets a whole response, and gets it again", async () => {
    const response = await openai.responses.create(ASKED);

    expect(response.output_text).toContain("Paris");
    expect(response.status).toBe("completed");
    expect(response.usage?.output_tokens).toBeGreaterThan(3);
    expect(await openai.responses.retrieve(response.id)).toMatchObject({ ...response });
  });

  test("streams, with numbers without a gap and a text that is the whole", async () => {
    const stream = await openai.responses.create({ ...ASKED, stream: true });
    const events = await Array.fromAsync(stream);
    const pieces = events.map((one) =>
      one.type === "response.output_text.delta" ? one.delta : "",
    );
    const last = events.at(-1);

    expect(pieces.join("")).toContain("Paris");
    expect(events.map((one) => (one as { sequence_number: number }).sequence_number)).toEqual(
      events.map((_, index) => index),
    );
    expect(last).toMatchObject({
      type: "response.completed",
      response: { output: [{ content: [{ text: pieces.join("") }] }] },
    });
  });

  test("calls a tool, and goes on with its output and previous_response_id", async () => {
    const first = await openai.responses.create(WEATHER_QUESTION);
    const [call] = first.output;
    if (call?.type !== "function_call") throw new Error(`it said ${first.output_text}`);

    const second = await openai.responses.create({
      ...WEATHER_QUESTION,
      previous_response_id: first.id,
      input: [{ type: "function_call_output", call_id: call.call_id, output: "sunny, 21 degrees" }],
    });
    const items = await Array.fromAsync(
      openai.responses.inputItems.list(second.id, { order: "asc" }),
    );

    expect(JSON.parse(call.arguments)).toEqual({ city: "Paris" });
    expect(second.status).toBe("completed");
    expect(items.map(({ type }) => type)).toEqual([
      "message",
      "function_call",
      "function_call_output",
    ]);
  });

  test("streams the arguments of a call", async () => {
    const final = await openai.responses.stream(WEATHER_QUESTION).finalResponse();

    expect(final.output).toMatchObject([{ type: "function_call", name: "get_weather" }]);
  });

  test("remembers what was said, for as long as it is continued", async () => {
    const first = await openai.responses.create({ ...ASKED, input: "My name is Ada." });
    const second = await openai.responses.create({
      ...ASKED,
      input: "What is my name?",
      previous_response_id: first.id,
    });

    expect(second.output_text).toContain("Ada");
  });

  test("parses what a schema asks for", async () => {
    const Answer = z.object({ capital: z.enum(["Paris", "Rome"]) });

    const response = await openai.responses.parse({
      ...ASKED,
      max_output_tokens: 100,
      text: { format: zodTextFormat(Answer, "answer") },
    });

    expect(["Paris", "Rome"]).toContain(response.output_parsed?.capital ?? "nothing");
  });

  test("gets reasoning as an item of its own", async () => {
    const whole = await openai.responses.create({ ...ASKED, model: "me/thinker" });
    const streamed = await openai.responses
      .stream({ ...ASKED, model: "me/thinker" })
      .finalResponse();

    for (const { output } of [whole, streamed]) {
      expect(output).toMatchObject([
        { type: "reasoning", content: [{ text: expect.stringContaining("One moment") }] },
        { type: "message", content: [{ text: "Néw day" }] },
      ]);
    }
  });

  test("is told of the end that the limit makes", async () => {
    const response = await openai.responses.create({
      ...ASKED,
      model: "me/endless",
      max_output_tokens: 5,
    });

    expect(response).toMatchObject({
      status: "incomplete",
      incomplete_details: { reason: "max_output_tokens" },
      usage: { output_tokens: 5 },
    });
  });

  test("counts tokens, as the response then does", async () => {
    const { input_tokens } = await openai.responses.inputTokens.count({
      model: "ai/pebble",
      input: QUESTION,
    });
    const response = await openai.responses.create(ASKED);

    expect(input_tokens).toBe(response.usage?.input_tokens ?? 0);
  });

  test("deletes", async () => {
    const { id } = await openai.responses.create(ASKED);

    await openai.responses.delete(id);

    await expectError(openai.responses.retrieve(id), OpenAI.NotFoundError, id);
  });

  test("is told of mistakes by its error classes", async () => {
    const { NotFoundError, BadRequestError } = OpenAI;
    const { responses } = openai;

    await expectError(
      responses.create({ ...ASKED, model: "me/absent" }),
      NotFoundError,
      "me/absent",
    );
    await expectError(
      responses.create({ ...ASKED, previous_response_id: "resp_0" }),
      NotFoundError,
      "resp_0",
    );
    await expectError(
      responses.create({ ...ASKED, tools: [{ type: "web_search" }] }),
      BadRequestError,
      "web_search",
    );
    await expectError(
      responses.create({ ...ASKED, input: "word ".repeat(100_000) }),
      BadRequestError,
      "context",
    );
  });
});

describe("in the background", () => {
  test("a response is made without its client", async () => {
    const begun = await openai.responses.create({ ...ASKED, background: true });

    const done = await eventually(async () => {
      const now = await openai.responses.retrieve(begun.id);
      return now.status === "completed" && now;
    });

    expect(begun.status).toBe("queued");
    expect(done).toMatchObject({ output_text: expect.stringContaining("Paris") });
  });

  test("a response is cancelled, and its slot is free", async () => {
    const { id } = await openai.responses.create({
      ...ASKED,
      model: "me/endless",
      background: true,
    });

    const cancelled = await openai.responses.cancel(id);

    expect(cancelled.status).toBe("cancelled");
    await eventually(async () => (await workersInUse()) === 0);
    expect(await openai.responses.retrieve(id)).toMatchObject({ status: "cancelled" });
  });

  test("a stream is followed to its end by another client", async () => {
    const stream = await openai.responses.create({
      ...ASKED,
      model: "me/endless",
      background: true,
      stream: true,
    });
    let id = "";
    let last = -1;
    for await (const one of stream) {
      if (one.type === "response.created") id = one.response.id;
      last += 1;
      if (last > 10) break;
    }

    const rest = await openai.responses.retrieve(id, { stream: true, starting_after: last });
    const events = await Array.fromAsync(rest);
    const whole = await openai.responses.retrieve(id);

    expect(events[0]).toMatchObject({ sequence_number: last + 1 });
    expect(events.at(-1)).toMatchObject({ type: "response.completed" });
    expect(whole).toMatchObject({ output_text: numberedPieces(LONG).join("") });
  });
});

test("what is kept outlives the runner", async () => {
  const first = await openai.responses.create({ ...ASKED, input: "My name is Ada." });
  await run(["stop-runner"]);
  await run(["start-runner"]);

  const second = await openai.responses.create({
    ...ASKED,
    input: "What is my name?",
    previous_response_id: first.id,
  });

  expect(second.output_text).toContain("Ada");
});

describe("the ai package", () => {
  test("generates a text", async () => {
    const { text, usage } = await generateText({
      model: provider(),
      prompt: QUESTION,
      temperature: 0,
    });

    expect(text).toContain("Paris");
    expect(usage.outputTokens).toBeGreaterThan(3);
  });

  test("streams a text", async () => {
    const { textStream } = streamText({ model: provider(), prompt: QUESTION, temperature: 0 });

    const pieces = await Array.fromAsync(textStream);

    expect(pieces.length).toBeGreaterThan(3);
    expect(pieces.join("")).toContain("Paris");
  });

  test("calls a tool and goes on, by references to what is stored", async () => {
    const asked: unknown[] = [];
    const { steps } = await generateText({
      model: provider(),
      prompt: "What is the weather in Paris?",
      temperature: 0,
      stopWhen: isStepCount(2),
      tools: {
        get_weather: tool({
          description: "Get the weather for a city",
          inputSchema: z.object({ city: z.string().describe("The city") }),
          execute: (input) => {
            asked.push(input);
            return "sunny";
          },
        }),
      },
    });

    expect(asked).toEqual([{ city: "Paris" }]);
    expect(steps).toHaveLength(2);
  });

  test("does the same without anything stored", async () => {
    const { steps } = await generateText({
      model: provider(),
      prompt: "What is the weather in Paris?",
      temperature: 0,
      stopWhen: isStepCount(2),
      providerOptions: { openai: { store: false } },
      tools: {
        get_weather: tool({
          description: "Get the weather for a city",
          inputSchema: z.object({ city: z.string().describe("The city") }),
          execute: () => "sunny",
        }),
      },
    });

    expect(steps).toHaveLength(2);
  });

  test("goes on with previousResponseId", async () => {
    const first = await generateText({
      model: provider(),
      prompt: "My name is Ada.",
      temperature: 0,
    });
    const id = first.providerMetadata?.["openai"]?.["responseId"];
    if (typeof id !== "string") throw new Error("it has no id");

    const second = await generateText({
      model: provider(),
      prompt: "What is my name?",
      temperature: 0,
      providerOptions: { openai: { previousResponseId: id } },
    });

    expect(second.text).toContain("Ada");
  });
});

function provider() {
  const made = createOpenAI({ baseURL: `${home.url}/v1`, apiKey: "unused", fetch: direct });
  return made.responses("ai/pebble");
}

/** A proxy of the environment has no way to this loopback. */
const direct = ((url: string, init?: RequestInit) =>
  fetch(url, { ...init, proxy: false })) as typeof fetch;

async function run(args: readonly string[]): Promise<void> {
  const { exitCode, stderr } = await home.tug(args);
  if (exitCode !== 0) throw new Error(`tug ${args[0]} failed:\n${stderr}`);
}

/** Packages a model that always says the same. */
async function say(name: string, pieces: readonly string[]): Promise<void> {
  const path = join(home.path, `${name.replace("/", "-")}.gguf`);
  await writeScriptedModel(path, { pieces });
  await run(["package", "--gguf", path, name]);
}

async function expectError(
  failing: Promise<unknown>,
  kind: new (...args: never[]) => Error,
  text: string,
): Promise<void> {
  const error: unknown = await failing.catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(kind);
  expect((error as Error).message).toContain(text);
}

async function workersInUse(): Promise<number> {
  const response = await direct(`${home.url}/engines/ps`);
  const workers = (await response.json()) as { in_use: boolean }[];
  if (workers.length === 0) throw new Error("no worker runs");
  return workers.filter(({ in_use }) => in_use).length;
}
