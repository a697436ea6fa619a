/**
 * Runtime flags of llama-server that a model's settings may carry, with the values they take. Pure.
 *
 * An allow list, because settings can come over HTTP and in artifacts: llama-server also has flags that read and
 * write files, open the network, run tools, and move the socket away from under the runner.
 *
 * @see https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
 */

/** What a flag takes. Bounds are there to catch typing errors, not to repeat the engine's own rules. */
export type FlagValue =
  | { readonly kind: "switch" }
  | { readonly kind: "integer" | "number"; readonly min: number; readonly max: number }
  | { readonly kind: "choice"; readonly of: readonly string[] }
  /** Numbers with commas between. */
  | { readonly kind: "numbers" }
  | { readonly kind: "text" }
  /** A file to read: only from who may name files. */
  | { readonly kind: "path" };

const MAX_INT32 = 2 ** 31 - 1;
const ANY = 1e9;

/** @see llama.cpp common/arg.cpp: kv_cache_types */
export const CACHE_TYPES = choice("f32 f16 bf16 q8_0 q4_0 q4_1 iq4_nl q5_0 q5_1");

const SWITCH: FlagValue = { kind: "switch" };
const ON_OFF: FlagValue = choice("on off auto");
const ZERO_ONE: FlagValue = choice("0 1");
const TEXT: FlagValue = { kind: "text" };
const PATH: FlagValue = { kind: "path" };
const NUMBERS: FlagValue = { kind: "numbers" };
/** A count that cannot be negative. */
const COUNT = integer(0, MAX_INT32);
/** A count, or -1 for the engine's own choice. */
const COUNT_OR_AUTO = integer(-1, MAX_INT32);
/** More end the engine with a signal. @see llama.cpp ggml/include/ggml.h: GGML_MAX_N_THREADS */
const THREADS = integer(-1, 512);
const SHARE = number(0, 1);
const FACTOR = number(-ANY, ANY);

/** Names that take the same, in lines. */
const TABLE: readonly (readonly [FlagValue, string])[] = [
  [
    SWITCH,
    `--swa-full --perf --no-perf -e --escape --no-escape -kvo --kv-offload -nkvo --no-kv-offload --repack -nr --no-repack
     --no-host -cmoe --cpu-moe --check-tensors --op-offload --no-op-offload --mlock --mmap --no-mmap
     --ignore-eos -bs --backend-sampling
     -cmoed --cpu-moe-draft --spec-draft-cpu-moe --spec-draft-backend-sampling --no-spec-draft-backend-sampling
     -kvu --kv-unified --cache-idle-slots --no-cache-idle-slots --context-shift
     --no-context-shift -sp --special --warmup --no-warmup --spm-infill -cb --cont-batching -nocb --no-cont-batching
     --mmproj-auto --no-mmproj --no-mmproj-auto --mmproj-offload --no-mmproj-offload
     --embedding --embeddings --rerank --reranking --cache-prompt --no-cache-prompt --metrics --props --slots --no-slots
     --jinja --no-jinja --reasoning-preserve --no-reasoning-preserve --skip-chat-parsing --no-skip-chat-parsing
     --prefill-assistant --no-prefill-assistant -v --verbose --log-verbose --log-disable
     --log-prefix --no-log-prefix --log-timestamps --no-log-timestamps --spec-default`,
  ],
  [
    THREADS,
    `-t --threads -tb --threads-batch --threads-http -td --threads-draft --spec-draft-threads -tbd --threads-batch-draft
     --spec-draft-threads-batch`,
  ],
  [
    COUNT_OR_AUTO,
    `-n --predict --n-predict --keep --repeat-last-n --dry-penalty-last-n --reasoning-budget --sse-ping-interval
     -np --parallel`,
  ],
  [
    COUNT,
    `-c --ctx-size -ub --ubatch-size --yarn-orig-ctx -ncmoe --n-cpu-moe --moe-cache-mib -ncffn --n-cpu-ffn
     -mg --main-gpu -fitc --fit-ctx --top-k --dry-allowed-length
     -ncmoed --n-cpu-moe-draft --spec-draft-n-cpu-moe --spec-draft-ncmoe
     --spec-draft-n-max --spec-draft-n-min --spec-draft-n-ubatch --draft --draft-n --draft-max --draft-min --draft-n-min
     --spec-ngram-mod-n-min --spec-ngram-mod-n-max --spec-ngram-mod-n-match
     --spec-ngram-simple-size-n --spec-ngram-simple-size-m --spec-ngram-simple-min-hits
     --spec-ngram-map-k-size-n --spec-ngram-map-k-size-m --spec-ngram-map-k-min-hits
     --spec-ngram-map-k4v-size-n --spec-ngram-map-k4v-size-m --spec-ngram-map-k4v-min-hits
     -cram --cache-ram -ctxcp --ctx-checkpoints --swa-checkpoints -cms --checkpoint-min-step
     --image-min-tokens --image-max-tokens --mtmd-batch-max-tokens --video-timestamp-interval -to --timeout --cache-reuse`,
  ],
  [integer(1, MAX_INT32), "-b --batch-size"],
  [integer(-1, 2 ** 32 - 1), "-s --seed"],
  [integer(-1, 3), "--prio --prio-batch"],
  [integer(0, 100), "--poll"],
  [integer(-1, 10_000), "-lv --verbosity --log-verbosity --embd-normalize"],
  [integer(0, 2), "--mirostat"],
  [ZERO_ONE, "--cpu-strict --cpu-strict-batch --poll-batch"],
  [
    SHARE,
    `--top-p --min-p --xtc-probability --xtc-threshold --typical --typical-p --spec-draft-p-min --draft-p-min
     --spec-draft-p-split --draft-p-split -sps --slot-prompt-similarity --adaptive-decay`,
  ],
  [
    number(0, ANY),
    `--temp --temperature --repeat-penalty --dry-multiplier --dry-base --dynatemp-range --dynatemp-exp
     --mirostat-lr --mirostat-ent --rope-scale --rope-freq-base --rope-freq-scale --video-fps -dt --defrag-thold`,
  ],
  [
    FACTOR,
    `--presence-penalty --frequency-penalty --top-nsigma --top-n-sigma --adaptive-target
     --yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast`,
  ],
  [
    CACHE_TYPES,
    `-ctk --cache-type-k -ctv --cache-type-v
     -ctkd --cache-type-k-draft --spec-draft-type-k -ctvd --cache-type-v-draft --spec-draft-type-v`,
  ],
  [ON_OFF, "-fa --flash-attn --log-colors -rea --reasoning"],
  [choice("on off"), "-fit --fit"],
  [choice("none linear yarn"), "--rope-scaling"],
  [choice("distribute isolate numactl"), "--numa"],
  [choice("none layer row tensor"), "-sm --split-mode"],
  [choice("none mean cls last rank"), "--pooling"],
  [NUMBERS, "-ts --tensor-split -fitt --fit-target"],
  [
    TEXT,
    `-C --cpu-mask -Cr --cpu-range -Cb --cpu-mask-batch -Crb --cpu-range-batch -lm --load-mode -lzm --lazy-mode
     -dev --device -ot --override-tensor -ngl --gpu-layers --n-gpu-layers --override-kv
     --samplers --sampler-seq --sampling-seq --dry-sequence-breaker -l --logit-bias --grammar -j --json-schema
     -otd --override-tensor-draft --spec-draft-override-tensor --spec-draft-sampling
     -devd --device-draft --spec-draft-device -ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-ngl --spec-type
     -r --reverse-prompt -mmdev --mmproj-device --chat-template --chat-template-kwargs --reasoning-format
     --reasoning-effort --reasoning-budget-message`,
  ],
  [
    PATH,
    `--lora -md --model-draft --spec-draft-model -mm --mmproj --chat-template-file --grammar-file
     -jf --json-schema-file --control-vector`,
  ],
];

/** By name. */
export const FLAGS: ReadonlyMap<string, FlagValue> = new Map(
  TABLE.flatMap(([value, names]) => words(names).map((name) => [name, value] as const)),
);

const SHARED_CACHE =
  "Leave it out: each request may use the whole context; for fewer at once set `--parallel`.";

/** What Tug decides, and where to say it instead. */
export const OWNED: Readonly<Record<string, string>> = {
  "--host": "Leave it out: an engine listens where the runner expects it.",
  "--port": "Leave it out: an engine listens where the runner expects it.",
  "--model": "Name the model by its reference.",
  "-m": "Name the model by its reference.",
  "--alias": "Give the model another name with `tug tag`.",
  "-a": "Give the model another name with `tug tag`.",
  "--offline": "Leave it out: an engine never downloads anything.",
  "--rpc": "Name the servers as `rpc_servers` in config.toml, or in TUG_RPC_SERVERS.",
  "--sleep-idle-seconds": "Use the keep-alive of the model instead.",
  "--no-kv-unified": SHARED_CACHE,
  "-no-kvu": SHARED_CACHE,
  "--kv-unified-per-slot": SHARED_CACHE,
};

/** With them llama-server prints what it is asked: whole prompts from level 5, or 1 before the levels were renumbered. */
export const TELLING: ReadonlySet<string> = new Set(
  words("-v --verbose --log-verbose -lv --verbosity --log-verbosity"),
);

/** They let a model read more than it was trained for. */
export const STRETCHING: ReadonlySet<string> = new Set(
  words(
    "--rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --yarn-orig-ctx --override-kv",
  ),
);

// --- internal ---

function words(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}

function choice(text: string): FlagValue & { readonly kind: "choice" } {
  return { kind: "choice", of: words(text) };
}

function integer(min: number, max: number): FlagValue {
  return { kind: "integer", min, max };
}

function number(min: number, max: number): FlagValue {
  return { kind: "number", min, max };
}
