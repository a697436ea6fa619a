import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import Anthropic from "@anthropic-ai/sdk";
import { eventually } from "../helpers/eventually.ts";
import { QUESTION } from "../helpers/pebble.ts";
import {
  bytePieces,
  numberedPieces,
  type Script,
  toolCallPiece,
  writeScriptedModel,
} from "../helpers/scripted-model.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const MODEL = "ai/pebble";
const MESSAGES: Anthropic.MessageParam[] = [{ role: "user", content: QUESTION }];
const ASKED = { model: MODEL, max_tokens: 64, messages: MESSAGES, temperature: 0 };
const WEATHER: Anthropic.Tool = {
  name: "get_weather",
  description: "Get the weather for a city",
  input_schema: {
    type: "object",
    properties: { city: { type: "string", description: "The city" } },
    required: ["city"],
  },
};
const WEATHER_ASKED = {
  ...ASKED,
  messages: [{ role: "user" as const, content: "What is the weather in Paris?" }],
  tools: [WEATHER],
};
const MANY_BYTES = "Grüße, 日本語 🦊!";

const SCRIPTS: Readonly<Record<string, Script>> = {
  thinker: { pieces: ["<think>\n", "Let me ", "see.", "\n</think>\n\n", "It is", " Paris."] },
  twocalls: {
    pieces: [
      toolCallPiece("get_weather", { city: "Paris" }),
      `\n${toolCallPiece("get_weather", { city: "Rome" })}`,
    ],
    afterTool: ["Sunny", " in", " both."],
  },
  bytes: { pieces: bytePieces(MANY_BYTES) },
  endless: { pieces: numberedPieces(1500) },
};

let home: TugHome;
beforeAll(async () => {
  home = await tugHome({ engine: true });
  await writeFile(
    join(home.path, "config.toml"),
    `[aliases]\n"claude-*" = "${MODEL}"\n"claude-gone" = "me/gone"\n"me/thinker" = "${MODEL}"\n`,
  );
  for (const [name, script] of Object.entries(SCRIPTS)) {
    const file = join(home.path, `${name}.gguf`);
    await writeScriptedModel(file, script);
    await checked(["package", "--gguf", file, `me/${name}`]);
  }
  await checked(["run", "pebble", QUESTION]);
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

async function checked(args: readonly string[]): Promise<void> {
  const { exitCode, stderr } = await home.tug(args);
  if (exitCode !== 0) throw new Error(`\`tug ${args.join(" ")}\` failed:\n${stderr}`);
}

function client(path = "/anthropic"): Anthropic {
  return new Anthropic({
    baseURL: `${home.url}${path}`,
    apiKey: "unused",
    maxRetries: 0,
    // A proxy of the environment has no way to this loopback.
    fetch: (url, init) => fetch(url, { ...(init as RequestInit), proxy: false }),
  });
}

async function failure(asked: Promise<unknown>): Promise<unknown> {
  const unanswered = Symbol("it was answered");
  const error: unknown = await asked.then(
    () => unanswered,
    (thrown: unknown) => thrown,
  );
  expect(error).not.toBe(unanswered);
  return error;
}

function textOf({ content }: Anthropic.Message): string {
  return content.map((block) => (block.type === "text" ? block.text : "")).join("");
}

describe.each(["", "/anthropic", "/engines", "/engines/llama.cpp"])("at %p", (path) => {
  test("a whole message", async () => {
    const message = await client(path).messages.create(ASKED);

    expect(message).toMatchObject({
      id: expect.stringMatching(/^msg_/),
      type: "message",
      role: "assistant",
      model: MODEL,
      content: [{ type: "text", text: "The capital of France is Paris." }],
      stop_reason: "end_turn",
      stop_sequence: null,
    });
    const { input_tokens, cache_read_input_tokens, output_tokens } = message.usage;
    expect(input_tokens + (cache_read_input_tokens ?? 0)).toBe(15);
    expect(output_tokens).toBeGreaterThan(3);
  });

  test("a streamed message", async () => {
    const stream = client(path).messages.stream(ASKED);
    const pieces: string[] = [];
    stream.on("text", (piece) => pieces.push(piece));
    const message = await stream.finalMessage();

    expect(pieces.length).toBeGreaterThan(3);
    expect(pieces.join("")).toBe("The capital of France is Paris.");
    expect(textOf(message)).toBe(pieces.join(""));
    expect(message).toMatchObject({ model: MODEL, stop_reason: "end_turn" });
    const { input_tokens, cache_read_input_tokens, output_tokens } = message.usage;
    expect(input_tokens + (cache_read_input_tokens ?? 0)).toBe(15);
    expect(output_tokens).toBeGreaterThan(3);
  });

  test("a count", async () => {
    const { model, messages } = ASKED;

    expect(await client(path).messages.countTokens({ model, messages })).toEqual({
      input_tokens: 15,
    });
  });
});

describe("a message", () => {
  test("is counted as it is read: system, tools and turns", async () => {
    const { max_tokens: _, temperature: __, ...conversation } = WEATHER_ASKED;
    const whole = { ...conversation, system: "You are kind." };

    const { input_tokens } = await client().messages.countTokens(whole);
    const { usage } = await client().messages.create({ ...whole, max_tokens: 1 });

    expect(input_tokens).toBe(usage.input_tokens + (usage.cache_read_input_tokens ?? 0));
    expect(input_tokens).toBeGreaterThan(100);
  });

  test("tells what an answer before had read", async () => {
    await client().messages.create(ASKED);
    const { usage } = await client().messages.create(ASKED);

    expect(usage.cache_read_input_tokens).toBeGreaterThan(0);
  });

  test("ends at its limit", async () => {
    const message = await client().messages.create({ ...ASKED, max_tokens: 2 });

    expect(message).toMatchObject({ stop_reason: "max_tokens", usage: { output_tokens: 2 } });
  });

  test("of no token is empty", async () => {
    const message = await client().messages.create({ ...ASKED, max_tokens: 0 });

    expect(message).toMatchObject({ stop_reason: "max_tokens", content: [] });
  });

  test("ends at a stop sequence and tells which, whole and streamed", async () => {
    const asked = { ...ASKED, stop_sequences: ["never", "France"] };
    const whole = await client().messages.create(asked);
    const streamed = await client().messages.stream(asked).finalMessage();

    for (const message of [whole, streamed]) {
      expect(message).toMatchObject({ stop_reason: "stop_sequence", stop_sequence: "France" });
      expect(textOf(message)).toBe("The capital of ");
    }
  });

  test("with stop sequences that do not come ends its turn", async () => {
    const message = await client().messages.create({ ...ASKED, stop_sequences: ["never"] });

    expect(message).toMatchObject({ stop_reason: "end_turn", stop_sequence: null });
  });

  test("goes on from a given beginning, whole and streamed", async () => {
    const messages = [...MESSAGES, { role: "assistant" as const, content: "The capital" }];
    const asked = { ...ASKED, messages };

    expect(textOf(await client().messages.create(asked))).toBe(" of France is Paris.");
    expect(textOf(await client().messages.stream(asked).finalMessage())).toBe(
      " of France is Paris.",
    );
  });

  test("takes blocks, a system prompt of blocks, and cache marks", async () => {
    const message = await client().messages.create({
      ...ASKED,
      system: [{ type: "text", text: "You are Pebble.", cache_control: { type: "ephemeral" } }],
      messages: [{ role: "user", content: [{ type: "text", text: QUESTION }] }],
      metadata: { user_id: "somebody" },
    });

    expect(textOf(message)).toContain("Paris");
  });

  test("follows a schema", async () => {
    const message = await client().messages.create({
      ...ASKED,
      output_config: {
        format: {
          type: "json_schema",
          schema: {
            type: "object",
            properties: { city: { enum: ["Paris", "Rome"] } },
            required: ["city"],
            additionalProperties: false,
          },
        },
      },
    });

    expect(["Paris", "Rome"]).toContain((JSON.parse(textOf(message)) as { city: string }).city);
  });

  test("has its request's id in the client", async () => {
    const { request_id } = await client().messages.create(ASKED).withResponse();

    expect(request_id).toMatch(/^[\w-]{20,}$/);
  });

  test("of characters that are split over tokens comes whole", async () => {
    const stream = client().messages.stream({ ...ASKED, model: "me/bytes" });
    const pieces: string[] = [];
    stream.on("text", (piece) => pieces.push(piece));
    await stream.done();

    expect(pieces.join("")).toBe(MANY_BYTES);
    expect(pieces.filter((piece) => piece.includes("\uFFFD"))).toEqual([]);
  });
});

describe("tools", () => {
  test.each([false, true])("a round trip; streamed: %p", async (isStreamed) => {
    const ask = (asked: Anthropic.MessageCreateParamsNonStreaming): Promise<Anthropic.Message> =>
      isStreamed ? client().messages.stream(asked).finalMessage() : client().messages.create(asked);

    const called = await ask(WEATHER_ASKED);
    const [call] = called.content;
    if (call?.type !== "tool_use") throw new Error(`no call: ${JSON.stringify(called)}`);
    const answered = await ask({
      ...WEATHER_ASKED,
      messages: [
        ...WEATHER_ASKED.messages,
        { role: "assistant", content: called.content },
        {
          role: "user",
          content: [
            {
              type: "tool_result",
              tool_use_id: call.id,
              content: '{"temperature": 21, "condition": "sunny"}',
            },
          ],
        },
      ],
    });

    expect(called.stop_reason).toBe("tool_use");
    expect(call).toMatchObject({
      id: expect.stringMatching(/^toolu_/),
      name: "get_weather",
      input: { city: "Paris" },
    });
    expect(textOf(answered)).toBe("It is sunny in Paris, with 21 degrees.");
    expect(answered.stop_reason).toBe("end_turn");
  });

  test.each([false, true])("two calls at once; streamed: %p", async (isStreamed) => {
    const asked = { ...WEATHER_ASKED, model: "me/twocalls", max_tokens: 200 };
    const message = isStreamed
      ? await client().messages.stream(asked).finalMessage()
      : await client().messages.create(asked);

    const calls = message.content.filter((block) => block.type === "tool_use");
    expect(calls.map(({ input }) => input)).toEqual([{ city: "Paris" }, { city: "Rome" }]);
    expect(new Set(calls.map(({ id }) => id)).size).toBe(2);
    expect(message.stop_reason).toBe("tool_use");
  });

  test("one of several that must be used is used", async () => {
    const other = { name: "now", input_schema: { type: "object" as const } };
    const message = await client().messages.create({
      ...WEATHER_ASKED,
      tools: [other, WEATHER],
      tool_choice: { type: "tool", name: "get_weather", disable_parallel_tool_use: true },
    });

    expect(message.content).toMatchObject([{ type: "tool_use", name: "get_weather" }]);
  });

  test("none is used where none may be", async () => {
    const message = await client().messages.create({
      ...WEATHER_ASKED,
      tool_choice: { type: "none" },
    });

    expect(message.content.map(({ type }) => type)).not.toContain("tool_use");
  });

  test("streamed arguments are JSON in pieces", async () => {
    const stream = client().messages.stream(WEATHER_ASKED);
    const snapshots: unknown[] = [];
    stream.on("inputJson", (_, snapshot) => snapshots.push(snapshot));
    await stream.done();

    expect(snapshots.length).toBeGreaterThan(2);
    expect(snapshots.at(-1)).toEqual({ city: "Paris" });
  });
});

describe("thinking", () => {
  const asked = { ...ASKED, model: "me/thinker" };

  test("comes before the text, whole and streamed", async () => {
    const whole = await client().messages.create(asked);
    const streamed = await client().messages.stream(asked).finalMessage();

    for (const { content } of [whole, streamed]) {
      expect(content.map(({ type }) => type)).toEqual(["thinking", "text"]);
      expect(content).toMatchObject([
        { thinking: expect.stringContaining("Let me see."), signature: expect.any(String) },
        { text: expect.stringContaining("It is Paris.") },
      ]);
    }
  });

  test("is taken back with the next request", async () => {
    const { content } = await client().messages.create(asked);
    const next = await client().messages.create({
      ...asked,
      messages: [...MESSAGES, { role: "assistant", content }, { role: "user", content: "Sure?" }],
    });

    expect(textOf(next)).toContain("It is Paris.");
  });

  test("that is not to be shown is empty", async () => {
    const { content } = await client().messages.create({
      ...asked,
      thinking: { type: "adaptive", display: "omitted" },
    });

    expect(content).toMatchObject([{ type: "thinking", thinking: "" }, { type: "text" }]);
  });

  test.each([{ type: "disabled" as const }, { type: "enabled" as const, budget_tokens: 8 }])(
    "%j is nothing to fail for, whatever the model can",
    async (thinking) => {
      const message = await client().messages.create({ ...ASKED, thinking });

      expect(textOf(message)).toContain("Paris");
    },
  );
});

describe("aliases", () => {
  test("a name of a hosted model is a model of one's own, and stays the client's name", async () => {
    const model = "claude-sonnet-4-5@20250929";
    const message = await client().messages.create({ ...ASKED, model });
    const streamed = await client()
      .messages.stream({ ...ASKED, model })
      .finalMessage();

    expect(message.model).toBe(model);
    expect(streamed.model).toBe(model);
    expect(textOf(message)).toContain("Paris");
  });

  test("serve every route", async () => {
    const response = await fetch(`${home.url}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ model: "claude-opus", messages: MESSAGES, max_tokens: 4 }),
      proxy: false,
    });

    expect(response.status).toBe(200);
  });

  test("do not hide a model of that name", async () => {
    const message = await client().messages.create({ ...ASKED, model: "me/thinker" });

    expect(message.content[0]?.type).toBe("thinking");
  });

  test("of a model that is not there say so", async () => {
    const error = await failure(client().messages.create({ ...ASKED, model: "claude-gone" }));

    expect(error).toBeInstanceOf(Anthropic.NotFoundError);
    expect((error as Error).message).toContain("me/gone");
    expect((error as Error).message).toContain("claude-gone");
  });

  test("are explained as their models", async () => {
    const { exitCode, stdout } = await home.tug(["explain", "claude-haiku"]);

    expect(exitCode).toBe(0);
    expect(stdout).toContain("context");
  });

  test.each([
    ['aliases = "claude"\n', "`aliases` in config.toml: it is not a table"],
    ['[aliases]\n"a" = 7\n', "`a` is not the name of a model"],
    ['[aliases]\n"cl*ude" = "ai/pebble"\n', "a `*` can only stand at its end"],
  ])("that are none keep the runner from starting: %j", async (text, reason) => {
    await using other = await tugHome();
    await writeFile(join(other.path, "config.toml"), text);

    const { exitCode, stderr } = await other.tug(["serve"]);

    expect(exitCode).toBe(2);
    expect(stderr).toContain(reason);
  });
});

describe("models", () => {
  test("are listed and retrieved, also by an alias", async () => {
    const ids = (await Array.fromAsync(client().models.list())).map(({ id }) => id);
    const one = await client().models.retrieve("claude-haiku");

    expect(ids).toContain("docker.io/ai/pebble:latest");
    expect(one).toMatchObject({ type: "model", id: "docker.io/ai/pebble:latest" });
  });
});

describe("errors", () => {
  test("an unknown model is NotFoundError", async () => {
    const error = await failure(client().messages.create({ ...ASKED, model: "me/absent" }));

    expect(error).toBeInstanceOf(Anthropic.NotFoundError);
    expect(error).toMatchObject({
      status: 404,
      type: "not_found_error",
      requestID: expect.any(String),
      message: expect.stringContaining("[aliases]"),
    });
  });

  test("a wrong field is BadRequestError", async () => {
    const error = await failure(client().messages.create({ ...ASKED, max_tokens: -1 }));

    expect(error).toBeInstanceOf(Anthropic.BadRequestError);
    expect(error).toMatchObject({
      type: "invalid_request_error",
      message: expect.stringContaining("max_tokens"),
    });
  });

  test("a stream that cannot begin fails as a request", async () => {
    const stream = client().messages.stream({ ...ASKED, model: "me/absent" });

    expect(await failure(stream.finalMessage())).toBeInstanceOf(Anthropic.NotFoundError);
  });

  test("an image to a model of text is BadRequestError", async () => {
    const source = { type: "base64" as const, media_type: "image/png" as const, data: PIXEL };
    const content = [{ type: "image" as const, source }];
    const error = await failure(
      client().messages.create({ ...ASKED, messages: [{ role: "user", content }] }),
    );

    expect(error).toBeInstanceOf(Anthropic.BadRequestError);
  });

  test("an image to be fetched is BadRequestError", async () => {
    const source = { type: "url" as const, url: "https://example.com/a.png" };
    const messages = [{ role: "user" as const, content: [{ type: "image" as const, source }] }];
    const error = await failure(client().messages.create({ ...ASKED, messages }));

    expect(error).toBeInstanceOf(Anthropic.BadRequestError);
    expect((error as Error).message).toContain("data:");
  });

  test("a tool of the host is BadRequestError", async () => {
    const tools = [{ type: "web_search_20250305" as const, name: "web_search" as const }];
    const error = await failure(client().messages.create({ ...ASKED, tools }));

    expect(error).toBeInstanceOf(Anthropic.BadRequestError);
    expect((error as Error).message).toContain("web_search_20250305");
  });

  test("a schema that is none is BadRequestError", async () => {
    const input_schema = { type: "object" as const, properties: { a: { type: "banana" } } };
    const tools = [{ name: "a", input_schema }];
    const error = await failure(client().messages.create({ ...ASKED, tools }));

    expect(error).toBeInstanceOf(Anthropic.BadRequestError);
  });

  test("a prompt that is longer than the context is BadRequestError", async () => {
    const messages = [{ role: "user" as const, content: "word ".repeat(50_000) }];
    const error = await failure(client().messages.create({ ...ASKED, messages }));

    expect(error).toBeInstanceOf(Anthropic.BadRequestError);
    expect((error as Error).message).toMatch(/prompt is too long: \d+ tokens > \d+ maximum/);
  });
});

describe("the bytes of a stream", () => {
  const START = `event: message_start
data: {"type":"message_start","message":{"id":"ID","type":"message","role":"assistant","model":"MODEL","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"usage":{"input_tokens":N,"cache_creation_input_tokens":0,"cache_read_input_tokens":N,"output_tokens":0,"service_tier":"standard"}}}

event: ping
data: {"type":"ping"}

`;

  test("of thinking and text, cut off by the limit", async () => {
    expect(await bytesOf({ ...ASKED, model: "me/thinker", max_tokens: 5 })).toBe(
      START +
        eventsOfBlock(0, { type: "thinking", thinking: "", signature: "" }, [
          { type: "thinking_delta", thinking: "Let me " },
          { type: "thinking_delta", thinking: "see." },
          { type: "thinking_delta", thinking: "\n" },
          { type: "signature_delta", signature: "dW5zaWduZWQ=" },
        ]) +
        eventsOfBlock(1, { type: "text", text: "", citations: null }, [
          { type: "text_delta", text: "It is" },
        ]) +
        ending("max_tokens", null),
    );
  });

  test("of text up to a stop sequence", async () => {
    const asked = { ...ASKED, model: "me/endless", stop_sequences: ["w3"] };

    expect(await bytesOf(asked)).toBe(
      START +
        eventsOfBlock(0, { type: "text", text: "", citations: null }, [
          { type: "text_delta", text: "w1 " },
          { type: "text_delta", text: "w2 " },
        ]) +
        ending("stop_sequence", "w3"),
    );
  });
});

describe("a client that leaves", () => {
  test("in the middle of a stream frees the worker", async () => {
    const stream = client().messages.stream({
      ...ASKED,
      model: "me/endless",
      max_tokens: 1500,
    });
    const begun = Promise.withResolvers<undefined>();
    stream.on("text", () => begun.resolve(undefined));
    const ended = failure(stream.done());
    await begun.promise;
    const wasBusy = await isBusy("me/endless");

    stream.abort();

    expect(await ended).toBeInstanceOf(Anthropic.APIUserAbortError);
    expect(wasBusy).toBe(true);
    await eventually(async () => !(await isBusy("me/endless")));
  });
});

/** A PNG of one pixel. */
const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

async function isBusy(name: string): Promise<boolean> {
  const response = await fetch(`${home.url}/engines/ps`, { proxy: false });
  const workers = (await response.json()) as { model_name: string; in_use?: boolean | number }[];
  const found = workers.find(({ model_name }) => model_name.includes(name));
  return found?.in_use === true || Number(found?.in_use ?? 0) > 0;
}

/** What a client gets, but for names and numbers that differ each time. */
async function bytesOf(asked: object): Promise<string> {
  const response = await fetch(`${home.url}/v1/messages`, {
    method: "POST",
    body: JSON.stringify({ ...asked, stream: true }),
    proxy: false,
  });
  return (await response.text())
    .replaceAll(/"msg_[0-9a-f]{32}"/g, '"ID"')
    .replaceAll(/"model":"[^"]+"/g, '"model":"MODEL"')
    .replaceAll(/("(?:cache_read_)?input_tokens":)\d+/g, "$1N")
    .replaceAll(/("output_tokens":)[1-9]\d*/g, "$1N");
}

function eventsOfBlock(index: number, content_block: object, deltas: readonly object[]): string {
  return [
    { type: "content_block_start", index, content_block },
    ...deltas.map((delta) => ({ type: "content_block_delta", index, delta })),
    { type: "content_block_stop", index },
  ]
    .map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`)
    .join("");
}

function ending(reason: string, sequence: string | null): string {
  return `event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"${reason}","stop_sequence":${JSON.stringify(sequence)},"stop_details":null,"container":null},"usage":{"input_tokens":N,"cache_creation_input_tokens":0,"cache_read_input_tokens":N,"output_tokens":N}}

event: message_stop
data: {"type":"message_stop"}

`;
}
