/** What a directory that is to be packaged holds, where nobody says it. */
import { readdirSync } from "node:fs";

/** A directory of a model has some dozens; what a person gives by mistake may have any number. */
const MAX_NAMES = 10_000;

/**
 * By the names of its files: GGUF, safetensors and DDUF first, then ONNX, then PyTorch's checkpoints. What it cannot tell
 * is left to the packager to complain about.
 *
 * @param path of a directory
 */
export function directoryFormat(path: string): "safetensors_dir" | "onnx_dir" | "pytorch_dir" {
  const names = namesIn(path);
  const has = (pattern: RegExp): boolean => names.some((name) => pattern.test(name));
  if (has(/\.(?:gguf|safetensors|dduf)$/i)) return "safetensors_dir";
  if (has(/\.onnx$/i)) return "onnx_dir";
  const isPytorch = has(/^pytorch_model[^/]*\.bin$/i) && has(/^config\.json$/);
  return isPytorch ? "pytorch_dir" : "safetensors_dir";
}

// --- internal ---

/** At the top and one directory below. */
function namesIn(path: string): readonly string[] {
  try {
    const entries = readdirSync(path, { withFileTypes: true }).slice(0, MAX_NAMES);
    return entries.flatMap((entry) => {
      if (!entry.isDirectory() || entry.name.startsWith(".")) return [entry.name];
      const names = readdirSync(`${path}/${entry.name}`).slice(0, MAX_NAMES);
      return names.map((name) => `${entry.name}/${name}`);
    });
  } catch {
    return [];
  }
}
