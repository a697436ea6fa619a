import { describe, expect, test } from "bun:test";
import { Authorizer } from "../../src/oci/authorizer.ts";
import { createExchange, type Exchange, type ExchangeOptions } from "../../src/oci/exchange.ts";
import { isTransient } from "../../src/http/retry.ts";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import { failureOf } from "../http/failure-of.ts";
import { ann, client, credentialsOf, noSignal as signal } from "./registry-client.ts";

const AUTH = { scheme: "bearer", username: "ann", password: "pässword:1" } as const;

function exchangeWith(fake: FakeRegistry, options: Partial<ExchangeOptions> = {}): Exchange {
  const { http } = client();
  return createExchange({
    http,
    authorizer: new Authorizer({
      http,
      credentials: credentialsOf({ [fake.host]: ann() }),
      host: fake.host,
    }),
    registry: fake.host,
    repository: "me/m",
    baseUrl: async () => fake.url,
    wait: async () => {},
    ...options,
  });
}

describe("targets", () => {
  test.each([
    ["/blobs/uploads/", "/v2/me/m/blobs/uploads/"],
    ["/v2/me/m/blobs/uploads/1?state=a%2Fb", "/v2/me/m/blobs/uploads/1"],
    ["/v2/", "/v2/"],
  ])("%s is %s", async (target, path) => {
    await using fake = await startFakeRegistry();

    await exchangeWith(fake)
      .send(target, { method: "POST", access: "push", signal, accept: [404, 405], attempts: 1 })
      .catch(() => undefined);

    expect(fake.requests[0]?.path).toBe(path);
  });

  test("at the registry's own origin the credential goes along", async () => {
    await using fake = await startFakeRegistry({ auth: AUTH });

    await exchangeWith(fake).send(`${fake.url}/v2/me/m/blobs/uploads/`, {
      method: "POST",
      access: "push",
      signal,
    });

    expect(fake.requests.at(-1)?.headers["authorization"]).toBe("Bearer token-1");
    expect(fake.requests[1]?.query.getAll("scope")).toEqual(["repository:me/m:pull,push"]);
  });

  test("at any other it does not, and a challenge there is not answered", async () => {
    await using fake = await startFakeRegistry({ auth: AUTH });
    await using other = await startFakeRegistry({ auth: AUTH });
    const exchange = exchangeWith(fake);
    await exchange.send("/blobs/uploads/", { method: "POST", access: "push", signal });
    const before = fake.requests.length;

    const error = await failureOf(
      exchange.send(`${other.url}/v2/me/m/blobs/uploads/`, {
        method: "POST",
        access: "push",
        signal,
      }),
    );

    expect(isTransient(error)).toBe(true);
    expect(other.requests.every(({ headers }) => headers["authorization"] === undefined)).toBe(
      true,
    );
    expect(other.count("GET", "/token")).toBe(0);
    expect(fake.requests).toHaveLength(before);
  });
});

describe("scopes", () => {
  test("for a mount the other repository must be readable", async () => {
    await using fake = await startFakeRegistry({ auth: AUTH });

    await exchangeWith(fake).send("/blobs/uploads/?mount=sha256:a&from=me/other", {
      method: "POST",
      access: "push",
      alsoPull: "me/other",
      signal,
    });

    expect(fake.requests[1]?.query.getAll("scope")).toEqual([
      "repository:me/m:pull,push",
      "repository:me/other:pull",
    ]);
  });

  test("the registry's own wish for more is met", async () => {
    await using fake = await startFakeRegistry({ auth: AUTH });
    const { digest } = await fake.addBlob(new Uint8Array(10));

    const response = await exchangeWith(fake).send(`/blobs/${digest}`, {
      method: "DELETE",
      access: "delete",
      signal,
    });

    expect(response.status).toBe(202);
    expect(fake.requests[1]?.query.getAll("scope")).toContain("repository:me/m:pull,delete");
  });
});

describe("answers", () => {
  test("a status that the caller handles is not thrown", async () => {
    await using fake = await startFakeRegistry();

    const response = await exchangeWith(fake).send("/blobs/sha256:0", {
      method: "HEAD",
      access: "pull",
      accept: [404],
      signal,
    });

    expect(response.status).toBe(404);
  });

  test("a redirect that was not followed is no success", async () => {
    await using fake = await startFakeRegistry();
    fake.fault({ kind: "status", status: 302, headers: { location: "/elsewhere" } });

    const error = await failureOf(
      exchangeWith(fake).send("/blobs/uploads/", { method: "POST", access: "push", signal }),
    );

    expect(error.code).toBe("registry_unavailable");
    expect(error.details).toMatchObject({ status: 302, permanent: true });
  });

  test("401 with a body made anew for the second time", async () => {
    await using fake = await startFakeRegistry({ auth: AUTH });
    let made = 0;
    const body = (): string => {
      made += 1;
      return '{"layers":[]}';
    };

    await exchangeWith(fake).send("/manifests/1", {
      method: "PUT",
      access: "push",
      headers: { "content-type": "application/json" },
      body,
      signal,
    });

    expect(made).toBe(2);
    expect(fake.tags.has("me/m:1")).toBe(true);
  });

  test("one attempt is one attempt", async () => {
    await using fake = await startFakeRegistry();
    fake.fault({ kind: "status", status: 503 });

    await failureOf(
      exchangeWith(fake).send("/blobs/x", { method: "GET", access: "pull", attempts: 1, signal }),
    );

    expect(fake.requests).toHaveLength(1);
  });

  test("a host that never says anything is asked twice", async () => {
    await using fake = await startFakeRegistry();
    const fault = fake.fault({ kind: "wait", until: new Promise(() => {}) });

    await failureOf(
      exchangeWith(fake).send("/blobs/x", {
        method: "GET",
        access: "pull",
        headersTimeoutMs: 20,
        signal,
      }),
    );

    expect(fault.hits).toBe(2);
  });

  test("an answer that takes work may take longer", async () => {
    await using fake = await startFakeRegistry();
    fake.fault({ kind: "wait", until: new Promise(() => {}) });

    const error = await failureOf(
      exchangeWith(fake).send("/blobs/x", {
        method: "GET",
        access: "pull",
        attempts: 1,
        headersTimeoutMs: 20,
        signal,
      }),
    );

    expect(error.code).toBe("timed_out");
  });
});
