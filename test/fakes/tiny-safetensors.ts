/** A model of a few kilobytes as a directory of safetensors, for engines of that format. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { tinySafetensors } from "../../backends/python/tiny-model.ts";
import type { RunnableModel } from "../../src/runtime/backend.ts";

/** @param config members that its `config.json` has instead */
export async function tinyModel(
  directory: string,
  config: Readonly<Record<string, unknown>> = {},
): Promise<RunnableModel> {
  const files = tinySafetensors();
  for (const [name, content] of Object.entries(files))
    await writeFile(join(directory, name), content);
  const own = JSON.parse(String(files["config.json"])) as Record<string, unknown>;
  await writeFile(join(directory, "config.json"), JSON.stringify({ ...own, ...config }));
  const weights = Object.keys(files).find((name) => name.endsWith(".safetensors")) ?? "";
  const bundle = {
    directory,
    format: "safetensors",
    model: join(directory, weights),
    weightBytes: 1000,
  };
  return {
    id: `sha256:${Bun.SHA256.hash(directory, "hex")}`,
    name: "me/tiny",
    format: "safetensors",
    weightBytes: 1000,
    openBundle: () =>
      Promise.resolve({ ...bundle, [Symbol.asyncDispose]: () => Promise.resolve() }),
  };
}
