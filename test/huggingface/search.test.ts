import { expect, test } from "bun:test";
import { createHttp } from "../../src/http/http.ts";
import { type HuggingFaceSearchResult, searchHuggingFace } from "../../src/huggingface/search.ts";
import { type FakeHuggingFace, fakeHuggingFace, fakeRepository } from "../fakes/hugging-face.ts";
import { failureOf } from "./failure-of.ts";

function found(
  hub: FakeHuggingFace,
  query: string,
  limit = 10,
): Promise<HuggingFaceSearchResult[]> {
  return searchHuggingFace(query, {
    http: createHttp({ offline: false, caBundle: "", isInsecure: () => false }),
    endpoint: hub.endpoint,
    token: undefined,
    signal: new AbortController().signal,
    attempts: 1,
    limit,
  });
}

const MODELS = [
  fakeRepository("a/Qwen-st", {}, { tags: ["safetensors"], downloads: 900 }),
  fakeRepository("a/Qwen-GGUF", {}, { tags: ["gguf"], downloads: 10, likes: 3 }),
  fakeRepository("b/qwen-gguf", {}, { tags: ["gguf", "safetensors"], downloads: 50 }),
  fakeRepository("c/llama", {}, { tags: ["gguf"], downloads: 5000 }),
];

test("what has GGUF files comes first, then what has safetensors, each by downloads and once", async () => {
  using hub = fakeHuggingFace(MODELS);
  const results = await found(hub, "qwen");
  expect(results.map(({ name }) => name)).toEqual([
    "hf.co/b/qwen-gguf",
    "hf.co/a/Qwen-GGUF",
    "hf.co/a/Qwen-st",
  ]);
  expect(results[1]).toEqual({
    name: "hf.co/a/Qwen-GGUF",
    source: "huggingface",
    description: "text-generation",
    downloads: 10,
    likes: 3,
    official: false,
    updated: "2025-01-02T03:04:05.000Z",
  });
});

test("enough is enough, with one request", async () => {
  using hub = fakeHuggingFace(MODELS);
  expect(await found(hub, "qwen", 1)).toHaveLength(1);
  expect(hub.requests).toHaveLength(1);
});

test("an empty query means the most downloaded, and the limit is bounded", async () => {
  using hub = fakeHuggingFace(MODELS);
  expect((await found(hub, "", 1e9))[0]?.name).toBe("hf.co/c/llama");
  expect(hub.requests[0]).toContain("limit=100");
  expect(await found(hub, "", -5)).toHaveLength(1);
});

test("rows that make no sense are left out", async () => {
  using hub = fakeHuggingFace([]);
  const rows = [
    { id: "gpt2", lastModified: "2025-01-01" },
    { id: "../x/y" },
    { id: "o/r\u001b[2J" },
    { id: "o/r", downloads: "many" },
    { id: "o/good", pipeline_tag: 7, lastModified: "never" },
  ];
  hub.next.push(() => Response.json(rows));
  expect(await found(hub, "x")).toEqual([
    {
      name: "hf.co/o/good",
      source: "huggingface",
      description: null,
      downloads: null,
      likes: null,
      official: false,
      updated: null,
    },
  ]);
});

test.each([
  ["rows that are none", () => Response.json([null]), "its results cannot be understood"],
  ["no list", () => Response.json({ error: "x" }), "its results cannot be understood"],
  ["401", () => new Response("no", { status: 401 }), "no token was sent"],
  ["429", () => new Response("no", { status: 429 }), "Hugging Face was asked too often"],
])("%s fails", async (_, answer, message) => {
  using hub = fakeHuggingFace([]);
  hub.next.push(answer);
  const failure = await failureOf(found(hub, "x"));
  expect(failure.message).toBe(`cannot search Hugging Face: ${message}`);
});
