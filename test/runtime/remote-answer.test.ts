import { describe, expect, test } from "bun:test";
import { type Answer, readAnswer } from "../../src/runtime/remote-answer.ts";
import { freePort } from "../helpers/free-port.ts";
import { rejection } from "../server/fake-deps.ts";

const signal = AbortSignal.timeout(20_000);

/** Listens, and does with a connection what `onData` says. */
function listen(onData: (socket: { end(): void; write(text: string): void }) => void) {
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (socket) => onData(socket) },
  });
  return {
    address: `127.0.0.1:${server.port}`,
    [Symbol.dispose]: () => server.stop(true),
  };
}

describe("whether a server answers", () => {
  test.each<[string, (socket: { end(): void; write(text: string): void }) => void, Answer]>([
    ["closes", (socket) => socket.end(), "ready"],
    ["says something", (socket) => socket.write("x"), "ready"],
    ["is with somebody else", () => {}, "busy"],
  ])("one that %s", async (_, onData, expected) => {
    using server = listen(onData);

    // Only the silent one takes all of it.
    const boundMs = expected === "busy" ? 100 : 10_000;
    expect(await readAnswer(server.address, { signal, boundMs })).toBe(expected);
  });

  test("one that is not there", async () => {
    expect(await readAnswer(`127.0.0.1:${await freePort()}`, { signal })).toBe("absent");
    expect(await readAnswer("no-such-host.invalid:5", { signal, boundMs: 10_000 })).toBe("absent");
  });

  test("an abort ends it at once", async () => {
    using server = listen(() => {});
    const stop = new AbortController();
    const asked = readAnswer(server.address, { signal: stop.signal, boundMs: 60_000 });
    stop.abort(new Error("enough"));

    expect(String(await rejection(asked))).toContain("enough");
    const late = readAnswer(server.address, { signal: stop.signal });
    expect(String(await rejection(late))).toContain("enough");
  });
});
