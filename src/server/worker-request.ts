/** What a request says about the worker that is to serve it. */
import * as v from "valibot";
import type { ModelSettings } from "../api/settings.ts";
import { AppError } from "../errors.ts";
import { checkSettings } from "../runtime/settings.ts";
import type { AppDeps, Runtime } from "./deps.ts";

/** Ollama's and ours, for clients that cannot change their bodies. */
const KEEP_ALIVE_HEADER = "x-keep-alive";

const DURATION = v.nullish(v.union([v.string(), v.number()]));

/** Fields of any request that needs a worker. Other fields are the engine's. */
export const WORKER_FIELDS = {
  model: v.pipe(v.string(), v.nonEmpty("must not be empty")),
  /** A duration such as `5m`, seconds, or -1 for ever. */
  keep_alive: DURATION,
  /** LM Studio's word for it, in seconds. */
  ttl: DURATION,
  /** Tokens; -1 is the model's own maximum. */
  context_size: v.nullish(v.number()),
};

export interface WorkerFields {
  readonly keep_alive?: string | number | null | undefined;
  readonly ttl?: string | number | null | undefined;
  readonly context_size?: number | null | undefined;
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
    { keep_alive: toKeepAlive(keepAlive), context_size: body.context_size },
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

/** @throws backend_not_found */
export async function requireBackend(name: string): Promise<string> {
  const known = await knownBackends();
  if (known.includes(name)) return name;
  throw new AppError(
    "backend_not_found",
    `cannot use the engine \`${name.slice(0, 80)}\`: it is not known`,
    {
      hint: `Use ${known.map((one) => `\`${one}\``).join(" or ")}.`,
    },
  );
}

/** Names in the order of preference; loaded when first asked for. */
export async function knownBackends(): Promise<readonly string[]> {
  const { BACKENDS } = await import("../runtime/backends.ts");
  return BACKENDS.map(({ name }) => name);
}
