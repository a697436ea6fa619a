import { describe, expect, test } from "bun:test";
import type { ChatEvent } from "../../src/api/chat.ts";
import { chatEvents, followProgress } from "../../src/client/stream.ts";

const ANSWER = [
  ': ok\n\ndata: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n',
  'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n',
  'data: {"choices":[{"delta":{"content":"Grüße "}}]}\r\n\r\n',
  'data: {"choices":[{"delta":{"content":"🎉"},"finish_reason":"stop"}]}\n\n',
  'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3},"timings":{"predicted_n":2}}\n\n',
  "data: [DONE]\n\n",
].join("");

const EVENTS: readonly ChatEvent[] = [
  { kind: "reasoning", text: "hm" },
  { kind: "content", text: "Grüße " },
  { kind: "content", text: "🎉" },
  {
    kind: "done",
    finishReason: "stop",
    usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 },
    timings: { predicted_n: 2 },
  },
];

/** A response that arrives in two pieces, cut at byte `at`. */
function cutResponse(text: string, at: number, type = "text/event-stream"): Response {
  const bytes = new TextEncoder().encode(text);
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(bytes.slice(0, at));
      controller.enqueue(bytes.slice(at));
      controller.close();
    },
  });
  return new Response(body, { headers: { "content-type": type } });
}

describe("chatEvents", () => {
  test("gives the same events wherever the stream is cut", async () => {
    const length = new TextEncoder().encode(ANSWER).length;

    for (let at = 0; at <= length; at += 1) {
      expect(await Array.fromAsync(chatEvents(cutResponse(ANSWER, at)))).toEqual([...EVENTS]);
    }
  });

  test("gives a whole completion the same way", async () => {
    const body = {
      choices: [{ message: { content: "Hi" }, finish_reason: "length" }],
      usage: null,
    };

    const events = await Array.fromAsync(chatEvents(Response.json(body)));

    expect(events).toEqual([
      { kind: "content", text: "Hi" },
      { kind: "done", finishReason: "length", usage: null, timings: null },
    ]);
  });

  test("throws the error that a failing engine sends", () => {
    const text = 'data: {"error":{"code":"worker_failed","message":"cannot go on: it died"}}\n\n';

    expect(Array.fromAsync(chatEvents(cutResponse(text, 0)))).rejects.toMatchObject({
      code: "worker_failed",
      message: "cannot go on: it died",
    });
  });

  test("does not take a stream that was cut off for a whole answer", () => {
    const text = 'data: {"choices":[{"delta":{"content":"Once upon"}}]}\n\n';

    expect(Array.fromAsync(chatEvents(cutResponse(text, 0)))).rejects.toMatchObject({
      code: "worker_failed",
    });
  });
});

describe("followProgress", () => {
  const LINES = [
    '{"type":"progress","id":"a","phase":"copying","done_bytes":1,"total_bytes":2}\n',
    '{"type":"warning","message":"ä"}\n\n',
    '{"type":"success","result":{"id":"x"}}\n',
  ].join("");

  test("reports every event and returns the result, wherever the stream is cut", async () => {
    const length = new TextEncoder().encode(LINES).length;

    for (let at = 0; at <= length; at += 1) {
      const seen: unknown[] = [];
      const response = cutResponse(LINES, at, "application/x-ndjson");
      const result = await followProgress<{ id: string }>(response, (event) => seen.push(event));
      expect(result).toEqual({ id: "x" });
      expect(seen).toHaveLength(2);
    }
  });

  test("throws the error it ends with, as it was thrown on the other side", () => {
    const line =
      '{"type":"error","error":{"code":"model_not_found","message":"no","hint":"look"}}\n';

    expect(followProgress(cutResponse(line, 3), () => {})).rejects.toMatchObject({
      code: "model_not_found",
      hint: "look",
    });
  });

  test("says that the runner went away if there is no last line", () => {
    expect(followProgress(cutResponse("", 0), () => {})).rejects.toMatchObject({
      code: "runner_unreachable",
    });
  });
});
