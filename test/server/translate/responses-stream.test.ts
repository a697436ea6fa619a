import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { ResponseObject } from "../../../src/api/responses.ts";
import { ResponseAnswer } from "../../../src/server/translate/responses/answer.ts";
import type { MakeId } from "../../../src/server/translate/responses/ids.ts";
import { toEcho } from "../../../src/server/translate/responses/request.ts";
import type { ChatChunk } from "../../../src/server/translate/chat.ts";
import { StreamTranslator } from "../../../src/server/translate/translation.ts";
import { deltas, event, type Said, whole } from "../responses-setup.ts";

const FIXTURES = join(import.meta.dir, "..", "..", "fixtures", "responses");
const NOW = 1_800_000_000;
const USAGE = { prompt_tokens: 9, completion_tokens: 3, total_tokens: 12 };
const CALL = { name: "get_weather", args: ['{"city":', '"Paris"}'] };

interface MadeOptions {
  readonly asSummary?: boolean;
  readonly sealed?: boolean;
  readonly background?: boolean;
}

function make({ asSummary = false, sealed = false, background = false }: MadeOptions = {}) {
  let count = 0;
  const makeId: MakeId = (kind) => `${kind}_${(count += 1)}`;
  const ended: ResponseObject[] = [];
  const told: string[] = [];
  const response: ResponseObject = {
    id: "resp_1",
    object: "response",
    created_at: NOW,
    status: background ? "queued" : "in_progress",
    completed_at: null,
    error: null,
    incomplete_details: null,
    output: [],
    usage: null,
    ...toEcho({ model: "pebble", input: "hello", background }),
  };
  const answer = new ResponseAnswer({
    response,
    makeId,
    asSummary,
    sealed,
    now: () => NOW + 2,
    ended: (over) => {
      ended.push(over);
      return over;
    },
    told: (text) => void told.push(text),
  });
  const translator = new StreamTranslator(answer.stream, (message) => ({ error: { message } }));
  const push = (chunk: object): string => decode(translator.push(Buffer.from(event(chunk))));
  const say = (said: Said): string =>
    deltas(said)
      .map((delta) => push({ choices: [{ index: 0, delta }] }))
      .join("");
  const finish = (reason = "stop"): string =>
    push({ choices: [{ index: 0, delta: {}, finish_reason: reason }] }) +
    push({ choices: [], usage: USAGE }) +
    decode(translator.end());
  return { answer, translator, push, say, finish, ended, told };
}

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

async function expectGolden(name: string, text: string): Promise<void> {
  const file = Bun.file(join(FIXTURES, `${name}.sse`));
  if (process.env["WRITE_FIXTURES"] === "1") await file.write(text);
  expect(text).toBe(await file.text());
}

describe("a stream, byte for byte", () => {
  const SAID: readonly { name: string; said: Said; reason?: string; options?: MadeOptions }[] = [
    { name: "text", said: { text: ["Hello", ", world"] } },
    { name: "reasoning-and-text", said: { reasoning: ["Let me ", "think."], text: ["42"] } },
    {
      name: "reasoning-summary",
      said: { reasoning: ["Let me"], text: ["42"] },
      options: { asSummary: true },
    },
    {
      name: "reasoning-sealed",
      said: { reasoning: ["hm"], text: ["42"] },
      options: { sealed: true },
    },
    { name: "one-call", said: { calls: [CALL] }, reason: "tool_calls" },
    {
      name: "text-and-two-calls",
      said: { text: ["Wait."], calls: [CALL, { ...CALL, args: ["{}"] }] },
      reason: "tool_calls",
    },
    {
      name: "call-without-arguments",
      said: { calls: [{ ...CALL, args: [] }] },
      reason: "tool_calls",
    },
    { name: "multi-byte", said: { text: ["né", "é", "日本", "👩‍👩‍👧"] } },
    { name: "length", said: { text: ["too lo"] }, reason: "length" },
    { name: "nothing", said: {} },
    { name: "background", said: { text: ["ok"] }, options: { background: true } },
  ];

  test.each(SAID)("$name", async ({ name, said, reason, options }) => {
    const { say, finish, told } = make(options);

    const text = say(said) + finish(reason);

    await expectGolden(name, text);
    expect(told.join("")).toBe(text);
  });

  test("failure", async () => {
    const { answer, say, ended } = make();

    const text =
      say({ text: ["half"] }) +
      answer.stream.fail({ error: { message: "it died", type: "server_error" } });

    await expectGolden("failure", text);
    expect(ended).toMatchObject([{ status: "failed" }]);
  });

  test("failure before anything was said", async () => {
    const { answer } = make();

    const text = answer.stream.fail({
      error: { message: "too long", type: "invalid_request_error" },
    });

    await expectGolden("failure-at-once", text);
  });
});

describe("a client that goes", () => {
  test("leaves what was said, as cancelled, once", () => {
    const { translator, say, finish, ended } = make();
    say({ text: ["half"] });

    translator.left();
    translator.left();

    expect(finish()).toBe("");
    expect(ended).toMatchObject([
      { status: "cancelled", output: [{ status: "incomplete", content: [{ text: "half" }] }] },
    ]);
  });

  test("cannot fail afterwards", () => {
    const { answer, ended } = make();
    answer.cancel();

    expect(answer.stream.fail({})).toBe("");
    expect(answer.stream.push({ choices: [{ delta: { content: "x" } }] })).toBe("");
    expect(answer.stream.end()).toBe("");
    expect(ended).toHaveLength(1);
  });
});

describe("a whole answer", () => {
  const SAID: readonly Said[] = [
    { text: ["Hello"] },
    { reasoning: ["hm"], text: ["42"] },
    {
      calls: [
        { ...CALL, id: "a" },
        { ...CALL, id: "b" },
      ],
      finish: "tool_calls",
    },
    { text: ["too lo"], finish: "length" },
    {},
  ];

  test.each(SAID)("is what a stream of it ends with: %j", (said) => {
    const streamed = make();
    streamed.say(said);
    streamed.finish(said.finish);

    const made = make().answer.whole({ ...whole(said), usage: USAGE });

    expect(made).toEqual(streamed.answer.response);
  });

  test("without choices is an empty response", () => {
    expect(make().answer.whole({})).toMatchObject({ status: "completed", output: [], usage: null });
  });
});

describe("what engines say strangely", () => {
  test("a call without an id gets one", () => {
    const { say, answer } = make();

    say({ calls: [{ ...CALL, id: "" }] });

    expect(answer.response.output).toMatchObject([{ call_id: "call_2" }]);
  });

  test("pieces of calls in no order fail the response", () => {
    const { say, push, ended } = make();
    say({ calls: [CALL, CALL] });

    const text = push({
      choices: [{ delta: { tool_calls: [{ index: 0, function: { arguments: "x" } }] } }],
    });

    expect(text).toContain("event: response.failed");
    expect(ended).toMatchObject([{ status: "failed" }]);
  });

  test("text after a call is another message", () => {
    const { say, finish, push, answer } = make();
    say({ text: ["a"], calls: [CALL] });

    push({ choices: [{ delta: { content: "b" } }] });
    finish();

    expect(answer.response.output.map(({ type }) => type)).toEqual([
      "message",
      "function_call",
      "message",
    ]);
  });

  test("other choices, nulls and odd members are left out", () => {
    const { push, finish, answer } = make();

    push({ choices: [{ index: 1, delta: { content: "no" } }] });
    push({ choices: [{ delta: { content: null, reasoning_content: null, tool_calls: null } }] });
    push({ usage: null, timings: {} });
    push({} satisfies ChatChunk);
    finish();

    expect(answer.response).toMatchObject({ status: "completed", output: [] });
  });

  test("probabilities are passed on, of those that are there", () => {
    const { push, finish, answer } = make();
    const top = { token: "b", logprob: -2, bytes: [98] };

    push({
      choices: [
        {
          delta: { content: "a" },
          logprobs: {
            content: [{ token: "a", logprob: -0.5, bytes: null, top_logprobs: [top, 3] }],
          },
        },
      ],
    });
    push({ choices: [{ delta: { content: "b" }, logprobs: { content: 7 } }] });
    finish();

    expect(answer.response.output).toMatchObject([
      {
        content: [{ logprobs: [{ token: "a", bytes: [97], logprob: -0.5, top_logprobs: [top] }] }],
      },
    ]);
  });
});
