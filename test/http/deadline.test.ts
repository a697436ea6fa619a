import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { startDeadline, watchedBody } from "../../src/http/deadline.ts";
import { rejectionOf } from "./failure-of.ts";

beforeEach(() => void jest.useFakeTimers());
afterEach(() => void jest.useRealTimers());

describe("startDeadline", () => {
  test("it aborts when the time is over", () => {
    const deadline = startDeadline(100);

    jest.advanceTimersByTime(99);
    const before = deadline.signal.aborted;
    jest.advanceTimersByTime(1);

    expect([before, deadline.signal.aborted]).toEqual([false, true]);
  });

  test("what feeds it lets it begin anew", () => {
    const deadline = startDeadline(100);

    jest.advanceTimersByTime(60);
    deadline.feed();
    jest.advanceTimersByTime(60);
    const after120 = deadline.signal.aborted;
    jest.advanceTimersByTime(40);

    expect([after120, deadline.signal.aborted]).toEqual([false, true]);
  });

  test("stopped, it never aborts, whatever feeds it", () => {
    const deadline = startDeadline(100);

    deadline.stop();
    deadline.feed();
    jest.advanceTimersByTime(1000);

    expect(deadline.signal.aborted).toBe(false);
  });
});

function counting() {
  let fed = 0;
  const deadline = { ...startDeadline(100), feed: () => void (fed += 1) };
  return { deadline, fed: () => fed };
}

describe("watchedBody", () => {
  test("every chunk of a stream feeds the deadline, and nothing is read ahead", async () => {
    const { deadline, fed } = counting();
    let pulled = 0;
    const source = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          pulled += 1;
          if (pulled > 2) controller.close();
          else controller.enqueue(Buffer.from("x"));
        },
      },
      { highWaterMark: 0 },
    );

    const { body } = watchedBody(source, deadline);
    const before = pulled;
    const read = await new Response(body as ReadableStream<Uint8Array>).text();

    expect(before).toBe(0);
    expect(read).toBe("xx");
    expect(fed()).toBe(3);
  });

  test("what the stream fails with is remembered", async () => {
    const { deadline } = counting();
    const broken = new Error("broken");
    const watched = watchedBody(
      new ReadableStream({ pull: (controller) => controller.error(broken) }),
      deadline,
    );

    await rejectionOf(new Response(watched.body as ReadableStream<Uint8Array>).text());

    expect(watched.failure).toEqual({ error: broken });
  });

  test("leaving the body leaves the stream", async () => {
    const { deadline } = counting();
    let left: unknown;
    const watched = watchedBody(
      new ReadableStream({ cancel: (reason) => void (left = reason) }),
      deadline,
    );

    await (watched.body as ReadableStream<Uint8Array>).cancel("enough");

    expect(left).toBe("enough");
  });

  test("what is no stream passes as it is", () => {
    const { deadline } = counting();

    expect(watchedBody("text", deadline).body).toBe("text");
  });
});
