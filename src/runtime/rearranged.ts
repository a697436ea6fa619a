/** Which weights llama.cpp lays out anew for the processor, into memory of their own. Pure. */
import type { WeightLoading } from "./weight-memory.ts";

export interface Processor {
  readonly arch: NodeJS.Architecture;
  /** As `/proc/cpuinfo` names them, in lower case; empty where nobody tells. */
  readonly flags: ReadonlySet<string>;
}

/**
 * Builds differ: a build without these kernels holds less than this says.
 *
 * @see ggml-cpu/amx/common.h qtype_has_amx_kernels (and F16, which amx.cpp takes besides)
 * @see ggml-cpu/repack.cpp ggml_repack_get_optimal_repack_type
 */
export function rearrangedBy({ arch, flags }: Processor): Rearranged {
  if (arch === "arm64") return { rearranged: NEON, rearrangedExperts: NEON };
  if (arch !== "x64" || !flags.has("avx2")) return {};
  const types = flags.has("avx512f") ? AVX512 : AVX2;
  // AMX multiplies no experts: these fall to the other kernels.
  const dense = flags.has("amx_int8") ? new Set([...types, ...AMX]) : types;
  return { rearranged: dense, rearrangedExperts: types };
}

// --- internal ---

type Rearranged = Pick<WeightLoading, "rearranged" | "rearrangedExperts">;

const AMX: ReadonlySet<string> = new Set([
  "F16",
  "Q4_0",
  "Q4_1",
  "Q8_0",
  "Q4_K",
  "Q5_K",
  "Q6_K",
  "IQ4_XS",
]);
const AVX2: ReadonlySet<string> = new Set(["Q4_0", "Q4_K", "IQ4_NL"]);
const AVX512: ReadonlySet<string> = new Set([...AVX2, "Q2_K"]);
const NEON: ReadonlySet<string> = new Set(["Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL"]);
