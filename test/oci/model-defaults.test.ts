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
});
