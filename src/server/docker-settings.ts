/**
 * Docker Model Runner's words for a model's settings, and ours. Pure.
 *
 * @see https://github.com/docker/model-runner pkg/inference/scheduling/api.go ConfigureRequest
 */
import * as v from "valibot";
import type { ModelSettings, StoredSettingsRow } from "../api/settings.ts";
import { AppError } from "../errors.ts";
import { splitShellWords } from "./shell-words.ts";

const OPTIONAL_TEXT = v.nullish(v.string());
const OPTIONAL_NUMBER = v.nullish(v.number());

/** Members that nobody knows are ignored: its clients send some. */
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

export type DockerConfigure = v.InferOutput<typeof DockerConfigureBody>;

/**
 * What is said; zero and empty are what its clients send for "not said".
 *
 * @throws invalid_request (settings of an engine that there is not)
 */
export function fromDocker(body: DockerConfigure): Readonly<Record<string, unknown>> {
  if (Object.keys(body.vllm ?? {}).length > 0) {
    throw new AppError(
      "invalid_request",
      "cannot configure: there is no vLLM to give settings to",
      {
        hint: "Leave `vllm` out.",
      },
    );
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
    keep_alive: settings.keep_alive,
    llamacpp: Object.keys(llamacpp).length === 0 ? undefined : llamacpp,
  });
}

function compact(members: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}
