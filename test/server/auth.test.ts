import { describe, expect, test } from "bun:test";
import { Hono } from "hono";
import { toAppError } from "../../src/errors.ts";
import { requireApiKey } from "../../src/server/auth.ts";
import type { AppEnv } from "../../src/server/deps.ts";
import { toErrorResponse } from "../../src/server/error-response.ts";

function ask(
  apiKey: string | undefined,
  headers: Readonly<Record<string, string | undefined>>,
  options: { path?: string; trusted?: boolean } = {},
): Promise<Response> {
  const app = new Hono<AppEnv>();
  app.use(requireApiKey(apiKey));
  app.get("*", (c) => c.text("in"));
  app.onError((error) => toErrorResponse(toAppError(error)));
  const bindings = { trusted: options.trusted ?? false };
  return Promise.resolve(
    app.request(options.path ?? "/v1/models", { headers: { ...headers } as never }, bindings),
  );
}

describe("requireApiKey", () => {
  test.each([
    { why: "no key is set", key: undefined },
    { why: "the key comes as a bearer token", headers: { authorization: "Bearer k1" } },
    { why: "the key comes as Anthropic's clients send it", headers: { "x-api-key": "k1" } },
    { why: "the caller is trusted", options: { trusted: true } },
    { why: "it is a health probe", options: { path: "/health/live" } },
  ])("lets in if $why", async ({ headers = {}, options = {}, ...row }) => {
    expect((await ask("key" in row ? row.key : "k1", headers, options)).status).toBe(200);
  });

  test.each([
    { what: "no key", headers: {}, reason: "it needs an API key" },
    {
      what: "a wrong key",
      headers: { authorization: "Bearer k2" },
      reason: "the API key is wrong",
    },
    { what: "a longer key", headers: { "x-api-key": "k11" }, reason: "the API key is wrong" },
    {
      what: "another scheme",
      headers: { authorization: "Basic k1" },
      reason: "it needs an API key",
    },
  ])("refuses $what, as OpenAI's clients understand it", async ({ headers, reason }) => {
    const response = await ask("k1", headers);

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
