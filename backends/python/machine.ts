/** Machines that engines made of Python packages run on where PyTorch, MLX and onnxruntime have wheels. Pure. */
import type { Gpu, Machine } from "../../src/runtime/backend.ts";

/** Locked requirements by what they compute on; absent: there are none. */
export interface Locks {
  /** Processors, on Linux. */
  readonly none?: string | undefined;
  readonly cuda?: string | undefined;
  /** A Mac, whatever its engine makes of Metal. */
  readonly metal?: string | undefined;
}

/** @returns why it cannot run there, as a clause */
export function machineProblem({ platform, arch }: Machine): string | undefined {
  if (platform === "linux" && (arch === "x64" || arch === "arm64")) return undefined;
  if (platform === "darwin" && arch === "arm64") return undefined;
  return "it needs a Mac with Apple silicon, or Linux";
}

/** @returns undefined where none are */
export function requirementsOf(locks: Locks): (machine: Machine, gpu: Gpu) => string | undefined {
  return (machine, gpu) => {
    if (machineProblem(machine) !== undefined) return undefined;
    if (machine.platform === "darwin") return gpu === "metal" ? locks.metal : undefined;
    return gpu === "cuda" || gpu === "none" ? locks[gpu] : undefined;
  };
}
