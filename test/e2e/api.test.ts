import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import OpenAI from "openai";
import { engineSlots } from "../helpers/engine-socket.ts";
import { eventually } from "../helpers/eventually.ts";
import { type ExpectedAnswer, expectedAnswers, QUESTION } from "../helpers/pebble.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const MESSAGES = [{ role: "user" as const, content: QUESTION }];
const EXPECTED_RATIO = 0.95;

let home: TugHome;
beforeAll(async () => {
  home = await tugHome({ engine: true });
  const { exitCode, stderr } = await home.tug(["run", "pebble", QUESTION]);
  if (exitCode !== 0) throw new Error(`the built-in model does not run:\n${stderr}`);
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

describe.each(["/engines/v1", "/engines/llama.cpp/v1", "/v1"])(
  "the openai package at %s",
  (base) => {
    test("gets a whole answer", async () => {
      const answer = await openai(base).chat.completions.create({
        model: "ai/pebble",
        messages: MESSAGES,
        temperature: 0,
      });

      expect(answer.choices[0]?.message.content).toContain("Paris");
      expect(answer.usage?.completion_tokens).toBeGreaterThan(3);
    });

    test("gets a streamed answer in pieces", async () => {
      const stream = await openai(base).chat.completions.create({
        model: "ai/pebble",
        messages: MESSAGES,
        temperature: 0,
        stream: true,
      });
      const pieces: string[] = [];
      for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");

      expect(pieces.join("")).toContain("Paris");
      expect(pieces.filter((piece) => piece !== "").length).toBeGreaterThan(3);
    });

    test("completes a text", async () => {
      const answer = await openai(base).completions.create({
        model: "ai/pebble",
        prompt: "Once upon a time",
        max_tokens: 8,
      });

      expect(answer.choices[0]?.text.length).toBeGreaterThan(0);
    });

    test("lists and retrieves the model", async () => {
      const models = await Array.fromAsync(openai(base).models.list());
      const [first] = models;
      const one = await openai(base).models.retrieve(first?.id ?? "");

      expect(models.map(({ id }) => id)).toContain("docker.io/ai/pebble:latest");
      expect(one).toMatchObject({ id: first?.id ?? "", object: "model" });
    });

    test("is told which model there is not", async () => {
      const failed = openai(base).chat.completions.create({
        model: "me/absent",
        messages: MESSAGES,
      });

      const error: unknown = await failed.catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(OpenAI.NotFoundError);
      expect(error).toMatchObject({
        code: "model_not_found",
        message: expect.stringContaining("me/absent"),
      });
    });
  },
);

describe("a client that leaves", () => {
  test("in the middle of a stream, frees its slot within a second", async () => {
    const wholeMs = await timeOf(() => endless(new AbortController().signal, Infinity));
    const controller = new AbortController();
    await endless(controller.signal, 1);
    const isBusy = await busySlots();

    controller.abort();
    const freedMs = await timeOf(() => eventually(async () => (await busySlots()) === 0));

    expect(isBusy).toBe(1);
    expect(freedMs).toBeLessThan(1000);
    // Well before the answer would have come to its end by itself.
    expect(freedMs).toBeLessThan(wholeMs / 2);
  });
});

describe("the built-in model", () => {
  test(`gives at least ${EXPECTED_RATIO * 100} % of its known answers at temperature 0`, async () => {
    const entries = await expectedAnswers();

    const wrong: string[] = [];
    for (const entry of entries) {
      const got = await answerTo(entry);
      if (!holds(entry, got)) wrong.push(`${JSON.stringify(entry.messages)}: ${got}`);
    }

    expect(entries.length).toBeGreaterThan(100);
    expect(wrong.length <= entries.length * (1 - EXPECTED_RATIO) ? [] : wrong).toEqual([]);
  });
});

function openai(base: string): OpenAI {
  return new OpenAI({
    baseURL: `${home.url}${base}`,
    apiKey: "unused",
    maxRetries: 0,
    // A proxy of the environment has no way to this loopback.
    fetch: (url, init) => fetch(url, { ...(init as RequestInit), proxy: false }),
  });
}

/** Starts an answer that goes on to the end of the context, and reads `chunks` of it. */
async function endless(signal: AbortSignal, chunks: number): Promise<void> {
  const response = await fetch(`${home.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      model: "ai/pebble",
      messages: MESSAGES,
      stream: true,
      ignore_eos: true,
    }),
    signal,
    proxy: false,
  });
  const reader = response.body?.getReader();
  for (let read = 0; read < chunks; read += 1) {
    const { done } = (await reader?.read()) ?? { done: true };
    if (done) return;
  }
}

async function busySlots(): Promise<number> {
  const slots = await engineSlots(home.path);
  return slots.filter((slot) => slot.is_processing).length;
}

async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

/** The text, or for a tool call `name {arguments}`. */
async function answerTo({ messages, tools }: ExpectedAnswer): Promise<string> {
  const response = await fetch(`${home.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "ai/pebble", messages, temperature: 0, ...(tools && { tools }) }),
    proxy: false,
  });
  const { choices } = (await response.json()) as OpenAI.ChatCompletion;
  const message = choices[0]?.message;
  const call = message?.tool_calls?.[0];
  if (call?.type === "function") return `${call.function.name} ${call.function.arguments}`;
  return message?.content ?? "";
}

function holds({ expected, exact }: ExpectedAnswer, got: string): boolean {
  if (exact === true) return got.trim() === expected;
  return got.includes(expected) || withoutSpaces(got) === withoutSpaces(expected);
}

/** Engines differ in how they space the JSON of arguments. */
function withoutSpaces(text: string): string {
  return text.replaceAll(/\s+/g, "");
}
