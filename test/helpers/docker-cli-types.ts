/**
 * The Go types into which the `docker model` CLI decodes answers.
 *
 * @see https://github.com/docker/model-runner cmd/cli/desktop/{desktop,api}.go, pkg/inference/models/api.go,
 *   pkg/inference/scheduling/api.go, pkg/inference/backend.go, pkg/distribution/{types/config,oci/progress}.go
 */
import {
  goBool,
  goFloat,
  goInt,
  goInt32,
  goKeepAlive,
  goMap,
  goMode,
  goSlice,
  goString,
  goStruct,
  goTime,
  type GoType,
  goUint,
} from "./go-json.ts";

const CONFIG = goStruct({
  format: goString,
  quantization: goString,
  parameters: goString,
  architecture: goString,
  size: goString,
  gguf: goMap(goString),
  safetensors: goMap(goString),
  diffusers: goMap(goString),
  context_size: goInt32,
});

export const MODEL = goStruct(
  { id: goString, tags: goSlice(goString), created: goInt, config: CONFIG },
  ["id", "created", "config"],
);

export const OPENAI_MODEL = goStruct(
  {
    id: goString,
    object: goString,
    created: goInt,
    owned_by: goString,
    dmr: goStruct({
      context_window: goInt32,
      architecture: goString,
      parameters: goString,
      quantization: goString,
      size: goString,
    }),
  },
  ["id", "object", "created", "owned_by"],
);

export const OPENAI_MODELS = goStruct({ object: goString, data: goSlice(OPENAI_MODEL) }, [
  "object",
  "data",
]);

const PROGRESS = goStruct(
  {
    type: goString,
    message: goString,
    total: goUint,
    layer: goStruct({ id: goString, size: goUint, current: goUint }, ["size", "current"]),
    mode: goString,
  },
  ["type", "message", "total", "layer", "mode"],
);

export const REMOVED = goSlice(goStruct({ Untagged: goString, Deleted: goString }));

export const STATUS = goMap(goString);

export const PS = goSlice(
  goStruct(
    {
      backend_name: goString,
      model_name: goString,
      mode: goString,
      last_used: goTime,
      in_use: goBool,
      loading: goBool,
      keep_alive: goKeepAlive,
    },
    ["backend_name", "model_name", "mode", "last_used"],
  ),
);

export const DF = goStruct({ models_disk_usage: goInt, default_backend_disk_usage: goInt }, [
  "models_disk_usage",
  "default_backend_disk_usage",
]);

export const UNLOADED = goStruct({ unloaded_runners: goInt }, ["unloaded_runners"]);

const BACKEND_CONFIGURATION = goStruct({
  "context-size": goInt32,
  "runtime-flags": goSlice(goString),
  speculative: goStruct({
    draft_model: goString,
    num_tokens: goInt,
    min_acceptance_rate: goFloat,
  }),
  keep_alive: goKeepAlive,
  vllm: goStruct({}),
  llamacpp: goStruct({ "reasoning-budget": goInt32 }),
});

export const CONFIGS = goSlice(
  goStruct(
    {
      Backend: goString,
      Model: goString,
      ModelID: goString,
      Mode: goMode,
      Config: BACKEND_CONFIGURATION,
    },
    ["Backend", "Model", "ModelID", "Mode", "Config"],
  ),
);

export const VERSION = goStruct({ version: goString }, ["version"]);

/** Also what its documentation names for people who read the raw answer. */
export const REQUESTS = goSlice(
  goStruct(
    {
      count: goInt,
      model: goString,
      config: goStruct({}),
      records: goSlice(
        goStruct(
          {
            id: goString,
            model: goString,
            method: goString,
            url: goString,
            request: goString,
            response: goString,
            error: goString,
            timestamp: goInt,
            status_code: goInt,
            user_agent: goString,
          },
          ["id", "model", "method", "url", "request", "timestamp", "status_code"],
        ),
      ),
    },
    ["count", "model", "config", "records"],
  ),
);

const MESSAGE = goStruct({
  content: goString,
  role: goString,
  reasoning_content: goString,
  tool_calls: goSlice(
    goStruct({
      id: goString,
      type: goString,
      index: goInt,
      function: goStruct({ name: goString, arguments: goString }),
    }),
  ),
});

export const CHAT = goStruct(
  {
    id: goString,
    object: goString,
    created: goInt,
    model: goString,
    choices: goSlice(
      goStruct({ delta: MESSAGE, message: MESSAGE, index: goInt, finish_reason: goString }),
    ),
    usage: goStruct({ completion_tokens: goInt, prompt_tokens: goInt, total_tokens: goInt }),
  },
  ["choices"],
);

/** @returns what the CLI could not read */
export function unreadable(type: GoType, value: unknown): string[] {
  return type(value, "$");
}

/** As Go's `html.UnescapeString`, for the entities that spoil JSON. */
function unescapeHtml(text: string): string {
  return text
    .replaceAll(/&(?:quot|#34);/g, '"')
    .replaceAll(/&(?:bsol|#92);/g, "\\")
    .replaceAll("&NewLine;", "\n");
}

/** What `DisplayProgress` makes of a stream: the bars of its layers, and how it ends. */
export function readProgress(text: string): {
  readonly problems: string[];
  readonly layers: Readonly<Record<string, { size: number; current: number }>>;
  readonly last: { readonly type: string; readonly message: string };
  readonly modes: readonly string[];
} {
  const layers: Record<string, { size: number; current: number }> = {};
  const problems: string[] = [];
  const modes = new Set<string>();
  let last = { type: "", message: "" };
  for (const line of text.split("\n").filter((one) => one !== "")) {
    const event = JSON.parse(unescapeHtml(line)) as {
      type: string;
      message: string;
      mode: string;
      layer: { id?: string; size: number; current: number };
    };
    problems.push(...unreadable(PROGRESS, event));
    modes.add(event.mode);
    const { id, size, current } = event.layer;
    if (event.type === "progress" && id !== undefined) layers[id] = { size, current };
    last = { type: event.type, message: event.message };
  }
  return { problems, layers, last, modes: [...modes] };
}
