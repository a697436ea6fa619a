import { describe, expect, test } from "bun:test";
import { digestOf } from "../../src/oci/digest.ts";
import type { Manifest } from "../../src/oci/manifest.ts";
import { OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { encodeDefaults, readDefaults } from "../../src/oci/model-defaults.ts";

const KEY = "org.tug.model.defaults+json";

function manifestWith(annotations?: Record<string, string>): Manifest {
  const config = { mediaType: "x", digest: digestOf(new Uint8Array()), size: 0 };
  const bare = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [] } as const;
  return annotations === undefined ? bare : { ...bare, annotations };
}

describe("packaged defaults", () => {
  test("come back as they went in", () => {
    const defaults = {
      system: "Be brief.",
      parameters: { temperature: 0.2, stop: ["<end>"] },
      messages: [{ role: "user", content: "Hi" }],
    };
    expect(readDefaults(manifestWith(encodeDefaults(defaults)))).toEqual(defaults);
  });

  test("that say nothing make no annotation", () => {
    for (const nothing of [undefined, {}, { parameters: {}, messages: [] }])
      expect(encodeDefaults(nothing)).toEqual({});
  });

  test("are none where a manifest has none", () => {
    expect(readDefaults(manifestWith())).toBeUndefined();
    expect(readDefaults(manifestWith({ other: "x" }))).toBeUndefined();
  });

  test.each([
    ["no JSON", "{"],
    ["a list", "[]"],
    ["null", "null"],
    ["a text", '"text"'],
    ["too long", `{"system":"${"x".repeat(1024 * 1024)}"}`],
  ])("that cannot be read count as none: %s", (_what, text) => {
    expect(readDefaults(manifestWith({ [KEY]: text }))).toBeUndefined();
  });

  test("members of other types are left out", () => {
    const text = JSON.stringify({
      system: 1,
      parameters: [],
      messages: [{ role: "user" }, 3, { role: "user", content: "Hi" }],
    });
    expect(readDefaults(manifestWith({ [KEY]: text }))).toEqual({
      messages: [{ role: "user", content: "Hi" }],
    });
  });

  test("take no word that is the client's, or that the engine would choke on", () => {
    const parameters = {
      temperature: 0.2,
      stop: "<end>",
      seed: -1,
      model: "other",
      stream: true,
      n: 1000,
      messages: [],
      tools: [{}],
      response_format: {},
      grammar: "root ::= x",
      n_probs: 1e6,
      constructor: 1,
      top_p: 2,
      top_k: 1.5,
      // Memory for so many tokens would be reserved.
      repeat_last_n: 2 ** 31 - 1,
      max_tokens: 0,
      mirostat: 3,
      min_p: "0.1",
      typical_p: null,
      n_keep: -2,
    };
    const text = `{"parameters":{"__proto__":{"top_k":1},${JSON.stringify(parameters).slice(1)}}`;

    expect(readDefaults(manifestWith({ [KEY]: text }))).toEqual({
      parameters: { temperature: 0.2, stop: "<end>", seed: -1 },
    });
  });

  test("turns have a role of a conversation and a text, and nothing else", () => {
    const messages = [
      { role: "assistant", content: "Hi", tool_calls: [{}] },
      { role: "tool", content: "42", tool_call_id: "x" },
      { role: "constructor", content: "x" },
    ];

    expect(readDefaults(manifestWith({ [KEY]: JSON.stringify({ messages }) }))).toEqual({
      messages: [{ role: "assistant", content: "Hi" }],
    });
  });
});
