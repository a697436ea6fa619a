import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import OpenAI, { toFile } from "openai";
import { AppError } from "../../src/errors.ts";
import { ImageFiles } from "../../src/server/image-files.ts";
import type { Exchange, Script } from "../fakes/engine.ts";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { errorOf, type OpenaiSetup, openaiSetup, says } from "./openai-setup.ts";

const PNG = Buffer.from("\x89PNG\r\n\x1a\nthe picture", "latin1");
const ANSWER = {
  created: 1,
  data: [
    { b64_json: PNG.toString("base64"), seed: 7 },
    { b64_json: PNG.toString("base64"), seed: 8 },
  ],
};
const PATHS = ["/v1", "/engines/v1", "/engines/diffusers/v1"];

function openai({ listening }: OpenaiSetup): OpenAI {
  const baseURL = `${listening.endpoint}/v1`;
  return new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
}

async function keeping(script: Script): Promise<OpenaiSetup> {
  const home = await tempDir();
  const imageFiles = new ImageFiles({ directory: join(home.path, "images") });
  const setup = await openaiSetup(script, { imageFiles });
  const dispose = setup[Symbol.asyncDispose].bind(setup);
  return Object.defineProperties(
    {},
    {
      ...Object.getOwnPropertyDescriptors(setup),
      [Symbol.asyncDispose]: {
        value: async () => {
          await dispose();
          await imageFiles.close();
          await home[Symbol.asyncDispose]();
        },
      },
    },
  ) as OpenaiSetup;
}

function eventOf(type: string): string {
  return `event: ${type}\ndata: {"type":"${type}","b64_json":"AA=="}\n\n`;
}

const refusing = () => ({
  plan: () => Promise.reject(new AppError("unsupported_model", "no engine offers it")),
});

describe("drawing", () => {
  test.each(PATHS)(
    "generations: under %p the engine gets what was asked, and answers",
    async (prefix) => {
      await using it = await openaiSetup(says(ANSWER));

      const response = await it.post(`${prefix}/images/generations`, {
        model: "pebble",
        prompt: "a cat",
        size: "512x768",
        n: 2,
        num_inference_steps: 4,
        negative_prompt: "a dog",
      });

      expect([response.status, await response.json()]).toEqual([200, ANSWER]);
      expect(it.engine.requests.at(-1)?.target).toBe("/v1/images/generations");
      expect(it.sent).toMatchObject({
        prompt: "a cat",
        size: "512x768",
        n: 2,
        num_inference_steps: 4,
        negative_prompt: "a dog",
        response_format: "b64_json",
      });
    },
  );

  test("generations: by the official client", async () => {
    await using it = await openaiSetup(says(ANSWER));

    const { data } = await openai(it).images.generate({ model: "pebble", prompt: "a cat", n: 2 });

    expect(data?.map(({ b64_json: text }) => text)).toEqual(ANSWER.data.map((one) => one.b64_json));
  });

  test("generations: as URLs, on the host that was asked, which anybody with them can get", async () => {
    await using it = await keeping(says(ANSWER));
    const asked = { model: "pebble", prompt: "a cat", response_format: "url" } as const;

    const { data = [] } = await openai(it).images.generate(asked);
    const [first, second] = data.map(({ url = "" }) => url);
    const picture = await fetch(first ?? "");

    expect(first).toStartWith(`${it.listening.endpoint}/v1/images/files/`);
    expect(first).not.toBe(second);
    expect(data[0]).toEqual({ url: first, seed: 7 } as object);
    expect(it.sent["response_format"]).toBe("b64_json");
    expect(picture.headers.get("content-type")).toBe("image/png");
    expect(picture.headers.get("x-content-type-options")).toBe("nosniff");
    expect(Buffer.from(await picture.arrayBuffer())).toEqual(PNG);
    const head = await fetch(second ?? "", { method: "HEAD" });
    expect([head.status, head.headers.get("content-type")]).toEqual([200, "image/png"]);
  });

  test("generations: a URL has the host by which it was asked for", async () => {
    await using it = await keeping(says(ANSWER));

    const response = await it.post(
      "/v1/images/generations",
      { model: "pebble", prompt: "a", response_format: "url" },
      { headers: { host: "host.docker.internal:1234" } },
    );

    const { data } = (await response.json()) as { data: { url: string }[] };
    expect(data[0]?.url).toStartWith("http://host.docker.internal:1234/v1/images/files/");
  });

  test.each(["x", "..%2f..%2fetc%2fpasswd", "%00", `${"a".repeat(32)}.png`])(
    "files: %p is not there",
    async (name) => {
      await using it = await keeping(says(ANSWER));

      const response = await fetch(`${it.listening.endpoint}/v1/images/files/${name}`);

      expect(response.status).toBe(404);
    },
  );

  test("generations: no URLs where no files are kept", async () => {
    await using it = await openaiSetup(says(ANSWER));

    const response = await it.post("/v1/images/generations", {
      model: "pebble",
      prompt: "a",
      response_format: "url",
    });

    expect(response.status).toBe(501);
  });

  test("generations: a stream passes as it comes", async () => {
    await using it = await openaiSetup(async (exchange: Exchange) => {
      exchange.head(200, { "content-type": "text/event-stream" });
      await exchange.chunk(eventOf("image_generation.partial_image"));
      await exchange.chunk(eventOf("image_generation.completed"));
      exchange.end();
    });

    const asked = { model: "pebble", prompt: "a", stream: true, partial_images: 1 } as const;
    const types: string[] = [];
    for await (const { type } of await openai(it).images.generate(asked)) types.push(type);

    expect(types).toEqual(["image_generation.partial_image", "image_generation.completed"]);
    expect(it.sent).toMatchObject({ stream: true, partial_images: 1 });
  });

  test("generations: a stream that breaks off ends with an error", async () => {
    await using it = await openaiSetup(async (exchange: Exchange) => {
      exchange.head(200, { "content-type": "text/event-stream" });
      await exchange.chunk(`data: {"type":"image_generation.partial_image"}\n\n`);
      exchange.die();
    });

    const response = await it.post("/v1/images/generations", {
      model: "pebble",
      prompt: "a",
      stream: true,
    });

    expect(await response.text()).toContain('"code":"worker_failed"');
  });

  test("generations: who leaves ends the drawing", async () => {
    await using it = await openaiSetup(async (exchange: Exchange) => exchange.closed);
    const leaving = new AbortController();

    const answer = it.post(
      "/v1/images/generations",
      { model: "pebble", prompt: "a" },
      { signal: leaving.signal },
    );
    await eventually(() => it.engine.requests.length === 1);
    leaving.abort();

    expect(answer).rejects.toThrow();
    await eventually(() => it.engine.aborts === 1);
  });

  test("generations: what the engine refuses is told in its words", async () => {
    const error = { message: "this model has nothing for `negative_prompt`" };
    await using it = await keeping(says({ error }, 400));

    const response = await it.post("/v1/images/generations", {
      model: "pebble",
      prompt: "a",
      response_format: "url",
    });

    expect([response.status, await errorOf(response)]).toEqual([
      400,
      expect.objectContaining(error),
    ]);
  });

  test("generations: an answer that is none is no crash", async () => {
    await using it = await keeping(says({ data: [null, 1, { b64_json: 1 }, {}] }));

    const response = await it.post("/v1/images/generations", {
      model: "pebble",
      prompt: "a",
      response_format: "url",
    });

    expect([response.status, await response.json()]).toEqual([
      200,
      { data: [null, 1, { b64_json: 1 }, {}] },
    ]);
  });

  test("generations: where no engine draws this model, it is said", async () => {
    await using it = await openaiSetup(says(ANSWER), { planner: refusing });

    const response = await it.post("/v1/images/generations", { model: "pebble", prompt: "a" });

    expect(await errorOf(response)).toMatchObject({ code: "unsupported_model" });
    expect(it.engine.requests).toHaveLength(0);
  });

  test.each([
    ["prompt", {}],
    ["prompt", { prompt: "" }],
    ["prompt", { prompt: " \n" }],
    ["prompt", { prompt: 3 }],
    ["prompt", { prompt: "x".repeat(32_001) }],
    ["n", { prompt: "a", n: 0 }],
    ["n", { prompt: "a", n: 11 }],
    ["n", { prompt: "a", n: 1.5 }],
    ["n", { prompt: "a", n: "2" }],
    ["size", { prompt: "a", size: "513x512" }],
    ["size", { prompt: "a", size: "8x8" }],
    ["size", { prompt: "a", size: "4096x4096" }],
    ["size", { prompt: "a", size: "99999999999x512" }],
    ["size", { prompt: "a", size: "large" }],
    ["size", { prompt: "a", size: ["512x512"] }],
    ["response_format", { prompt: "a", response_format: "png" }],
    ["output_format", { prompt: "a", output_format: "gif" }],
    ["quality", { prompt: "a", quality: "best" }],
    ["num_inference_steps", { prompt: "a", num_inference_steps: 1e9 }],
    ["guidance_scale", { prompt: "a", guidance_scale: -1 }],
    ["seed", { prompt: "a", seed: 2 ** 40 }],
    ["partial_images", { prompt: "a", partial_images: 4 }],
    ["stream", { prompt: "a", stream: "yes" }],
  ])("generations: a wrong %s is named (%j), and no engine is asked", async (param, body) => {
    await using it = await openaiSetup(says(ANSWER));

    const response = await it.post("/v1/images/generations", { model: "pebble", ...body });

    expect([response.status, (await errorOf(response))["param"]]).toEqual([400, param]);
    expect(it.engine.requests).toHaveLength(0);
  });
});

describe("changing pictures", () => {
  const base64 = PNG.toString("base64");

  test("edits: a form of the official client becomes JSON", async () => {
    await using it = await openaiSetup(says(ANSWER));

    const { data } = await openai(it).images.edit({
      model: "pebble",
      prompt: "a dog",
      image: await toFile(PNG, "cat.png", { type: "image/png" }),
      mask: await toFile(Buffer.from("mask"), "mask.png", { type: "image/png" }),
      n: 2,
      size: "512x512",
    });

    expect(data).toHaveLength(2);
    expect(it.engine.requests.at(-1)?.target).toBe("/v1/images/edits");
    expect(it.engine.requests.at(-1)?.headers["content-type"]).toBe("application/json");
    expect(it.sent).toMatchObject({
      model: "pebble",
      prompt: "a dog",
      n: 2,
      size: "512x512",
      images: [base64],
      mask: Buffer.from("mask").toString("base64"),
    });
  });

  test("edits: several pictures, and as URLs", async () => {
    await using it = await keeping(says(ANSWER));

    const { data = [] } = await openai(it).images.edit({
      model: "pebble",
      prompt: "a dog",
      image: [await toFile(PNG, "a.png"), await toFile(Buffer.from("b"), "b.png")],
      response_format: "url",
    });

    expect(it.sent["images"]).toEqual([base64, Buffer.from("b").toString("base64")]);
    expect(data[0]?.url).toContain("/v1/images/files/");
  });

  test.each([
    ["a data URL", { image: `data:image/png;base64,${base64}` }],
    ["base64", { image: base64 }],
    ["a list", { image: [base64] }],
    ["OpenAI's JSON", { images: [{ image_url: `data:image/png;base64,${base64}` }] }],
  ])("edits: as JSON, the picture as %s", async (_, body) => {
    await using it = await openaiSetup(says(ANSWER));

    const response = await it.post("/engines/v1/images/edits", {
      model: "pebble",
      prompt: "a",
      ...body,
    });

    expect(response.status).toBe(200);
    expect(it.sent["images"]).toEqual([base64]);
  });

  test.each([
    ["no picture", {}, "image"],
    ["an address", { image: "https://example.com/a.png" }, "image"],
    ["a kept file", { images: [{ file_id: "file-1" }] }, "image"],
    ["an empty one", { image: "" }, "image"],
    ["a number", { image: 3 }, "image"],
    ["an address as mask", { image: base64, mask: "http://127.0.0.1/a.png" }, "mask"],
    ["too many", { images: Array.from({ length: 17 }, () => base64) }, "image"],
    ["too much strength", { image: base64, strength: 2 }, "strength"],
  ])("edits: %s is refused", async (_, body, param) => {
    await using it = await openaiSetup(says(ANSWER));

    const response = await it.post("/v1/images/edits", { model: "pebble", prompt: "a", ...body });

    expect([response.status, (await errorOf(response))["param"]]).toEqual([400, param]);
    expect(it.engine.requests).toHaveLength(0);
  });

  test.each([
    ["nothing", "", "application/json"],
    ["no JSON", "{", "application/json"],
    ["a list", "[]", "application/json"],
    ["a form without a boundary", "x", "multipart/form-data"],
    ["a form of another boundary", "--a\r\n\r\n", "multipart/form-data; boundary=b"],
    [
      "a form that is cut off",
      `--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nab`,
      "multipart/form-data; boundary=b",
    ],
  ])("edits: a body that is %s is refused", async (_, body, type) => {
    await using it = await openaiSetup(says(ANSWER));

    const response = await it.post("/v1/images/edits", body, { headers: { "content-type": type } });

    expect(response.status).toBe(400);
    expect(it.engine.requests).toHaveLength(0);
  });

  test("edits: fields of a form are judged as those of JSON, empty ones are none", async () => {
    await using it = await openaiSetup(says(ANSWER));
    const post = (fields: Readonly<Record<string, string>>): Promise<Response> => {
      const form = new FormData();
      for (const [name, value] of Object.entries({ model: "pebble", prompt: "a", ...fields }))
        form.append(name, value);
      form.append("image", new Blob([PNG]), "a.png");
      return fetch(`${it.listening.endpoint}/v1/images/edits`, { method: "POST", body: form });
    };

    expect((await post({ n: "2", seed: "", stream: "false", guidance_scale: "3.5" })).status).toBe(
      200,
    );
    expect(it.sent).toMatchObject({ n: 2, seed: null, stream: false, guidance_scale: 3.5 });
    for (const fields of [{ n: "many" }, { n: "99" }, { stream: "perhaps" }, { size: "1x1" }])
      expect((await post(fields)).status).toBe(400);
  });

  test("edits: a form with a thousand fields is refused", async () => {
    await using it = await openaiSetup(says(ANSWER));
    const form = new FormData();
    for (let index = 0; index < 1000; index += 1) form.append(`f${index}`, "x");

    const response = await fetch(`${it.listening.endpoint}/v1/images/edits`, {
      method: "POST",
      body: form,
    });

    expect(response.status).toBe(400);
  });
});
