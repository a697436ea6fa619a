import { describe, expect, test } from "bun:test";
import * as types from "../../src/oci/media-types.ts";

describe("weightFormat", () => {
  test.each([
    [types.DOCKER_GGUF, undefined, undefined, "gguf"],
    [types.DOCKER_SAFETENSORS, undefined, undefined, "safetensors"],
    [types.DOCKER_DDUF, undefined, undefined, "dduf"],
    [types.MODELPACK_WEIGHT_GGUF, undefined, undefined, "gguf"],
    [types.MODELPACK_WEIGHT_SAFETENSORS, undefined, undefined, "safetensors"],
    [types.MODELPACK_WEIGHT, "weights.bin", "GGUF", "gguf"],
    [types.MODELPACK_WEIGHT, "dir/m.safetensors", undefined, "safetensors"],
    [types.MODELPACK_WEIGHT, "M.GGUF", "something", "gguf"],
    [types.MODELPACK_WEIGHT, "weights.bin", undefined, undefined],
    [types.MODELPACK_WEIGHT, undefined, undefined, undefined],
    [types.MODELPACK_WEIGHT, "x/MMProj-f16.gguf", "gguf", undefined],
    [types.DOCKER_MMPROJ, "a.gguf", undefined, undefined],
    [types.DOCKER_GGUF_LORA, "a.gguf", undefined, undefined],
    [types.DOCKER_LICENSE, "a.gguf", undefined, undefined],
    ["constructor", "a.gguf", "gguf", undefined],
    ["__proto__", "a.gguf", "gguf", undefined],
  ])(
    "media types: %s at %p in a %p config has weights in %p",
    (...[mediaType, path, format, expected]) => {
      const found: string | undefined = types.weightFormat(mediaType, path, format);

      expect(found).toBe(expected);
    },
  );
});

describe("isProjector", () => {
  test.each([
    [types.DOCKER_MMPROJ, undefined, true],
    [types.DOCKER_GGUF_MMPROJ, undefined, true],
    [types.MODELPACK_WEIGHT, "a/mmproj-f16.gguf", true],
    [types.MODELPACK_WEIGHT, "mmproj/model.gguf", false],
    [types.DOCKER_GGUF, "mmproj.gguf", false],
  ])("media types: whether %s at %p is a projector is %p", (mediaType, path, expected) => {
    expect(types.isProjector(mediaType, path)).toBe(expected);
  });
});

describe("isTemplate and isLicense", () => {
  test.each([
    [types.DOCKER_CHAT_TEMPLATE, undefined, true, false],
    [types.MODELPACK_WEIGHT_CONFIG, "chat_template.jinja", true, false],
    [types.MODELPACK_WEIGHT_CONFIG, "config.json", false, false],
    [types.DOCKER_LICENSE, undefined, false, true],
    [types.MODELPACK_DOC, "LICENSE", false, true],
    [types.MODELPACK_DOC, "README.md", false, false],
  ])(
    "media types: %s at %p: template %p, licence %p",
    (...[mediaType, path, template, license]) => {
      expect([types.isTemplate(mediaType, path), types.isLicense(mediaType, path)]).toEqual([
        template,
        license,
      ]);
    },
  );
});

describe("isLaidOutByPath", () => {
  test.each([
    [types.DOCKER_CONFIG_V01, undefined, false],
    [types.DOCKER_CONFIG_V02, undefined, true],
    [types.MODELPACK_CONFIG, undefined, true],
    ["application/x", types.MODELPACK_MANIFEST, true],
  ])(
    "media types: config %s with artifact type %p is laid out by path: %p",
    (config, artifact, expected) => {
      expect(types.isLaidOutByPath(config, artifact)).toBe(expected);
    },
  );
});

const packed = (kind: string, suffix: string): string =>
  `application/vnd.cncf.model.${kind}.v1.tar${suffix}`;

describe("archives", () => {
  test.each([
    [types.DOCKER_DIR_TAR, true, true, false],
    [types.DOCKER_VLLM_CONFIG_TAR, true, false, false],
    [packed("weight", ""), true, true, false],
    [packed("weight", "+zstd"), true, true, false],
    [packed("weight.config", "+gzip"), true, false, false],
    [packed("dataset", ""), true, false, true],
    [packed("weight", "+xz"), false, false, false],
    [types.MODELPACK_WEIGHT, false, false, false],
    [types.DOCKER_GGUF, false, false, false],
  ])("media types: %s: archive %p, of weights %p, of extras %p", (...args) => {
    const [mediaType, isArchive, isWeights, isExtra] = args;
    expect([
      types.isArchive(mediaType),
      types.isWeightArchive(mediaType),
      types.isExtraArchive(mediaType),
    ]).toEqual([isArchive, isWeights, isExtra]);
  });

  test.each([
    [packed("weight", "+gzip"), "q/m.gguf.tar.gz", undefined, "gguf"],
    [packed("weight", ""), "m.safetensors", undefined, "safetensors"],
    [packed("weight", ""), "weights.tar", undefined, undefined],
    [packed("weight", ""), "m.gguf", "Safetensors", "safetensors"],
    [packed("weight.config", ""), "m.gguf", "gguf", undefined],
    [types.DOCKER_DIR_TAR, "m.gguf", "gguf", undefined],
  ])("media types: %s at %p in a %p config is of %p", (...[mediaType, path, format, expected]) => {
    const found: string | undefined = types.archivedFormat(mediaType, path, format);

    expect(found).toBe(expected);
  });

  test("media types: only one is a LoRA", () => {
    expect([types.isAdapter(types.DOCKER_GGUF_LORA), types.isAdapter(types.DOCKER_GGUF)]).toEqual([
      true,
      false,
    ]);
  });
});
