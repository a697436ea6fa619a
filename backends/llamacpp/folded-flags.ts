/** Flags that say in llama-server's words what a setting of Tug says. Pure; the values have been checked. */
import type { Mode, ReadFlags } from "../../src/runtime/backend.ts";

type Settings = ReadFlags["settings"];

/** What the mode of a worker says already. */
export const MODE_FLAGS: Readonly<Record<string, Mode>> = {
  "--embedding": "embedding",
  "--embeddings": "embedding",
  "--rerank": "reranking",
  "--reranking": "reranking",
};

/** @returns the setting; an empty object if the flag says "as you like"; undefined if there is no such setting */
export function foldFlag(name: string, value: string): Settings | undefined {
  return Object.hasOwn(FOLDS, name) ? FOLDS[name]?.(value) : undefined;
}

// --- internal ---

type Fold = (value: string) => Settings | undefined;

/** Where -1 leaves it to the engine. */
const unlessAuto =
  (setting: keyof Settings): Fold =>
  (value) =>
    Number(value) < 0 ? {} : { [setting]: Number(value) };

const numeric =
  (setting: keyof Settings): Fold =>
  (value) => ({ [setting]: Number(value) });

const text =
  (setting: keyof Settings): Fold =>
  (value) => ({ [setting]: value });

/** llama-server spells "the model's own maximum" 0. */
const context: Fold = (value) => ({ context_size: Number(value) === 0 ? -1 : Number(value) });

/** An exact number, `auto` or `all`. What is none of them stays a flag, for the engine to judge. */
const gpuLayers: Fold = (value) => {
  if (value === "auto") return {};
  if (value === "all") return { gpu_layers: -1 };
  return /^\d{1,5}$/.test(value) ? { gpu_layers: Number(value) } : undefined;
};

const slots: Fold = (value) => (Number(value) < 1 ? {} : { parallel: Number(value) });

/** No limit is what a request without a limit has. */
const maxTokens: Fold = (value) => (Number(value) < 1 ? {} : { max_tokens: Number(value) });

const thinking: Fold = (value) => (value === "auto" ? {} : { think: value === "on" });

const adapters: Fold = (value) => ({ lora: value.split(",") });

const FOLDS: Readonly<Record<string, Fold>> = Object.fromEntries(
  (
    [
      ["-c --ctx-size", context],
      ["-np --parallel", slots],
      ["-ngl --gpu-layers --n-gpu-layers", gpuLayers],
      ["-ctk --cache-type-k", text("cache_type_k")],
      ["-ctv --cache-type-v", text("cache_type_v")],
      ["--reasoning-budget", numeric("reasoning_budget")],
      ["-rea --reasoning", thinking],
      ["--lora", adapters],
      ["-md --model-draft --spec-draft-model", text("draft_model")],
      ["--spec-draft-n-max --draft --draft-n --draft-max", numeric("draft_max_tokens")],
      ["--spec-draft-p-min --draft-p-min", numeric("draft_min_probability")],
      ["--temp --temperature", numeric("temperature")],
      ["--top-p", numeric("top_p")],
      ["--top-k", numeric("top_k")],
      ["--min-p", numeric("min_p")],
      ["-s --seed", unlessAuto("seed")],
      ["-n --predict --n-predict", maxTokens],
      ["--repeat-penalty", numeric("repeat_penalty")],
      ["--presence-penalty", numeric("presence_penalty")],
      ["--frequency-penalty", numeric("frequency_penalty")],
    ] as const
  ).flatMap(([names, fold]) => names.split(" ").map((name) => [name, fold] as const)),
);
