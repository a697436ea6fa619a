/** ONNX models of a few kilobytes: of known answers, and known vectors. */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { toOnnx } from "../../backends/onnx/graph.ts";
import { CHARACTERS, SPECIAL, tokenizer } from "../../backends/onnx/tiny-model.ts";

type Files = Readonly<Record<string, string | Uint8Array>>;

export interface EncoderOptions {
  /** How token vectors become one; `mean`, and no file that says so, unless given. */
  readonly pooling?: "cls" | "mean" | "lasttoken" | "max" | undefined;
  /** The graph pools by itself, by the maximum over all that it is given. */
  readonly poolsItself?: boolean | undefined;
  /** It asks for token types, which it adds nothing of. */
  readonly takesTypes?: boolean | undefined;
}

/** Tokens that it reads. */
export const ENCODER_CONTEXT = 128;

/** In the layout of exports to Hugging Face, with the graph in `onnx`. */
export function tinyEncoder({ pooling, poolsItself, takesTypes }: EncoderOptions = {}): Files {
  const values = TOKENS.flatMap((_, id) => tokenVector(id));
  const ids = { type: "int64", shape: ["batch", "length"] } as const;
  const output = poolsItself === true ? "sentence_embedding" : "last_hidden_state";
  const shape = poolsItself === true ? ["batch", SIZE] : ["batch", "length", SIZE];
  const gather = { op: "Gather", inputs: ["table", "input_ids"], outputs: ["states"] };
  const last =
    poolsItself === true
      ? {
          op: "ReduceMax",
          inputs: ["states"],
          outputs: [output],
          attributes: { axes: [1], keepdims: 0 },
        }
      : { op: "Identity", inputs: ["states"], outputs: [output] };
  const graph = toOnnx({
    inputs: {
      input_ids: ids,
      attention_mask: ids,
      ...(takesTypes === true ? { token_type_ids: ids } : {}),
    },
    outputs: { [output]: { type: "float", shape } },
    constants: { table: { type: "float", shape: [TOKENS.length, SIZE], values } },
    nodes: [gather, last],
  });
  const config = { model_type: "bert", max_position_embeddings: ENCODER_CONTEXT };
  return {
    "config.json": JSON.stringify(config),
    "tokenizer.json": JSON.stringify(tokenizer(TOKENS)),
    "onnx/model.onnx": graph,
    ...(pooling === undefined ? {} : { "1_Pooling/config.json": poolingConfig(pooling) }),
  };
}

/** Of a text's tokens, in order: what the model makes of each. */
export function tokenVectors(text: string): number[][] {
  return text.split("").map((character) => tokenVector(TOKENS.indexOf(character)));
}

/** Of length one. */
export function normalised(vector: readonly number[]): number[] {
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
}

export async function writeFiles(directory: string, files: Files): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    const path = join(directory, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  }
}

// --- internal ---

const TOKENS = [...SPECIAL, ...CHARACTERS];
const SIZE = 4;

function tokenVector(id: number): number[] {
  return Array.from({ length: SIZE }, (_, at) => ((id * (2 * at + 3) + at) % 11) - 4);
}

/** @see https://huggingface.co/sentence-transformers, `1_Pooling/config.json` */
function poolingConfig(pooling: string): string {
  const name = pooling === "mean" || pooling === "max" ? `${pooling}_tokens` : pooling;
  const key = pooling === "cls" ? "cls_token" : name;
  return JSON.stringify({ word_embedding_dimension: SIZE, [`pooling_mode_${key}`]: true });
}
