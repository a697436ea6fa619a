/** Bytes that a worker is expected to hold. Pure. */

export interface MemoryFacts {
  /** Sum of the weight files. */
  readonly weightBytes: number;
}

/** What an engine holds beside the weights: its code, compute buffers and a KV cache of a few thousand tokens. */
const ENGINE_BYTES = 128 * 1024 * 1024;
/** Buffers that grow with the model. */
const OVERHEAD_RATIO = 0.1;

/** An upper guess from the size of the weights alone; a measured peak is better where there is one. */
export function estimateBytes({ weightBytes }: MemoryFacts): number {
  return Math.ceil(weightBytes * (1 + OVERHEAD_RATIO)) + ENGINE_BYTES;
}
