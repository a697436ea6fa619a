import { describe, expect, test } from "bun:test";
import { formatReference } from "../../src/oci/reference.ts";
import { ollamaPage, ollamaReference, parseOllamaName } from "../../src/ollama/name.ts";

describe("parseOllamaName", () => {
  test.each([
    ["ollama.com/llama3.2", "library", "llama3.2", "latest"],
    ["ollama.com/library/llama3.2:1b", "library", "llama3.2", "1b"],
    ["registry.ollama.ai/library/qwen3:8b-q4_K_M", "library", "qwen3", "8b-q4_K_M"],
    ["registry.ollama.ai/MFDoom/some-model:7B", "MFDoom", "some-model", "7B"],
    ["ollama.ai/library/phi3", "library", "phi3", "latest"],
    ["OLLAMA.com/library/phi3", "library", "phi3", "latest"],
    ["ollama://phi3", "library", "phi3", "latest"],
    ["ollama://phi3:mini", "library", "phi3", "mini"],
    ["ollama://me/phi3:mini", "me", "phi3", "mini"],
    ["ollama://ollama.com/me/phi3", "me", "phi3", "latest"],
    ["ollama://registry.ollama.ai/library/phi3:", "library", "phi3", "latest"],
    ["https://ollama.com/library/phi3:mini", "library", "phi3", "mini"],
    ["https://www.ollama.com/library/phi3", "library", "phi3", "latest"],
    ["http://ollama.com/library/phi3", "library", "phi3", "latest"],
    ["https://ollama.com/library/phi3/tags", "library", "phi3", "latest"],
    ["https://ollama.com/library/phi3:mini/blobs/633fc5be925f", "library", "phi3", "mini"],
    ["https://ollama.com/library/phi3%3Amini?utm=1#readme", "library", "phi3", "mini"],
    ["https://ollama.com/me/phi3/", "me", "phi3", "latest"],
    ["  ollama.com/phi3\n", "library", "phi3", "latest"],
  ])("%s", (text, ...[namespace, model, tag]) => {
    expect(parseOllamaName(text)).toEqual({ namespace, model, tag });
  });

  test.each([
    ["phi3"],
    ["library/phi3"],
    ["docker.io/ai/ollama.com"],
    ["hf.co/ollama.com/x"],
    ["https://example.com/ollama.com/x"],
    ["https://notollama.com/library/x"],
    ["ollama.com.example.org/x"],
    ["ollama:phi3"],
    [""],
  ])("%j is addressed to somebody else", (text) => {
    expect(parseOllamaName(text)).toBeUndefined();
  });

  test.each([
    ["ollama.com", "does not say which model"],
    ["https://ollama.com/", "does not say which model"],
    ["ollama://", "does not say which model"],
    ["ollama.com/a/b/c", "too many parts"],
    ["https://ollama.com/a/b/c/d", "too many parts"],
    ["ollama.com/library/phi3@sha256:abc", "no digests"],
    ["ollama.com/../etc:latest", "not a valid part"],
    ["ollama.com/library/..:latest", "not a valid part"],
    ["ollama.com/library/ph i3", "not a valid part"],
    ["ollama.com/library/:tag", "empty"],
    ["ollama.com/library/phi3:a:b", "not a valid tag"],
    ["ollama.com/library/phi3:-x", "not a valid tag"],
    ["ollama://hf.co/org/repo", "another registry"],
    [`ollama.com/library/${"x".repeat(600)}`, "too long"],
  ])("%j names no model", (text, reason) => {
    expect(() => parseOllamaName(text)).toThrow(
      expect.objectContaining({
        code: "invalid_reference",
        message: expect.stringContaining(reason),
      }),
    );
  });

  test("what it refuses is shown without control characters, and cut", () => {
    const text = `ollama.com/a/b/c/\u001B[2J${"x".repeat(500)}`;

    expect(() => parseOllamaName(text)).toThrow(/^cannot read model name `[^\p{Cc}]{100,250}`: /u);
  });
});

test("a model has a lower-case name here, and its own tag", () => {
  const name = { namespace: "MFDoom", model: "Some-Model", tag: "7B" };

  expect(formatReference(ollamaReference(name))).toBe("registry.ollama.ai/mfdoom/some-model:7B");
  expect(ollamaPage(name)).toBe("https://ollama.com/MFDoom/Some-Model");
});
