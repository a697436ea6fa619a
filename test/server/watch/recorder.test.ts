import { describe, expect, spyOn, test } from "bun:test";
import type { RequestRecord } from "../../../src/api/requests.ts";
import { AppError } from "../../../src/errors.ts";
import { log } from "../../../src/log.ts";
import type { InferenceFacts, InferenceTrace } from "../../../src/server/observer.ts";
import { Capture } from "../../../src/server/watch/capture.ts";
import { Recorder } from "../../../src/server/watch/recorder.ts";
import { answerStream, bytes, facts, lease, MODEL_ID } from "./facts.ts";

/** Records one request. */
function record(
  work: (trace: InferenceTrace) => void,
  overrides: Partial<InferenceFacts> = {},
): RequestRecord {
  const { records, capture } = setUp();
  work(capture.begin(facts(overrides)));
  capture.flush();
  return records[0] as RequestRecord;
}

function setUp() {
  const records: RequestRecord[] = [];
  const recorder = new Recorder({
    add: (one) => void records.push(one),
    settle: () => undefined,
    find: (id) => records.find((one) => one.id === id),
  });
  let nowMs = 1_800_000_000_000;
  const now = (): number => (nowMs += 100);
  return { records, recorder, capture: new Capture({ listeners: [recorder], bodies: true, now }) };
}

function json(trace: InferenceTrace, text: string, status = 200): void {
  trace.responded(status, new Headers({ "content-type": "application/json" }));
  trace.chunk(bytes(text));
  trace.ended();
}

describe("Recorder", () => {
  test("keeps a streamed answer as the one message that it adds up to", () => {
    const kept = record((trace) => {
      trace.acquired(lease(), 42.4);
      answerStream(trace);
      trace.ended();
    });

    expect({ ...kept, response: undefined } as object).toEqual({
      id: "r1",
      model: "pebble",
      model_id: MODEL_ID,
      mode: "completion",
      dialect: "openai",
      backend: "llama.cpp",
      method: "POST",
      url: "/v1/chat/completions",
      stream: true,
      request: '{"model":"pebble","messages":[{"role":"user","content":"hi"}]}',
      request_cut: false,
      media_cut: 0,
      response: undefined,
      response_cut: false,
      error: null,
      timestamp: 1_800_000_000,
      started_at: "2027-01-15T08:00:00.000Z",
      status_code: 200,
      duration_ms: 300,
      queue_ms: 42,
      first_token_ms: 200,
      input_tokens: 5,
      output_tokens: 2,
      finish_reasons: ["stop"],
      user_agent: "test/1",
      origin: null,
    });
    expect(JSON.parse(kept.response ?? "")).toMatchObject({
      choices: [{ message: { content: "Hello world" } }],
    });
  });

  test("never keeps a key, in a header or in the query", () => {
    const kept = record((trace) => trace.ended(), {
      path: "/v1/chat/completions?api_key=hunter2&beta=true&access-token=hunter2",
      headers: new Headers({ authorization: "Bearer hunter2", cookie: "hunter2" }),
    });

    expect(JSON.stringify(kept)).not.toContain("hunter2");
    expect(kept.url).toContain("beta=true");
  });

  test("cuts media of both sides", () => {
    const picture = `data:image/png;base64,${"iVBORw0KGgo".repeat(300)}`;
    const body = bytes(JSON.stringify({ messages: [{ image_url: { url: picture } }] }));

    const kept = record((trace) => json(trace, `{"data":[{"b64_json":"${"QUJD".repeat(500)}"}]}`), {
      body,
    });

    expect([kept.media_cut, kept.request_cut, kept.response_cut]).toEqual([1, false, false]);
    expect(kept.request).toContain("...[truncated 3222 chars]");
    expect(kept.response).toContain("...[truncated 1900 chars]");
    expect(() => JSON.parse(kept.response ?? "")).not.toThrow();
  });

  test("bounds both sides, and says so", () => {
    const long = "word ".repeat(500_000);

    const kept = record(
      (trace) => json(trace, JSON.stringify({ content: long, usage: { completion_tokens: 9 } })),
      {
        body: bytes(JSON.stringify({ prompt: long })),
      },
    );

    expect([kept.request_cut, kept.response_cut]).toEqual([true, true]);
    expect(kept.request.length).toBeLessThan(1_048_700);
    expect(kept.response?.length).toBeLessThan(1_048_700);
    expect(kept.response).toMatch(/truncated \d+ bytes\]$/);
    expect(kept.output_tokens).toBe(9);
  });

  test("keeps of vectors only their beginning", () => {
    const vector = Array.from({ length: 10_000 }, (_, index) => index / 3);

    const kept = record(
      (trace) =>
        json(trace, JSON.stringify({ data: [{ embedding: vector }], usage: { prompt_tokens: 4 } })),
      { mode: "embedding" },
    );

    expect(kept.response?.length).toBeLessThan(5000);
    expect([kept.response_cut, kept.input_tokens]).toEqual([true, 4]);
  });

  test.each([
    ["the client left", new AppError("cancelled", "cannot answer: the client left"), 499],
    ["the queue was full", new AppError("queue_full", "cannot wait: the queue is full"), 429],
  ])("keeps that %s", (_, error, status) => {
    const kept = record((trace) => trace.ended(error));

    expect(kept).toMatchObject({
      status_code: status,
      error: error.message,
      response: null,
      backend: null,
      queue_ms: null,
      first_token_ms: null,
    });
  });

  test("keeps what an engine says went wrong", () => {
    const kept = record((trace) => json(trace, '{"error":{"message":"bad grammar"}}', 400));

    expect(kept).toMatchObject({ status_code: 400, error: "bad grammar" });
  });

  test.each([
    ["HTML", "text/html", "<html>no</html>", "<html>no</html>"],
    ["half a JSON", "application/json", '{"choices":[', '{"choices":['],
  ])("keeps %s as it is", (...[, type, text, response]) => {
    const kept = record((trace) => {
      trace.responded(200, new Headers({ "content-type": type }));
      trace.chunk(bytes(text));
      trace.ended();
    });

    expect(kept.response).toBe(response);
  });

  test("overwrites no record of a client that uses an id twice", () => {
    const { capture, records } = setUp();

    for (let index = 0; index < 3; index += 1) capture.begin(facts()).ended();
    capture.flush();

    expect(new Set(records.map(({ id }) => id)).size).toBe(3);
    expect(records[0]?.id).toBe("r1");
  });

  test("warns once an outage, and still tells its followers", async () => {
    const warned = spyOn(log, "warn").mockImplementation(() => undefined);
    const seen: string[] = [];
    let isFull = true;
    const recorder = new Recorder({
      add: () => {
        if (isFull) throw new AppError("insufficient_storage", "cannot record: the disk is full");
      },
      find: () => undefined,
      settle: () => {
        throw new AppError("insufficient_storage", "cannot settle: the disk is full");
      },
    });
    recorder.follow(({ id }) => void seen.push(id));
    const capture = new Capture({ listeners: [recorder], bodies: true });
    const finish = (id: string): void => {
      capture.begin(facts({ id })).ended();
      capture.flush();
    };

    for (const id of ["a", "b"]) finish(id);
    recorder.idle();
    const during = warned.mock.calls.length;
    isFull = false;
    finish("c");
    isFull = true;
    finish("d");
    const after = warned.mock.calls.length;
    warned.mockRestore();

    expect([during, after]).toEqual([1, 2]);
    expect(seen).toEqual(["a", "b", "c", "d"]);
  });

  test("tells its followers, a bounded number of them", () => {
    const { capture, recorder } = setUp();
    const seen: string[] = [];

    const stop = recorder.follow(({ id }) => void seen.push(id));
    capture.begin(facts({ id: "a" })).ended();
    capture.flush();
    stop?.();
    capture.begin(facts({ id: "b" })).ended();
    capture.flush();
    const more = Array.from({ length: 40 }, () => recorder.follow(() => undefined));

    expect(seen).toEqual(["a"]);
    expect(more.filter((one) => one === undefined)).toHaveLength(8);
  });
});
