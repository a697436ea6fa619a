/** What clients send that no client should, and when they go: on real sockets, over a fake engine. */
import { connect, type Socket } from "node:net";
import { describe, expect, test } from "bun:test";
import { BodyBudget } from "../../src/server/body-budget.ts";
import { speaks, speaksForEver, thinksForEver } from "../fakes/engine.ts";
import { eventually } from "../helpers/eventually.ts";
import { fakeRuntime } from "./fake-deps.ts";
import { errorOf, openaiSetup, type OpenaiSetup, says } from "./openai-setup.ts";

const CHAT = "/v1/chat/completions";
const QUESTION = [{ role: "user", content: "Why?" }];
const MIB = 1024 * 1024;

/** A connection of which the test says every byte. */
class RawClient implements Disposable {
  readonly #socket: Socket;
  received = "";
  isClosed = false;

  constructor({ listening }: Pick<OpenaiSetup, "listening">) {
    const { port } = new URL(listening.endpoint ?? "");
    this.#socket = connect(Number(port), "127.0.0.1");
    this.#socket.on("data", (bytes) => (this.received += bytes.toString()));
    this.#socket.on("close", () => (this.isClosed = true));
    this.#socket.on("error", () => undefined);
  }

  head(path: string, headers: Readonly<Record<string, string | number>>): void {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    this.write(`POST ${path} HTTP/1.1\r\nhost: localhost\r\n${lines.join("")}\r\n`);
  }

  write(text: string): void {
    this.#socket.write(text);
  }

  leave(): void {
    this.#socket.destroy();
  }

  [Symbol.dispose](): void {
    this.leave();
  }
}

describe("a body", () => {
  test("bad input: a length of 300 MiB is refused before anything of it has come", async () => {
    await using it = await openaiSetup(says({}));
    using client = new RawClient(it);

    client.head(CHAT, { "content-length": 300 * MIB });

    await eventually(() => client.received.includes("\r\n\r\n"));
    expect(client.received).toStartWith("HTTP/1.1 413");
    expect(client.received).toContain(`"code":"request_too_large"`);
  });

  test("bad input: a body of no known length is refused when it exceeds the limit", async () => {
    const bodies = new BodyBudget({ maxBodyBytes: 100_000 });
    await using it = await openaiSetup(says({}), { bodies });
    using client = new RawClient(it);
    const chunk = `2710\r\n${"x".repeat(10_000)}\r\n`;

    client.head(CHAT, { "transfer-encoding": "chunked" });
    for (let sent = 0; sent < 12; sent += 1) client.write(chunk);

    await eventually(() => client.received.includes("\r\n\r\n"));
    expect(client.received).toStartWith("HTTP/1.1 413");
    using whole = bodies.open();
    expect(() => whole.take(1024 * MIB)).not.toThrow();
  });

  test("bad input: one within the limit of the configuration is taken", async () => {
    const bodies = new BodyBudget({ maxBodyBytes: 3 * MIB });
    await using it = await openaiSetup(says({}), { bodies });

    expect((await it.post(CHAT, chatOf(2 * MIB))).status).toBe(200);
    expect((await it.post(CHAT, chatOf(3 * MIB))).status).toBe(413);
  });

  test.each<[string, string | Uint8Array<ArrayBuffer>]>([
    ["nothing", ""],
    ["no JSON", "{"],
    ["a list", "[]"],
    ["null", "null"],
    ["a number that is none", '{"model":"pebble","temperature":NaN}'],
    ["broken UTF-8", new Uint8Array([0x7b, 0x22, 0xc3, 0x28, 0x22, 0x3a, 0x31, 0x7d])],
    ["half a surrogate in UTF-8", new Uint8Array([0x22, 0xed, 0xa0, 0x80, 0x22])],
    ["100,000 lists in one another", `{"model":"pebble","x":${"[".repeat(100_000)}`],
    ["10,000 objects in one another", `{"model":"pebble","x":${'{"a":'.repeat(10_000)}`],
    ["a prototype", '{"__proto__":{"model":"pebble"}}'],
    ["a model with a NUL", '{"model":"\\u0000"}'],
    ["a model that goes up", '{"model":"../../etc/passwd"}'],
    ["a model of a megabyte", JSON.stringify({ model: "m".repeat(MIB) })],
  ])("bad input: %s is refused as OpenAI does, and no worker is asked", async (_, body) => {
    await using it = await openaiSetup(says({}));

    const response = await it.post(CHAT, "", { body });

    expect([400, 404]).toContain(response.status);
    const error = await errorOf(response);
    expect(error).toMatchObject({ message: expect.any(String), type: expect.any(String) });
    expect(String(error["message"]).length).toBeLessThan(1000);
    expect(it.runtime.acquired).toHaveLength(0);
  });

  test("bad input: half a surrogate as an escape reaches the engine as it was written", async () => {
    await using it = await openaiSetup(says({}));
    const body = '{"model":"pebble","messages":[{"role":"user","content":"\\ud800"}]}';

    await it.post(CHAT, body);

    expect(it.engine.requests[0]?.body).toBe(body);
  });

  test("bad input: of two models the last counts, for Tug and for the engine", async () => {
    await using it = await openaiSetup(says({}));
    const body = '{"model":"nobody","model":"pebble","messages":[{"role":"user","content":"a"}]}';

    expect((await it.post(CHAT, body)).status).toBe(200);
    expect(it.engine.requests[0]?.body).toBe(body);
  });

  test("bad input: errors have the client's request id", async () => {
    await using it = await openaiSetup(says({}));
    const init = { headers: { "x-request-id": "mine" } };

    const answers = await Promise.all([
      it.post(CHAT, "{", init),
      it.post(CHAT, { model: "nobody" }, init),
      it.post("/v1/nothing", {}, init),
      it.post("/v1/audio/speech", {}, init),
      it.post("/v1/models", {}, init),
    ]);

    expect(answers.map(({ status }) => status)).toEqual([400, 404, 404, 501, 405]);
    expect(answers.map(({ headers }) => headers.get("x-request-id"))).toEqual(
      answers.map(() => "mine"),
    );
  });
});

describe("a client that leaves", () => {
  const BODY = JSON.stringify({ model: "pebble", messages: QUESTION, stream: true });
  const WHOLE = JSON.stringify({ model: "pebble", messages: QUESTION });

  test("bad input: in the middle of its body, leaves nothing behind", async () => {
    const bodies = new BodyBudget({ maxBytes: 200_000 });
    await using it = await openaiSetup(says({}), { bodies });
    using client = new RawClient(it);

    client.head(CHAT, { "content-length": 200_000 });
    client.write("x".repeat(100_000));
    await eventually(() => !hasRoom(bodies, 200_000));
    client.leave();

    await eventually(() => hasRoom(bodies, 200_000));
    expect(it.runtime.acquired).toHaveLength(0);
  });

  test.each([
    ["a stream", BODY],
    ["a whole answer", WHOLE],
  ])("bad input: that waits for a worker for %s waits no more", async (_, body) => {
    const signals: AbortSignal[] = [];
    const runtime = fakeRuntime({
      acquire: ({ signal }) => {
        if (signal !== undefined) signals.push(signal);
        return new Promise((_resolve, reject) =>
          signal?.addEventListener("abort", () => reject(signal.reason as Error)),
        );
      },
    });
    await using it = await openaiSetup(says({}), { runtime });
    using client = new RawClient(it);

    send(client, body);
    await eventually(() => signals.length === 1);
    client.leave();

    await eventually(() => signals[0]?.aborted === true);
    await eventually(() => it.listening.pendingRequests() === 0);
  });

  test.each([
    ["a stream", BODY],
    ["a whole answer", WHOLE],
  ])("bad input: before the first byte of %s, frees the worker once", async (_, body) => {
    await using it = await openaiSetup(thinksForEver);
    using client = new RawClient(it);

    send(client, body);
    await eventually(() => it.engine.requests.length === 1);
    client.leave();

    await eventually(() => it.runtime.leases[0]?.releases === 1);
    await eventually(() => it.engine.aborts === 1);
  });

  test("bad input: in the middle of a stream, frees the worker once", async () => {
    await using it = await openaiSetup(speaksForEver);
    using client = new RawClient(it);

    send(client, BODY);
    await eventually(() => client.received.length > 100_000);
    client.leave();

    await eventually(() => it.runtime.leases[0]?.releases === 1);
    await eventually(() => it.engine.aborts === 1);
  });

  test("bad input: after the last byte, finds the worker freed once", async () => {
    await using it = await openaiSetup(speaks(["Paris"]));
    using client = new RawClient(it);

    send(client, BODY);
    await eventually(() => client.received.includes("[DONE]"));
    client.leave();

    await eventually(() => it.runtime.leases[0]?.releases === 1);
    expect(it.engine.aborts).toBe(0);
  });

  test("bad input: right after its request was sent, holds nothing", async () => {
    await using it = await openaiSetup(speaksForEver);

    for (let turn = 0; turn < 20; turn += 1) {
      using client = new RawClient(it);
      send(client, BODY);
      await eventually(() => turn % 2 === 0 || it.runtime.leases.length > 0);
    }

    await eventually(() => it.runtime.leases.every(({ releases }) => releases === 1));
    await eventually(() => it.listening.pendingRequests() === 0);
  });
});

function chatOf(bytes: number): object {
  return { model: "pebble", messages: QUESTION, x: "x".repeat(bytes) };
}

function send(client: RawClient, body: string): void {
  client.head(CHAT, { "content-length": body.length });
  client.write(body);
}

function hasRoom(bodies: BodyBudget, bytes: number): boolean {
  using room = bodies.open();
  try {
    room.take(bytes);
    return true;
  } catch {
    return false;
  }
}
