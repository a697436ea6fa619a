/** What a request says about the worker that is to serve it. */
import * as v from "valibot";
import { boundedDuration, parseDuration } from "../config.ts";
import { AppError } from "../errors.ts";
import type { WorkerSettings } from "../runtime/backend.ts";
import type { AppDeps, Runtime } from "./deps.ts";

/** An int32 in the engine. */
const MAX_CONTEXT_TOKENS = 2 ** 31 - 1;

/** Fields of any request that needs a worker. Other fields are the engine's. */
export const WORKER_FIELDS = {
  model: v.pipe(v.string(), v.nonEmpty("must not be empty")),
  /** A duration such as `5m`, seconds, or -1 for ever. */
  keep_alive: v.nullish(v.union([v.string(), v.number()])),
  /** Tokens; -1 is the model's own maximum. */
  context_size: v.nullish(
    v.pipe(
      v.number(),
      v.integer("must be a whole number"),
      // Checked here, so that a request that cannot be served makes no room for itself.
      v.check(
        (tokens) => tokens === -1 || (tokens >= 1 && tokens <= MAX_CONTEXT_TOKENS),
        "must be -1 or a number of tokens",
      ),
    ),
  ),
};

/** @throws usage (not a duration) */
export function toKeepAliveMs(value: string | number | null | undefined): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return parseDuration(value);
  return value < 0 ? -1 : boundedDuration(value * 1000);
}

export function toWorkerSettings(contextSize: number | null | undefined): WorkerSettings {
  return { contextTokens: contextSize ?? undefined, runtimeFlags: [] };
}

/** @throws runner_unreachable (this process runs no engines) */
export function requireRuntime({ runtime }: AppDeps): Runtime {
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
