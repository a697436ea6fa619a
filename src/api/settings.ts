/** Settings of a model on the wire: `/engines/_configure`, `/engines/explain`, `/engines/estimate`. */

/** Each member absent is not set. Names are those of `config.toml`, too. */
export interface ModelSettings {
  /** Tokens; -1 is the model's own maximum. */
  readonly context_size?: number;
  /** A duration such as `5m`, `0`, or `-1` for ever. */
  readonly keep_alive?: string;
  /** Never unloaded but when asked to. */
  readonly pinned?: boolean;
  /** Whether it thinks before it answers. */
  readonly think?: boolean;
  /** Tokens it may think; -1 unlimited, 0 none. */
  readonly reasoning_budget?: number;
  /** Layers on the GPU; -1 all. */
  readonly gpu_layers?: number;
  /** Requests served at once. */
  readonly parallel?: number;
  /** llama.cpp `--cache-type-k`: f16, q8_0, q4_0, … */
  readonly cache_type_k?: string;
  readonly cache_type_v?: string;
  /** Absolute paths of LoRA adapters; trusted clients only. */
  readonly lora?: readonly string[];
  /** Speculative decoding: the name of a model in the store. */
  readonly draft_model?: string;
  readonly draft_max_tokens?: number;
  /** 0 to 1. */
  readonly draft_min_probability?: number;
  /** Python that comes with the model may run, in engines that would run it; trusted clients only. */
  readonly trust_remote_code?: boolean;
  /** Weights that are pickles may be opened, which can run code; trusted clients only. */
  readonly allow_pickle?: boolean;
  /** Further flags of the engine, one word each. */
  readonly runtime_flags?: readonly string[];
  /** For requests that have no system message. */
  readonly system?: string;
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly min_p?: number;
  readonly seed?: number;
  readonly max_tokens?: number;
  readonly repeat_penalty?: number;
  readonly presence_penalty?: number;
  readonly frequency_penalty?: number;
}

export type SettingName = keyof ModelSettings;

export type ModeName = "completion" | "embedding" | "reranking" | "image-generation";

/** `POST /engines/_configure` (and `/engines/{backend}/_configure`): what is named is set, what is null is unset, the rest stays. */
export interface ConfigureRequest {
  readonly model: string;
  /** Absent: for all modes. */
  readonly mode?: ModeName;
  readonly set: { readonly [K in SettingName]?: ModelSettings[K] | null };
}

/** `GET /engines/_configure`: a row a model and mode for which something is stored. */
export interface StoredSettingsRow {
  /** `sha256:<hex>`. */
  readonly model_id: string;
  /** Its names now; empty if it is not in the store any more. */
  readonly tags: readonly string[];
  /** Null: for all modes. */
  readonly mode: ModeName | null;
  readonly settings: ModelSettings;
  /** RFC 3339. */
  readonly updated_at: string;
}

export interface ConfigureResult {
  readonly model_id: string;
  readonly mode: ModeName | null;
  readonly settings: ModelSettings;
  /** `next load`: a worker runs with other values; the next request has it replaced. */
  readonly applies: "now" | "next load";
}

export interface ExplainedSetting {
  readonly name: string;
  readonly value: unknown;
  /** `request`, `stored`, `stored for MODE`, `packaged`, `config.toml`, an environment variable, `default`, … */
  readonly source: string;
  /** Absent unless the engine has nothing for it: what it does instead, as a clause. */
  readonly ignored?: string;
}

/** What the engine says it does differently from what it was told. */
export interface SettingMismatch {
  readonly name: string;
  readonly wanted: unknown;
  readonly actual: unknown;
}

/** `POST /engines/explain`. */
export interface ExplainRequest {
  readonly model: string;
  readonly mode?: ModeName;
  readonly backend?: string;
  readonly context_size?: number;
}

export interface ExplainResult {
  readonly model_id: string;
  readonly model_name: string;
  readonly backend: string;
  readonly mode: ModeName;
  readonly settings: readonly ExplainedSetting[];
  /** The engine's command line; null if no engine is installed yet. */
  readonly command: readonly string[] | null;
  readonly sandbox: string;
  /** Its engine listens on a port: nothing parts it from this machine's network, also in a sandbox. */
  readonly shares_network?: boolean;
  /** Whether an engine runs it, or is about to. */
  readonly is_loaded: boolean;
  /** What the running engine reports of itself; null if it does not run, or does not tell. */
  readonly reported: Readonly<Record<string, unknown>> | null;
  readonly mismatches: readonly SettingMismatch[];
}

/** `POST /engines/estimate`. */
export interface EstimateRequest {
  readonly model: string;
  readonly mode?: ModeName;
  readonly context_size?: number;
  readonly parallel?: number;
  readonly cache_type_k?: string;
  readonly cache_type_v?: string;
  readonly draft_model?: string;
}

export interface EstimateResult {
  readonly model_id: string;
  readonly model_name: string;
  /** Whether its files are here; else its header was read from where it is. */
  readonly is_local: boolean;
  readonly context_size: number;
  readonly parallel: number;
  readonly cache_type_k: string;
  readonly cache_type_v: string;
  /** Bytes by what they are for. */
  readonly parts: Readonly<Record<string, number>>;
  /** Bytes by device. */
  readonly estimate: Readonly<Record<string, number>>;
  /** Measured peak with the same settings; null if it never ran with them. */
  readonly measured: Readonly<Record<string, number>> | null;
  readonly devices: readonly DeviceRoom[];
  readonly fits: boolean;
  /** The largest context that fits the budget, in tokens; null if none does. */
  readonly largest_context: number | null;
  /** What would fit instead, as a clause; null if it fits, or nothing is known that would. */
  readonly advice: string | null;
  /** What the model was trained for; null if it does not say. */
  readonly trained_context: number | null;
}

/** Bytes of one device. */
export interface DeviceRoom {
  readonly id: string;
  readonly name: string | null;
  readonly total_bytes: number;
  /** Null where nobody tells. */
  readonly free_bytes: number | null;
  readonly budget_bytes: number;
  /** Held by workers. */
  readonly held_bytes: number;
}
