import { describe, expect, test } from "bun:test";
import {
  CHAT_SHAPE,
  GENERATE_SHAPE,
  type GenerationOptions,
  ollamaGeneration,
} from "../../../src/server/translate/ollama/generation.ts";
import {
  readChat,
  readCompletion,
  readInfill,
} from "../../../src/server/translate/ollama/pieces.ts";
import { StreamTranslator } from "../../../src/server/translate/translation.ts";
import { FakeClock } from "../../fakes/clock.ts";

const MODEL = "pebble";
const TIME = "1970-01-01T00:16:40.000Z";
const FACTS = { waitedMs: 1.5 };
const TIMINGS = { cache_n: 10, prompt_n: 5, prompt_ms: 2.5, predicted_n: 3, predicted_ms: 1.25 };
const USAGE = { prompt_tokens: 15, completion_tokens: 3, total_tokens: 18 };
const COUNTS =
  '"total_duration":0,"load_duration":1500000,"prompt_eval_count":15,"prompt_eval_duration":2500000,' +
  '"eval_count":3,"eval_duration":1250000';

interface Chunk {
  readonly delta?: object;
  readonly finish?: string;
  readonly logprobs?: object;
}

/** As llama-server frames it: pieces, the end, counts in a chunk without choices. */
function chatStream(chunks: readonly Chunk[]): string {
  const events = chunks.map(({ delta = {}, finish = null, logprobs }) => ({
    choices: [{ index: 0, delta, finish_reason: finish, ...(logprobs && { logprobs }) }],
  }));
  return toEvents([...events, { choices: [], usage: USAGE, timings: TIMINGS }]);
}

function toEvents(events: readonly object[]): string {
  return `${events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("")}data: [DONE]\n\n`;
}

function translate(stream: string, options: Partial<GenerationOptions> = {}): string {
  const translation = ollamaGeneration({
    modelName: MODEL,
    read: readChat,
    shape: CHAT_SHAPE,
    clock: new FakeClock(),
    ...options,
  });
  if (translation.stream === undefined) throw new Error("it does not stream");
  const translator = new StreamTranslator(translation.stream, (error) => ({ error }));
  translator.begin(FACTS);
  const decoder = new TextDecoder();
  let text = "";
  for (const event of stream.split(/(?<=\n\n)/)) {
    text += decoder.decode(translator.push(new TextEncoder().encode(event)));
  }
  return text + decoder.decode(translator.end());
}

function whole(answer: object, options: Partial<GenerationOptions> = {}): object {
  const clock = new FakeClock();
  const base = { modelName: MODEL, read: readChat, shape: CHAT_SHAPE, clock };
  const translation = ollamaGeneration({ ...base, ...options });
  clock.advance(20);
  return JSON.parse(JSON.stringify(translation.whole(answer, FACTS))) as object;
}

/** A line of a chat's stream. */
function line(message: string): string {
  return `{"model":"pebble","created_at":"${TIME}","message":{"role":"assistant",${message}},"done":false}\n`;
}

function lastLine(reason = "stop"): string {
  return `{"model":"pebble","created_at":"${TIME}","message":{"role":"assistant","content":""},"done":true,"done_reason":"${reason}",${COUNTS}}\n`;
}

describe("a streamed chat", () => {
  test("is a line a token, and a last one with durations and counts", () => {
    const stream = chatStream([
      { delta: { role: "assistant", content: null } },
      { delta: { content: "Par" } },
      { delta: { content: "is" } },
      { finish: "stop" },
    ]);

    expect(translate(stream)).toBe(line('"content":"Par"') + line('"content":"is"') + lastLine());
  });

  test("thinks in a field of its own", () => {
    const stream = chatStream([
      { delta: { reasoning_content: "Hm" } },
      { delta: { content: "Yes" } },
      { finish: "stop" },
    ]);

    expect(translate(stream)).toBe(
      line('"content":"","thinking":"Hm"') + line('"content":"Yes"') + lastLine(),
    );
    expect(translate(stream, { hidesThinking: true })).toBe(line('"content":"Yes"') + lastLine());
  });

  test("calls a tool in one line, with arguments that are an object", () => {
    const stream = chatStream([
      { delta: { tool_calls: [{ index: 0, id: "c1", function: { name: "f", arguments: "{" } }] } },
      { delta: { tool_calls: [{ index: 0, function: { arguments: '"a":' } }] } },
      { delta: { tool_calls: [{ index: 0, function: { arguments: "1}" } }] } },
      { finish: "tool_calls" },
    ]);

    expect(translate(stream)).toBe(
      line(
        '"content":"","tool_calls":[{"id":"c1","function":{"index":0,"name":"f","arguments":{"a":1}}}]',
      ) + lastLine(),
    );
  });

  test("calls two tools in two lines, the first as soon as it is whole", () => {
    const stream = chatStream([
      { delta: { tool_calls: [{ index: 0, id: "c1", function: { name: "f", arguments: "{}" } }] } },
      { delta: { tool_calls: [{ index: 1, id: "c2", function: { name: "g", arguments: "" } }] } },
      { finish: "tool_calls" },
    ]);

    expect(translate(stream)).toBe(
      line(
        '"content":"","tool_calls":[{"id":"c1","function":{"index":0,"name":"f","arguments":{}}}]',
      ) +
        line(
          '"content":"","tool_calls":[{"id":"c2","function":{"index":1,"name":"g","arguments":{}}}]',
        ) +
        lastLine(),
    );
  });

  test.each(["", '{"a'])("leaves out a call that the limit cut off after %j", (cut) => {
    const stream = chatStream([
      {
        delta: { tool_calls: [{ index: 0, id: "c1", function: { name: "f", arguments: cut } }] },
      },
      { finish: "length" },
    ]);

    expect(translate(stream)).toBe(lastLine("length"));
  });

  test("fails where a call is no JSON though the model was done", () => {
    const stream = chatStream([
      {
        delta: { tool_calls: [{ index: 0, id: "c1", function: { name: "f", arguments: "[1]" } }] },
      },
      { finish: "tool_calls" },
    ]);

    expect(translate(stream)).toBe(
      '{"error":"cannot pass on the model\'s call of a tool: its arguments are no JSON object"}\n',
    );
  });

  test("tells of a token that has no text yet, but not of hidden ones", () => {
    const logprobs = { content: [{ token: "x", logprob: -1 }] };
    const stream = chatStream([
      { delta: { reasoning_content: "hm" }, logprobs },
      { delta: { content: "" }, logprobs },
    ]);
    const lines = translate(stream, { hidesThinking: true }).trimEnd().split("\n");

    expect(lines.map((one) => JSON.parse(one) as object)).toMatchObject([
      { message: { content: "" }, logprobs: [{ token: "x", logprob: -1 }] },
      { done: true },
    ]);
    expect(lines).toHaveLength(2);
  });

  test("says that it ended at the limit", () => {
    const stream = chatStream([{ delta: { content: "a" } }, { finish: "length" }]);

    expect(translate(stream)).toBe(line('"content":"a"') + lastLine("length"));
  });

  test("passes characters of several bytes, and what JSON must escape", () => {
    const stream = chatStream([{ delta: { content: "é🪨" } }, { delta: { content: '"\n<&>' } }]);

    expect(translate(stream)).toBe(
      line('"content":"é🪨"') + line('"content":"\\"\\n<&>"') + lastLine(),
    );
  });

  test("carries logprobs", () => {
    const entry = { id: 7, token: "a", bytes: [97], logprob: -0.5 };
    const logprobs = { content: [{ ...entry, top_logprobs: [entry] }] };

    const [first = ""] = translate(chatStream([{ delta: { content: "a" }, logprobs }])).split("\n");

    const said = { token: "a", logprob: -0.5, bytes: [97] };
    expect(JSON.parse(first)).toMatchObject({ logprobs: [{ ...said, top_logprobs: [said] }] });
  });

  test("that the engine breaks off ends with its error", () => {
    const broken = 'data: {"error":{"code":500,"message":"out of luck"}}\n\n';

    expect(translate(broken)).toBe('{"error":"out of luck"}\n');
  });

  test("keeps a client that waits with a line that says nothing", () => {
    const { stream } = ollamaGeneration({
      modelName: MODEL,
      read: readChat,
      shape: CHAT_SHAPE,
      clock: new FakeClock(),
    });

    expect(stream?.comment?.("loading")).toBe(line('"content":""'));
  });

  test("of an engine that tells nothing has durations only", () => {
    const stream = toEvents([{ choices: [{ index: 0, delta: { content: "a" } }] }]);

    const [, last = ""] = translate(stream).split("\n");

    expect(JSON.parse(last)).toEqual({
      model: MODEL,
      created_at: TIME,
      message: { role: "assistant", content: "" },
      done: true,
      done_reason: "stop",
      total_duration: 0,
      load_duration: 1_500_000,
    });
  });

  test.each([[{ choices: "none" }], [{ choices: [null] }], [{ choices: [{ delta: 1 }] }], [{}]])(
    "takes %p for nothing",
    (event) => {
      expect(
        translate(toEvents([event]))
          .trim()
          .split("\n"),
      ).toHaveLength(1);
    },
  );
});

describe("a whole chat", () => {
  test("has text, thoughts and calls in one message", () => {
    const message = {
      role: "assistant",
      content: "Both:",
      reasoning_content: "two",
      tool_calls: [
        { id: "c1", type: "function", function: { name: "f", arguments: '{"a":1}' } },
        { type: "function", function: { name: "g", arguments: "" } },
        { type: "function", function: { name: "h", arguments: "{}" } },
      ],
    };
    const answer = {
      choices: [{ index: 0, message, finish_reason: "tool_calls" }],
      usage: USAGE,
      timings: TIMINGS,
    };

    expect(whole(answer)).toEqual({
      model: MODEL,
      created_at: "1970-01-01T00:16:40.020Z",
      message: {
        role: "assistant",
        content: "Both:",
        thinking: "two",
        tool_calls: [
          { id: "c1", function: { index: 0, name: "f", arguments: { a: 1 } } },
          { function: { index: 1, name: "g", arguments: {} } },
          { function: { index: 2, name: "h", arguments: {} } },
        ],
      },
      done: true,
      done_reason: "stop",
      total_duration: 20_000_000,
      load_duration: 1_500_000,
      prompt_eval_count: 15,
      prompt_eval_duration: 2_500_000,
      eval_count: 3,
      eval_duration: 1_250_000,
    });
  });

  test("with calls that cannot be read fails", () => {
    const call = { id: "c", function: { name: "f", arguments: "nonsense" } };
    const answer = { choices: [{ message: { tool_calls: [call] }, finish_reason: "stop" }] };

    expect(() => whole(answer)).toThrow("no JSON object");
  });

  test.each([[{}], [{ choices: [] }], [{ choices: [{ message: { content: 5 } }] }]])(
    "of %p is empty",
    (answer) => {
      expect(whole(answer)).toMatchObject({ message: { content: "" }, done_reason: "stop" });
    },
  );
});

describe("a prompt", () => {
  test("is answered in `response`", () => {
    const stream = chatStream([
      { delta: { reasoning_content: "Hm" } },
      { delta: { content: "a" } },
      { finish: "stop" },
    ]);
    const head = `{"model":"pebble","created_at":"${TIME}"`;

    expect(translate(stream, { shape: GENERATE_SHAPE })).toBe(
      `${head},"response":"","thinking":"Hm","done":false}\n` +
        `${head},"response":"a","done":false}\n` +
        `${head},"response":"","done":true,"done_reason":"stop",${COUNTS}}\n`,
    );
  });

  test("that is raw is answered from completions", () => {
    const options = { shape: GENERATE_SHAPE, read: readCompletion };
    const stream = toEvents([
      { choices: [{ text: "a", index: 0, finish_reason: null }] },
      { choices: [{ text: "", finish_reason: "length" }], usage: USAGE, timings: TIMINGS },
    ]);

    const lines = translate(stream, options).trim().split("\n");

    expect(lines.map((one) => JSON.parse(one) as object)).toMatchObject([
      { response: "a", done: false },
      { response: "", done: true, done_reason: "length", eval_count: 3 },
    ]);
    expect(whole({ choices: [{ text: "ab", finish_reason: "stop" }] }, options)).toMatchObject({
      response: "ab",
      done_reason: "stop",
    });
  });

  test("that is filled in is answered from llama-server's own words", () => {
    const options = { shape: GENERATE_SHAPE, read: readInfill };
    const end = { stop: true, stop_type: "limit", tokens_evaluated: 9, tokens_predicted: 2 };
    const stream = toEvents([
      { content: "a", stop: false, tokens_evaluated: 9, tokens_predicted: 1 },
      { content: "", ...end, timings: TIMINGS },
    ]);

    const lines = translate(stream, options).trim().split("\n");

    expect(lines.map((one) => JSON.parse(one) as object)).toMatchObject([
      { response: "a", done: false },
      { response: "", done_reason: "length", prompt_eval_count: 9, eval_count: 2 },
    ]);
    expect(whole({ content: "ab", ...end, stop_type: "eos" }, options)).toMatchObject({
      response: "ab",
      done_reason: "stop",
      prompt_eval_count: 9,
    });
  });
});
