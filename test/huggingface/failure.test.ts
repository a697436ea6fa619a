import { describe, expect, test } from "bun:test";
import { createHttp } from "../../src/http/http.ts";
import { parseHuggingFaceName } from "../../src/huggingface/name.ts";
import { planHuggingFace } from "../../src/huggingface/plan.ts";
import type { HubOptions } from "../../src/huggingface/repository.ts";
import type { SourcePlan } from "../../src/transfer/plan.ts";
import { type FakeHuggingFace, fakeHuggingFace, fakeRepository } from "../fakes/hugging-face.ts";
import { failureOf } from "./failure-of.ts";

const TOKEN = "hf_secretsecretsecret";
const TINY = fakeRepository("Org/Tiny", { "x.gguf": "weights" });

function said(message: string): Record<string, string> {
  return { "x-error-message": message };
}

async function plan(
  hub: FakeHuggingFace,
  more: Partial<HubOptions> & { text?: string; offline?: boolean } = {},
): Promise<SourcePlan> {
  const { text = "hf.co/Org/Tiny", offline = false, ...rest } = more;
  const name = parseHuggingFaceName(text);
  if (name === undefined) throw new Error(`not understood: ${text}`);
  return planHuggingFace(name, {
    http: createHttp({ offline, caBundle: "", isInsecure: () => false }),
    endpoint: hub.endpoint,
    token: undefined,
    signal: new AbortController().signal,
    attempts: 1,
    ...rest,
  });
}

describe("a gated repository", () => {
  const gated = { ...TINY, gated: "manual" } as const;

  test("without a token says that none was sent, and where the terms are", async () => {
    using hub = fakeHuggingFace([gated]);
    const failure = await failureOf(plan(hub));
    expect(failure.code).toBe("unauthorized");
    expect(failure.message).toBe(
      "cannot pull `hf.co/Org/Tiny`: it is gated: its owner wants terms accepted first, and no token was sent",
    );
    expect(failure.hint).toBe(
      `Accept the terms at ${hub.endpoint}/Org/Tiny, and set HF_TOKEN to a token of the account that did.`,
    );
  });

  test("with a token of an account that was not let in says that", async () => {
    using hub = fakeHuggingFace([gated]);
    hub.tokens.add(TOKEN);
    const failure = await failureOf(plan(hub, { token: TOKEN }));
    expect(failure.code).toBe("forbidden");
    expect(failure.message).toContain("the account of the token that was sent");
    expect(`${failure.message}${failure.hint}${JSON.stringify(failure.details)}`).not.toContain(
      TOKEN,
    );
  });

  test("opens to one that was", async () => {
    using hub = fakeHuggingFace([gated]);
    hub.tokens.add(TOKEN);
    hub.accepted.add(TOKEN);
    expect((await plan(hub, { token: TOKEN })).files).toHaveLength(1);
    expect(hub.requests.at(-1)).toBe(`HEAD /Org/Tiny/resolve/${TINY.commit}/x.gguf`);
    expect(hub.leaks).toEqual([]);
  });
});

describe("a repository that is not there", () => {
  test.each([
    {
      who: "to strangers may be private",
      token: undefined,
      code: "unauthorized",
      message: "or it is private and no token was sent",
    },
    {
      who: "to others is not there, or not theirs",
      token: TOKEN,
      code: "model_not_found",
      message: "or the token that was sent may not see it",
    },
  ])("$who", async ({ token, code, message }) => {
    using hub = fakeHuggingFace([]);
    hub.tokens.add(TOKEN);
    const failure = await failureOf(plan(hub, { token }));
    expect(failure.code as string).toBe(code);
    expect(failure.message).toContain(message);
    expect(failure.message).toContain("`hf.co/Org/Tiny`");
  });

  test("a private one opens to its token", async () => {
    using hub = fakeHuggingFace([{ ...TINY, private: true }]);
    hub.tokens.add(TOKEN);
    expect((await failureOf(plan(hub))).code).toBe("unauthorized");
    expect((await plan(hub, { token: TOKEN })).files).toHaveLength(1);
  });

  test("a token that nobody knows is said to be bad", async () => {
    using hub = fakeHuggingFace([TINY]);
    const failure = await failureOf(plan(hub, { token: "hf_other" }));
    expect(failure.code).toBe("unauthorized");
    expect(failure.message).toContain("does not accept the token");
  });

  test("nor is a revision", async () => {
    using hub = fakeHuggingFace([TINY]);
    const failure = await failureOf(plan(hub, { text: "hf.co/Org/Tiny@v9" }));
    expect(failure.code).toBe("model_not_found");
    expect(failure.message).toContain("it has no revision `v9`");
  });
});

describe("a refusal", () => {
  test.each([
    [403, said("Access to this resource is disabled."), ["forbidden", "has disabled it"]],
    [403, said("Please enable\u0085 it"), ["forbidden", "Hugging Face says: Please enable"]],
    [403, {}, ["forbidden", "denies access"]],
    [451, {}, ["forbidden", "may not be distributed"]],
    [404, { "x-error-code": "EntryNotFound" }, ["model_not_found", "is not there"]],
    [410, {}, ["model_not_found", "no such model"]],
    [429, {}, ["too_many_requests", "asked too often"]],
    [500, {}, ["registry_unavailable", "status 500"]],
    [400, said("x".repeat(500)), ["registry_unavailable", "status 400"]],
  ] as const)("with status %p is explained", async (status, headers, [code, message]) => {
    using hub = fakeHuggingFace([TINY]);
    hub.next.push(() => new Response("no", { status, headers }));
    const failure = await failureOf(plan(hub));
    expect(failure.code as string).toBe(code);
    expect(failure.message).toContain(message);
    expect(failure.message.length).toBeLessThan(400);
    expect(failure.message).toStartWith("cannot pull `hf.co/Org/Tiny`: ");
  });

  test.each([
    [{ "retry-after": "33" }, "Try again in 33 s.", 33_000],
    [{ ratelimit: '"api";r=0;t=55' }, "Try again in 55 s.", 55_000],
    [{ ratelimit: "nonsense" }, "Try again later.", undefined],
  ])("of too many requests says when to come back: %p", async (headers, hint, ms) => {
    using hub = fakeHuggingFace([TINY]);
    hub.next.push(
      () => new Response("no", { status: 429, headers: headers as Record<string, string> }),
    );
    const failure = await failureOf(plan(hub));
    expect(failure.hint).toBe(`${hint} Callers with a token (HF_TOKEN) may ask more often.`);
    expect(failure.details?.["retry_after_ms"]).toBe(ms as number);
  });

  test("that asks for more patience than there is, is not tried again", async () => {
    using hub = fakeHuggingFace([TINY]);
    hub.next.push(
      () => new Response("no", { status: 429, headers: { ratelimit: '"api";r=0;t=280' } }),
    );
    const failure = await failureOf(plan(hub, { attempts: 5 }));
    expect(failure.hint).toStartWith("Try again in 5 minutes.");
    expect(hub.requests).toHaveLength(1);
  });

  test("that passes is tried again", async () => {
    using hub = fakeHuggingFace([TINY]);
    hub.next.push(() => new Response("no", { status: 503 }));
    expect((await plan(hub, { attempts: 2 })).files).toHaveLength(1);
  });
});

test("a token that no header can carry is refused without being shown", async () => {
  using hub = fakeHuggingFace([TINY]);
  const failure = await failureOf(plan(hub, { token: "hf_secret\r\nx: y" }));
  expect(failure.code).toBe("usage");
  expect(failure.message).not.toContain("secret");
  expect(hub.requests).toEqual([]);
});

test("offline asks nobody", async () => {
  using hub = fakeHuggingFace([TINY]);
  expect((await failureOf(plan(hub, { offline: true }))).code).toBe("offline");
  expect(hub.requests).toEqual([]);
});

test("a Hub that is not there is said to be", async () => {
  const hub = fakeHuggingFace([TINY]);
  hub[Symbol.dispose]();
  expect((await failureOf(plan(hub))).code).toBe("registry_unavailable");
});

test("leaving ends it", async () => {
  using hub = fakeHuggingFace([TINY]);
  const leaving = new AbortController();
  hub.next.push(() => {
    leaving.abort();
    return new Response(new ReadableStream());
  });
  let reason: unknown;
  try {
    await plan(hub, { signal: leaving.signal });
  } catch (error) {
    reason = error;
  }
  expect((reason as Error).name).toBe("AbortError");
});
