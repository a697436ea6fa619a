/** What of a model's architecture decides how much memory it needs. Values only; `gguf.ts` and the safetensors reader make it. */

/** How a layer remembers what it has seen. */
export type LayerKind =
  /** Keys and values for every token of the context; grouped-query attention is the same with fewer heads. */
  | "attention"
  /** Keys and values of the last `window` tokens. */
  | "sliding"
  /** One compressed vector a token (multi-head latent attention, DeepSeek). */
  | "latent"
  /** A state of fixed size a sequence (Mamba, RWKV, linear attention). */
  | "recurrent";

export interface LayerShape {
  readonly kind: LayerKind;
  /** Elements of keys a token: key-value heads × head size; for `latent` the compressed vector and its rotary part. */
  readonly keyElements: number;
  /** Elements of values a token; 0 for `latent`. */
  readonly valueElements: number;
  /** Tokens; `sliding` only. */
  readonly window?: number;
  /** Bytes of state a sequence; of `recurrent` layers, and of those that attend besides (Falcon-H1). */
  readonly stateBytes?: number;
}

export interface ModelShape {
  /** Such as `llama`, `qwen3moe`; null if unknown. */
  readonly architecture: string | null;
  /** Bytes of all tensors as they are stored. */
  readonly weightBytes: number;
  /** Of these, what never leaves main memory: the token embedding. */
  readonly inputBytes: number;
  /** Bytes of the output matrix: what lies on the device of the output. The input's again where both are one tensor. */
  readonly outputBytes?: number;
  /** Whether the output matrix is the token embedding: then it is loaded twice wherever the two lie in different buffers. */
  readonly isTied?: boolean;
  /** Bytes of tensors that an engine may keep a second time, rearranged for the processor, by type. Experts are not in it. */
  readonly bytesByType: Readonly<Record<string, number>>;
  /** As `bytesByType`, of the experts' tensors. */
  readonly expertBytesByType?: Readonly<Record<string, number>>;
  /** Empty if the header does not tell, or tells nonsense. */
  readonly layers: readonly LayerShape[];
  readonly embeddingLength: number;
  /** Of a dense layer, the widest. */
  readonly feedForwardLength: number;
  /** Of one expert. */
  readonly expertFeedForwardLength?: number;
  readonly headCount: number;
  /** Query heads × head size; where it differs from the embedding's length. */
  readonly queryElements?: number;
  readonly vocabularySize: number;
  /** Mixture of experts: how many there are and how many are used a token; 0 for dense models. */
  readonly expertCount: number;
  readonly expertUsedCount: number;
  /** The context it was trained for, in tokens. */
  readonly contextTokens: number | null;
  /** Whether it pools instead of generating: an embedding or reranking model. */
  readonly isPooled: boolean;
}
