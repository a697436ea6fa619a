import { describe, expect, test } from "bun:test";
import { isAllowed, requirementOf, ruleOf } from "../../../src/server/access/scopes.ts";
import { routesOf, withWholeApp } from "../whole-app.ts";

/** As a request would ask: parameters filled in. */
function samplePath(pattern: string): string {
  return pattern
    .replaceAll(/:(\w+)\{[^}]*\+[^}]*\}/g, "me")
    .replaceAll(/:(\w+)(\{[^}]*\})?/g, "me")
    .replaceAll("*", "me");
}

describe("scopes of routes", () => {
  test("the table knows every route of the app", async () => {
    const routes = await withWholeApp(routesOf);
    const forgotten = routes.filter(
      ({ method, path }) => ruleOf(method, samplePath(path)) === undefined,
    );

    expect(routes.length).toBeGreaterThan(40);
    expect(forgotten.map(({ method, path }) => `${method} ${path}`)).toEqual([]);
  });

  test("no route takes all methods, OPTIONS among them, which needs no key", async () => {
    const all = (await withWholeApp(routesOf)).filter(({ method }) =>
      /^(?:ALL|OPTIONS)$/.test(method),
    );

    expect(all).toEqual([]);
  });

  test("only the probes and pictures whose address nobody guesses need no key", async () => {
    const open = (await withWholeApp(routesOf)).filter(
      ({ method, path }) => requirementOf(method, samplePath(path)) === "public",
    );

    expect(open.map(({ path }) => path).toSorted()).toEqual([
      "/health/live",
      "/health/ready",
      "/v1/images/files/:name",
    ]);
  });

  test.each([
    ["GET", "/health/live", "public"],
    ["HEAD", "/health/ready", "public"],
    ["POST", "/health/live", "admin"],
    ["GET", "/", "any"],
    ["HEAD", "/", "any"],
    ["GET", "/version", "any"],
    ["GET", "/models", "any"],
    ["GET", "/models/me/m:v1", "any"],
    ["GET", "/models/me/m:v1/export", "models"],
    ["GET", "/models/search", "models"],
    ["GET", "/models/searching", "any"],
    ["GET", "/models/pulls", "models"],
    ["DELETE", "/models/pulls/1", "models"],
    ["DELETE", "/models/me/purge:latest", "models"],
    ["DELETE", "/models/purge", "admin"],
    ["POST", "/models/create", "models"],
    ["GET", "/v1/images/files/abc.png", "public"],
    ["GET", "/v1/images/files/a/b", "inference"],
    ["DELETE", "/v1/images/files/abc.png", "inference"],
    ["POST", "/v1/images/generations", "inference"],
    ["GET", "/v1/models", "any"],
    ["GET", "/engines/llama.cpp/v1/models/me/m", "any"],
    ["DELETE", "/v1/models/me/m", "models"],
    ["POST", "/v1/chat/completions", "inference"],
    ["POST", "/engines/llama.cpp/v1/chat/completions", "inference"],
    ["POST", "/v1/messages", "inference"],
    ["POST", "/anthropic/v1/messages/count_tokens", "inference"],
    ["DELETE", "/v1/responses/resp_1", "inference"],
    ["GET", "/api/tags", "any"],
    ["POST", "/api/show", "any"],
    ["POST", "/api/chat", "inference"],
    ["POST", "/api/pull", "models"],
    ["DELETE", "/api/delete", "models"],
    ["HEAD", "/api/blobs/sha256:1", "models"],
    ["POST", "/api/nothing", "admin"],
    ["GET", "/engines/ps", "any"],
    ["POST", "/engines/load", "inference"],
    ["POST", "/engines/install-backend", "models"],
    ["POST", "/engines/unload", "admin"],
    ["POST", "/engines/_configure", "admin"],
    ["GET", "/engines/llama.cpp/_configure", "admin"],
    ["GET", "/engines/requests", "admin"],
    ["GET", "/engines/requests/1", "admin"],
    ["GET", "/logs", "admin"],
    ["GET", "/metrics", "inference"],
    ["POST", "/keys", "admin"],
    ["POST", "/runner/stop", "admin"],
    ["GET", "/nobody/knows/v1/models", "admin"],
    ["GET", "/LOGS", "admin"],
    ["GET", "/%6Cogs", "admin"],
  ] as const)("%s %s needs %s", (method, path, needs) => {
    expect(requirementOf(method, path)).toBe(needs);
  });

  test("admin includes the others, and nothing else does", () => {
    expect(isAllowed(["admin"], "models")).toBe(true);
    expect(isAllowed(["models"], "inference")).toBe(false);
    expect(isAllowed(["inference"], "models")).toBe(false);
    expect(isAllowed(["inference", "models"], "admin")).toBe(false);
    expect(isAllowed([], "inference")).toBe(false);
    expect(isAllowed([], "any")).toBe(true);
  });
});
