import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { chooseManifest, parseIndex } from "../../src/oci/image-index.ts";
import { MODELPACK_MANIFEST, OCI_INDEX, OCI_MANIFEST } from "../../src/oci/media-types.ts";

function entry(name: string, platform?: string, more: Partial<Descriptor> = {}): Descriptor {
  const [os = "", architecture = "", variant] = (platform ?? "").split("/");
  return {
    mediaType: OCI_MANIFEST,
    digest: digestOf(Buffer.from(name)),
    size: 1,
    ...(platform === undefined
      ? {}
      : { platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } }),
    ...more,
  };
}

const amd = entry("amd", "linux/amd64");
const arm = entry("arm", "linux/arm64/v8");
const armv7 = entry("armv7", "linux/arm/v7");
const attestation = entry("attestation", "unknown/unknown");
const nested = entry("nested", "linux/amd64", { mediaType: OCI_INDEX });

function failure(work: () => unknown): AppError {
  try {
    work();
  } catch (error) {
    if (error instanceof AppError) return error;
  }
  throw new Error("it did not fail");
}

describe("parseIndex", () => {
  test("the entries are descriptors", () => {
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [amd, arm] }));

    expect(parseIndex(bytes)).toEqual({ manifests: [amd, arm] });
  });

  test.each([
    ["no JSON", "{"],
    ["no object", "[]"],
    ["no list", '{"manifests":{}}'],
    ["an entry without a digest", '{"manifests":[{"mediaType":"a","size":1}]}'],
    ["a negative size", `{"manifests":[${JSON.stringify({ ...amd, size: -1 })}]}`],
    ["too many entries", `{"manifests":[${Array(2000).fill("1").join(",")}]}`],
    ["too many bytes", `{"manifests":[]${" ".repeat(4 * 1024 * 1024)}}`],
    ["bytes that are no text", "\u00FF"],
  ])("%s is refused", (_what, text) => {
    expect(failure(() => parseIndex(Buffer.from(text, "latin1"))).code).toBe("invalid_model_file");
  });
});

describe("chooseManifest", () => {
  test("the only manifest needs no platform; attestations and nested indexes do not count", () => {
    const manifests = [
      attestation,
      nested,
      entry("note", undefined, {
        annotations: { "vnd.docker.reference.type": "attestation-manifest" },
      }),
      arm,
    ];

    expect(chooseManifest({ manifests }, { machine: "linux/x64" })).toBe(arm);
  });

  test("the only model wins over images", () => {
    const model = entry("model", undefined, { artifactType: MODELPACK_MANIFEST });

    expect(chooseManifest({ manifests: [amd, arm, model] }, { machine: "linux/x64" })).toBe(model);
  });

  test.each([
    ["linux/x64", amd],
    ["linux/arm64", arm],
    ["darwin/arm64", arm],
    ["win32/x64", amd],
  ])("this machine %s", (machine, expected) => {
    expect(chooseManifest({ manifests: [armv7, arm, amd] }, { machine })).toBe(expected);
  });

  test("the system of this machine comes before Linux", () => {
    const mac = entry("mac", "darwin/arm64");

    expect(chooseManifest({ manifests: [arm, mac] }, { machine: "darwin/arm64" })).toBe(mac);
  });

  test.each([
    ["linux/amd64", amd],
    ["linux/x86_64", amd],
    ["Linux/AMD64", amd],
    ["linux/arm64", arm],
    ["linux/aarch64", arm],
    ["linux/arm64/v8", arm],
    ["linux/arm/v7", armv7],
    ["linux/arm", armv7],
  ])("the platform that was asked for: %s", (platform, expected) => {
    expect(chooseManifest({ manifests: [amd, arm, armv7] }, { platform })).toBe(expected);
  });

  test("an entry without a platform is for all, where none is for this one", () => {
    const any = entry("any");

    expect(chooseManifest({ manifests: [any, arm] }, { machine: "linux/x64" })).toBe(any);
    expect(chooseManifest({ manifests: [any, arm] }, { platform: "linux/arm64" })).toBe(arm);
  });

  test("what there is is listed where none fits", () => {
    const error = failure(() =>
      chooseManifest({ manifests: [amd, arm, attestation] }, { platform: "linux/s390x" }),
    );

    expect(error.code).toBe("unsupported_model");
    expect(error.message).toBe(
      "cannot choose from the index: none is for `linux/s390x`; there is linux/amd64, linux/arm64/v8",
    );
    expect(error.hint).toBe("Choose one with `--platform`.");
  });

  test("what was asked for is not replaced by the only one", () => {
    expect(
      failure(() => chooseManifest({ manifests: [arm] }, { platform: "linux/amd64" })).code,
    ).toBe("unsupported_model");
  });

  test("an index for other machines says so", () => {
    const error = failure(() =>
      chooseManifest({ manifests: [armv7, arm] }, { machine: "linux/x64" }),
    );

    expect(error.message).toContain("none is for this machine (`linux/amd64`)");
  });

  test("an index without a model says so", () => {
    const error = failure(() => chooseManifest({ manifests: [attestation] }));

    expect(error.message).toEndWith("it lists no manifest of a model");
    expect(error.hint).toBeUndefined();
  });

  test("a long list is cut", () => {
    const manifests = Array.from({ length: 40 }, (_, at) => entry(`e${at}`, `os${at}/cpu`));

    const error = failure(() => chooseManifest({ manifests }, { machine: "linux/x64" }));

    expect(error.message).toEndWith(", os9/cpu, …");
  });

  test.each(["linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux/\u001B"])(
    "%p is no platform",
    (platform) => {
      expect(failure(() => chooseManifest({ manifests: [amd] }, { platform })).code).toBe("usage");
    },
  );
});
