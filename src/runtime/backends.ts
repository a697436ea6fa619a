/** The engines Tug knows, and those of the user's own. The one importer of `backends/`. */
import { diffusers } from "../../backends/diffusers/index.ts";
import { llamacpp } from "../../backends/llamacpp/index.ts";
import { mlx } from "../../backends/mlx/index.ts";
import { nim } from "../../backends/nim/index.ts";
import { onnx } from "../../backends/onnx/index.ts";
import { sglang } from "../../backends/sglang/index.ts";
import { transformers } from "../../backends/transformers/index.ts";
import { vllm } from "../../backends/vllm/index.ts";

import type { Backend } from "./backend.ts";
import { readCustomEngines } from "./custom-engine.ts";

/** Those that are built in, in the order of preference where several can serve a model. */
export const BACKENDS: readonly Backend[] = [
  llamacpp,
  vllm,
  sglang,
  mlx,
  transformers,
  onnx,
  nim,
  diffusers,
];

/**
 * All of them, in the order of preference: who configures an engine for a format wants it.
 *
 * @param tables `[engines]` of config.toml, by name
 * @throws usage (a table that cannot be understood)
 */
export function composeBackends(tables: Readonly<Record<string, unknown>>): readonly Backend[] {
  const names = BACKENDS.map(({ name }) => name);
  return [...readCustomEngines(tables, names), ...BACKENDS];
}
