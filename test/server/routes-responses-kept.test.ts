import { describe, expect, test } from "bun:test";
import OpenAI from "openai";
import { AppError } from "../../src/errors.ts";
import type { KeyScope } from "../../src/api/keys.ts";
import { BodyBudget } from "../../src/server/body-budget.ts";
import { ApiKeys } from "../../src/state/api-keys.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { thinksForEver } from "../fakes/engine.ts";
import { eventually } from "../helpers/eventually.ts";
import { rejection } from "./fake-deps.ts";
import { event, says, setUp } from "./responses-setup.ts";

const HELLO = { model: "pebble", input: "hello" };
const says42 = says({ text: ["forty", "-two"] });

const UNLIMITED = { expiresAtMs: null, maxConcurrent: null, ratePerMinute: null };

const everyWayTo = ({ responses }: OpenAI, id: string, item: string) => ({
  read: () => responses.retrieve(id),
  follow: () => responses.retrieve(id, { stream: true }),
  list: () => responses.inputItems.list(id),
  cancel: () => responses.cancel(id),
  delete: () => responses.delete(id),
  continue: () => responses.create({ ...HELLO, previous_response_id: id }),
  name: () => responses.create({ model: "pebble", input: [{ type: "item_reference", id: item }] }),
});

const said = (content: string) => ({ id: "msg_1", role: "user" as const, content });
const create = (openai: OpenAI, content: string, previous?: string) =>
  openai.responses.create({
    model: "pebble",
    input: [{ type: "message", ...said(content) }],
    ...(previous === undefined ? {} : { previous_response_id: previous }),
  });

/** Three callers of one runner that demands keys. */
async function setUpKeys(script = says42) {
  const state = new StateDatabase(":memory:");
  const keys = new ApiKeys(state);
  const it = await setUp(script, { deps: { keys: () => keys, keyRequired: true } });
  const client = (name: string, scopes: readonly KeyScope[]): OpenAI =>
    it.openai.withOptions({ apiKey: keys.create({ ...UNLIMITED, name, scopes }).key });
  return {
    it,
    ada: client("ada", ["inference"]),
    bob: client("bob", ["inference"]),
    admin: client("boss", ["admin"]),
    async [Symbol.asyncDispose]() {
      await it[Symbol.asyncDispose]();
      state[Symbol.dispose]();
    },
  };
}

describe("what is not kept", () => {
  test("with store: false is nothing", async () => {
    await using it = await setUp(says42);

    const response = await it.openai.responses.create({ ...HELLO, store: false });

    expect(response).toMatchObject({ store: false });
    expect(await rejection(it.openai.responses.retrieve(response.id))).toBeInstanceOf(
      OpenAI.NotFoundError,
    );
  });

  test("is said not to be, if it is too large", async () => {
    await using it = await setUp(says42, { responses: { limits: { maxResponseBytes: 10 } } });

    const response = await it.openai.responses.create(HELLO);

    expect(response).toMatchObject({ status: "completed", store: false });
  });

  test("is said not to be, if it cannot be written", async () => {
    await using it = await setUp(says42, {
      deps: {
        responses: () => ({
          find: () => undefined,
          findItem: () => undefined,
          chain: () => [],
          remove: () => false,
          save: () => {
            throw new AppError("insufficient_storage", "cannot keep a response: the disk is full");
          },
        }),
      },
    });

    const whole = await it.openai.responses.create(HELLO);
    const final = await it.openai.responses.stream(HELLO).finalResponse();
    const background = await rejection(it.openai.responses.create({ ...HELLO, background: true }));

    expect(whole).toMatchObject({ output_text: "forty-two", store: false });
    expect(final).toMatchObject({ output_text: "forty-two", store: false });
    expect(background).toMatchObject({ status: 507 });
  });

  test("is what an engine refuses", async () => {
    await using it = await setUp((exchange) =>
      exchange.json(400, {
        error: { code: 400, message: "bad grammar", type: "invalid_request_error" },
      }),
    );

    const refused = await rejection(it.openai.responses.create(HELLO));
    const streamed = await rejection(it.openai.responses.create({ ...HELLO, stream: true }));

    expect(refused).toBeInstanceOf(OpenAI.BadRequestError);
    expect(streamed).toBeInstanceOf(OpenAI.BadRequestError);
    expect(refused).toMatchObject({ message: expect.stringContaining("bad grammar") });
  });
});

describe("a client that leaves", () => {
  test("a stream: what was said is kept as cancelled, and the worker is free", async () => {
    await using it = await setUp(says({ text: ["half"], until: new Promise(() => undefined) }));
    const stream = await it.openai.responses.create({ ...HELLO, stream: true });
    let id = "";

    for await (const one of stream) {
      if (one.type === "response.created") id = one.response.id;
      if (one.type === "response.output_text.delta") break;
    }
    await eventually(() => it.leases[0]?.releases === 1);

    expect(await it.openai.responses.retrieve(id)).toMatchObject({
      status: "cancelled",
      output: [{ status: "incomplete", content: [{ text: "half" }] }],
    });
  });

  test("a whole answer: nothing is kept, and the worker is free", async () => {
    await using it = await setUp(thinksForEver);
    const controller = new AbortController();

    const asked = rejection(it.openai.responses.create(HELLO, { signal: controller.signal }));
    await eventually(() => it.engine.requests.length === 1);
    controller.abort();

    expect(await asked).toBeInstanceOf(OpenAI.APIUserAbortError);
    await eventually(() => it.leases[0]?.releases === 1 && it.engine.aborts === 1);
  });
});

describe("an engine that breaks off", () => {
  test("fails the response, as its last event, and it is kept as failed", async () => {
    const failure = new AppError("worker_failed", "cannot serve `pebble`: it was killed");
    const heard = Promise.withResolvers<void>();
    await using it = await setUp(
      async (exchange) => {
        exchange.head(200, { "content-type": "text/event-stream" });
        await exchange.chunk(event({ choices: [{ index: 0, delta: { content: "half" } }] }));
        await heard.promise;
        exchange.die();
      },
      { failure },
    );

    const events: OpenAI.Responses.ResponseStreamEvent[] = [];
    for await (const one of await it.openai.responses.create({ ...HELLO, stream: true })) {
      events.push(one);
      if (one.type === "response.output_text.delta") heard.resolve();
    }
    const last = events.at(-1);
    if (last?.type !== "response.failed") throw new Error(`it ended with ${last?.type}`);

    expect(last.response).toMatchObject({
      status: "failed",
      error: { code: "server_error", message: expect.stringContaining("killed") },
      output: [{ status: "incomplete", content: [{ text: "half" }] }],
    });
    expect(await it.openai.responses.retrieve(last.response.id)).toMatchObject({
      status: "failed",
    });
  });

  test("and says why in its stream, says it", async () => {
    await using it = await setUp(async (exchange) => {
      exchange.head(200, { "content-type": "text/event-stream" });
      await exchange.chunk(event({ choices: [{ index: 0, delta: { content: "half" } }] }));
      await exchange.chunk(event({ error: { message: "out of luck", code: 500 } }));
      exchange.end();
    });

    const events = await Array.fromAsync(
      await it.openai.responses.create({ ...HELLO, stream: true }),
    );

    expect(events.at(-1)).toMatchObject({
      type: "response.failed",
      response: { error: { message: expect.stringContaining("out of luck") } },
    });
  });
});

describe("a response that was asked with a key", () => {
  test("is not there for another key, in any way", async () => {
    await using them = await setUpKeys();
    const { id, output } = await them.ada.responses.create(HELLO);

    for (const [way, ask] of Object.entries(everyWayTo(them.bob, id, output[0]?.id ?? ""))) {
      expect(await rejection(ask()), way).toBeInstanceOf(OpenAI.NotFoundError);
    }
    expect(await them.ada.responses.retrieve(id)).toMatchObject({ id });
    expect(them.it.engine.requests).toHaveLength(1);
  });

  test("is not there for another key while it is made", async () => {
    await using them = await setUpKeys(thinksForEver);
    const { id } = await them.ada.responses.create({ ...HELLO, background: true, stream: false });

    for (const [way, ask] of Object.entries(everyWayTo(them.bob, id, "msg_none"))) {
      expect(await rejection(ask()), way).toBeInstanceOf(OpenAI.NotFoundError);
    }
    expect(await them.ada.responses.cancel(id)).toMatchObject({ status: "cancelled" });
  });

  test("is there for its own key and for an administrator's", async () => {
    await using them = await setUpKeys();
    const { id } = await them.ada.responses.create(HELLO);

    const next = await them.ada.responses.create({ ...HELLO, previous_response_id: id });

    expect(next.status).toBe("completed");
    expect(await them.admin.responses.retrieve(id)).toMatchObject({ id });
    expect(await them.admin.responses.delete(id)).toMatchObject({ deleted: true });
  });
});

describe("items with ids of the client's", () => {
  test("are taken as they come, also where an earlier one has the same", async () => {
    await using it = await setUp(says42);
    const { id } = await create(it.openai, "one");

    await create(it.openai, "two", id);

    expect(it.asked()["messages"]).toMatchObject([
      { content: "one" },
      { content: "forty-two" },
      { content: "two" },
    ]);
  });

  test("that the chain has already are left out", async () => {
    await using it = await setUp(says42);
    const { id, output } = await create(it.openai, "one");

    await it.openai.responses.create({
      model: "pebble",
      previous_response_id: id,
      input: [
        { type: "message", ...said("one") },
        ...(output as OpenAI.Responses.ResponseInputItem[]),
        { role: "user", content: "two" },
      ],
    });

    expect(it.asked()["messages"]).toHaveLength(3);
  });
});

test("a conversation counts among the bodies that are held", async () => {
  const bodies = new BodyBudget({ maxBytes: 4000 });
  await using it = await setUp(says42, { deps: { bodies } });
  const { id } = await it.openai.responses.create({ ...HELLO, input: "x".repeat(3000) });
  const next = { ...HELLO, input: "y".repeat(1000), previous_response_id: id };

  const refused = await rejection(it.openai.responses.create(next));

  expect(refused).toMatchObject({ status: 429, code: "queue_full" });
  expect(await it.openai.responses.create(HELLO)).toMatchObject({ status: "completed" });
});
