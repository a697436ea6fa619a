import { describe, expect, test } from "bun:test";
import { eventually } from "../helpers/eventually.ts";
import { createHttp } from "../../src/http/http.ts";
import { Authorizer, type AuthorizeRequest } from "../../src/oci/authorizer.ts";
import type { Credential, CredentialStore } from "../../src/oci/credentials.ts";
import { type RawAnswer, type RequestRecord, serveRaw } from "../fakes/raw-http.ts";
import { startFakeRegistry } from "../fakes/registry.ts";
import type { FakeAuth } from "../fakes/registry-auth.ts";
import { failureOf, rejectionOf } from "../http/failure-of.ts";
import { ann, client, credentialsOf, noSignal as signal } from "./registry-client.ts";

const USER = { username: "ann", password: "pässword:1" };

async function guarded(auth: FakeAuth, credential?: Credential) {
  const fake = await startFakeRegistry({ auth });
  await fake.addModel("me/m:1", new Uint8Array(1000));
  await fake.addModel("me/other:1", new Uint8Array(1000));
  const credentials = credentialsOf(credential === undefined ? {} : { [fake.host]: credential });
  const registry = client({ credentials });
  return {
    fake,
    credentials,
    registry,
    repository: registry.repository({ registry: fake.host, repository: "me/m" }),
    said: () => fake.requests.map(({ method, path, status }) => `${method} ${path} ${status}`),
    [Symbol.asyncDispose]: () => fake.stop(),
  };
}

const HEAD = "HEAD /v2/me/m/manifests/1";

describe("tokens", () => {
  test("anonymous: the token is asked for once, with service and scope, and sent along", async () => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });

    await it.repository.resolve("1", { signal });
    await it.repository.resolve("1", { signal });

    expect(it.said()).toEqual([`${HEAD} 401`, "GET /token 200", `${HEAD} 200`, `${HEAD} 200`]);
    const [, token] = it.fake.requests;
    expect(token?.headers["authorization"]).toBeUndefined();
    expect(token?.query.get("service")).toBe("fake");
    expect(token?.query.getAll("scope")).toEqual(["repository:me/m:pull"]);
  });

  test("with a password: Basic at the token server, never at the registry", async () => {
    await using it = await guarded({ scheme: "bearer", ...USER }, ann());

    await it.repository.resolve("1", { signal });

    const [first, token, second] = it.fake.requests;
    expect(token?.headers["authorization"]).toBe(
      `Basic ${Buffer.from("ann:pässword:1").toString("base64")}`,
    );
    expect(first?.headers["authorization"]).toBeUndefined();
    expect(second?.headers["authorization"]).toBe("Bearer token-1");
  });

  test("with an identity token: OAuth2", async () => {
    const identity = ann({ password: "", identityToken: "refresh" });
    await using it = await guarded({ scheme: "bearer", identityToken: "refresh" }, identity);

    await it.repository.resolve("1", { signal });

    expect(it.said()).toEqual([`${HEAD} 401`, "POST /token 200", `${HEAD} 200`]);
  });

  test("a token server that knows POST only", async () => {
    await using it = await guarded({ scheme: "bearer", ...USER }, ann());
    it.fake.fault({ kind: "status", method: "GET", path: "/token", status: 405 });

    await it.repository.resolve("1", { signal });

    expect(it.said()).toEqual([`${HEAD} 401`, "GET /token 405", "POST /token 200", `${HEAD} 200`]);
  });

  test.each([true, false])(
    "a wrong password names the account; POST known: %p",
    async (allowsPost) => {
      const wrong = ann({ password: "wrong" });
      await using it = await guarded({ scheme: "bearer", ...USER, allowsPost }, wrong);

      const error = await failureOf(it.repository.resolve("1", { signal }));

      expect(error.code).toBe("unauthorized");
      expect(error.message).toContain("the registry does not accept `ann` from the tests");
      expect(error.message).not.toContain("wrong");
      expect(error.hint).toContain(`tug login ${it.fake.host}`);
    },
  );

  test("a stranger where none is let in is told how to log in", async () => {
    await using it = await guarded({ scheme: "bearer", ...USER });

    const error = await failureOf(it.repository.resolve("1", { signal }));

    expect(error.code).toBe("unauthorized");
    expect(error.message).toContain(
      "it does not exist, or you, without logging in, may not read it",
    );
    expect(error.hint).toContain(`tug login ${it.fake.host}`);
  });

  test("a token that becomes void in the middle is renewed, once", async () => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });
    await it.repository.resolve("1", { signal });
    it.fake.expireTokens();

    await it.repository.resolve("1", { signal });

    expect(it.said().slice(3)).toEqual([`${HEAD} 401`, "GET /token 200", `${HEAD} 200`]);
  });

  test("a registry that refuses every token is not asked for ever", async () => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });
    it.fake.fault({ kind: "expire", path: "/v2/me/m/" });

    const error = await failureOf(it.repository.fetchManifest("1", { signal }));

    expect(error.code).toBe("unauthorized");
    expect(it.fake.requests).toHaveLength(3);
  });

  test("many at once share one token, also when it becomes void", async () => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });
    const all = (): Promise<unknown> =>
      Promise.all(Array.from({ length: 12 }, () => it.repository.fetchManifest("1", { signal })));

    await all();
    const first = it.fake.count("GET", "/token");
    it.fake.expireTokens();
    await all();

    expect(first).toBe(1);
    expect(it.fake.count("GET", "/token")).toBe(2);
  });

  test("whoever leaves does not take the token from the others", async () => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });
    const { promise, resolve } = Promise.withResolvers<void>();
    it.fake.fault({ kind: "wait", path: "/token", until: promise });
    const controller = new AbortController();
    const leaving = rejectionOf(it.repository.resolve("1", { signal: controller.signal }));
    const staying = it.repository.resolve("1", { signal });
    await eventually(() => it.fake.count("GET", "/token") > 0);

    controller.abort(new Error("enough"));
    const reason = await leaving;
    resolve();

    expect(reason).toHaveProperty("message", "enough");
    expect((await staying).size).toBeGreaterThan(0);
    expect(it.fake.count("GET", "/token")).toBe(1);
  });

  test("another repository needs another token", async () => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });
    await it.repository.resolve("1", { signal });

    await it.registry
      .repository({ registry: it.fake.host, repository: "me/other" })
      .resolve("1", { signal });

    // What the registry wants is known by now: no 401 comes first.
    expect(it.said().slice(3)).toEqual(["GET /token 200", "HEAD /v2/me/other/manifests/1 200"]);
  });

  test("a busy token server is asked again", async () => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });
    it.fake.fault({ kind: "status", path: "/token", status: 503, times: 2 });

    const found = await it.repository.resolve("1", { signal });

    expect(found.size).toBeGreaterThan(0);
    expect(it.registry.waits).toHaveLength(2);
  });

  test.each([
    ["no JSON", "<html>"],
    ["no object", "[]"],
    ["no token", "{}"],
    ["an empty token", '{"token":"","access_token":""}'],
    ["a token that is no text", '{"token":7}'],
    ["a token that would end the header", '{"token":"a\\r\\nx-evil: 1"}'],
    ["a token of absurd length", `{"token":"${"x".repeat(70_000)}"}`],
  ])("an answer of no use is refused: %s", async (_what, body) => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });
    it.fake.fault({ kind: "body", path: "/token", body });

    const error = await failureOf(it.repository.resolve("1", { signal }));

    expect(error.code).toBe("registry_unavailable");
    expect(error.message).toContain("the token server is of no use");
    expect(it.fake.count("GET", "/token")).toBe(1);
  });

  test("an answer without end is not read", async () => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });
    it.fake.fault({ kind: "body", path: "/token", body: new Uint8Array(300_000) });

    const error = await failureOf(it.repository.resolve("1", { signal }));

    expect(error.code).toBe("request_too_large");
  });

  test("access_token will do", async () => {
    await using it = await guarded({ scheme: "bearer", allowsAnonymousPull: true });
    it.fake.fault({ kind: "body", path: "/token", body: '{"access_token":"abc"}' });

    await failureOf(it.repository.resolve("1", { signal }));

    expect(it.fake.requests[2]?.headers["authorization"]).toBe("Bearer abc");
  });
});

describe("Basic", () => {
  test("the password goes along with every request after the first", async () => {
    await using it = await guarded({ scheme: "basic", ...USER }, ann());

    await it.repository.resolve("1", { signal });
    await it.repository.resolve("1", { signal });

    expect(it.said()).toEqual([`${HEAD} 401`, `${HEAD} 200`, `${HEAD} 200`]);
    expect(it.credentials.asked).toEqual([it.fake.host]);
  });

  test("a wrong password is sent once for each request", async () => {
    await using it = await guarded({ scheme: "basic", ...USER }, ann({ password: "wrong" }));

    const error = await failureOf(it.repository.fetchManifest("1", { signal }));

    expect(error.code).toBe("unauthorized");
    expect(error.message).toContain("`ann` from the tests");
    expect(it.fake.requests).toHaveLength(2);
  });

  test("a password that was changed meanwhile is looked up again", async () => {
    await using fake = await startFakeRegistry({ auth: { scheme: "basic", ...USER } });
    await fake.addModel("me/m:1", new Uint8Array(10));
    let password = "old";
    const credentials: CredentialStore = {
      ...credentialsOf(),
      find: async () => ann({ password }),
    };
    const repository = client({ credentials }).repository({
      registry: fake.host,
      repository: "me/m",
    });
    await failureOf(repository.resolve("1", { signal }));
    password = USER.password;

    const found = await repository.resolve("1", { signal });

    expect(found.size).toBeGreaterThan(0);
  });

  test("without a credential there is nothing to send", async () => {
    await using it = await guarded({ scheme: "basic", ...USER });

    const error = await failureOf(it.repository.fetchManifest("1", { signal }));

    expect(error.hint).toContain(`tug login ${it.fake.host}`);
    expect(it.fake.requests).toHaveLength(1);
  });

  test("a credential store that fails says so", async () => {
    await using fake = await startFakeRegistry({ auth: { scheme: "basic", ...USER } });
    const broken = new Error("vault locked");
    const credentials: CredentialStore = {
      ...credentialsOf(),
      find: async () => {
        throw broken;
      },
    };
    const registry = client({ credentials });

    const error = await rejectionOf(
      registry.repository({ registry: fake.host, repository: "me/m" }).resolve("1", { signal }),
    );

    expect(error).toBe(broken);
  });
});

function bearer(realm: string): string {
  return `Bearer realm="${realm}",service="s"`;
}

function wanting(scope: string, registryUrl = "http://localhost:5000"): AuthorizeRequest {
  const refusal = {
    subject: "me/m",
    verb: "read",
    registry: "r",
    account: undefined,
    signal,
  } as const;
  return { scopes: [scope], registryUrl, refusal };
}

async function trusting(
  challenge: (realm: string) => string,
  options: { readonly credential?: Credential; readonly registryUrl?: string } = {},
) {
  const requests: RequestRecord[] = [];
  const answer: RawAnswer = { status: 200, body: Buffer.from('{"token":"t"}') };
  const server = await serveRaw(async ({ record }) => {
    requests.push(record);
    return answer;
  });
  const { credential, registryUrl = "https://registry.example.com" } = options;
  const authorizer = new Authorizer({
    http: createHttp({ offline: false, caBundle: "", isInsecure: () => false }),
    credentials: credentialsOf(
      credential === undefined ? {} : { "registry.example.com": credential },
    ),
    host: "registry.example.com",
  });
  const request = wanting("repository:me/m:pull", registryUrl);
  const header = challenge(`http://127.0.0.1:${server.port}/token`);
  return {
    requests,
    answer: () => authorizer.answer(header, undefined, request),
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

describe("realms", () => {
  test("a registry with TLS does not send anybody to a token server without", async () => {
    await using it = await trusting(bearer);

    const error = await failureOf(it.answer());

    expect(error.message).toEndWith("its token server does not use TLS");
    expect(it.requests).toHaveLength(0);
  });

  test("a password goes in the clear to no other machine than the registry's", async () => {
    await using it = await trusting(bearer, {
      credential: ann(),
      registryUrl: "http://registry.example.com",
    });

    const error = await failureOf(it.answer());

    expect(error.message).toContain("it wants the password sent in the clear to `127.0.0.1:");
    expect(it.requests).toHaveLength(0);
  });

  test("a stranger may ask there", async () => {
    await using it = await trusting(bearer, { registryUrl: "http://registry.example.com" });

    expect(await it.answer()).toEqual({ value: "Bearer t", account: undefined });
  });

  test("on this machine a password goes to any port", async () => {
    await using it = await trusting(bearer, {
      credential: ann(),
      registryUrl: "http://localhost:5000",
    });

    expect(await it.answer()).toMatchObject({ account: { username: "ann", source: "the tests" } });
    expect(it.requests[0]?.headers["authorization"]).toStartWith("Basic ");
  });

  test.each(["ftp://host/token", "token", "https://user:secret@host/token"])(
    "%s is no realm",
    async (realm) => {
      await using it = await trusting(() => bearer(realm));

      const error = await failureOf(it.answer());

      expect(error.message).toEndWith("it names no address of a token server");
    },
  );

  test("of several challenges the token's is answered", async () => {
    await using it = await trusting((realm) => `Basic realm="x", ${bearer(realm)}`, {
      credential: ann(),
      registryUrl: "http://localhost:5000",
    });

    expect((await it.answer())?.value).toBe("Bearer t");
  });

  test.each(["Negotiate", 'Digest realm="x"', "Bearer", 'Bearer realm=""', "nonsense;;"])(
    "%s cannot be answered",
    async (header) => {
      await using it = await trusting(() => header, { credential: ann() });

      expect(await it.answer()).toBeUndefined();
    },
  );

  test("scopes that the registry asks for besides are asked for too, a few of them", async () => {
    const extra = Array.from({ length: 50 }, (_, at) => `repository:x/y${at}:pull`).join(" ");
    await using it = await trusting((realm) => `${bearer(realm)},scope="${extra}"`, {
      registryUrl: "http://localhost:5000",
    });

    await it.answer();

    const scopes = it.requests[0]?.query.getAll("scope");
    expect(scopes?.[0]).toBe("repository:me/m:pull");
    expect(scopes).toHaveLength(9);
  });

  test("a form with a secret in it follows no redirect", async () => {
    const stolen: RequestRecord[] = [];
    const thief = await serveRaw(async ({ record }) => {
      stolen.push(record);
      return { status: 200, body: Buffer.from('{"token":"t"}') };
    });
    const server = await serveRaw(async () => ({
      status: 307,
      headers: { location: `http://127.0.0.1:${thief.port}/` },
    }));
    await using it = await trusting(() => bearer(`http://127.0.0.1:${server.port}/token`), {
      credential: ann({ identityToken: "refresh" }),
      registryUrl: "http://localhost:5000",
    });

    const error = await failureOf(it.answer());
    await Promise.all([server.stop(), thief.stop()]);

    expect(error.message).toEndWith("it answered with status 307");
    expect(stolen).toHaveLength(0);
  });
});

async function clocked(answer: string) {
  let nowMs = 0;
  let asked = 0;
  const server = await serveRaw(async () => {
    asked += 1;
    return { status: 200, body: Buffer.from(answer.replace("N", String(asked))) };
  });
  const authorizer = new Authorizer({
    http: createHttp({ offline: false, caBundle: "", isInsecure: () => false }),
    credentials: credentialsOf(),
    host: "localhost",
    now: () => nowMs,
  });
  const header = `Bearer realm="http://127.0.0.1:${server.port}/"`;
  await authorizer.answer(header, undefined, wanting("a"));
  return {
    advance: (ms: number) => void (nowMs += ms),
    authorize: async (scope = "a") => (await authorizer.authorize(wanting(scope)))?.value,
    asked: () => asked,
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

describe("lifetimes", () => {
  test.each([
    ['{"token":"N","expires_in":300}', 290_000],
    ['{"token":"N","expires_in":20}', 16_000],
    ['{"token":"N"}', 50_000],
    ['{"token":"N","expires_in":-5}', 50_000],
    ['{"token":"N","expires_in":"300"}', 50_000],
    ['{"token":"N","expires_in":1e30}', 24 * 3_600_000 - 10_000],
  ])("%s is good for %p ms", async (answer, lifetimeMs) => {
    await using it = await clocked(answer);

    it.advance(lifetimeMs - 1);
    const before = await it.authorize();
    it.advance(1);
    const after = await it.authorize();

    expect([before, after]).toEqual(["Bearer 1", "Bearer 2"]);
  });

  test("old tokens make room for new ones", async () => {
    await using it = await clocked('{"token":"N","expires_in":300}');

    for (let at = 0; at < 256; at += 1) await it.authorize(`scope-${at}`);
    const before = it.asked();
    await it.authorize("scope-255");
    await it.authorize("a");

    expect(it.asked() - before).toBe(1);
  });
});

describe("check", () => {
  test("a right password, and a wrong one", async () => {
    await using it = await guarded({ scheme: "bearer", ...USER });

    await it.registry.check(it.fake.host, USER, { signal });
    const error = await failureOf(
      it.registry.check(it.fake.host, { username: "ann", password: "wrong" }, { signal }),
    );

    expect(error.code).toBe("unauthorized");
    expect(error.message).toStartWith(
      `cannot log in to \`${it.fake.host}\`: the registry does not accept \`ann\` from the command line`,
    );
  });

  test("Basic likewise", async () => {
    await using it = await guarded({ scheme: "basic", ...USER });
    it.fake.fault({
      kind: "status",
      path: /^\/v2\/$/,
      status: 401,
      headers: { "www-authenticate": 'Basic realm="x"' },
    });

    const error = await failureOf(it.registry.check(it.fake.host, USER, { signal }));

    expect(error.code).toBe("unauthorized");
    expect(it.fake.requests[1]?.headers["authorization"]).toStartWith("Basic ");
  });

  test("without a password the one that is kept is tried", async () => {
    await using it = await guarded({ scheme: "basic", ...USER }, ann());
    it.fake.fault({
      kind: "status",
      path: /^\/v2\/$/,
      status: 401,
      headers: { "www-authenticate": 'Basic realm="x"' },
      times: 1,
    });

    await it.registry.check(it.fake.host, undefined, { signal });

    expect(it.credentials.asked).toEqual([it.fake.host]);
  });

  test("the repository that GHCR names in its challenge is not asked for", async () => {
    await using it = await guarded({ scheme: "bearer", ...USER });
    it.fake.fault({
      kind: "headers",
      path: /^\/v2\/$/,
      set: {
        "www-authenticate": `Bearer realm="${it.fake.url}/token",service="fake",scope="repository:user/image:pull"`,
      },
    });

    await it.registry.check(it.fake.host, USER, { signal });

    const asked = it.fake.requests.find(({ path }) => path === "/token");
    expect(asked?.query.getAll("scope")).toEqual([]);
  });

  test("a host that is no registry says so", async () => {
    await using it = await guarded({ scheme: "basic", ...USER });
    it.fake.fault({ kind: "status", status: 404 });

    const error = await failureOf(it.registry.check(it.fake.host, USER, { signal }));

    expect(error.code).toBe("not_found");
  });
});
