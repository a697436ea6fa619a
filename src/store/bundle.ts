/** The directory an engine opens. */

export type ModelFormat = "gguf" | "safetensors" | "dduf";

/** The files an engine opens. Paths are absolute; a bundle is read-only to the engine. */
export interface Bundle {
  readonly directory: string;
  readonly format: ModelFormat;
  /** The first weight file; for a sharded GGUF shard 00001. */
  readonly model: string;
  readonly mmproj?: string | undefined;
  /** A Jinja file that replaces the template in the weights. */
  readonly chatTemplate?: string | undefined;
  /** Context size packaged in the artifact, in tokens; -1 is the model's own maximum. */
  readonly contextTokens?: number | undefined;
  /** Sum of the weight files in bytes. */
  readonly weightBytes: number;
}
