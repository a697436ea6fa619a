import { describe, expect, test } from "bun:test";
import { type App, createApp } from "../../src/server/app.ts";
import { isOwnHost } from "../../src/server/guard.ts";
import { fakeDeps } from "./fake-deps.ts";

describe("isOwnHost", () => {
  test.each([
    "localhost",
    "localhost:12434",
    "LOCALHOST:1",
    "tug.localhost",
    "127.0.0.1",
    "127.8.9.10:80",
    "[::1]:12434",
    "192.168.1.5:12434",
    "0.0.0.0:12434",
    "[::]:12434",
    "host.docker.internal:12434",
    "model-runner.docker.internal",
    "host.containers.internal:12434",
  ])("guard: %s may be asked for", (host) => {
    expect(isOwnHost(host, "192.168.1.5")).toBe(true);
  });

  test.each([
    "",
    "evil.example",
    "evil.example:12434",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "127.0.0.1:80@evil.example",
    "192.168.1.6",
    "[::2]",
    "localhost:",
    "localhost:123456",
    "localhost/x",
    "docker.internal",
    "host.docker.internal.evil.example",
    "evil.host.docker.internal",
  ])("guard: %p may not be asked for", (host) => {
    expect(isOwnHost(host, "192.168.1.5")).toBe(false);
  });

  test("guard: listed names may be asked for, and those below a listed domain", () => {
    const hosts = ["ai.example.com", "*.lan"];

    expect(isOwnHost("ai.example.com:8443", undefined, hosts)).toBe(true);
    expect(isOwnHost("NAS.lan", undefined, hosts)).toBe(true);
    expect(isOwnHost("lan", undefined, hosts)).toBe(false);
    expect(isOwnHost("evil-lan", undefined, hosts)).toBe(false);
    expect(isOwnHost("x.ai.example.com", undefined, hosts)).toBe(false);
    expect(isOwnHost("whatever", undefined, ["*"])).toBe(true);
    expect(isOwnHost("what/ever", undefined, ["*"])).toBe(false);
  });

  test("guard: a bound IPv6 address is written in brackets", () => {
    expect(isOwnHost("[fd00::1]:80", "fd00::1")).toBe(true);
  });
});

describe("guard", () => {
  const app = createApp(fakeDeps({ allowedOrigins: ["https://app.example.com"] }));

  test("guard: a foreign Host is refused in JSON, whatever the route", async () => {
    for (const path of ["/", "/version", "/engines/ps", "/v1/models", "/logs", "/nothing"]) {
      const response = await app.request(path, { headers: { host: "evil.example" } });

      expect(response.status).toBe(403);
      expect(await response.json()).toMatchObject({
        error: { code: "forbidden", type: "permission_error" },
      });
    }
  });

  test("guard: on the unix socket any Host will do", async () => {
    const request = { headers: { host: "whatever" } };

    expect((await app.request("/version", request, { trusted: true })).status).toBe(200);
  });

  test("guard: a foreign origin is refused, also on the unix socket", async () => {
    const request = { headers: { origin: "https://evil.example" } };

    const response = await app.request("/version", request, { trusted: true });

    expect(response.status).toBe(403);
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });

  test("guard: an allowed origin may read the answer, errors included", async () => {
    const request = { headers: { origin: "http://localhost:3000" } };

    for (const path of ["/version", "/nothing"]) {
      const { headers } = await app.request(path, request);

      expect(headers.get("access-control-allow-origin")).toBe("http://localhost:3000");
      expect(headers.get("access-control-allow-credentials")).toBe("true");
      expect(headers.get("vary")).toBe("Origin");
    }
  });

  test("guard: with a star credentials are not allowed", async () => {
    const open = createApp(fakeDeps({ allowedOrigins: ["*"] }));

    const { headers } = await open.request("/version", {
      headers: { origin: "https://any.example" },
    });

    expect(headers.get("access-control-allow-origin")).toBe("*");
    expect(headers.get("access-control-allow-credentials")).toBeNull();
  });

  test("guard: a preflight is answered with the headers it asks for, on every path", async () => {
    for (const path of ["/v1/chat/completions", "/", "/metrics", "/nothing", "/api/chat"]) {
      const response = await preflight(app, path, {
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
        "access-control-request-private-network": "true",
      });

      expect(response.status).toBe(204);
      expect(await response.text()).toBe("");
      expect(Object.fromEntries(response.headers)).toMatchObject({
        "access-control-allow-origin": "https://app.example.com",
        "access-control-allow-headers": "authorization,content-type,x-stainless-os",
        "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        "access-control-allow-private-network": "true",
        "access-control-max-age": "600",
        vary: "Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network, Origin",
      });
    }
  });

  test("guard: what is no list of header names is not repeated", async () => {
    for (const names of ["a\tb", "a:b", "x".repeat(5000), ", ,", "a;b"]) {
      const { status, headers } = await preflight(app, "/", {
        "access-control-request-headers": names,
      });

      expect(status).toBe(204);
      expect(headers.get("access-control-allow-headers")).toBeNull();
    }
  });

  test("guard: a preflight needs no key", async () => {
    const closed = createApp(fakeDeps({ apiKey: "k" }));

    const asked = await closed.request("/v1/models", {
      method: "OPTIONS",
      headers: { origin: "http://localhost:1", "access-control-request-method": "GET" },
    });
    const real = await closed.request("/v1/models", { headers: { origin: "http://localhost:1" } });

    expect(asked.status).toBe(204);
    expect(real.status).toBe(401);
    // The page has to learn that it is the key.
    expect(real.headers.get("access-control-allow-origin")).toBe("http://localhost:1");
  });

  test("guard: a preflight of a foreign origin is refused", async () => {
    const response = await app.request("/v1/models", {
      method: "OPTIONS",
      headers: { origin: "https://evil.example", "access-control-request-method": "GET" },
    });

    expect(response.status).toBe(403);
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });

  test("guard: an allowed origin reads what says who asked and when to come again", async () => {
    const { headers } = await app.request("/nothing", {
      headers: { origin: "http://localhost:1" },
    });

    expect(headers.get("access-control-expose-headers")).toBe(
      "Retry-After, X-Request-Id, Request-Id",
    );
  });

  test("guard: a foreign origin is refused before anything is done, whatever it sends", async () => {
    const asked: string[] = [];
    const deps = fakeDeps({
      listModels: () => {
        asked.push("list");
        return Promise.resolve([]);
      },
    });
    const watched = createApp(deps);
    for (const origin of ["https://evil.example", "null", "file://", "", "x".repeat(10_000)]) {
      for (const method of ["GET", "POST", "DELETE"]) {
        const response = await watched.request("/v1/models", {
          method,
          headers: { origin, "content-type": "text/plain" },
          ...(method === "GET" ? {} : { body: "{}" }),
        });

        expect(response.status).toBe(403);
      }
    }

    expect(asked).toEqual([]);
  });

  test("guard: the refusal is the command that allows the origin, with what is allowed already", async () => {
    expect(await hintFor(app, "https://new.example:8443")).toBe(
      "Allow it with `TUG_ORIGINS=https://app.example.com,https://new.example:8443 tug restart-runner`, or for good with `origins` in config.toml.",
    );
    const wild = createApp(fakeDeps({ allowedOrigins: ["https://*.example.com"] }));
    expect(await hintFor(wild, "tauri://app")).toStartWith(
      "Allow it with `TUG_ORIGINS='https://*.example.com,tauri://app' tug restart-runner`",
    );
  });

  test("guard: what is no origin never becomes part of a command", async () => {
    for (const origin of ["https://x;rm -rf ~", "https://$(id)", "https://`id`", "https://'x'"]) {
      expect(await hintFor(app, origin)).toBe("Send an origin such as `https://app.example.com`.");
    }
    expect(await hintFor(app, "https://")).toStartWith("Send an origin");
    expect(await hintFor(app, "file://")).toContain(",file:// tug restart-runner`");
    expect(await hintFor(app, "null")).toContain("http://localhost");
  });

  test("guard: strangers on the network are not told what is allowed", async () => {
    const closed = createApp(
      fakeDeps({ apiKey: "k", allowedOrigins: ["https://secret.example.com"] }),
    );

    const hint = await hintFor(closed, "https://new.example");

    expect(hint).toContain("https://new.example");
    expect(hint).not.toContain("secret");
    expect(hint).not.toContain("restart-runner");
  });

  test("guard: refusals speak the dialect of the path", async () => {
    const headers = { origin: "https://evil.example" };

    const anthropic = await app.request("/anthropic/v1/messages", { method: "POST", headers });
    const ollama = await app.request("/api/chat", { method: "POST", headers });

    expect([anthropic.status, ollama.status]).toEqual([403, 403]);
    expect(await anthropic.json()).toMatchObject({
      type: "error",
      error: { type: "permission_error" },
    });
    expect(await ollama.json()).toMatchObject({ error: expect.stringContaining("TUG_ORIGINS=") });
  });

  test("guard: an image or a script of a page elsewhere is refused, a link that is followed is not", async () => {
    expect(await askFrom(app, "no-cors")).toBe(403);
    expect(await askFrom(app, "navigate")).toBe(200);
    expect(await askFrom(app, "navigate", "POST")).toBe(403);
  });

  test("guard: behind a reverse proxy, pages of its own name may ask", async () => {
    const proxied = createApp(fakeDeps({ allowedHosts: ["ai.example.com"] }));
    const ask = async (origin: string): Promise<number> => {
      const headers = { host: "ai.example.com", origin };
      return (await proxied.request("/version", { headers })).status;
    };

    expect(await ask("https://ai.example.com")).toBe(200);
    expect(await ask("https://ai.example.com:444")).toBe(403);
    expect(await ask("https://evil.example")).toBe(403);
    // A rebound name is no name of ours, and has no pages that may ask.
    const open = createApp(fakeDeps({ allowedHosts: ["*"] }));
    const rebound = { host: "evil.example", origin: "http://evil.example" };
    expect((await open.request("/version", { headers: rebound })).status).toBe(403);
  });

  test("guard: a refused Host is told how to allow a name, and only a name", async () => {
    expect(await hintForHost(app, "ai.example.com:80")).toContain(
      "`TUG_HOSTS=ai.example.com tug restart-runner`",
    );
    expect(await hintForHost(app, "a;b")).toBe("Use localhost or 127.0.0.1.");
  });

  test("guard: an answer without an origin still varies by it", async () => {
    const { headers } = await app.request("/version");

    expect(headers.get("vary")).toBe("Origin");
    expect(headers.get("access-control-allow-origin")).toBeNull();
  });
});

async function hintFor(app: App, origin: string): Promise<string> {
  const response = await app.request("/v1/models", { headers: { origin } });
  expect(response.status).toBe(403);
  const { error } = (await response.json()) as { error: { hint: string } };
  return error.hint;
}

async function askFrom(app: App, mode: string, method = "GET"): Promise<number> {
  const headers = { "sec-fetch-site": "cross-site", "sec-fetch-mode": mode };
  return (await app.request("/version", { method, headers })).status;
}

async function hintForHost(app: App, host: string): Promise<string> {
  const response = await app.request("/version", { headers: { host } });
  const { error } = (await response.json()) as { error: { hint: string } };
  return error.hint;
}

async function preflight(
  app: App,
  path: string,
  headers: Record<string, string>,
): Promise<Response> {
  const method = { origin: "https://app.example.com", "access-control-request-method": "POST" };
  const response = await app.request(path, {
    method: "OPTIONS",
    headers: { ...method, ...headers },
  });
  return response;
}
