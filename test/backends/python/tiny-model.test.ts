import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { tinySafetensors } from "../../../backends/python/tiny-model.ts";
import { readSafetensorsHeader } from "../../../src/store/safetensors-header.ts";
import { tempDir } from "../../helpers/temp-dir.ts";

const files = tinySafetensors();

function parse(name: string): Record<string, unknown> {
  return JSON.parse(String(files[name])) as Record<string, unknown>;
}

describe("tinySafetensors", () => {
  test("tiny model: its weights are a file that the store reads, with all tensors of its configuration", async () => {
    await using directory = await tempDir();
    const location = join(directory.path, "model.safetensors");
    await writeFile(location, files["model.safetensors"] ?? "");

    const header = await readSafetensorsHeader(
      { location, name: "model.safetensors" },
      { signal: AbortSignal.timeout(5000) },
    );

    const { hidden_size, vocab_size, intermediate_size } = parse("config.json") as Record<
      string,
      number
    >;
    const elements = Object.fromEntries(header.tensors.map((one) => [one.name, one.elements]));
    expect(header.sizeBytes).toBeLessThan(256 * 1024);
    expect(header.metadata).toEqual({ format: "pt" });
    expect(header.tensors).toHaveLength(12);
    expect(elements).toMatchObject({
      "model.embed_tokens.weight": Number(vocab_size) * Number(hidden_size),
      "lm_head.weight": Number(vocab_size) * Number(hidden_size),
      "model.layers.0.mlp.down_proj.weight": Number(hidden_size) * Number(intermediate_size),
    });
  });

  test("tiny model: tokens of the vocabulary are numbered as the special ones are named", () => {
    const { model, added_tokens: added } = parse("tokenizer.json") as {
      model: { vocab: Record<string, number>; unk_token: string };
      added_tokens: { id: number; content: string }[];
    };
    const config = parse("config.json");
    const names = parse("tokenizer_config.json");

    expect(Object.values(model.vocab)).toEqual([...Object.keys(model.vocab).keys()]);
    expect(Object.keys(model.vocab)).toHaveLength(Number(config["vocab_size"]));
    expect(added.map(({ id, content }) => [content, id])).toEqual([
      [names["pad_token"], config["pad_token_id"]],
      [names["bos_token"], config["bos_token_id"]],
      [names["eos_token"], config["eos_token_id"]],
    ] as [string, number][]);
    expect(added.map(({ content }) => model.vocab[content])).toEqual([0, 1, 2]);
    expect(model.vocab[model.unk_token]).toBeNumber();
  });
});
