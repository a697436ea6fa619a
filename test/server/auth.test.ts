import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createHash } from "node:crypto";
import { Hono } from "hono";
import type { KeyScope } from "../../src/api/keys.ts";
import { toAppError } from "../../src/errors.ts";
import { type AuthDeps, maySeePrompts, requireApiKey } from "../../src/server/auth.ts";
import { routePath } from "../../src/server/app.ts";
import type { AppEnv, KeyStore } from "../../src/server/deps.ts";
import { dialectOf } from "../../src/server/dialect.ts";
import { toErrorResponse } from "../../src/server/error-response.ts";
import type { KnownKey } from "../../src/state/api-keys.ts";

const GOOD = "tug_good";
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

/** A store in memory; keys are found by their text. */
function fakeKeys(keys: Readonly<Record<string, Partial<KnownKey>>>) {
  const touched: string[] = [];
  const asked: string[] = [];
  const store: KeyStore = {
    find(text) {
      asked.push(text);
      const key = keys[text];
      return key && { ...DEFAULTS, hash: createHash("md5").update(text).digest("hex"), ...key };
    },
    touch: ({ hash }) => void touched.push(hash),
    list: () => [],
    create: () => {
      throw new Error("nothing is made here");
    },
    revoke: () => [],
  };
  return { store, touched, asked, keys: () => store };
}

const DEFAULTS = {
  name: "me",
  scopes: ["inference"] as KeyScope[],
  expiresAtMs: null,
  maxConcurrent: null,
  ratePerMinute: null,
  isExpired: false,
};

interface AskOptions {
  readonly path?: string;
  readonly method?: string;
  readonly trusted?: boolean;
}

function appWith(deps: AuthDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>({ getPath: routePath });
  app.use(requireApiKey(deps));
  app.all("*", (c) => c.json({ who: c.get("caller")?.name ?? null, sees: maySeePrompts(c) }));
  app.onError((error, c) => toErrorResponse(toAppError(error), dialectOf(c.req.path)));
  return app;
}

function ask(
  deps: AuthDeps,
  headers: Readonly<Record<string, string | undefined>>,
  { path = "/v1/models", method = "GET", trusted = false }: AskOptions = {},
): Promise<Response> {
  const init = { method, headers: { ...headers } as never };
  return Promise.resolve(appWith(deps).request(path, init, { trusted }));
}

describe("a runner with TUG_API_KEY", () => {
  test.each([
    { why: "no key is set", deps: {} },
    { why: "the key comes as a bearer token", headers: bearer("k1") },
    { why: "the scheme is written small", headers: { authorization: "bearer k1" } },
    { why: "the key comes as Anthropic's clients send it", headers: { "x-api-key": "k1" } },
    { why: "one of two is right", headers: { ...bearer("dummy"), "x-api-key": "k1" } },
    { why: "the other of two is right", headers: { ...bearer("k1"), "x-api-key": "dummy" } },
    { why: "the caller is trusted", options: { trusted: true } },
    { why: "it is a health probe", options: { path: "/health/live" } },
  ])("lets in if $why", async ({ headers = {}, options = {}, deps = { apiKey: "k1" } }) => {
    expect((await ask(deps, headers, options)).status).toBe(200);
  });

  test.each([
    { what: "no key", headers: {}, reason: "it needs an API key" },
    { what: "an empty key", headers: { authorization: "Bearer " }, reason: "it needs an API key" },
    { what: "a wrong key", headers: bearer("k2"), reason: "the API key is wrong" },
    { what: "a longer key", headers: { "x-api-key": "k11" }, reason: "the API key is wrong" },
    { what: "two words", headers: bearer("k1 k1"), reason: "the API key is wrong" },
    { what: "a huge key", headers: bearer("k".repeat(8000)), reason: "the API key is wrong" },
    { what: "a key beside others", headers: bearer("k1, k1"), reason: "the API key is wrong" },
    {
      what: "a key in the address, as clients send it",
      headers: { authorization: `Basic ${btoa("me:k1")}` },
      reason: "it has a user and password, and needs an API key",
    },
  ])("refuses $what, as OpenAI's clients understand it", async ({ headers, reason }) => {
    const response = await ask({ apiKey: "k1" }, headers);

    expect(response.status).toBe(401);
    expect(response.headers.get("www-authenticate")).toBe("Bearer");
    expect(await response.json()).toMatchObject({
      error: {
        type: "authentication_error",
        code: "unauthorized",
        message: expect.stringContaining(reason),
        hint: expect.stringContaining("tug key create"),
      },
    });
  });

  test("answers 401 to whatever else a header may hold, and never fails", async () => {
    const { keys } = fakeKeys({});
    const deps = { apiKey: "k1", keys };
    const words = fc.stringMatching(
      /^(?:Bearer |bearer\t|Basic |tug_|)[\x20-\x7e\x80-\xff]{0,600}$/,
    );
    await fc.assert(
      fc.asyncProperty(words, words, async (authorization, key) => {
        fc.pre(![authorization, key].some((text) => /(?:^|\s)k1\s*$/.test(text)));
        const response = await ask(deps, { authorization, "x-api-key": key });
        expect(response.status).toBe(401);
      }),
      { numRuns: 300 },
    );
  });

  test("takes no key from the query", async () => {
    const response = await ask({ apiKey: "k1" }, {}, { path: "/v1/models?key=k1&api_key=k1" });

    expect(response.status).toBe(401);
  });

  test("refuses in the words of the path's API", async () => {
    const anthropic = await ask({ apiKey: "k" }, {}, { path: "/v1/messages", method: "POST" });
    const ollama = await ask({ apiKey: "k" }, {}, { path: "/api/chat", method: "POST" });

    expect(await anthropic.json()).toMatchObject({
      type: "error",
      error: { type: "authentication_error" },
    });
    expect(await ollama.json()).toEqual({ error: expect.stringContaining("needs an API key") });
  });

  test("gives who has it every right", async () => {
    const response = await ask({ apiKey: "k" }, bearer("k"), { path: "/logs" });

    expect(await response.json()).toEqual({ who: null, sees: true });
  });
});

describe("a runner that others reach", () => {
  test("lets in a key of `tug key`, and notes its use", async () => {
    const { keys, touched } = fakeKeys({ [GOOD]: {} });

    const response = await ask({ keyRequired: true, keys }, bearer(GOOD));

    expect(await response.json()).toEqual({ who: "me", sees: false });
    expect(touched).toHaveLength(1);
  });

  test("takes TUG_API_KEY and keys side by side", async () => {
    const { keys } = fakeKeys({ [GOOD]: {} });
    const deps = { keyRequired: true, keys, apiKey: "k" };

    expect((await ask(deps, bearer(GOOD))).status).toBe(200);
    expect((await ask(deps, bearer("k"))).status).toBe(200);
    expect((await ask(deps, bearer("tug_other"))).status).toBe(401);
  });

  test("refuses everybody as long as there is no key", async () => {
    expect((await ask({ keyRequired: true }, bearer(GOOD))).status).toBe(401);
    expect((await ask({ keyRequired: true }, {})).status).toBe(401);
  });

  test("says that a key has expired", async () => {
    const { keys } = fakeKeys({ [GOOD]: { isExpired: true } });

    const response = await ask({ keyRequired: true, keys }, bearer(GOOD));

    expect(response.status).toBe(401);
    expect(await response.text()).toContain("the API key has expired");
  });

  test.each([
    ["POST", "/v1/chat/completions", "inference", 200],
    ["POST", "/v1/chat/completions", "models", 403],
    ["POST", "/models/create", "models", 200],
    ["POST", "/models/create", "inference", 403],
    ["DELETE", "/models/me/m:v1", "inference", 403],
    ["GET", "/models", "models", 200],
    ["GET", "/logs", "models", 403],
    ["GET", "/logs", "admin", 200],
    ["POST", "/models/create", "admin", 200],
    ["POST", "/nobody/knows", "inference", 403],
    ["GET", "/models/example.com/m?remote=true", "inference", 403],
    ["GET", "/models/example.com/m?remote=true", "models", 200],
    ["GET", "/models/example.com/m?other=true", "inference", 200],
  ] as const)("%s %s with the scope %s: %d", async (...row) => {
    const [method, path, scope, status] = row;
    const { keys } = fakeKeys({ [GOOD]: { scopes: [scope] } });

    const response = await ask({ keyRequired: true, keys }, bearer(GOOD), { method, path });

    expect(response.status).toBe(status);
  });

  test("names the scope that is missing, in the words of the path's API", async () => {
    const { keys } = fakeKeys({ [GOOD]: { scopes: ["inference"] } });
    const deps = { keyRequired: true, keys };

    const openai = await ask(deps, bearer(GOOD), { method: "POST", path: "/models/create" });
    const ollama = await ask(deps, bearer(GOOD), { method: "POST", path: "/api/pull" });

    expect(await openai.json()).toMatchObject({
      error: {
        code: "forbidden",
        message: expect.stringContaining("lacks the scope `models`"),
        hint: expect.stringContaining("--scope models"),
        details: { missing_scope: "models", scopes: ["inference"] },
      },
    });
    expect(await ollama.json()).toEqual({ error: expect.stringContaining("scope `models`") });
  });
});

describe("a runner on loopback without TUG_API_KEY", () => {
  test("lets in whatever SDKs send as a key", async () => {
    const { keys, asked } = fakeKeys({});

    expect((await ask({ keys }, bearer("not-needed"))).status).toBe(200);
    expect((await ask({ keys }, bearer("tug_revoked"))).status).toBe(200);
    expect((await ask({ keys }, { authorization: "Basic eDp5" })).status).toBe(200);
    // What cannot be ours is not looked up.
    expect(asked).toEqual(["tug_revoked"]);
  });

  test("shows prompts to a key that may see them, and to nobody else", async () => {
    const { keys } = fakeKeys({
      [GOOD]: { scopes: ["admin"] },
      tug_low: { scopes: ["models"] },
      tug_old: { scopes: ["admin"], isExpired: true },
    });
    const sees = async (key: string): Promise<unknown> =>
      ((await (await ask({ keys }, bearer(key))).json()) as { sees: boolean }).sees;

    expect(await sees(GOOD)).toBe(true);
    expect(await sees("tug_low")).toBe(false);
    expect(await sees("tug_old")).toBe(false);
    expect(await sees("other")).toBe(false);
  });

  test("holds nobody to scopes, which no key at all would escape", async () => {
    const { keys } = fakeKeys({ [GOOD]: { scopes: ["models"], ratePerMinute: 1 } });
    const app = appWith({ keys });
    const chat = () =>
      app.request("/v1/chat/completions", { method: "POST", headers: bearer(GOOD) }, {});

    expect((await chat()).status).toBe(200);
    expect((await chat()).status).toBe(200);
  });
});

describe("limits of a key", () => {
  test("requests at once: the answer counts until its end", async () => {
    const { keys } = fakeKeys({ [GOOD]: { maxConcurrent: 1 }, tug_two: { name: "two" } });
    const answers: ReadableStreamDefaultController<Uint8Array>[] = [];
    const app = new Hono<AppEnv>();
    app.use(requireApiKey({ keyRequired: true, keys }));
    app.post("/v1/stream", () => {
      const body = new ReadableStream<Uint8Array>({ start: (one) => void answers.push(one) });
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    });
    app.post("/v1/fails", () => {
      throw new Error("it fails");
    });
    app.onError((error, c) => toErrorResponse(toAppError(error), dialectOf(c.req.path)));
    const send = (path: string, key = GOOD, signal?: AbortSignal): Promise<Response> =>
      Promise.resolve(
        app.request(
          new Request(`http://x${path}`, {
            method: "POST",
            headers: bearer(key),
            ...(signal && { signal }),
          }),
        ),
      );

    const first = await send("/v1/stream");
    const second = await send("/v1/stream");
    expect(second.status).toBe(429);
    expect(Number(second.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await second.json()).toMatchObject({
      error: { type: "rate_limit_error", code: "too_many_requests" },
    });
    expect((await send("/v1/stream", "tug_two")).status).toBe(200);

    const text = first.text();
    answers[0]?.enqueue(new TextEncoder().encode("data: 1\n\n"));
    answers[0]?.close();
    expect(await text).toBe("data: 1\n\n");

    // A reader that leaves, a stream that fails, a request that fails, a client that is gone: each makes room.
    await (await send("/v1/stream")).body?.cancel();
    const failing = await send("/v1/stream");
    expect(failing.status).toBe(200);
    answers.at(-1)?.error(new Error("the engine died"));
    expect(await failing.text().catch((error: Error) => error.message)).toBe("the engine died");
    expect((await send("/v1/fails")).status).toBe(500);
    const gone = new AbortController();
    expect((await send("/v1/stream", GOOD, gone.signal)).status).toBe(200);
    gone.abort();
    expect((await send("/v1/stream", GOOD, AbortSignal.abort())).status).toBe(200);
    expect((await send("/v1/stream")).status).toBe(200);
    expect((await send("/v1/stream")).status).toBe(429);
  });

  test("requests a minute", async () => {
    const { keys } = fakeKeys({ [GOOD]: { ratePerMinute: 2 } });
    const app = appWith({ keyRequired: true, keys });
    const send = () => app.request("/api/tags", { headers: bearer(GOOD) });

    expect((await send()).status).toBe(200);
    expect((await send()).status).toBe(200);
    const refused = await send();

    expect(refused.status).toBe(429);
    expect(Number(refused.headers.get("retry-after"))).toBeWithin(29, 31);
    expect(await refused.json()).toEqual({ error: expect.stringContaining("2 requests a minute") });
  });
});
