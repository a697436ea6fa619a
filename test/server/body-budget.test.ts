import { describe, expect, test } from "bun:test";
import { Hono } from "hono";
import { toAppError } from "../../src/errors.ts";
import { bodyBudget } from "../../src/server/body-budget.ts";
import type { AppEnv } from "../../src/server/deps.ts";
import { toErrorResponse } from "../../src/server/error-response.ts";

interface Held {
  readonly ask: (body: string, path?: string) => Promise<Response>;
  readonly answer: () => void;
}

/** An app that answers when it is told to. */
function held(maxBytes: number): Held {
  const app = new Hono<AppEnv>();
  let waiting = Promise.withResolvers<void>();
  app.use(bodyBudget(maxBytes));
  app.post("*", async (c) => {
    await waiting.promise;
    return c.text("ok");
  });
  app.onError((error) => toErrorResponse(toAppError(error)));
  return {
    ask: async (body, path = "/x") => {
      const headers = { "content-length": String(body.length) };
      return app.request(path, { method: "POST", body, headers });
    },
    answer: () => {
      waiting.resolve();
      waiting = Promise.withResolvers<void>();
    },
  };
}

describe("bodyBudget", () => {
  test("refuses what does not fit beside what is held, with a time to come back", async () => {
    const { ask, answer } = held(10);
    const first = ask("x".repeat(8));

    const refused = await ask("x".repeat(8));
    answer();

    expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "5"]);
    expect((await first).status).toBe(200);
  });

  test("has room again once the first is answered, and always for one alone", async () => {
    const { ask, answer } = held(10);
    const first = ask("x".repeat(8));
    answer();
    await first;

    const next = ask("x".repeat(50));
    answer();

    expect((await next).status).toBe(200);
  });

  test("does not count what is read as a stream", async () => {
    const { ask, answer } = held(10);
    const first = ask("x".repeat(8));
    const upload = ask("x".repeat(80), "/models/load");
    answer();

    expect([(await first).status, (await upload).status]).toEqual([200, 200]);
  });
});
