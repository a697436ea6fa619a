/** Settings to the arguments of `docker run` and `podman run`. Pure. */
import { basename, dirname } from "node:path";
import { AppError } from "../../src/errors.ts";
import type {
  ArgsInput,
  EngineCommand,
  FlagOptions,
  ReadFlags,
} from "../../src/runtime/backend.ts";

/** Where NIM listens inside its container. */
const INNER_PORT = 8000;
/** As NVIDIA's documents have it: processes of one model on several GPUs exchange data there. */
const SHARED_MEMORY = "16g";
/** Label of containers: the run directory of the runner that started them. `runtime/container-leftovers.ts` looks for it. */
const RUN_LABEL = "tug.run";

/**
 * After `Installation.command`, which says which container engine, and what this machine needs. The key of NGC goes by the
 * environment, never on the command line.
 *
 * @throws invalid_request for a setting that it has nothing for
 * @see https://docs.nvidia.com/nim/large-language-models/latest/configuration.html
 */
export function nimArgs({ bundle, settings, socket, port }: ArgsInput): EngineCommand {
  refuse("lora", (settings.adapters ?? bundle.adapters ?? []).length > 0);
  refuse("a draft model", settings.draft !== undefined);
  refuse("a reasoning budget", (settings.reasoningBudget ?? -1) !== -1);
  const place = dirname(socket);
  // Who only explains has no port, and no place.
  const [run, worker] = port === undefined ? ["RUN", "WORKER"] : [dirname(place), basename(place)];
  const { contextTokens = -1 } = settings;
  const variables = [
    ...settings.runtimeFlags,
    ...(contextTokens > 0 ? [`NIM_MAX_MODEL_LEN=${contextTokens}`] : []),
  ];
  const args = [
    `--label=${RUN_LABEL}=${run}`,
    `--publish=127.0.0.1:${port ?? "PORT"}:${INNER_PORT}`,
    `--shm-size=${SHARED_MEMORY}`,
    "--env=NGC_API_KEY",
    ...variables.map((variable) => `--env=${variable}`),
    containerName(run, worker, port),
    bundle.model,
  ];
  return { args, env: {} };
}

/** Of a container: whose it is, which worker's, and never the same again soon. */
export function containerName(run: string, worker: string, port: number | undefined): string {
  return `tug-${Bun.SHA256.hash(run, "hex").slice(0, 8)}-${worker}-${port ?? "PORT"}`;
}

/**
 * NIM has no flags: it is configured by variables, `NIM_MODEL_PROFILE=…`. What they make it do nobody here knows.
 *
 * @throws invalid_request, forbidden
 */
export function readNimFlags(flags: readonly string[], { allowPaths }: FlagOptions): ReadFlags {
  const odd = flags.find((flag) => !VARIABLE.test(flag));
  if (odd !== undefined) {
    const shown = odd.slice(0, 80);
    throw new AppError("invalid_request", `cannot start nim with \`${shown}\`: it takes no flags`, {
      hint: "Give its variables, such as `tug configure MODEL -- NIM_MODEL_PROFILE=PROFILE`.",
    });
  }
  const own = flags.map((flag) => flag.slice(0, flag.indexOf("="))).find((name) => OWN.has(name));
  if (own !== undefined) {
    throw new AppError("invalid_request", `cannot start nim with \`${own}\`: Tug sets it itself`, {
      hint: "Leave it out.",
    });
  }
  if (flags.length > 0 && !allowPaths) {
    throw new AppError("forbidden", "cannot set variables of nim: only its owner may", {
      hint: "Set them with `tug configure` on the runner's own machine.",
    });
  }
  return { flags, settings: {}, files: [], stretchesContext: false };
}

// --- internal ---

/** Its value is no secret, and no line of its own. */
const VARIABLE = /^NIM_[A-Z0-9_]{1,60}=[^\p{Cc}]{0,1000}$/u;
/** Where it listens, and the context, which is a setting of its own. */
const OWN: ReadonlySet<string> = new Set([
  "NIM_SERVER_PORT",
  "NIM_MAX_MODEL_LEN",
  "NIM_CACHE_PATH",
]);

function refuse(what: string, isSet: boolean): void {
  if (!isSet) return;
  throw new AppError("invalid_request", `cannot start nim with ${what}: it has nothing for it`, {
    hint: "Unset it with `tug configure MODEL --unset NAME`.",
  });
}
