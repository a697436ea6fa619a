import { describe, expect, test } from "bun:test";
import { Hono } from "hono";
import { toAppError } from "../../src/errors.ts";
import { requireApiKey } from "../../src/server/auth.ts";
import type { AppEnv } from "../../src/server/deps.ts";
import { toErrorResponse } from "../../src/server/error-response.ts";

function ask(
  apiKey: string | undefined,
  headers: Record<string, string>,
  options: { path?: string; trusted?: boolean } = {},
): Promise<Response> {
  const app = new Hono<AppEnv>();
  app.use(requireApiKey(apiKey));
  app.get("*", (c) => c.text("in"));
  app.onError((error) => toErrorResponse(toAppError(error)));
  const bindings = { trusted: options.trusted ?? false };
  return Promise.resolve(app.request(options.path ?? "/v1/models", { headers }, bindings));
}

describe("requireApiKey", () => {
  test.each([
    ["no key is set", undefined, {}, {}],
    ["the key comes as a bearer token", "k1", { authorization: "Bearer k1" }, {}],
    ["the key comes as Anthropic's clients send it", "k1", { "x-api-key": "k1" }, {}],
    ["the caller is trusted", "k1", {}, { trusted: true }],
    ["it is a health probe", "k1", {}, { path: "/health/live" }],
  ])("lets in if %s", async (_, key, headers, options) => {
    expect((await ask(key, headers as Record<string, string>, options)).status).toBe(200);
  });

  test.each([
    ["without a key", {}, "it needs an API key"],
    ["with a wrong key", { authorization: "Bearer k2" }, "the API key is wrong"],
    ["with a longer key", { "x-api-key": "k11" }, "the API key is wrong"],
    ["with another scheme", { authorization: "Basic k1" }, "it needs an API key"],
  ])("refuses %s, as OpenAI's clients understand it", async (_, headers, reason) => {
    const response = await ask("k1", headers as Record<string, string>);

    expect(response.status).toBe(401);
    expect(await response.json()).toMatchObject({
      error: {
        type: "authentication_error",
        code: "unauthorized",
        message: expect.stringContaining(reason),
      },
    });
  });
});
