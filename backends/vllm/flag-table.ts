/** Runtime flags that vLLM may be given, and what their values are. Values only. */
import {
  choice,
  type FlagTable,
  type FlagValue,
  integer,
  number,
  parseSize,
  rules,
} from "../python/flags.ts";
import { type ParallelFlags, parallelOf } from "../python/gpu-engine.ts";

/** Words of `--kv-cache-dtype`; `f16` is what is said where nobody says anything, and means the model's own type. */
export const CACHE_TYPES = [
  "auto",
  "f16",
  "bfloat16",
  "float16",
  "fp8",
  "fp8_e4m3",
  "fp8_e5m2",
  "nvfp4",
] as const;

const MAX_INT32 = 2 ** 31 - 1;
/** Machines, and GPUs in them: more than any cluster that a runner would head. */
const MAX_PARTS = 1024;

const SWITCH: FlagValue = { kind: "switch" };
const SIZE: FlagValue = { kind: "size" };
const JSON_OBJECT: FlagValue = { kind: "json" };
const TEXT: FlagValue = { kind: "text" };
const COUNT = integer(1, MAX_INT32);
const PARTS = integer(1, MAX_PARTS);
const CLUSTER = "it makes other machines part of this one";
const DEEP = "it reaches into the engine, and may name files";

/** Parsers that are built in. @see vllm/tool_parsers/__init__.py, vllm/reasoning/__init__.py of 0.32 */
export const TOOL_PARSERS = choice(
  `apertus cohere_command3 cohere_command4 deepseek_v3 deepseek_v31 deepseek_v32 deepseek_v4 deepseek_v41 dots ernie45
   functiongemma gemma4 gigachat3 glm45 glm47 granite granite-20b-fc granite4 hermes hf hunyuan_a13b hy_v3 hy_v4 inkling
   internlm jamba k2_horizon kimi_k2 kimi_k3 lfm2 ling3 llama3_json llama4_json llama4_pythonic longcat mimo minicpm5
   minimax_m2 minimax_m3 mistral muse_glimmer olmo3 openai phi4_mini_json plamo3 poolside_v1 pythonic qwen3_coder
   qwen3_json qwen3_xml seed_oss step3 step3p5 xlam`,
);
export const REASONING_PARSERS = choice(
  `cohere_command3 cohere_command4 deepseek_r1 deepseek_v3 deepseek_v4 deepseek_v41 ernie45 gemma4 glm45 glm47 granite
   granite_thinking_parser hf holo2 hunyuan_a13b hy_v3 hy_v4 inkling k2_horizon kimi_k2 kimi_k3 ling3 mimo minicpmv
   minimax_m2 minimax_m2_append_think minimax_m3 mistral muse_glimmer nemotron_v3 olmo3 openai_gptoss plamo3 poolside_v1
   qwen3 seed_oss step3 step3p5`,
);

const OWN_PLACE = "Leave it out: an engine listens where the runner expects it.";

/** How a model is shared out to GPUs. */
export const PARALLEL: ParallelFlags = {
  parts: ["--tensor-parallel-size", "--pipeline-parallel-size"],
  copies: ["--data-parallel-size"],
};
const SHORT_NAMES: Readonly<Record<string, string>> = {
  "-tp": "--tensor-parallel-size",
  "-pp": "--pipeline-parallel-size",
  "-dp": "--data-parallel-size",
};

/** Of several of one meaning the last holds, however it is written. */
export function longName(flag: string): string {
  return SHORT_NAMES[flag] ?? flag;
}

function withLongNames(said: ReadonlyMap<string, string | undefined>) {
  return new Map([...said].map(([name, value]) => [longName(name), value]));
}

function numberOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Number(text);
}

/** @see vllm/engine/arg_utils.py and vllm/entrypoints/launchers/cli_args.py of 0.32 */
export const FLAGS: FlagTable = {
  engine: "vllm",
  rules: rules([
    [
      SWITCH,
      `--enforce-eager --no-enforce-eager --enable-prefix-caching --no-enable-prefix-caching
       --enable-chunked-prefill --no-enable-chunked-prefill --async-scheduling --no-async-scheduling
       --enable-auto-tool-choice --no-enable-auto-tool-choice --exclude-tools-when-tool-choice-none
       --enable-expert-parallel -ep --disable-custom-all-reduce --disable-sliding-window --disable-chunked-mm-input
       --language-model-only --skip-mm-profiling --enable-prompt-tokens-details --enable-force-include-usage
       --allow-deprecated-quantization --enable-flashinfer-autotune --no-enable-flashinfer-autotune
       --no-enable-sleep-mode --enable-eplb --enable-dbo --kv-sharing-fast-prefill --interleave-mm-strings`,
    ],
    [SWITCH, "--trust-remote-code", "it runs code that comes with the model"],
    [
      SWITCH,
      "--enable-log-requests",
      "it writes prompts to the log, which only their owner may want",
    ],
    [choice("auto half float16 bfloat16 float float32"), "--dtype"],
    [choice(CACHE_TYPES.filter((type) => type !== "f16").join(" ")), "--kv-cache-dtype"],
    [choice("auto string openai"), "--chat-template-content-format"],
    [choice("auto vllm transformers"), "--model-impl"],
    [choice("auto slow hf mistral"), "--tokenizer-mode"],
    [choice("auto hf mistral"), "--config-format"],
    [choice("auto safetensors mistral fastsafetensors bitsandbytes"), "--load-format"],
    [choice("lazy eager prefetch"), "--safetensors-load-strategy"],
    [choice("fcfs priority"), "--scheduling-policy"],
    [choice("auto embed classify none"), "--convert"],
    [choice("auto function parameter"), "--tool-strict-level"],
    [choice("raw_logprobs processed_logprobs raw_logits processed_logits"), "--logprobs-mode"],
    [choice("linear round_robin"), "--expert-placement-strategy"],
    [choice("balanced interactivity throughput"), "--performance-mode"],
    [TOOL_PARSERS, "--tool-call-parser"],
    [REASONING_PARSERS, "--reasoning-parser"],
    [{ kind: "path" }, "--chat-template"],
    [integer(-1, MAX_INT32), "--max-logprobs"],
    [integer(0, MAX_INT32), "--seed --long-prefill-token-threshold"],
    [COUNT, "--max-num-seqs --stream-interval --max-cudagraph-capture-size"],
    [integer(1, 256), "--block-size"],
    [integer(0, 3), "--optimization-level"],
    [SIZE, "--max-model-len --max-num-batched-tokens --kv-cache-memory-bytes"],
    [number(0.01, 1), "--gpu-memory-utilization"],
    [number(0, 65_536), "--cpu-offload-gb --kv-offloading-size --mm-processor-cache-gb"],
    [PARTS, "--tensor-parallel-size -tp --pipeline-parallel-size -pp --data-parallel-size -dp"],
    [PARTS, "--decode-context-parallel-size -dcp --prefill-context-parallel-size -pcp"],
    [TEXT, "--quantization -q --attention-backend"],
    [
      choice(
        `auto b12x batched_triton cutlass deep_gemm flashinfer_cutedsl flashinfer_cutlass flashinfer_trtllm humming marlin
         triton`,
      ),
      "--moe-backend",
    ],
    [
      choice(
        `allgather_reducescatter deepep_high_throughput deepep_low_latency deepep_v2 flashinfer_nvlink_one_sided
         flashinfer_nvlink_two_sided naive pplx`,
      ),
      "--all2all-backend",
    ],
    [
      JSON_OBJECT,
      "--limit-mm-per-prompt --default-chat-template-kwargs --override-generation-config",
    ],
    [
      JSON_OBJECT,
      `--speculative-config -sc --hf-overrides --compilation-config -cc --pooler-config --mm-processor-kwargs
       --media-io-kwargs --model-loader-extra-config --structured-outputs-config --eplb-config`,
      DEEP,
    ],
    [choice("mp ray uni"), "--distributed-executor-backend", CLUSTER],
    [integer(1, MAX_PARTS), "--nnodes -n", CLUSTER],
    [integer(0, MAX_PARTS), "--node-rank -r", CLUSTER],
    [TEXT, "--master-addr", CLUSTER],
    [integer(1, 65_535), "--master-port", CLUSTER],
  ]),
  owned: {
    "--host": OWN_PLACE,
    "--port": OWN_PLACE,
    "--uds": OWN_PLACE,
    "--root-path": OWN_PLACE,
    "--api-key":
      "Leave it out: only the runner reaches its engines. Make keys with `tug key create`.",
    "--model": "Name the model by its reference.",
    "--tokenizer": "Package the tokenizer with the model.",
    "--served-model-name": "Give the model another name with `tug tag`.",
    "--runner": "Ask for embeddings or reranking: the mode follows.",
    "--device-ids": "Leave it out: the runner shares out the GPUs.",
    "--config": "Write the flags themselves.",
    "--headless": "Start the other machines of a cluster with vLLM itself.",
    "--enable-sleep-mode": "Leave it out: it is on wherever the runner can use it.",
    "--enable-lora": "Package the adapter's weights merged into the model.",
    "--lora-modules": "Package the adapter's weights merged into the model.",
  },
  folds: {
    "--max-model-len": (value) => ({ context_size: parseSize(value) ?? 0 }),
    "--max-num-seqs": (value) => ({ parallel: Number(value) }),
    "--kv-cache-dtype": (value) =>
      value === "auto" ? {} : { cache_type_k: value, cache_type_v: value },
  },
  stretching: new Set(["--hf-overrides"]),
  memory: (said) => ({
    gpus: parallelOf(withLongNames(said), PARALLEL),
    gpuShare: numberOf(said.get("--gpu-memory-utilization")),
    staysAwake: said.has("--no-enable-sleep-mode"),
  }),
};
