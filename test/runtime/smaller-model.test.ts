import { expect, test } from "bun:test";

import type { Model } from "../../src/api/models.ts";
import { parseDigest } from "../../src/oci/digest.ts";
import { describeSmaller } from "../../src/runtime/smaller-model.ts";

const GB = 1e9;

function model(tag: string, sizeGb: number, config: Partial<Model["config"]> = {}): Model {
  return {
    id: parseDigest(`sha256:${Bun.SHA256.hash(tag, "hex")}`),
    tags: tag === "" ? [] : [tag],
    created: 0,
    size_bytes: sizeGb * GB,
    config: {
      format: "gguf",
      quantization: null,
      parameters: "8B",
      architecture: "llama",
      size: null,
      context_size: null,
      gguf: null,
      ...config,
    },
  };
}

const BIG = model("m:f16", 16);

test.each([
  [
    "the largest that fits",
    [model("m:q2", 3), model("m:q4", 5, { quantization: "Q4_0" })],
    "`m:q4`, Q4_0, is here and would fit",
  ],
  [
    "by the name that people write",
    [model("docker.io/ai/m:latest", 3)],
    "`m`, is here and would fit",
  ],
  ["none of another size", [model("other:q4", 5, { parameters: "7B" })], undefined],
  ["none of another architecture", [model("other:q4", 5, { architecture: "qwen3" })], undefined],
  ["none that does not fit either", [model("m:q8", 9)], undefined],
  ["none without a name", [model("", 5)], undefined],
])("smaller model: %s", (_name, models, clause) => {
  expect(describeSmaller([BIG, ...models], BIG.id, { ram: 8 * GB })).toBe(clause as never);
});

test("smaller model: of one that is not here, or says nothing of itself, nothing is known", () => {
  const silent = model("m:f16", 16, { parameters: null });

  expect(describeSmaller([model("m:q4", 5)], BIG.id, { ram: 8 * GB })).toBeUndefined();
  expect(describeSmaller([silent, model("m:q4", 5)], silent.id, { ram: 8 * GB })).toBeUndefined();
});
