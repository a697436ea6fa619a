import { describe, expect, test } from "bun:test";
import {
  type HuggingFaceChoice,
  huggingFaceReference,
  isUsablePath,
  parseHuggingFaceName,
} from "../../src/huggingface/name.ts";
import { formatReference, parseReference } from "../../src/oci/reference.ts";
import { failureOf } from "./failure-of.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

function parsed(text: string): { repo: string; revision: string; choice: HuggingFaceChoice } {
  const name = parseHuggingFaceName(text);
  if (name === undefined) throw new Error(`not understood: ${text}`);
  return { ...name };
}

function stored(text: string): string {
  return formatReference(huggingFaceReference(parsed(text)));
}

function quant(text: string): HuggingFaceChoice {
  return { kind: "quant", quant: text };
}

function file(path: string): HuggingFaceChoice {
  return { kind: "file", path };
}

describe("parseHuggingFaceName", () => {
  const repo = "Org/Repo.v1";
  const none: HuggingFaceChoice = { kind: "default" };

  test.each([
    ["hf.co/Org/Repo.v1", "main", none],
    ["huggingface.co/Org/Repo.v1", "main", none],
    ["HuggingFace.co/Org/Repo.v1", "main", none],
    ["  hf.co/Org/Repo.v1/ ", "main", none],
    ["hf://Org/Repo.v1", "main", none],
    ["https://huggingface.co/Org/Repo.v1", "main", none],
    ["https://www.huggingface.co/Org/Repo.v1?library=llama-cpp#usage", "main", none],
    ["https://huggingface.co/Org/Repo.v1.git", "main", none],
    ["hf.co/Org/Repo.v1:", "main", none],
    ["hf.co/Org/Repo.v1:latest", "main", none],
    ["hf.co/Org/Repo.v1:main", "main", none],
    ["hf.co/Org/Repo.v1:Q4_K_M", "main", quant("Q4_K_M")],
    ["hf.co/Org/Repo.v1:UD-Q4_K_XL", "main", quant("UD-Q4_K_XL")],
    ["hf.co/Org/Repo.v1:Q4_K_M@v1.0", "v1.0", quant("Q4_K_M")],
    ["hf.co/Org/Repo.v1@v1.0:Q4_K_M", "v1.0", quant("Q4_K_M")],
    ["hf.co/Org/Repo.v1@refs/pr/3", "refs/pr/3", none],
    [`hf.co/Org/Repo.v1@${COMMIT}`, COMMIT, none],
    ["hf.co/Org/Repo.v1:Q8_0--v1.0", "v1.0", quant("Q8_0")],
    ["hf.co/Org/Repo.v1:latest--v1.0", "v1.0", none],
    ["hf.co/Org/Repo.v1:safetensors", "main", { kind: "format", format: "safetensors" }],
    ["hf.co/Org/Repo.v1:GGUF", "main", { kind: "format", format: "gguf" }],
    ["hf.co/Org/Repo.v1:m.Q8_0.gguf", "main", file("m.Q8_0.gguf")],
    ["hf.co/Org/Repo.v1:a--b.gguf", "main", file("a--b.gguf")],
    ["hf.co/Org/Repo.v1:Q8/m.gguf@dev", "dev", file("Q8/m.gguf")],
    ["hf.co/Org/Repo.v1/m.Q8_0.gguf", "main", file("m.Q8_0.gguf")],
    ["hf://Org/Repo.v1@dev/a/m.gguf", "dev", file("a/m.gguf")],
    ["hf://Org/Repo.v1@refs/pr/2/m.gguf", "refs/pr/2", file("m.gguf")],
    ["https://huggingface.co/Org/Repo.v1/blob/main/m.Q8_0.gguf", "main", file("m.Q8_0.gguf")],
    ["huggingface.co/Org/Repo.v1/raw/main/m.gguf", "main", file("m.gguf")],
    [
      "https://hf.co/Org/Repo.v1/resolve/main/a/m%20x.gguf?download=true",
      "main",
      file("a/m x.gguf"),
    ],
    ["https://hf.co/Org/Repo.v1/blob/refs%2Fpr%2F7/m.gguf", "refs/pr/7", file("m.gguf")],
    ["https://hf.co/Org/Repo.v1/blob/refs/pr/7/m.gguf", "refs/pr/7", file("m.gguf")],
    ["https://hf.co/Org/Repo.v1/tree/main", "main", none],
    ["https://hf.co/Org/Repo.v1/tree/dev/", "dev", none],
    ["https://hf.co/Org/Repo.v1/tree/main/BF16", "main", { kind: "directory", path: "BF16" }],
    [`https://hf.co/Org/Repo.v1/commit/${COMMIT}`, COMMIT, none],
  ] as const)("%s", (text, revision, choice) => {
    expect(parsed(text)).toEqual({ repo, revision, choice });
  });

  test.each([
    "pebble",
    "ai/smollm2",
    "docker.io/hf.co/x",
    "https://example.com/hf.co/a/b",
    "",
    "hfxco/a/b",
    "hf.co:5000/a/b",
    "nothf.co/a/b",
    "https://github.com/a/b",
  ])("is about %p: no model there", (text) => {
    expect(parseHuggingFaceName(text)).toBeUndefined();
  });

  test.each([
    ["https://huggingface.co/datasets/org/set", "a dataset"],
    ["hf://datasets/org/set", "a dataset"],
    ["https://huggingface.co/spaces/org/app", "a space"],
    ["hf.co/collections/org/x", "a collection"],
    ["hf.co", "an organization and a repository"],
    ["hf.co/gpt2", "an organization and a repository"],
    ["hf.co/org/", "an organization and a repository"],
    ["hf.co/-org/repo", "an organization and a repository"],
    ["hf.co/../etc", "an organization and a repository"],
    ["hf.co/org/re po", "an organization and a repository"],
    ["hf.co/org/repo:Q4 K", "neither a quantization"],
    ["hf.co/org/repo:../../x.gguf", "a path that no file can have"],
    ["hf.co/org/repo:/x.gguf", "a path that no file can have"],
    ["https://hf.co/org/repo/blob/main/%2e%2e/x.gguf", "a path that no file can have"],
    ["https://hf.co/org/repo/blob/main/README.md", "holds no weights"],
    ["https://hf.co/org/repo/blob/main", "a path that no file can have"],
    ["https://hf.co/org/repo/blob/main/%zz.gguf", "percent signs"],
    ["https://hf.co/org/repo/tree/main/a%5Cb", "its directory has a path"],
    ["https://hf.co/org/repo/discussions/1", "not a page of files"],
    ["hf.co/org/repo@", "not a valid revision"],
    ["hf.co/org/repo@a..b", "not a valid revision"],
    ["hf.co/org/repo:Q8_0@a b", "not a valid revision"],
    [`hf.co/org/repo@sha256:${"a".repeat(64)}`, "no digests of whole models"],
    [`hf.co/org/repo:Q8_0@sha256:${"a".repeat(64)}`, "no digests of whole models"],
    [`hf.co/org/${"r".repeat(3000)}`, "too long"],
  ])("refuses %p", async (text, reason) => {
    const failure = await failureOf(() => parseHuggingFaceName(text));
    expect(failure.code).toBe("invalid_reference");
    expect(failure.message).toContain(reason);
    expect(failure.message.length).toBeLessThan(700);
    expect(failure.hint).toBeDefined();
  });

  test("control characters do not reach the message", async () => {
    const failure = await failureOf(() => parseHuggingFaceName("hf.co/org/repo:\u001b[2J\u202e"));
    expect(failure.message).toContain("neither a quantization");
    expect(failure.message).not.toContain("\u001b");
    expect(failure.message).not.toContain("\u202e");
  });
});

describe("huggingFaceReference", () => {
  test.each([
    ["hf.co/Org/Repo.v1", "huggingface.co/org/repo.v1:latest"],
    ["hf.co/Org/Repo:Q4_K_M", "huggingface.co/org/repo:Q4_K_M"],
    ["hf.co/Org/Repo:q4_k_m", "huggingface.co/org/repo:q4_k_m"],
    ["hf.co/Org/Repo:safetensors", "huggingface.co/org/repo:safetensors"],
    ["hf.co/Org/Repo@v1.0", "huggingface.co/org/repo:latest--v1.0"],
    ["hf.co/Org/Repo:Q8_0@v1.0", "huggingface.co/org/repo:Q8_0--v1.0"],
    ["hf.co/Org/Repo:M.Q8_0.gguf", "huggingface.co/org/repo:M.Q8_0.gguf"],
    ["hf.co/Org/Repo:Q8/m-00001-of-00002.gguf", "huggingface.co/org/repo:Q8-m-00001-of-00002.gguf"],
    ["https://hf.co/Org/Repo/tree/main/BF16", "huggingface.co/org/repo:BF16"],
  ])("%s is %s, and parses again to the same", (text, reference) => {
    expect(stored(text)).toBe(reference);
    expect(stored(reference)).toBe(reference);
    expect(formatReference(parseReference(reference))).toBe(reference);
  });

  test.each([
    "hf.co/Org/Repo@refs/pr/12",
    "hf.co/Org/Repo@a--b",
    "https://hf.co/Org/Repo/blob/main/a%20(b)+c.gguf",
    "https://hf.co/Org/Repo/blob/main/-x.gguf",
    `hf.co/Org/Repo:${"x".repeat(200)}.gguf`,
    `hf.co/Org/Repo:${"Q".repeat(100)}@${COMMIT}`,
    "hf.co/Org_/Repo",
    "hf.co/Org/Repo_.x",
    "hf.co/Org/a...b",
    "hf.co/___/___",
  ])("%s becomes a valid reference", (text) => {
    expect(formatReference(parseReference(stored(text)))).toBe(stored(text));
  });

  test("what the grammar cannot tell apart, a digest does", () => {
    expect(stored("hf.co/org/a_.b")).not.toBe(stored("hf.co/org/a-b"));
    expect(stored("hf.co/org/a_.b")).not.toBe(stored("hf.co/org/a._b"));
    expect(stored("hf.co/org/a@x/y")).not.toBe(stored("hf.co/org/a@x-y"));
    const long = "y".repeat(200);
    expect(stored(`hf.co/org/a:${long}1.gguf`)).not.toBe(stored(`hf.co/org/a:${long}2.gguf`));
  });
});

test.each([
  ["a/b.gguf", true],
  ["a b (1).json", true],
  ["", false],
  ["/a", false],
  ["a//b", false],
  ["a/../b", false],
  ["./a", false],
  ["a\\b", false],
  ["a\u0000b", false],
  ["C:/a", false],
  ["aux.json", false],
  ["a./b", false],
  ["x".repeat(2000), false],
])("%p can be a file: %p", (path, expected) => {
  expect(isUsablePath(path)).toBe(expected);
});
