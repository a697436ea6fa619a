import { describe, expect, test } from "bun:test";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { sortLayers } from "../../src/ollama/layers.ts";

const NAME = { namespace: "library", model: "llama3.2", tag: "1b" };

/** @param content what makes it different from others */
function layer(kind: string, content = kind): Descriptor {
  const mediaType = kind.includes("/") ? kind : `application/vnd.ollama.image.${kind}`;
  const bytes = new TextEncoder().encode(content);
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

function pathsOf(layers: readonly Descriptor[]): string[] {
  return sortLayers(layers, NAME).files.map(({ role, path }) => `${role} ${path}`);
}

describe("sortLayers", () => {
  test("gives each layer its role and a name, whatever the order", () => {
    const kinds = ["license", "system", "draft", "projector", "model", "params", "adapter"];

    expect(pathsOf(kinds.map((kind) => layer(kind)))).toEqual([
      "weights llama3.2.gguf",
      "license LICENSE",
      "mmproj mmproj-llama3.2.gguf",
      "adapter llama3.2-adapter.gguf",
      "draft llama3.2-draft.gguf",
    ]);
  });

  test("finds the small texts, of several the last", () => {
    const sorted = sortLayers(
      ["model", "params", "system", "messages"]
        .map((kind) => layer(kind))
        .concat([layer("system", "b")]),
      NAME,
    );

    expect(sorted.params).toEqual(layer("params"));
    expect(sorted.system).toEqual(layer("system", "b"));
    expect(sorted.messages).toEqual(layer("messages"));
    expect(sorted.warnings).toEqual([]);
  });

  test("names several weights as shards, in their order", () => {
    const layers = ["a", "b", "c"].map((content) => layer("model", content));

    expect(pathsOf(layers)).toEqual([
      "weights llama3.2-00001-of-00003.gguf",
      "weights llama3.2-00002-of-00003.gguf",
      "weights llama3.2-00003-of-00003.gguf",
    ]);
  });

  test("keeps a licence once, and others beside it", () => {
    const layers = [
      layer("model"),
      layer("license", "a"),
      layer("license", "b"),
      layer("license", "a"),
    ];

    expect(pathsOf(layers).slice(1)).toEqual(["license LICENSE", "license LICENSE-2"]);
  });

  test("several adapters have names of their own", () => {
    const layers = [layer("model"), layer("adapter", "a"), layer("adapter", "b")];

    expect(pathsOf(layers).slice(1)).toEqual([
      "adapter llama3.2-adapter.gguf",
      "adapter llama3.2-adapter-2.gguf",
    ]);
  });

  test("keeps one projector, and says so", () => {
    const layers = [layer("model"), layer("projector", "a"), layer("projector", "b")];

    const { files, warnings } = sortLayers(layers, NAME);

    expect(files.filter(({ role }) => role === "mmproj")).toHaveLength(1);
    expect(warnings).toEqual(["the model has 2 projectors; only the first is kept"]);
  });

  test("is silent about templates and what is deprecated", () => {
    const layers = ["model", "template", "prompt", "embed"].map((kind) => layer(kind));

    const { files, warnings } = sortLayers(layers, NAME);

    expect(files).toHaveLength(1);
    expect(warnings).toEqual([]);
  });

  test("names types it does not know, five of them, without control characters", () => {
    const types = Array.from({ length: 6 }, (_, index) => `application/x-${index}\u001B[2J`);

    const { warnings } = sortLayers([layer("model"), ...types.map((type) => layer(type))], NAME);

    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain("`application/x-4 [2J` and 1 more");
    expect(warnings[0]).not.toMatch(/\p{Cc}/u);
  });

  test.each([
    ["no weights", ["template", "license"], "it has no weights"],
    ["nothing at all", [], "it has no weights"],
    ["single tensors", ["tensor", "json"], "split into single tensors"],
    ["tensors beside weights", ["model", "tensor"], "split into single tensors"],
  ])("refuses a model with %s", (_, kinds, reason) => {
    expect(() =>
      sortLayers(
        kinds.map((kind) => layer(kind)),
        NAME,
      ),
    ).toThrow(
      expect.objectContaining({
        code: "unsupported_model",
        message: expect.stringContaining(reason),
        hint: expect.any(String),
      }),
    );
  });
});
