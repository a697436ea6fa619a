import { describe, expect, test } from "bun:test";
import { readEmbeddings, toInputs } from "../../../src/server/translate/ollama/embeddings.ts";

describe("embeddings", () => {
  test("are in the order of the inputs and of length 1", () => {
    const data = [
      { index: 1, embedding: [0, 2] },
      { index: 0, embedding: [3, 4] },
    ];

    expect(readEmbeddings({ data, usage: { prompt_tokens: 5 } })).toEqual({
      vectors: [
        [0.6, 0.8],
        [0, 1],
      ],
      promptTokens: 5,
    });
  });

  test("that have length 1 stay as the engine sent them", () => {
    const embedding = [0.6000001, 0.7999999];

    expect(readEmbeddings({ data: [{ index: 0, embedding }] }).vectors[0]).toBe(embedding);
  });

  test.each([
    [2, [0.6, 0.8]],
    [0, [0.6, 0.8, 0]],
    [99, [0.6, 0.8, 0]],
    [null, [0.6, 0.8, 0]],
  ])("of %p dimensions are cut and made of length 1 again", (dimensions, expected) => {
    const data = [{ index: 0, embedding: [3, 4, 0] }];

    expect(readEmbeddings({ data }, dimensions).vectors).toEqual([expected]);
  });

  test("of nothing but zeros stay zeros", () => {
    expect(readEmbeddings({ data: [{ index: 0, embedding: [0, 0] }] }).vectors).toEqual([[0, 0]]);
  });

  test.each([[{}], [{ data: [{ embedding: "AAAA" }] }], [{ data: [{}] }]])(
    "that %p does not hold are an error",
    (answer) => {
      expect(() => readEmbeddings(answer)).toThrow("no vectors");
    },
  );

  test.each([
    ["a", ["a"]],
    [
      ["a", ""],
      ["a", ""],
    ],
    ["", []],
    [[], []],
    [null, []],
    [undefined, []],
  ])("inputs of %p", (input, expected) => {
    expect(toInputs(input)).toEqual(expected);
  });
});
