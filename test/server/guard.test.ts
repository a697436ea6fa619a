import { describe, expect, test } from "bun:test";
import { createApp } from "../../src/server/app.ts";
import { isOwnHost, judgeOrigin } from "../../src/server/guard.ts";
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
  ])("guard: %p may not be asked for", (host) => {
    expect(isOwnHost(host, "192.168.1.5")).toBe(false);
  });

  test("guard: a bound IPv6 address is written in brackets", () => {
    expect(isOwnHost("[fd00::1]:80", "fd00::1")).toBe(true);
  });
});

describe("judgeOrigin", () => {
  test.each([
    ["http://localhost", "loopback"],
    ["https://localhost:3000", "loopback"],
    ["http://127.0.0.1:8080", "loopback"],
    ["http://[::1]:5173", "loopback"],
    ["https://app.example.com", "listed"],
    ["https://a.b.example.org", "listed"],
    ["http://host.test:81", "listed"],
    ["http://host.test", "listed"],
    ["app://thing", "listed"],
    ["https://example.org", "refused"],
    ["https://app.example.com.evil.example", "refused"],
    ["https://appXexample.com", "refused"],
    ["https://app.example.com:444", "refused"],
    ["http://host.test:81/path", "refused"],
    ["http://localhost.evil.example", "refused"],
    ["http://localhost@evil.example", "refused"],
    ["null", "refused"],
    ["", "refused"],
  ])("guard: the origin %p is %s", (origin, verdict) => {
    const allowed = [
      "https://app.example.com/",
      "https://*.example.org",
      "http://host.test:*",
      "app://thing",
    ];

    expect(judgeOrigin(origin, allowed)).toBe(verdict as never);
  });

  test("guard: a star allows everything", () => {
    expect(judgeOrigin("null", ["*"])).toBe("any");
    expect(judgeOrigin("https://evil.example", ["*"])).toBe("any");
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

  test("guard: a preflight is answered with the headers it asks for", async () => {
    const response = await app.request("/v1/chat/completions", {
      method: "OPTIONS",
      headers: {
        origin: "https://app.example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
        "access-control-request-private-network": "true",
      },
    });

    expect(response.status).toBe(204);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      "access-control-allow-origin": "https://app.example.com",
      "access-control-allow-headers": "authorization,content-type",
      "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
      "access-control-allow-private-network": "true",
    });
  });

  test("guard: an answer without an origin still varies by it", async () => {
    const { headers } = await app.request("/version");

    expect(headers.get("vary")).toBe("Origin");
    expect(headers.get("access-control-allow-origin")).toBeNull();
  });
});
