import { describe, expect, test } from "bun:test";
import type { ChatEvent } from "../../src/api/chat.ts";
import type { Client } from "../../src/client/client.ts";
import { reconnecting } from "../../src/client/reconnect.ts";
import { AppError, type ErrorCode } from "../../src/errors.ts";

type Calls = Pick<Client, "chat" | "load" | "inspect">;

const SIGNAL = { signal: new AbortController().signal };
const HI: ChatEvent = { kind: "content", text: "Hi" };

/** Says `events`, then fails with `code` if there is one. */
function client(events: readonly ChatEvent[], code?: ErrorCode): Calls {
  const fail = (): void => {
    if (code !== undefined) throw new AppError(code, "it failed");
  };
  return {
    load: async () => {
      fail();
      return { model_id: "sha256:0", backend: "b", load_ms: 1 };
    },
    inspect: () => Promise.reject(new Error("unused")),
    async *chat() {
      yield* events;
      fail();
    },
  };
}

function ask(calls: Calls): Promise<ChatEvent[]> {
  return Array.fromAsync(calls.chat({ model: "m", messages: [] }, SIGNAL));
}

describe("reconnecting", () => {
  test.each(["runner_unreachable", "shutting_down"] as const)(
    "asks the next runner if the first one was gone (%s)",
    async (code) => {
      const calls = reconnecting(client([], code), () => Promise.resolve(client([HI])));

      expect(await ask(calls)).toEqual([HI]);
      expect(await calls.load({ model: "m" }, { ...SIGNAL, onProgress: () => {} })).toMatchObject({
        backend: "b",
      });
    },
  );

  test("does not ask again once something was said", async () => {
    let connections = 0;
    const calls = reconnecting(client([HI], "runner_unreachable"), () => {
      connections += 1;
      return Promise.resolve(client([HI]));
    });

    const failure = await ask(calls).catch((error: AppError) => error.code);

    expect([failure, connections]).toEqual(["runner_unreachable", 0]);
  });

  test("does not ask again after any other failure", async () => {
    const calls = reconnecting(client([], "worker_failed"), () => Promise.resolve(client([HI])));

    expect(await ask(calls).catch((error: AppError) => error.code)).toBe("worker_failed");
  });
});
