/**
 * Docker Model Runner's words for a model's settings, and ours. Pure.
 *
 * @see https://github.com/docker/model-runner pkg/inference/scheduling/api.go ConfigureRequest
 */
import * as v from "valibot";
import type { ModelSettings, StoredSettingsRow } from "../api/settings.ts";
import { parseDuration } from "../config.ts";
import { AppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";
import { toGoDuration } from "./go-duration.ts";
import { splitShellWords } from "../runtime/shell-words.ts";

const OPTIONAL_TEXT = v.nullish(v.string());
const OPTIONAL_NUMBER = v.nullish(v.number());

/**
 * Members that nobody knows are ignored, as Docker Model Runner does: newer clients send what an older runner does not
 * know, and what they mean by it is no part of what is asked here.
 */
export const DockerConfigureBody = v.object({
  model: v.pipe(v.string(), v.nonEmpty("must not be empty")),
  mode: OPTIONAL_TEXT,
  "context-size": OPTIONAL_NUMBER,
  "runtime-flags": v.nullish(v.array(v.string())),
  "raw-runtime-flags": OPTIONAL_TEXT,
  keep_alive: OPTIONAL_TEXT,
  speculative: v.nullish(
    v.object({
      draft_model: OPTIONAL_TEXT,
      num_tokens: OPTIONAL_NUMBER,
      min_acceptance_rate: OPTIONAL_NUMBER,
    }),
  ),
  llamacpp: v.nullish(v.object({ "reasoning-budget": OPTIONAL_NUMBER })),
  vllm: v.nullish(v.record(v.string(), v.unknown())),
});

/**
 * The members as Docker Model Runner spells them. Its decoder takes names in any case; ours also takes `_` for `-`, and a
 * row of `GET _configure` as it was listed (`Model`, `Mode`, `Config`). Of several spellings of one the last one holds.
 */
export function readDockerNames(
  body: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const { config, ...rest } = renamed(body);
  const all = { ...(isRecord(config) ? renamed(config) : {}), ...rest };
  for (const name of ["speculative", "llamacpp", "vllm"]) {
    const member = all[name];
    if (isRecord(member)) all[name] = renamed(member);
  }
  return all;
}

export type DockerConfigure = v.InferOutput<typeof DockerConfigureBody>;

/**
 * What is said; zero and empty are what its clients send for "not said".
 *
 * @throws invalid_request (settings of vLLM in Docker's words)
 */
export function fromDocker(body: DockerConfigure): Readonly<Record<string, unknown>> {
  if (Object.keys(body.vllm ?? {}).length > 0) {
    throw new AppError("invalid_request", "cannot configure: `vllm` is not understood", {
      hint: "Give vLLM's own flags as `runtime-flags` to `/engines/vllm/_configure`.",
    });
  }
  return compact({
    context_size: body["context-size"] || undefined,
    runtime_flags: flagsOf(body),
    keep_alive: body.keep_alive || undefined,
    reasoning_budget: body.llamacpp?.["reasoning-budget"] ?? undefined,
    ...fromSpeculative(body.speculative ?? {}),
  });
}

/** The row as its clients read it, beside ours. */
export function toDockerRow(
  { model_id, tags, mode, settings }: StoredSettingsRow,
  backend: string,
): Readonly<Record<string, unknown>> {
  return {
    Backend: backend,
    Model: tags[0] ?? model_id,
    ModelID: model_id,
    Mode: mode ?? "completion",
    Config: toDockerConfig(settings),
  };
}

// --- internal ---

/** By themselves in lower case without `-` and `_`. */
const NAMES: ReadonlyMap<string, string> = new Map(
  [
    "model",
    "mode",
    "context-size",
    "runtime-flags",
    "raw-runtime-flags",
    "keep_alive",
    "speculative",
    "llamacpp",
    "vllm",
    "config",
    "draft_model",
    "num_tokens",
    "min_acceptance_rate",
    "reasoning-budget",
    "hf-overrides",
    "gpu-memory-utilization",
  ].map((name) => [bare(name), name]),
);

function renamed(members: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(members).map(([name, value]) => [NAMES.get(bare(name)) ?? name, value]),
  );
}

function bare(name: string): string {
  return name.toLowerCase().replaceAll(/[-_]/g, "");
}

function fromSpeculative(said: NonNullable<DockerConfigure["speculative"]>) {
  return {
    draft_model: said.draft_model || undefined,
    draft_max_tokens: said.num_tokens || undefined,
    draft_min_probability: said.min_acceptance_rate || undefined,
  };
}

function flagsOf(body: DockerConfigure): readonly string[] | undefined {
  const list = body["runtime-flags"] ?? [];
  if (list.length > 0) return list;
  const words = splitShellWords(body["raw-runtime-flags"] ?? "");
  return words.length === 0 ? undefined : words;
}

function toDockerConfig(settings: ModelSettings): Readonly<Record<string, unknown>> {
  const speculative = compact({
    draft_model: settings.draft_model,
    num_tokens: settings.draft_max_tokens,
    min_acceptance_rate: settings.draft_min_probability,
  });
  const llamacpp = compact({ "reasoning-budget": settings.reasoning_budget });
  return compact({
    "context-size": settings.context_size,
    "runtime-flags": settings.runtime_flags,
    speculative: Object.keys(speculative).length === 0 ? undefined : speculative,
    keep_alive: settings.keep_alive && toGoDuration(parseDuration(settings.keep_alive)),
    llamacpp: Object.keys(llamacpp).length === 0 ? undefined : llamacpp,
  });
}

function compact(members: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}
