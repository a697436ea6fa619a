import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ModelDetails } from "../../src/api/models.ts";
import {
  type DrawClient,
  drawPicture,
  formatOfFile,
  isDrawingModel,
  partsOf,
  savePicture,
  slugOf,
  writePicture,
} from "../../src/chat/drawing.ts";
import { AppError } from "../../src/errors.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const { signal } = new AbortController();
const PICTURE = { data: Buffer.from("png"), seed: 7 };

interface Call {
  readonly path: string;
  readonly body: unknown;
}

function answering(answer: unknown): { client: DrawClient; calls: Call[] } {
  const calls: Call[] = [];
  const client: DrawClient = {
    call: (_, path, { body }) => {
      calls.push({ path, body });
      return Promise.resolve(Response.json(answer));
    },
  };
  return { client, calls };
}

describe("drawPicture", () => {
  const answer = { data: [{ b64_json: PICTURE.data.toString("base64"), seed: 7 }] };

  test("asks for one picture, and says its seed", async () => {
    const { client, calls } = answering(answer);

    const picture = await drawPicture(
      client,
      { model: "m", prompt: "a cat", seed: 7, keepAlive: "1m" },
      { signal },
    );

    expect(picture).toEqual(PICTURE);
    expect(calls).toEqual([
      {
        path: "/engines/v1/images/generations",
        body: {
          model: "m",
          prompt: "a cat",
          response_format: "b64_json",
          output_format: "png",
          seed: 7,
          keep_alive: "1m",
        },
      },
    ]);
  });

  test("a picture in the prompt is changed, by the engine that was named", async () => {
    const { client, calls } = answering(answer);
    const url = "data:image/png;base64,AAAA";
    const prompt = [
      { type: "image_url" as const, image_url: { url } },
      { type: "text" as const, text: "blue" },
    ];

    await drawPicture(client, { model: "m", prompt, backend: "my own", seed: -1 }, { signal });

    expect(calls[0]?.path).toBe("/engines/my%20own/v1/images/edits");
    expect(calls[0]?.body).toMatchObject({ prompt: "blue", image: url });
    expect(calls[0]?.body).not.toHaveProperty("seed");
  });

  test.each([{}, { data: [] }, { data: [{ url: "x" }] }])("%j is no picture", async (nothing) => {
    const { client } = answering(nothing);

    const drawn = drawPicture(client, { model: "m", prompt: "a" }, { signal });

    expect(drawn).rejects.toMatchObject({ code: "worker_failed" });
  });
});

test.each([
  [{ format: "dduf", architecture: null }, true],
  [{ format: "diffusers", architecture: null }, true],
  [{ format: "safetensors", architecture: "diffusers" }, true],
  [{ format: "safetensors", architecture: "llama" }, false],
  [{ format: null, architecture: null }, false],
])("isDrawingModel: %j: %p", (config, draws) => {
  expect(isDrawingModel({ config } as unknown as ModelDetails)).toBe(draws);
});

test.each([
  ["A cat, très joli!", "a-cat-tres-joli"],
  ["../../etc/passwd", "etc-passwd"],
  ["-rf *", "rf"],
  ["猫 と 犬", "猫-と-犬"],
  ["\u0000\n/", "picture"],
  ["", "picture"],
  ["word ".repeat(100), "word-word-word-word-word-word-word-word-word-wor"],
])("slugOf: %p is %p", (prompt, slug) => {
  expect(slugOf(prompt)).toBe(slug);
});

function imageOf(url: string) {
  return { type: "image_url" as const, image_url: { url } };
}

test("partsOf: texts, and the first picture", () => {
  const content = [imageOf("one"), imageOf("two"), { type: "text" as const, text: "a" }];

  expect(partsOf(content)).toEqual({ text: "a", picture: "one" });
  expect(partsOf("a")).toEqual({ text: "a", picture: undefined });
});

test.each([
  ["a.png", "png"],
  ["dir/a.JPG", "jpeg"],
  ["a.jpeg", "jpeg"],
  ["a.webp", "webp"],
])("formatOfFile: %p is %p", (file, format) => {
  expect(formatOfFile(file)).toBe(format);
});

test.each(["a", "a.gif", "png", ""])("formatOfFile: %p is refused", (file) => {
  expect(() => formatOfFile(file)).toThrow(AppError);
});

describe("files", () => {
  let home: Awaited<ReturnType<typeof tempDir>>;
  const before = process.cwd();
  beforeEach(async () => {
    home = await tempDir();
    process.chdir(home.path);
  });
  afterEach(async () => {
    process.chdir(before);
    await home[Symbol.asyncDispose]();
  });

  test("savePicture: replaces nothing that is there", async () => {
    const names = [
      await savePicture(PICTURE, "A cat"),
      await savePicture(PICTURE, "A cat"),
      await savePicture({ ...PICTURE, seed: null }, "A cat"),
    ];

    expect(names).toEqual(["a-cat-7.png", "a-cat-7-2.png", "a-cat.png"]);
    expect((await readdir(".")).toSorted()).toEqual(names.toSorted());
    expect(await readFile("a-cat-7-2.png", "utf8")).toBe("png");
  });

  test("writePicture: replaces what is there; a directory that is not there is said", async () => {
    await writePicture("a.png", Buffer.from("longer than the next"));
    await writePicture("a.png", PICTURE.data);

    expect(await readFile("a.png", "utf8")).toBe("png");
    expect(writePicture(join("none", "a.png"), PICTURE.data)).rejects.toThrow("ENOENT");
  });
});
