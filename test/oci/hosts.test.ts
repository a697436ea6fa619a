import { describe, expect, test } from "bun:test";
import { connectionError, reasonOf } from "../../src/http/connection-error.ts";
import { createHosts } from "../../src/oci/hosts.ts";
import { startDockerRegistry, dockerRegistry, htpasswd } from "../helpers/docker-registry.ts";
import { startFakeRegistry } from "../fakes/registry.ts";
import { certificates, openssl } from "../helpers/certificates.ts";
import { freePort } from "../helpers/free-port.ts";
import { testIf } from "../helpers/test-if.ts";
import { failureOf, rejectionOf } from "../http/failure-of.ts";
import { ann, client, credentialsOf, noSignal as signal } from "./registry-client.ts";

const withOpenssl = testIf(openssl !== null, "openssl is not installed");
const withRegistry = testIf(
  dockerRegistry !== null && openssl !== null && htpasswd !== null,
  "docker-registry, openssl or htpasswd is not installed",
);

const refusing = (code: string) => ({
  send: () => Promise.reject(connectionError("https://x", Object.assign(new Error(), { code }))),
});

describe("baseUrl", () => {
  test.each([
    ["docker.io", "https://registry-1.docker.io"],
    ["ghcr.io", "https://ghcr.io"],
    ["10.0.0.1:5000", "https://10.0.0.1:5000"],
    ["localhost:5000", "http://localhost:5000"],
    ["127.0.0.1:5000", "http://127.0.0.1:5000"],
    ["[::1]:5000", "http://[::1]:5000"],
    ["local", "https://local"],
  ])("%s is at %s, without asking", async (host, url) => {
    const http = { send: () => Promise.reject(new Error("nothing is to be asked")) };
    const hosts = createHosts({ http, isInsecure: () => false });

    expect(await hosts.baseUrl(host, { signal })).toBe(url);
  });

  test("a host that may be insecure is asked once whether it speaks TLS", async () => {
    let asked = 0;
    const http = {
      async send(): Promise<Response> {
        asked += 1;
        return new Response(null, { status: 401 });
      },
    };
    const hosts = createHosts({ http, isInsecure: () => true });

    const urls = await Promise.all([
      hosts.baseUrl("r.example.com", { signal }),
      hosts.baseUrl("r.example.com", { signal }),
    ]);

    expect(urls).toEqual(["https://r.example.com", "https://r.example.com"]);
    expect(asked).toBe(1);
  });

  test.each([
    ["nas.local", "EPROTO", "http://nas.local"],
    ["nas.local:5000", "ECONNRESET", "http://nas.local:5000"],
    ["nas.local", "ECONNREFUSED", "http://nas.local"],
    ["nas.local", "SELF_SIGNED_CERT_IN_CHAIN", "https://nas.local"],
  ])("%s is asked for TLS first: after %s it is at %s", async (host, code, url) => {
    const hosts = createHosts({ http: refusing(code), isInsecure: () => false });

    expect(await hosts.baseUrl(host, { signal })).toBe(url);
  });

  test.each([
    ["nas.local:5000", "ECONNREFUSED", "refused"],
    ["nas.local", "ENOTFOUND", "dns"],
    ["nas.local", "ERR_PROXY_TUNNEL", "proxy"],
  ])("%s is not spoken to in the clear because of %s", async (host, code, reason) => {
    const hosts = createHosts({ http: refusing(code), isInsecure: () => true });

    expect(reasonOf(await failureOf(hosts.baseUrl(host, { signal })))).toBe(reason);
  });

  test("one that cannot be reached is asked again the next time", async () => {
    const port = await freePort();
    const { http } = client();
    const hosts = createHosts({
      http: { send: (_url, request) => http.send(`https://127.0.0.1:${port}/`, request) },
      isInsecure: () => true,
    });

    const first = await failureOf(hosts.baseUrl("r.example.com:5000", { signal }));
    const second = await failureOf(hosts.baseUrl("r.example.com:5000", { signal }));

    expect([reasonOf(first), reasonOf(second)]).toEqual(["refused", "refused"]);
  });

  test("who waits for the answer can leave", async () => {
    const controller = new AbortController();
    const hosts = createHosts({
      http: { send: () => new Promise(() => {}) },
      isInsecure: () => true,
    });
    const asking = hosts.baseUrl("r.example.com", { signal: controller.signal });

    controller.abort(new Error("enough"));

    expect(await rejectionOf(asking)).toHaveProperty("message", "enough");
  });
});

describe("a registry on this machine with TLS", () => {
  withOpenssl("it is found out by itself, and the authority must be known", async () => {
    const { caFile, ...tls } = await certificates();
    await using fake = await startFakeRegistry({ tls });
    const model = await fake.addModel("me/m:1", new Uint8Array(10));
    const name = { registry: fake.host, repository: "me/m" };

    const error = await failureOf(client().repository(name).resolve("1", { signal }));
    const found = await client({ caBundle: caFile }).repository(name).resolve("1", { signal });

    expect(reasonOf(error)).toBe("certificate");
    expect(error.hint).toContain("TUG_CA_BUNDLE");
    expect(String(found.digest)).toBe(model.manifest.digest);
  });

  withOpenssl("where it may be insecure any certificate will do", async () => {
    const tls = await certificates();
    await using fake = await startFakeRegistry({ tls });
    await fake.addModel("me/m:1", new Uint8Array(10));
    const lenient = client({ isInsecure: (host) => host === fake.host });

    const found = await lenient
      .repository({ registry: fake.host, repository: "me/m" })
      .resolve("1", { signal });

    expect(found.size).toBeGreaterThan(0);
  });
});

test("400 of a registry without TLS stays what it is", async () => {
  await using fake = await startFakeRegistry();
  fake.fault({ kind: "status", status: 400, body: '{"errors":[{"code":"NAME_INVALID"}]}' });
  const http = client().http;
  const impatient = client({
    http: {
      send: (url, request) =>
        http.send(url, url.startsWith("https:") ? { ...request, headersTimeoutMs: 50 } : request),
    },
  });

  const error = await failureOf(
    impatient
      .repository({ registry: fake.host, repository: "me/m" })
      .fetchManifest("1", { signal }),
  );

  expect(error.details).toMatchObject({ status: 400, codes: ["NAME_INVALID"] });
});

describe("docker-registry", () => {
  withRegistry("with TLS and a password on this machine", async () => {
    const { caFile } = await certificates();
    await using real = await startDockerRegistry({
      tls: true,
      user: { name: "ann", password: "secret" },
    });
    const credentials = credentialsOf({ [real.host]: ann({ password: "secret" }) });
    const trusting = client({ caBundle: caFile, credentials });
    const repository = trusting.repository({ registry: real.host, repository: "me/m" });

    await trusting.check(real.host, { username: "ann", password: "secret" }, { signal });
    const wrong = await failureOf(
      trusting.check(real.host, { username: "ann", password: "no" }, { signal }),
    );
    const missing = await failureOf(repository.resolve("1", { signal }));
    const unknown = await failureOf(client().check(real.host, undefined, { signal }));

    expect(wrong.code).toBe("unauthorized");
    expect(missing.code).toBe("not_found");
    expect(reasonOf(unknown)).toBe("certificate");
  });

  withRegistry("without TLS, where it may be insecure", async () => {
    await using real = await startDockerRegistry();
    const lenient = client({ isInsecure: () => true });

    await lenient.check(real.host, undefined, { signal });
    const none = await Array.fromAsync(
      lenient.repository({ registry: real.host, repository: "me/m" }).tags({ signal }),
    ).catch((error: { code: string }) => error.code);

    expect(none).toBe("not_found");
  });
});
