import { describe, expect, test } from "bun:test";
import { createApp } from "../../src/server/app.ts";
import { fakeDeps, fakeRuntime } from "./fake-deps.ts";

function post(body: unknown): RequestInit {
  return { method: "POST", body: JSON.stringify(body) };
}

describe("POST /api/generate without a prompt", () => {
  test("loads the model, and says so in Ollama's words", async () => {
    const runtime = fakeRuntime({});

    const response = await createApp(fakeDeps({ runtime })).request(
      "/api/generate",
      post({ model: "pebble", prompt: "" }),
    );

    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({
      model: "pebble",
      response: "",
      done: true,
      done_reason: "load",
    });
    expect(runtime.unloads).toEqual([]);
  });

  test("a prompt is refused, and what answers it is named", async () => {
    const response = await createApp(fakeDeps({ runtime: fakeRuntime({}) })).request(
      "/api/generate",
      post({ model: "pebble", prompt: "hello" }),
    );

    expect(response.status).toBe(501);
    expect(await response.text()).toContain("/v1/chat/completions");
  });

  test.each([
    ["an unknown model", { model: "nobody/nothing" }, 404],
    ["no model", {}, 400],
    ["a keep-alive that is none", { model: "pebble", keep_alive: "soon" }, 400],
  ])("%s loads nothing", async (_, body, status) => {
    const response = await createApp(fakeDeps({ runtime: fakeRuntime({}) })).request(
      "/api/generate",
      post(body),
    );

    expect(response.status).toBe(status);
  });
});
