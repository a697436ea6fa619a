import { describe, expect, test } from "bun:test";
import type { ChatEvent } from "../../src/api/chat.ts";
import { renderStatistics, streamAnswer, type Answer } from "../../src/chat/answer.ts";
import { AppError } from "../../src/errors.ts";
import { Emulator } from "../terminal/emulator.ts";
import { memoryStream, type MemoryStream } from "../terminal/streams.ts";

const REQUEST = { model: "m", messages: [] };
const DONE: ChatEvent = { kind: "done", finishReason: "stop", usage: null, timings: null };
const content = (text: string): ChatEvent => ({ kind: "content", text });
const reasoning = (text: string): ChatEvent => ({ kind: "reasoning", text });

type Script = (signal: AbortSignal) => AsyncIterable<ChatEvent>;

const play = (...events: ChatEvent[]): Script =>
  async function* () {
    yield* events;
  };

async function* dying(): AsyncGenerator<ChatEvent> {
  yield content("part");
  throw new AppError("worker_failed", "cannot answer: the engine died");
}

interface Outcome {
  readonly answer: Answer;
  readonly output: MemoryStream;
  readonly errors: MemoryStream;
}

async function run(
  script: Script,
  options: Partial<Parameters<typeof streamAnswer>[0]> & {
    output?: MemoryStream;
    errors?: MemoryStream;
  } = {},
): Promise<Outcome> {
  const { output = memoryStream(), errors = memoryStream() } = options;
  const client = { chat: (_: unknown, { signal }: { signal: AbortSignal }) => script(signal) };
  const signal = options.signal ?? new AbortController().signal;
  const answer = await streamAnswer({
    request: REQUEST,
    showReasoning: true,
    ...options,
    client,
    signal,
    output,
    errors,
  });
  return { answer, output, errors };
}

describe("streamAnswer", () => {
  test("answer: the answer alone goes to stdout and ends in one newline", async () => {
    const { answer, output, errors } = await run(
      play(reasoning("hm"), content("a"), content("b"), DONE),
    );

    expect(output.text).toBe("ab\n");
    expect(errors.text).toBe("Thinking:\nhm\n\n");
    expect(answer).toMatchObject({ text: "ab", outcome: "complete", finishReason: "stop" });
  });

  test("answer: an answer that ends in a newline gets no second one", async () => {
    expect((await run(play(content("a\n"), DONE))).output.text).toBe("a\n");
  });

  test("answer: hidden reasoning is nowhere", async () => {
    const { output, errors } = await run(play(reasoning("hm"), content("a"), DONE), {
      showReasoning: false,
    });

    expect(output.text).toBe("a\n");
    expect(errors.text).toBe("");
  });

  test("answer: nothing at all is nothing on stdout", async () => {
    expect((await run(play(DONE))).output.text).toBe("");
  });

  test("answer: control characters reach a pipe and not a terminal", async () => {
    const script = play(content("a\u001B]0;title\u0007b"), DONE);

    expect((await run(script)).output.text).toBe("a\u001B]0;title\u0007b\n");
    const { output } = await run(script, { output: memoryStream({ isTTY: true }) });
    expect(output.text).toBe("a]0;titleb\n");
  });

  test("answer: an interruption keeps what came", async () => {
    const stop = new AbortController();
    const script: Script = async function* (signal) {
      yield content("part");
      stop.abort();
      signal.throwIfAborted();
    };

    const { answer, output } = await run(script, { signal: stop.signal });

    expect(answer).toMatchObject({ text: "part", outcome: "interrupted" });
    expect(output.text).toBe("part\n");
  });

  test("answer: a stream that ends in silence when cancelled is interrupted", async () => {
    const stop = new AbortController();
    const script: Script = async function* () {
      stop.abort();
      yield* [];
    };

    expect((await run(script, { signal: stop.signal })).answer.outcome).toBe("interrupted");
  });

  test("answer: when nobody reads any more the model is stopped", async () => {
    let isStopped = false;
    const script: Script = async function* () {
      try {
        for (;;) yield content("more ");
      } finally {
        isStopped = true;
      }
    };

    const { answer } = await run(script, { output: memoryStream({ failWith: "EPIPE" }) });

    expect(answer.outcome).toBe("unread");
    expect(isStopped).toBe(true);
  });

  test("answer: a failure after the first words ends the line and is thrown", async () => {
    const output = memoryStream();
    expect(await run(dying, { output }).catch((error: unknown) => error)).toMatchObject({
      code: "worker_failed",
    });
    expect(output.text).toBe("part\n");
  });

  test("answer: an answer cut by the limit of tokens says so on stderr", async () => {
    const { output, errors } = await run(play(content("a"), { ...DONE, finishReason: "length" }));

    expect(output.text).toBe("a\n");
    expect(errors.text).toContain("limit of tokens");
  });

  test("answer: Markdown is rendered at a terminal and left alone in a pipe", async () => {
    const script = play(content("# He"), content("ad\n\nte"), content("xt"), DONE);
    const markdown = true;

    expect((await run(script, { markdown })).output.text).toBe("# Head\n\ntext\n");
    const { output } = await run(script, { markdown, output: memoryStream({ isTTY: true }) });
    expect(new Emulator().write(output.text).lines).toEqual(["Head", "════", "", "text"]);
  });

  test("answer: timings are told when asked for", async () => {
    const timings = {
      prompt_n: 1,
      prompt_per_second: 10,
      predicted_n: 2,
      predicted_per_second: 20.25,
    };
    const { errors } = await run(play(content("a"), { ...DONE, timings }), {
      verbose: true,
    });

    expect(errors.text).toStartWith(
      "1 prompt token (10.0/s), 2 answer tokens (20.3/s), first after ",
    );
  });
});

describe("renderStatistics", () => {
  test("answer: usage stands in for timings that are not there", () => {
    const answer: Answer = {
      text: "",
      outcome: "complete",
      finishReason: null,
      usage: { prompt_tokens: 3, completion_tokens: 1, total_tokens: 4 },
      timings: null,
      firstTokenMs: null,
      totalMs: 1234,
    };

    expect(renderStatistics(answer)).toBe("3 prompt tokens, 1 answer token, 1.2s in all");
  });
});
