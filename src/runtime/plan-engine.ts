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
  readonly run: Pick<RunShape, "reservation">;
  readonly estimate: Demand;
  readonly demand: Demand;
  /** Addresses of the Ray clusters that config.toml names, by engine. */
  readonly clusters: ReadonlyMap<string, string> | undefined;
}

export function toEngineFacts(
  need: EngineNeed,
): Pick<WorkerPlan, "architecture" | "gpuShare" | "asleep" | "cluster"> {
  const { backend, shape, run, estimate, clusters } = need;
  const cluster = backend.joinsCluster === true ? clusters?.get(backend.name) : undefined;
  const { reservation } = run;
  return {
    architecture: shape?.architecture ?? undefined,
    gpuShare: reservation && shareOf(estimate, reservation),
    // Of other machines nobody here knows what they hold.
    asleep: cluster === undefined ? toAsleep(need) : undefined,
    cluster,
  };
}

// --- internal ---

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
