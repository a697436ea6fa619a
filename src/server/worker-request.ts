/** What a request says about the worker that is to serve it. */
import * as v from "valibot";
import type { ModelSettings } from "../api/settings.ts";
import { AppError } from "../errors.ts";
import { checkSettings } from "../runtime/settings.ts";
import type { AppDeps, EngineNames, Runtime } from "./deps.ts";

/** Ollama's and ours, for clients that cannot change their bodies. */
const KEEP_ALIVE_HEADER = "x-keep-alive";
const CONTEXT_HEADER = "x-context-size";

const DURATION = v.nullish(v.union([v.string(), v.number()]));

/** Fields of any request that needs a worker. Other fields are the engine's. */
export const WORKER_FIELDS = {
  model: v.pipe(v.string(), v.nonEmpty("must not be empty")),
  keep_alive: v.pipe(
    DURATION,
    v.description("A duration such as `5m`, seconds, 0 to unload afterwards, or -1 for ever."),
  ),
  ttl: v.pipe(DURATION, v.description("LM Studio's word for `keep_alive`.")),
  context_size: v.pipe(
    v.nullish(v.number()),
    v.description("Tokens; -1 is the model's own maximum. A larger one that is loaded will do."),
  ),
  num_ctx: v.pipe(v.nullish(v.number()), v.description("Ollama's word for `context_size`.")),
};

export interface WorkerFields {
  readonly keep_alive?: string | number | null | undefined;
  readonly ttl?: string | number | null | undefined;
  readonly context_size?: number | null | undefined;
  readonly num_ctx?: number | null | undefined;
}

/**
 * What a request says of the model's settings; the rest stays as it is stored.
 *
 * @throws invalid_request (not a duration, or not a context)
 */
export function toRequestSettings(body: WorkerFields, headers: Headers): ModelSettings {
  const keepAlive = body.keep_alive ?? body.ttl ?? headers.get(KEEP_ALIVE_HEADER) ?? undefined;
  // Checked here, so that a request that cannot be served makes no room for itself.
  return checkSettings(
    { keep_alive: toKeepAlive(keepAlive), context_size: toContextSize(body, headers) },
    "cannot read the request",
  );
}

/** As text: a number is of seconds, any negative one is for ever. */
export function toKeepAlive(value: string | number | undefined): string | undefined {
  if (typeof value !== "number") return value?.trim();
  return value < 0 ? "-1" : String(value);
}

/** @throws runner_unreachable (this process runs no engines) */
export function requireRuntime({ runtime }: Pick<AppDeps, "runtime">): Runtime {
  if (runtime !== undefined) return runtime;
  throw new AppError("runner_unreachable", "cannot run models: no runner is running", {
    hint: "It starts by itself with `tug run`; `tug start-runner` starts it now.",
  });
}

/** @param engineNames of `AppDeps` @throws backend_not_found */
export async function requireBackend(name: string, engineNames?: EngineNames): Promise<string> {
  const known = await knownBackends(engineNames);
  if (known.includes(name)) return name;
  throw new AppError(
    "backend_not_found",
    `cannot use the engine \`${name.slice(0, 80)}\`: it is not known`,
    {
      hint: `Use ${known.map((one) => `\`${one}\``).join(" or ")}.`,
    },
  );
}

/** Names, those that are built in first; loaded when first asked for. */
export async function knownBackends(engineNames?: EngineNames): Promise<readonly string[]> {
  if (engineNames !== undefined) return engineNames();
  const { BACKENDS } = await import("../runtime/backends.ts");
  return BACKENDS.map(({ name }) => name);
}

// --- internal ---

/** What is no number is refused by the settings' own rule. */
function toContextSize(body: WorkerFields, headers: Headers): number | undefined {
  const said = body.context_size ?? body.num_ctx;
  if (said !== undefined && said !== null) return said;
  const header = headers.get(CONTEXT_HEADER)?.trim();
  return header === undefined ? undefined : Number(header === "" ? Number.NaN : header);
}
