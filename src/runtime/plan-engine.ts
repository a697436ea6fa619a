/** What an engine is told of the model and the machine, besides settings. */
import type { ModelShape } from "../store/model-shape.ts";
import type { Backend, FlagMemory, Installation } from "./backend.ts";
import type { Demand } from "./demand.ts";
import type { Device } from "./hardware/devices.ts";
import type { RunShape } from "./memory.ts";
import type { WorkerPlan } from "./planner.ts";
import { shareOf } from "./reserved-memory.ts";

/** The devices that an engine uses. */
export function readEngineDevices(
  read: (variant: string) => Promise<readonly Device[]>,
  { reservesGpus }: Pick<Backend, "reservesGpus">,
  { variant = "cpu" }: Partial<Installation> = {},
): Promise<readonly Device[]> {
  return variant === "host" && reservesGpus !== undefined ? readAnyGpus(read) : read(variant);
}

export interface EngineNeed {
  readonly backend: Backend;
  readonly shape: ModelShape | undefined;
  readonly resolved: { readonly memory: FlagMemory };
  readonly run: Pick<RunShape, "reservation" | "contextTokens">;
  /** Bytes of the estimate. */
  readonly byPurpose: Readonly<Record<string, number>>;
  readonly estimate: Demand;
  readonly demand: Demand;
}

/** @param clusters addresses of the Ray clusters that config.toml names, by engine */
export function toEngineFacts(
  need: EngineNeed,
  clusters: ReadonlyMap<string, string> | undefined,
): Pick<WorkerPlan, "architecture" | "gpuShare" | "cacheBytes" | "asleep" | "cluster"> {
  const { backend, shape, run, estimate } = need;
  const cluster = backend.joinsCluster === true ? clusters?.get(backend.name) : undefined;
  const { reservation } = run;
  return {
    architecture: shape?.architecture ?? undefined,
    gpuShare: reservation && shareOf(estimate, reservation),
    cacheBytes: reservation === undefined ? toCacheBytes(need) : undefined,
    // Of other machines nobody here knows what they hold.
    asleep: cluster === undefined ? toAsleep(need) : undefined,
    cluster,
  };
}

// --- internal ---

/** Blocks of the cache hold so many tokens on a processor, and one is never used (vLLM: `--block-size`). */
const BLOCK_TOKENS = 128;
/** Of the cache: what rounding loses. */
const SLACK = 0.05;

/** Undefined if nobody knows how much the tokens of the context take. */
function toCacheBytes({ backend, run, byPurpose }: EngineNeed): number | undefined {
  const cache = byPurpose["cache"] ?? 0;
  if (backend.reservesGpus === undefined || cache === 0) return undefined;
  return Math.ceil(cache * (1 + SLACK + (2 * BLOCK_TOKENS) / run.contextTokens));
}

/** Of an environment of the user's own nobody knows what it is built for: it uses the GPUs that there are. */
async function readAnyGpus(
  read: (variant: string) => Promise<readonly Device[]>,
): Promise<readonly Device[]> {
  const devices = await read("cuda");
  return devices.some(({ kind }) => kind === "cuda") ? devices : read("rocm");
}

/** Weights lie in main memory then. What is no tensor stays on the GPUs: the driver's context, libraries, graphs. */
function toAsleep({ backend, shape, resolved, run, demand }: EngineNeed): Demand | undefined {
  const { reservation } = run;
  const sleeps = backend.sleep !== undefined && resolved.memory.staysAwake !== true;
  if (!sleeps || reservation === undefined || shape === undefined) return undefined;
  const { gpus, needs } = reservation;
  const kept = Object.fromEntries(gpus.map(({ id }) => [id, needs.fixedBytes])) as Demand;
  return { ...kept, ram: (demand["ram"] ?? 0) + shape.weightBytes };
}
