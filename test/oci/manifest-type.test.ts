import { expect, test } from "bun:test";
import { manifestType } from "../../src/oci/manifest-type.ts";
import {
  DOCKER_MANIFEST,
  DOCKER_MANIFEST_LIST,
  OCI_INDEX,
  OCI_MANIFEST,
} from "../../src/oci/media-types.ts";

function typeOf(value: unknown, contentType?: string): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return manifestType(Buffer.from(text, "latin1"), { subject: "r/m:1", contentType });
}

test.each([
  ["the body decides", { mediaType: OCI_MANIFEST, layers: [] }, undefined, OCI_MANIFEST],
  ["both agree", { mediaType: DOCKER_MANIFEST, layers: [] }, DOCKER_MANIFEST, DOCKER_MANIFEST],
  ["vague registry", { mediaType: OCI_INDEX, manifests: [] }, "text/plain", OCI_INDEX],
  ["silent body", { layers: [] }, DOCKER_MANIFEST, DOCKER_MANIFEST],
  ["silent index", { manifests: [] }, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST_LIST],
  ["both silent", { layers: [] }, undefined, OCI_MANIFEST],
  ["both silent about an index", { manifests: [] }, "application/json", OCI_INDEX],
  ["a type we do not know", { mediaType: "application/x" }, undefined, "application/x"],
])("manifestType: %s", (...row) => {
  const [, value, contentType, expected] = row;

  expect(typeOf(value, contentType)).toBe(expected);
});

test.each([
  ["contradiction", { mediaType: OCI_MANIFEST }, DOCKER_MANIFEST, /and the registry calls it/],
  [
    "two documents in one",
    { manifests: [], layers: [] },
    undefined,
    /a manifest and an index at once/,
  ],
  [
    "an index that calls itself manifest",
    { mediaType: OCI_MANIFEST, manifests: [] },
    undefined,
    /is not what/,
  ],
  ["a manifest that is called index", { layers: [] }, OCI_INDEX, /is not what/],
  ["no JSON", "{", undefined, /not a JSON object/],
  ["no text", "\u00FF", undefined, /not a JSON object/],
  ["no object", [], undefined, /not a JSON object/],
])("manifestType: %s is refused", (...row) => {
  const [, value, contentType, message] = row;

  expect(() => typeOf(value, contentType)).toThrow(message);
});
