import { describe, expect, test } from "bun:test";
import { AppError } from "../../../src/errors.ts";
import { Capture } from "../../../src/server/watch/capture.ts";
import { eventually } from "../../helpers/eventually.ts";
import { answerStream, bytes, facts, keeper, lease } from "./facts.ts";

/** A clock that goes a second at each look. */
function ticking(): () => number {
  let ms = 1_800_000_000_000;
  return () => (ms += 1000);
}

describe("Capture", () => {
  test("hands over what happened, once, behind the end of the answer", async () => {
    const listener = keeper();
    const capture = new Capture({ listeners: [listener], bodies: true, now: ticking() });

    const trace = capture.begin(facts());
    trace.acquired(lease(), 250);
    answerStream(trace);
    trace.ended();
    const before = listener.all.length;
    await eventually(() => listener.all.length > 0);

    expect(before).toBe(0);
    const [request, ...others] = listener.all;
    expect(others).toEqual([]);
    expect(request).toMatchObject({
      id: "r1",
      status: 200,
      userAgent: "test/1",
      error: undefined,
      worker: { id: 7, backend: "llama.cpp", waitedMs: 250, acquiredMs: 1_800_000_001_000 },
      firstChunkMs: 1_800_000_002_000,
      endedMs: 1_800_000_003_000,
    });
    expect(request?.answer.outputTokens).toBe(2);
    expect(JSON.stringify(request)).not.toContain("secret");
  });

  test("tells of one a turn, and says when nobody is being answered any more", async () => {
    const said: string[] = [];
    const listener = {
      finished: ({ id }: { id: string }) => {
        said.push(id);
        setImmediate(() => said.push(`after ${id}`));
      },
      idle: () => void said.push("idle"),
    };
    const capture = new Capture({ listeners: [listener], bodies: false });
    const [a, b, c] = ["a", "b", "c"].map((id) => capture.begin(facts({ id })));

    a?.ended();
    b?.ended();
    await eventually(() => said.includes("after b"));
    const before = [...said];
    c?.ended();
    await eventually(() => said.includes("after c"));

    expect(before).toEqual(["a", "after a", "b", "after b"]);
    expect(said.slice(before.length)).toEqual(["c", "idle", "after c"]);
  });

  test("tells nothing while others are answered, unless much has ended", async () => {
    const listener = keeper();
    const capture = new Capture({ listeners: [listener], bodies: false });
    capture.begin(facts({ id: "long" }));
    const few = Array.from({ length: 31 }, (_, index) => capture.begin(facts({ id: `r${index}` })));

    for (const trace of few) trace.ended();
    await new Promise((resolve) => setImmediate(resolve));
    const before = listener.all.length;
    capture.begin(facts({ id: "r31" })).ended();
    await eventually(() => listener.all.length === 32);

    expect(before).toBe(0);
    expect(listener.all.map(({ id }) => id)).toEqual(
      Array.from({ length: 32 }, (_, index) => `r${index}`),
    );
  });

  test("does not take the comments of a wait for the first token", () => {
    const listener = keeper();
    const capture = new Capture({ listeners: [listener], bodies: false, now: ticking() });

    const trace = capture.begin(facts());
    trace.responded(200, new Headers({ "content-type": "text/event-stream" }));
    trace.chunk(bytes(": loading\n\n"));
    trace.ended(new AppError("cancelled", "cannot answer: the client left"));
    capture.flush();

    expect(listener.all[0]).toMatchObject({ firstChunkMs: undefined, status: 499 });
  });

  test("counts requests that are being answered", () => {
    const capture = new Capture({ listeners: [], bodies: false });

    const first = capture.begin(facts());
    capture.begin(facts());
    first.ended();

    expect(capture.active).toBe(1);
  });

  test("keeps no body unless bodies are wanted", () => {
    const listener = keeper();
    const capture = new Capture({ listeners: [listener], bodies: false });

    capture.begin(facts()).ended();
    capture.flush();

    expect(listener.all[0]?.request).toBeUndefined();
  });

  test("lets go of a long body at once: it is cut before the answer begins", () => {
    const listener = keeper();
    const capture = new Capture({ listeners: [listener], bodies: true });
    const body = bytes(JSON.stringify({ image: "QUJD".repeat(200_000) }));

    const trace = capture.begin(facts({ body }));
    body.fill(0x78);
    trace.ended();
    capture.flush();

    expect(listener.all[0]?.request).toMatchObject({ mediaCut: 1, isCut: false });
    expect(listener.all[0]?.request?.text).toStartWith('{"image":"QUJD');
  });

  test("tells the others what one of them does not take", () => {
    const listener = keeper();
    const broken = {
      finished: () => {
        throw new Error("full");
      },
    };
    const capture = new Capture({ listeners: [broken, listener], bodies: false });

    capture.begin(facts()).ended();
    capture.flush();

    expect(listener.all).toHaveLength(1);
  });

  test("reads no compressed answer", () => {
    const listener = keeper();
    const capture = new Capture({ listeners: [listener], bodies: true });

    const trace = capture.begin(facts());
    const type = { "content-type": "application/json", "content-encoding": "gzip" };
    trace.responded(200, new Headers(type));
    trace.chunk(new Uint8Array([0x1f, 0x8b, 0xff]));
    trace.ended();
    capture.flush();

    expect(listener.all[0]?.answer).toMatchObject({ body: undefined, outputTokens: null });
  });
});
