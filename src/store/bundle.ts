/** The directory an engine opens. */
import type { WeightFormat } from "../oci/media-types.ts";
import type { PackagedDefaults } from "../oci/model-defaults.ts";
import type { ModelShape } from "./model-shape.ts";
import type { ModelTraits } from "./model-traits.ts";

/** A known one, or one of somebody's own, as `ownFormat` of `oci/media-types.ts` has it. */
export type ModelFormat = WeightFormat | (string & Record<never, never>);

/** The files an engine opens. Paths are absolute; a bundle is read-only to the engine. */
export interface Bundle {
  readonly directory: string;
  readonly format: ModelFormat;
  /** The first weight file; for a sharded GGUF shard 00001. */
  readonly model: string;
  readonly mmproj?: string | undefined;
  /** A Jinja file that replaces the template in the weights. */
  readonly chatTemplate?: string | undefined;
  /** LoRA adapters, in order. */
  readonly adapters?: readonly string[] | undefined;
  /** Context size packaged in the artifact, in tokens; -1 is the model's own maximum. */
  readonly contextTokens?: number | undefined;
  /** Sum of the weight files in bytes. */
  readonly weightBytes: number;
}

/** A model as the runtime sees it: an identity, a name and a way to get its files. */
export interface RunnableModel {
  /** `sha256:<hex>` of the manifest, or for a bare file a digest of its path, size and time of change. */
  readonly id: string;
  /** The name it was asked for by, for `ps` and messages. */
  readonly name: string;
  readonly format: ModelFormat;
  readonly weightBytes: number;
  /** What its package says requests get where they say nothing themselves. */
  readonly defaults?: PackagedDefaults | undefined;
  /** Context size packaged in the artifact, in tokens; -1 is the model's own maximum. */
  readonly contextTokens?: number | undefined;
  /** Of a multimodal projector, and of LoRA adapters, that come with it. */
  readonly projectorBytes?: number | undefined;
  readonly adapterBytes?: number | undefined;
  /** Materialises the files and pins them until the bundle is disposed. Idempotent, cheap when it exists. */
  openBundle(signal: AbortSignal): Promise<Bundle & AsyncDisposable>;
  /**
   * What decides how much memory it needs; a header is read each time. Absent where nobody can tell.
   *
   * @throws what reading the files throws
   */
  readShape?(signal: AbortSignal): Promise<ModelShape>;
  /**
   * What decides which engines read it. Absent where its format says all.
   *
   * @throws what reading the files throws
   */
  readTraits?(): Promise<ModelTraits>;
}
