import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AppError } from "../../src/errors.ts";
import { encodeCanonical, MAX_MANIFEST_BYTES, parseManifest } from "../../src/oci/manifest.ts";
import {
  DOCKER_MANIFEST,
  DOCKER_MANIFEST_LIST,
  MODELPACK_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
} from "../../src/oci/media-types.ts";

const DIGEST = `sha256:${"0".repeat(64)}`;
const CONFIG = { mediaType: "application/x", digest: DIGEST, size: 2 };
const MANIFEST = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: CONFIG, layers: [CONFIG] };

describe("parseManifest", () => {
  test("manifest: all members that Tug knows are kept, others dropped", () => {
    const layer = {
      ...CONFIG,
      annotations: { a: "b" },
      platform: { os: "linux", architecture: "arm64" },
    };
    const full = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      artifactType: MODELPACK_MANIFEST,
      config: CONFIG,
      layers: [layer],
      annotations: { c: "d" },
      subject: CONFIG,
    };

    const manifest: unknown = parseManifest(
      encode({ ...full, extra: 1, layers: [{ ...layer, urls: ["x"] }] }),
    );

    expect(manifest).toEqual(full);
  });

  test.each([
    ["a missing media type", { ...MANIFEST, mediaType: undefined }, OCI_MANIFEST],
    ["Docker's manifest", { ...MANIFEST, mediaType: DOCKER_MANIFEST }, DOCKER_MANIFEST],
    ["null annotations", { ...MANIFEST, annotations: null }, OCI_MANIFEST],
    ["an empty artifact type", { ...MANIFEST, artifactType: "" }, OCI_MANIFEST],
  ])("manifest: %s is read", (_name, value, mediaType) => {
    const manifest = parseManifest(encode(value));

    expect(manifest.mediaType).toBe(mediaType);
    expect(manifest).not.toHaveProperty("artifactType");
  });

  test.each([
    ["an array", [], "invalid_model_file", "not an object"],
    ["no layers", { ...MANIFEST, layers: undefined }, "invalid_model_file", "no layers"],
    [
      "too many layers",
      { ...MANIFEST, layers: Array.from({ length: 16_385 }, () => CONFIG) },
      "invalid_model_file",
      "more than",
    ],
    ["no config", { ...MANIFEST, config: undefined }, "invalid_model_file", "config"],
    [
      "a layer without digest",
      { ...MANIFEST, layers: [{ ...CONFIG, digest: "x" }] },
      "invalid_model_file",
      "layers[0]",
    ],
    [
      "a negative size",
      { ...MANIFEST, layers: [{ ...CONFIG, size: -1 }] },
      "invalid_model_file",
      "its size",
    ],
    [
      "a layer without type",
      { ...MANIFEST, layers: [{ ...CONFIG, mediaType: "" }] },
      "invalid_model_file",
      "media type",
    ],
    [
      "bad annotations",
      { ...MANIFEST, annotations: { a: 1 } },
      "invalid_model_file",
      "map of strings",
    ],
    [
      "an index",
      { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] },
      "unsupported_model",
      "index",
    ],
    ["an untyped index", { schemaVersion: 2, manifests: [] }, "unsupported_model", "index"],
    [
      "a manifest list",
      { schemaVersion: 2, mediaType: DOCKER_MANIFEST_LIST },
      "unsupported_model",
      "index",
    ],
    ["schema 1", { ...MANIFEST, schemaVersion: 1 }, "unsupported_model", "schema version"],
    [
      "another media type",
      { ...MANIFEST, mediaType: "text/html" },
      "unsupported_model",
      "text/html",
    ],
  ])("manifest: %s is refused", (...[_name, value, code, reason]) => {
    const attempt = (): unknown => parseManifest(encode(value));

    expect(attempt).toThrow(reason);
    expect(attempt).toThrow(expect.objectContaining({ code }));
  });

  test("manifest: what is larger than the limit is not even read", () => {
    const bytes = new Uint8Array(MAX_MANIFEST_BYTES + 1);

    expect(() => parseManifest(bytes)).toThrow("larger than");
  });

  test("manifest: any bytes are read or refused with a reason", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((text) => new TextEncoder().encode(text)),
        ),
        (bytes) => {
          try {
            return parseManifest(bytes).schemaVersion === 2;
          } catch (error) {
            return (
              error instanceof AppError &&
              /^(?:invalid_model_file|unsupported_model)$/.test(error.code)
            );
          }
        },
      ),
    );
  });
});

describe("encodeCanonical", () => {
  test("canonical JSON: members keep their order, absent ones are left out, there is no white space", () => {
    const bytes = encodeCanonical({ b: 1, a: [true, null, "ü<"], c: undefined });

    expect(new TextDecoder().decode(bytes)).toBe('{"b":1,"a":[true,null,"ü<"]}');
  });

  test("canonical JSON: a number without a JSON form is a programmer's error", () => {
    expect(() => encodeCanonical({ a: Number.NaN })).toThrow("finite");
    expect(() => encodeCanonical(undefined)).toThrow("JSON form");
  });

  test("canonical JSON: what was written reads back the same", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const bytes = encodeCanonical(value);
        expect(encodeCanonical(JSON.parse(new TextDecoder().decode(bytes)))).toEqual(bytes);
      }),
    );
  });
});

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
