import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { chooseGguf, type GgufChoice } from "../../src/huggingface/gguf-choice.ts";
import type { HuggingFaceChoice } from "../../src/huggingface/name.ts";
import { quantizationOf } from "../../src/huggingface/quantization.ts";
import type { RepositoryFile } from "../../src/huggingface/shards.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { fixtureRepository } from "../fakes/hugging-face.ts";
import { failureOf } from "./failure-of.ts";

const REPO = "hf.co/org/repo";

function files(...all: readonly string[]): RepositoryFile[] {
  return all.map((path) => ({ path, size: 1e9, digest: digestOf(Buffer.from(path)) }));
}

function choose(all: readonly RepositoryFile[], choice: HuggingFaceChoice): GgufChoice {
  return chooseGguf(all, choice, REPO);
}

function paths({ weights }: GgufChoice): string[] {
  return weights.files.map(({ path }) => path);
}

function byQuant(all: readonly RepositoryFile[], quant: string): string[] {
  return paths(choose(all, { kind: "quant", quant }));
}

function byDefault(all: readonly RepositoryFile[]): GgufChoice {
  return choose(all, { kind: "default" });
}

const FIXTURE = fixtureRepository("gguf").entries.map((entry) => {
  const { path, size } = entry as RepositoryFile;
  return { path, size, digest: undefined };
});

describe("a quantization", () => {
  test.each([
    ["Q4_K_M", ["Tiny.Chat-7B-Q4_K_M.gguf"]],
    ["q4_k_m", ["Tiny.Chat-7B-Q4_K_M.gguf"]],
    ["UD-Q4_K_M", ["Tiny.Chat-7B-UD-Q4_K_M.gguf"]],
    ["UD-Q4_K_XL", ["Tiny.Chat-7B-UD-Q4_K_XL.gguf"]],
    ["IQ2_XXS", ["Tiny.Chat-7B-IQ2_XXS.gguf"]],
    ["7B-Q8_0", ["Tiny.Chat-7B-Q8_0.gguf"]],
    [
      "bf16",
      ["BF16/Tiny.Chat-7B-BF16-00001-of-00002.gguf", "BF16/Tiny.Chat-7B-BF16-00002-of-00002.gguf"],
    ],
  ])("%s names exactly one model", (quant, expected) => {
    const chosen = choose(FIXTURE, { kind: "quant", quant });
    expect(paths(chosen)).toEqual(expected);
    expect(chosen.warnings.filter((warning) => !warning.includes("projector"))).toEqual([]);
  });

  test.each(["Q4_K", "Q4", "K_M", "Q5_K_M", "imatrix", "Q4_K_M_M"])(
    "%s is unknown: the ones there are are listed",
    async (quant) => {
      const all = FIXTURE.filter(({ path }) => !path.startsWith("Tiny.Chat-7B-IQ"));
      const failure = await failureOf(() => choose(all, { kind: "quant", quant }));
      expect(failure.code).toBe("model_not_found");
      expect(failure.message).toBe(`cannot pull \`${REPO}\`: it has no quantization \`${quant}\``);
      expect(failure.details).toEqual({
        quantizations: ["BF16", "Q2_K", "Q4_K_M", "Q8_0", "UD-Q4_K_M", "UD-Q4_K_XL"],
      });
      expect(failure.hint).toContain("`UD-Q4_K_XL`");
    },
  );

  test("a part of the name that all have is ambiguous", async () => {
    expect((await failureOf(() => byQuant(FIXTURE, "Tiny.Chat-7B"))).code).toBe("conflict");
  });

  test("a variant of it is taken only if there is nothing plainer, and said", () => {
    const chosen = choose(files("x-UD-Q4_K_XL.gguf", "x-Q8_0.gguf"), {
      kind: "quant",
      quant: "Q4_K_XL",
    });
    expect(paths(chosen)).toEqual(["x-UD-Q4_K_XL.gguf"]);
    expect(chosen.warnings).toEqual(["there is no plain `Q4_K_XL`: chose `x-UD-Q4_K_XL.gguf`"]);
  });

  test("two models of one quantization are ambiguous, with their sizes", async () => {
    const all = files("a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "b-Q8_0.gguf");
    const failure = await failureOf(() => byQuant(all, "Q4_K_M"));
    expect(failure.code).toBe("conflict");
    expect(failure.message).toContain("`a-Q4_K_M.gguf` (1.0 GB), `b-Q4_K_M.gguf` (1.0 GB)");
    expect(failure.hint).toBe(`Name the file, as in \`${REPO}:a-Q4_K_M.gguf\`.`);
    expect(failure.details).toEqual({
      candidates: [
        { path: "a-Q4_K_M.gguf", size_bytes: 1e9 },
        { path: "b-Q4_K_M.gguf", size_bytes: 1e9 },
      ],
    });
  });

  test("the same bytes at two places are one model", () => {
    const digest = digestOf(Buffer.from("same"));
    const all = files("x-Q8_0.gguf", "old/y-Q8_0.gguf").map((file) => ({ ...file, digest }));
    expect(byQuant(all, "Q8_0")).toEqual(["x-Q8_0.gguf"]);
  });

  test("the plain one is meant, not its variants", () => {
    const all = files("x-Q4_K_M-imat.gguf", "x-Q4_K_M.gguf", "x-Q4_K_M-v2.gguf");
    expect(byQuant(all, "Q4_K_M")).toEqual(["x-Q4_K_M.gguf"]);
    expect(byQuant(all, "Q4_K_M-v2")).toEqual(["x-Q4_K_M-v2.gguf"]);
  });

  test("a directory of that name holds it", () => {
    const all = files(
      "UD-Q4_K_XL/part-00001-of-00002.gguf",
      "UD-Q4_K_XL/part-00002-of-00002.gguf",
      "Q4_K_M/part-00002-of-00003.gguf",
      "Q4_K_M/part-00001-of-00003.gguf",
      "Q4_K_M/part-00003-of-00003.gguf",
    );
    expect(byQuant(all, "Q4_K_M")).toEqual([
      "Q4_K_M/part-00001-of-00003.gguf",
      "Q4_K_M/part-00002-of-00003.gguf",
      "Q4_K_M/part-00003-of-00003.gguf",
    ]);
  });

  test("shards of different sets are never mixed", () => {
    const all = files(
      "a/x-Q8_0-00001-of-00002.gguf",
      "a/x-Q8_0-00002-of-00002.gguf",
      "b/x-Q4_0-00001-of-00002.gguf",
      "b/x-Q4_0-00002-of-00002.gguf",
    );
    expect(byQuant(all, "Q4_0")).toEqual([
      "b/x-Q4_0-00001-of-00002.gguf",
      "b/x-Q4_0-00002-of-00002.gguf",
    ]);
  });

  test("missing shards are an error, not a smaller model", async () => {
    const all = files("x-Q8_0-00001-of-00003.gguf", "x-Q8_0-00003-of-00003.gguf", "x-Q4_0.gguf");
    const failure = await failureOf(() => byQuant(all, "Q8_0"));
    expect(failure.code).toBe("invalid_model_file");
    expect(failure.message).toContain("it has 2 of 3 shards");
    expect(paths(byDefault(all))).toEqual(["x-Q4_0.gguf"]);
  });
});

describe("no quantization", () => {
  test("Q4_K_M, and the warning says so", () => {
    const chosen = byDefault(FIXTURE);
    expect(paths(chosen)).toEqual(["Tiny.Chat-7B-Q4_K_M.gguf"]);
    expect(chosen.warnings[0]).toBe(
      "no quantization was named: chose `Q4_K_M` (4.4 GB); there are also `BF16`, `IQ2_XXS`, `Q2_K`, `Q8_0`, `UD-Q4_K_M`, `UD-Q4_K_XL`",
    );
  });

  test.each([
    [["x-Q8_0.gguf", "x-Q5_K_M.gguf", "x-Q4_0.gguf"], "x-Q8_0.gguf"],
    [["x-F16.gguf", "x-Q6_K.gguf", "x-Q5_K_M.gguf"], "x-Q5_K_M.gguf"],
    [["x-UD-Q4_K_XL.gguf", "x-Q4_K_XL.gguf"], "x-Q4_K_XL.gguf"],
    [["x-fp16.gguf", "x-bf16.gguf"], "x-bf16.gguf"],
    [["x-TQ1_0.gguf", "x-IQ1_S.gguf"], "x-IQ1_S.gguf"],
    [["x-IQ1_S.gguf", "x.gguf"], "x-IQ1_S.gguf"],
    [["b.gguf", "a.gguf"], "a.gguf"],
  ])("of %p: %s, in any order", (all, expected) => {
    expect(paths(byDefault(files(...all)))).toEqual([expected]);
    expect(paths(byDefault(files(...all.toReversed())))).toEqual([expected]);
    expect(byDefault(files(...all)).warnings[0]).toContain("no quantization was named");
  });

  test("an only file needs no words, whatever it is called", () => {
    const chosen = byDefault(
      files("ggml-model-q4_0.gguf", "x.gguf.part", "imatrix.gguf", "ggml-vocab-x.gguf"),
    );
    expect(paths(chosen)).toEqual(["ggml-model-q4_0.gguf"]);
    expect(chosen.warnings).toEqual([]);
  });

  test("two models of the best one are ambiguous", async () => {
    const all = files("a-Q4_K_M.gguf", "b-Q4_K_M.gguf");
    expect((await failureOf(() => byDefault(all))).message).toContain(
      "`Q4_K_M` fits several files",
    );
  });

  test("a projector alone is no model", async () => {
    const failure = await failureOf(() => byDefault(files("mmproj-F16.gguf")));
    expect(failure.code).toBe("unsupported_model");
    expect(failure.message).toContain("a projector, but no model");
    expect((await failureOf(() => byDefault([]))).message).toContain("no GGUF files");
  });
});

describe("a file", () => {
  const all = files(
    "q/a-Q8_0-00001-of-00002.gguf",
    "q/a-Q8_0-00002-of-00002.gguf",
    "b.gguf",
    "z/b.gguf",
    "mmproj-F16.gguf",
  );
  const both = ["q/a-Q8_0-00001-of-00002.gguf", "q/a-Q8_0-00002-of-00002.gguf"];

  test.each([
    ["q/a-Q8_0-00002-of-00002.gguf", both],
    ["Q/A-q8_0-00001-of-00002.gguf", both],
    ["a-Q8_0-00001-of-00002.gguf", both],
    ["q-a-Q8_0-00001-of-00002.gguf", both],
    ["b.gguf", ["b.gguf"]],
    ["z-b.gguf", ["z/b.gguf"]],
  ])("%s is taken with its shards, without a projector", (path, expected) => {
    const chosen = choose(all, { kind: "file", path });
    expect(paths(chosen)).toEqual(expected);
    expect(chosen.mmproj).toBeUndefined();
    expect(chosen.warnings[0]).toContain("`mmproj-F16.gguf` is left out");
  });

  test.each([
    ["c.gguf", "model_not_found", "it has no `c.gguf`"],
    ["mmproj-F16.gguf", "unsupported_model", "is a projector"],
  ])("%s cannot be had", async (path, code, message) => {
    const failure = await failureOf(() => choose(all, { kind: "file", path }));
    expect(failure.code as string).toBe(code);
    expect(failure.message).toContain(message);
  });

  test("a name that is at two places is ambiguous", async () => {
    const twice = files("x/b.gguf", "y/b.gguf");
    const failure = await failureOf(() => choose(twice, { kind: "file", path: "b.gguf" }));
    expect(failure.code).toBe("conflict");
  });
});

describe("a projector", () => {
  test.each([
    [["mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"], "mmproj-F16.gguf"],
    [["mmproj-F32.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"],
    [["mmproj-Q8_0.gguf", "mmproj-F32.gguf"], "mmproj-F32.gguf"],
    [["mmproj-model-f16.gguf", "x.mmproj-q8_0.gguf"], "x.mmproj-q8_0.gguf"],
    [["mmproj-y-f16.gguf", "mmproj-x-q8_0.gguf"], "mmproj-x-q8_0.gguf"],
  ])("of %p: %s, and the warning says so", (projectors, expected) => {
    const { mmproj, warnings } = byDefault(files("x-Q8_0.gguf", ...projectors));
    expect(mmproj?.path).toBe(expected);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(`chose the projector \`${expected}\``);
  });

  test("an only one comes along without words; importance matrices do not", () => {
    const { mmproj, warnings } = byDefault(
      files("x-Q8_0.gguf", "x-mmproj.gguf", "mmproj-imatrix.gguf"),
    );
    expect(mmproj?.path).toBe("x-mmproj.gguf");
    expect(warnings).toEqual([]);
  });
});

test.each([
  ["x-Q4_K_M", "Q4_K_M"],
  ["x.q4_0", "Q4_0"],
  ["x_Q5_K_S", "Q5_K_S"],
  ["Q2_K_L/x", "Q2_K_L"],
  ["x-ud-iq3_xxs", "UD-IQ3_XXS"],
  ["x-BF16-Q8_0", "Q8_0"],
  ["x-Q4_0_4_8", "Q4_0_4_8"],
  ["x-mxfp4_moe", "MXFP4_MOE"],
  ["x-fp16", "F16"],
  ["Qwen3-8B", undefined],
  ["Q", undefined],
])("%s is quantized as %p", (stem, expected) => {
  expect(quantizationOf(stem)).toBe(expected);
});

function outcome(list: readonly string[]): string {
  try {
    return paths(byDefault(files(...list))).join();
  } catch (error) {
    return (error as Error).message;
  }
}

test("whatever is chosen is one complete set of one model, in the same way for any order", () => {
  const name = fc.constantFrom("a", "b", "dir/a", "dir/b");
  const quant = fc.constantFrom("-Q4_K_M", "-UD-Q4_K_M", "-Q8_0", "-F16", "");
  const shards = fc.constantFrom(["-00001-of-00002", "-00002-of-00002"], ["-00001-of-00002"], [""]);
  const set = fc
    .tuple(name, quant, shards)
    .map(([stem, label, parts]) => parts.map((part) => `${stem}${label}${part}.gguf`));
  fc.assert(
    fc.property(
      fc.array(set, { minLength: 1, maxLength: 8 }),
      fc.infiniteStream(fc.nat()),
      (sets, random) => {
        const all = [...new Set(sets.flat())];
        const order = new Map(all.map((path) => [path, random.next().value as number]));
        const shuffled = all.toSorted(
          (left, right) => (order.get(left) ?? 0) - (order.get(right) ?? 0),
        );
        const chosen = outcome(all);
        expect(outcome(shuffled)).toBe(chosen);
        const stems = new Set(
          chosen.split(",").map((path) => path.replace(/(-\d{5}-of-\d{5})?\.gguf.*$/s, "")),
        );
        if (!chosen.startsWith("cannot")) expect(stems.size).toBe(1);
      },
    ),
  );
});
