import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { toConfigFacts, weightLayers } from "../../src/models/config.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { Manifest } from "../../src/oci/manifest.ts";
import {
  CREATED,
  DOCKER_CONFIG_V01,
  DOCKER_GGUF,
  DOCKER_LICENSE,
  FILE_PATH,
  MODELPACK_CONFIG,
  MODELPACK_WEIGHT,
  OCI_MANIFEST,
} from "../../src/oci/media-types.ts";

const DIGEST = digestOf(new Uint8Array(1));
const layer = (mediaType: string, path?: string) => ({
  mediaType,
  digest: DIGEST,
  size: 1,
  ...(path === undefined ? {} : { annotations: { [FILE_PATH]: path } }),
});
const DOCKER: Manifest = {
  schemaVersion: 2,
  mediaType: OCI_MANIFEST,
  config: layer(DOCKER_CONFIG_V01),
  layers: [layer(DOCKER_GGUF), layer(DOCKER_LICENSE, "LICENSE")],
};
const MODELPACK: Manifest = {
  ...DOCKER,
  config: layer(MODELPACK_CONFIG),
  layers: [layer(MODELPACK_WEIGHT, "m.gguf"), layer(MODELPACK_WEIGHT, "mmproj-m.gguf")],
};

const describeJson = (config: unknown, manifest = DOCKER) =>
  toConfigFacts(new TextEncoder().encode(JSON.stringify(config)), manifest);

describe("toConfigFacts", () => {
  test("config: Docker's own is read", () => {
    const { config, created } = describeJson({
      config: {
        format: "gguf",
        quantization: "MOSTLY_Q4_K_M",
        parameters: "361.82M",
        architecture: "llama",
        size: "256.35MiB",
        gguf: { "general.architecture": "llama", "llama.context_length": "8192" },
        context_size: 4096,
      },
      descriptor: { created: "2026-01-02T03:04:05Z" },
      rootfs: { type: "rootfs", diff_ids: [DIGEST] },
    });

    expect(config).toEqual({
      format: "gguf",
      quantization: "Q4_K_M",
      parameters: "361.82M",
      architecture: "llama",
      size: "256.35MiB",
      context_size: 4096,
      gguf: { "general.architecture": "llama", "llama.context_length": "8192" },
    });
    expect(created).toBe(1_767_323_045);
  });

  test("config: older spellings on Docker Hub lose their spaces", () => {
    const { config } = describeJson({
      config: { parameters: "361.82 M", size: "256.35 MiB", quantization: "IQ2_XXS/Q4_K_M" },
    });

    expect(config).toMatchObject({
      parameters: "361.82M",
      size: "256.35MiB",
      quantization: "IQ2_XXS/Q4_K_M",
    });
  });

  test("config: without a context size of its own, the one it was trained for is shown", () => {
    const { config } = describeJson({
      config: { architecture: "qwen3", gguf: { "qwen3.context_length": "40960" } },
    });

    expect(config.context_size).toBe(40_960);
  });

  test("config: -1 is the model's own maximum", () => {
    expect(describeJson({ config: { context_size: -1 } }).config.context_size).toBe(-1);
  });

  test("config: ModelPack's is read", () => {
    const { config, created } = describeJson(
      {
        descriptor: { createdAt: "1970-01-01T00:01:00Z", family: "qwen3", name: "qwen3-8b" },
        modelfs: { type: "layers", diffIds: [DIGEST] },
        config: { format: "GGUF", paramSize: "8.19B", precision: "bf16" },
      },
      MODELPACK,
    );

    expect(config).toEqual({
      format: "gguf",
      quantization: "bf16",
      parameters: "8.19B",
      architecture: "qwen3",
      size: null,
      context_size: null,
      gguf: null,
    });
    expect(created).toBe(60);
  });

  test("config: the spellings of Docker's specification are read", () => {
    const { config, created } = describeJson({
      descriptor: { createdAt: "1970-01-01T00:01:00Z" },
      config: { format: "gguf", format_version: "3", size: 1024 ** 2, parameters: "1 B" },
      files: [{ diffID: DIGEST, type: DOCKER_GGUF }],
    });

    expect(config).toMatchObject({ format: "gguf", size: "1MiB", parameters: "1B" });
    expect(created).toBe(60);
  });

  test("config: what the config does not say, layers and annotations may", () => {
    const manifest = { ...DOCKER, annotations: { [CREATED]: "1970-01-01T00:01:00Z" } };

    const { config, created } = describeJson({}, manifest);

    expect(config.format).toBe("gguf");
    expect(created).toBe(60);
  });

  test("config: whatever the bytes are, every member is there and of its type", () => {
    const junk = fc.oneof(
      fc.uint8Array(),
      fc.json().map((json) => new TextEncoder().encode(json)),
    );
    const odd = fc
      .record({
        config: fc.dictionary(
          fc.constantFrom("format", "size", "gguf", "context_size", "parameters"),
          fc.jsonValue(),
        ),
      })
      .map((value) => new TextEncoder().encode(JSON.stringify(value)));

    fc.assert(
      fc.property(fc.oneof(junk, odd), (bytes) => {
        const { config, created } = toConfigFacts(bytes, DOCKER);
        const { context_size: context, gguf, ...texts } = config;
        expect(Number.isSafeInteger(created)).toBe(true);
        expect(Object.values(texts)).toHaveLength(5);
        for (const text of [...Object.values(texts), ...Object.values(gguf ?? {})]) {
          expect(text === null || typeof text === "string").toBe(true);
        }
        expect(context === null || Number.isSafeInteger(context)).toBe(true);
      }),
    );
  });
});

const weightsOf = (manifest: Manifest): string[] =>
  weightLayers(describeJson({ config: { format: "gguf" } }, manifest)).map(({ digest }) => digest);

describe("weightLayers", () => {
  test("config: licences and projectors are no weights", () => {
    expect(weightsOf(DOCKER)).toEqual([DOCKER.layers[0]?.digest ?? ""]);
    expect(weightsOf(MODELPACK)).toEqual([MODELPACK.layers[0]?.digest ?? ""]);
  });

  test("config: packed weights are weights, of the format their path says or else the config", () => {
    const [first] = MODELPACK.layers;
    const packed = (path: string): Manifest => ({
      ...MODELPACK,
      layers: [
        {
          ...(first as Manifest["layers"][number]),
          mediaType: "application/vnd.cncf.model.weight.v1.tar+zstd",
          annotations: { [FILE_PATH]: path },
        },
      ],
    });

    expect(describeJson({}, packed("q/m.gguf.tar.zst")).config.format).toBe("gguf");
    expect(describeJson({}, packed("weights")).config.format).toBeNull();
    expect(weightLayers(describeJson({}, packed("weights")))).toEqual([]);
    expect(
      weightLayers(describeJson({ config: { format: "safetensors" } }, packed("weights"))),
    ).toHaveLength(1);
  });

  test("config: layers whose own types say nothing are what the config's `files` declare", () => {
    const [first] = DOCKER.layers;
    const untyped = {
      ...(first as Manifest["layers"][number]),
      mediaType: "application/octet-stream",
    };
    const files = [null, { diffID: 1 }, { diffID: untyped.digest, type: DOCKER_GGUF }];

    const facts = describeJson({ files }, { ...DOCKER, layers: [untyped] });

    expect(facts.config.format).toBe("gguf");
    expect(weightLayers(facts)).toHaveLength(1);
  });
});
