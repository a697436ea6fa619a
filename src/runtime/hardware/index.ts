/** Which kind of GPU an engine build should be made for. */
import type { Gpu, Machine } from "../backend.ts";
import { noGpus, readGpuFacts } from "./gpu-facts.ts";
import { type HardwareIo, systemIo } from "./io.ts";
import type { Env } from "./probe.ts";
import {
  chooseAssumed,
  chooseVariant,
  parseAssumed,
  type VariantChoice,
  type VariantRequest,
} from "./variant.ts";

export { physicalCores } from "./cores.ts";
export type { VariantChoice } from "./variant.ts";

export interface DecideOptions extends Omit<VariantRequest, "forced"> {
  readonly machine: Machine;
  readonly env: Env;
  readonly gpu: Gpu | "auto";
  readonly signal?: AbortSignal | undefined;
  /** For tests. */
  readonly io?: HardwareIo | undefined;
}

/**
 * Decides from what the machine has, as the vendors' own tools tell it; from `TUG_GPU` alone where it is set, so that an
 * image can be prepared for another machine. Nothing is asked for a build without a GPU.
 *
 * @throws usage for a wrong TUG_GPU; install_failed if `gpu` names what cannot run here; the signal's reason
 */
export async function decideVariant(options: DecideOptions): Promise<VariantChoice> {
  const { machine, env, gpu, signal, io = systemIo({ env, signal }), ...rest } = options;
  const request: VariantRequest = { ...rest, forced: gpu === "auto" ? undefined : gpu };
  const assumed = parseAssumed(env["TUG_GPU"]);
  if (assumed !== undefined) return chooseAssumed(assumed, request);
  return chooseVariant(
    gpu === "none" ? noGpus(machine) : await readGpuFacts(machine, io, env),
    request,
  );
}
