import { describe, expect, test } from "bun:test";
import OpenAI from "openai";
import { AppError } from "../../src/errors.ts";
import { thinksForEver } from "../fakes/engine.ts";
import { eventually } from "../helpers/eventually.ts";
import { rejection } from "./fake-deps.ts";
import { says, setUp } from "./responses-setup.ts";

const HELLO = { model: "pebble", input: "hello" };
const says42 = says({ text: ["forty", "-two"] });

describe("a response in the background", () => {
  test("is queued, in progress, and completed, without its client", async () => {
    const loaded = Promise.withResolvers<void>();
    const ready = Promise.withResolvers<void>();
    const script = says({ text: ["done"], until: ready.promise });
    await using it = await setUp(script, { gate: () => loaded.promise });
    const statusOf = async (id: string) => (await it.openai.responses.retrieve(id)).status;

    const begun = await it.openai.responses.create({ ...HELLO, background: true });
    const queued = await statusOf(begun.id);
    loaded.resolve();
    await eventually(async () => (await statusOf(begun.id)) === "in_progress");
    ready.resolve();
    await eventually(async () => (await statusOf(begun.id)) === "completed");

    expect(begun).toMatchObject({ status: "queued", background: true, output: [] });
    expect(queued).toBe("queued");
    expect(await it.openai.responses.retrieve(begun.id)).toMatchObject({ output_text: "done" });
    expect(it.leases.map(({ releases }) => releases)).toEqual([1]);
  });

  test("is cancelled, and frees its worker; cancelling again changes nothing", async () => {
    await using it = await setUp(thinksForEver);
    const { id } = await it.openai.responses.create({ ...HELLO, background: true });
    await eventually(() => it.engine.requests.length === 1);

    const cancelled = await it.openai.responses.cancel(id);
    await eventually(() => it.engine.aborts === 1 && it.leases[0]?.releases === 1);

    expect(cancelled.status).toBe("cancelled");
    expect(await it.openai.responses.cancel(id)).toMatchObject({ status: "cancelled" });
    expect(await it.openai.responses.retrieve(id)).toMatchObject({ status: "cancelled" });
  });

  test("is cancelled while it waits for a worker", async () => {
    await using it = await setUp(says42, { gate: () => new Promise(() => undefined) });
    const { id } = await it.openai.responses.create({ ...HELLO, background: true });

    await it.openai.responses.cancel(id);

    expect(await it.openai.responses.retrieve(id)).toMatchObject({ status: "cancelled" });
  });

  test("that is deleted stays deleted", async () => {
    await using it = await setUp(thinksForEver);
    const { id } = await it.openai.responses.create({ ...HELLO, background: true });
    await eventually(() => it.engine.requests.length === 1);

    await it.openai.responses.delete(id);
    await eventually(() => it.leases[0]?.releases === 1);

    expect(await rejection(it.openai.responses.retrieve(id))).toBeInstanceOf(OpenAI.NotFoundError);
    expect(it.store.find(id)).toBeUndefined();
  });

  test("is followed by another client from where the first one left", async () => {
    const ready = Promise.withResolvers<void>();
    await using it = await setUp(says({ text: ["a", "b"], until: ready.promise }));
    const stream = await it.openai.responses.create({ ...HELLO, background: true, stream: true });
    let id = "";
    const before: string[] = [];
    for await (const one of stream) {
      if (one.type === "response.created") id = one.response.id;
      before.push(one.type);
      if (one.type === "response.output_text.delta") break;
    }

    const rest = await it.openai.responses.retrieve(id, {
      stream: true,
      starting_after: before.length - 1,
    });
    ready.resolve();
    const after: string[] = [];
    for await (const { type } of rest) after.push(type);
    const stored = await it.openai.responses.retrieve(id, { stream: true });
    const all: string[] = [];
    for await (const { type } of stored) all.push(type);

    expect(before.slice(0, 3)).toEqual([
      "response.created",
      "response.queued",
      "response.in_progress",
    ]);
    expect([...before, ...after]).toEqual(all);
    expect(all.at(-1)).toBe("response.completed");
  });

  test("is assembled by the client's helper from its stored stream", async () => {
    await using it = await setUp(says42);
    const { id } = await it.openai.responses.stream({ ...HELLO, background: true }).finalResponse();

    const again = await it.openai.responses.stream({ response_id: id }).finalResponse();

    expect(again.output_text).toBe("forty-two");
  });

  test("that fails says why", async () => {
    await using it = await setUp((exchange) =>
      exchange.json(400, {
        error: { code: 400, message: "no such thing", type: "invalid_request_error" },
      }),
    );
    const { id } = await it.openai.responses.create({ ...HELLO, background: true });

    await eventually(async () => (await it.openai.responses.retrieve(id)).status === "failed");

    expect(await it.openai.responses.retrieve(id)).toMatchObject({
      error: { code: "invalid_prompt", message: expect.stringContaining("no such thing") },
    });
  });

  test("fails with the runner, which its next look finds", async () => {
    await using it = await setUp(thinksForEver);
    const { id } = await it.openai.responses.create({ ...HELLO, background: true });
    await using next = await it.restart();

    const found = await next.openai.responses.retrieve(id);

    expect(found).toMatchObject({ status: "failed", error: { code: "server_error" } });
    expect(next.store.find(id)?.response.status).toBe("failed");
  });

  test("cannot be continued before it is over", async () => {
    await using it = await setUp(thinksForEver);
    const { id } = await it.openai.responses.create({ ...HELLO, background: true });

    const failed = await rejection(
      it.openai.responses.create({ ...HELLO, previous_response_id: id }),
    );

    expect(failed).toBeInstanceOf(OpenAI.BadRequestError);
    expect(failed).toMatchObject({ param: "previous_response_id" });
    await it.openai.responses.cancel(id);
  });

  test("is refused beyond a number of them", async () => {
    await using it = await setUp(thinksForEver);
    const begin = () => it.openai.responses.create({ ...HELLO, background: true });
    const begun = await Promise.all(Array.from({ length: 128 }, begin));

    const refused = await rejection(begin());

    expect(refused).toBeInstanceOf(OpenAI.RateLimitError);
    await Promise.all(begun.map(({ id }) => it.openai.responses.cancel(id)));
    await eventually(() => it.leases.every(({ releases }) => releases === 1));
  });

  test("for a model that is not there is a 404 at once", async () => {
    await using it = await setUp(says42);

    const failed = await rejection(
      it.openai.responses.create({ ...HELLO, model: "absent", background: true }),
    );

    expect(failed).toBeInstanceOf(OpenAI.NotFoundError);
    expect(failed).toMatchObject({ code: "model_not_found" });
  });

  test("ends for those who follow it, also where it can be kept no more", async () => {
    const ready = Promise.withResolvers<void>();
    let isFull = false;
    await using it = await setUp(says({ text: ["a"], until: ready.promise }), {
      wrap: (store) => ({
        find: (id) => {
          if (isFull) throw new AppError("conflict", "cannot find a response: it is locked");
          return store.find(id);
        },
        findItem: (id) => store.findItem(id),
        chain: (id, take) => store.chain(id, take),
        remove: (id) => store.remove(id),
        save: (stored) => {
          if (isFull) throw new AppError("conflict", "cannot keep a response: it is locked");
          return store.save(stored);
        },
      }),
    });

    const types: string[] = [];
    let id = "";
    for await (const one of await it.openai.responses.create({
      ...HELLO,
      background: true,
      stream: true,
    })) {
      if (one.type === "response.created") id = one.response.id;
      if (one.type === "response.output_text.delta") isFull = true;
      if (isFull) ready.resolve();
      types.push(one.type);
    }
    isFull = false;

    expect(types.at(-1)).toBe("response.completed");
    expect(await it.openai.responses.retrieve(id)).toMatchObject({ status: "failed" });
    expect(it.leases.map(({ releases }) => releases)).toEqual([1]);
  });
});
