/** Runtime flags that SGLang may be given, and what their values are. Values only. */
import { choice, type FlagTable, type FlagValue, integer, number, rules } from "../python/flags.ts";
import { type ParallelFlags, parallelOf } from "../python/gpu-engine.ts";

/** Words of `--kv-cache-dtype`; `f16` is what is said where nobody says anything, and means the model's own type. */
export const CACHE_TYPES = ["auto", "f16", "bf16", "bfloat16", "fp8_e4m3", "fp8_e5m2"] as const;

const MAX_INT32 = 2 ** 31 - 1;
/** Machines, and GPUs in them: more than any cluster that a runner would head. */
const MAX_PARTS = 1024;

const SWITCH: FlagValue = { kind: "switch" };
const TEXT: FlagValue = { kind: "text" };
const COUNT = integer(1, MAX_INT32);
const PARTS = integer(1, MAX_PARTS);
const CLUSTER = "it makes other machines part of this one";
const DEEP = "it reaches into the engine, and may name files";

/** How a model is shared out to GPUs, by all names of the flags. */
export const PARALLEL: ParallelFlags = {
  parts: ["--tp-size", "--tensor-parallel-size", "--pp-size", "--pipeline-parallel-size"],
  copies: ["--dp-size", "--data-parallel-size"],
};

const OWN_PLACE = "Leave it out: an engine listens where the runner expects it.";
const MERGED = "Package the adapter's weights merged into the model.";

/** @see sglang/srt/arg_groups/fields/ of 0.5.23 */
export const FLAGS: FlagTable = {
  engine: "sglang",
  rules: rules([
    [
      SWITCH,
      `--disable-radix-cache --disable-overlap-schedule --disable-cuda-graph --disable-custom-all-reduce
       --enable-mixed-chunk --enable-torch-compile --enable-p2p-check --enable-multimodal --language-model-only
       --allow-auto-truncate --enable-cache-report --skip-server-warmup --speculative-adaptive`,
    ],
    [SWITCH, "--trust-remote-code", "it runs code that comes with the model"],
    [SWITCH, "--log-requests", "it writes prompts to the log, which only their owner may want"],
    [choice("auto half float16 bfloat16 float float32"), "--dtype"],
    [choice(CACHE_TYPES.filter((type) => type !== "f16").join(" ")), "--kv-cache-dtype"],
    [choice("auto slow"), "--tokenizer-mode"],
    [choice("xgrammar outlines llguidance none"), "--grammar-backend"],
    [
      choice(
        `apertus2509 auto beam cohere_command4 deepseek-r1 deepseek-v3 deepseek-v4 deepseek-v41 dots gemma4 gigachat35 glm45
         gpt-oss granite_thinking_parser hunyuan inkling interns1 iquest_q1 k2_horizon kimi kimi_k2 kimi_k3 ling3 mimo
         minimax minimax-append-think minimax-m3 mistral muse nanbeige nemotron_3 poolside_v1 qwen3 qwen3-thinking
         response_template step3 step3p5`,
      ),
      "--reasoning-parser",
    ],
    [
      choice(
        `apertus2509 auto beam cohere_command4 deepseekv3 deepseekv31 deepseekv32 deepseekv4 deepseekv41 dots gemma4
         gigachat3 gigachat35 glm glm45 glm47 gpt-oss hermes hunyuan inkling interns1 iquest_q1 k2_horizon kimi_k2 kimi_k3
         lfm2 ling3 llama3 mimo minicpm5 minimax-m2 minimax-m3 mistral muse nanbeige poolside_v1 pythonic qwen qwen25
         qwen3_coder response_template spark25 step3 step3p5 trinity`,
      ),
      "--tool-call-parser",
    ],
    [choice("fcfs lpm random dfs-weight lof priority"), "--schedule-policy"],
    [{ kind: "path" }, "--chat-template"],
    [{ kind: "json" }, "--default-chat-template-kwargs"],
    [COUNT, "--context-length --max-total-tokens"],
    [integer(-1, MAX_INT32), "--chunked-prefill-size"],
    [integer(0, MAX_INT32), "--random-seed"],
    [COUNT, "--max-running-requests --max-prefill-tokens --page-size --stream-interval"],
    [COUNT, "--speculative-num-steps --speculative-eagle-topk --speculative-num-draft-tokens"],
    [number(0.01, 1), "--mem-fraction-static"],
    [number(0, 10), "--schedule-conservativeness"],
    [integer(0, 65_536), "--cpu-offload-gb"],
    [PARTS, "--tp-size --tensor-parallel-size --dp-size --data-parallel-size --pp-size"],
    [PARTS, "--pipeline-parallel-size --ep-size --expert-parallel-size"],
    [
      choice(
        `auto-round awq awq_marlin bitsandbytes compressed-tensors fp8 gptq gptq_marlin modelopt modelopt_fp4 modelopt_fp8
         moe_wna16 mxfp4 mxfp8 w4afp8 w8a8_fp8 w8a8_int8`,
      ),
      "--quantization",
    ],
    [
      choice("cutedsl_mla fa3 fa4 flashinfer flashmla torch_native triton trtllm_mha trtllm_mla"),
      "--attention-backend",
    ],
    [choice("flashinfer pytorch"), "--sampling-backend"],
    [
      choice(
        `auto cutlass deep_gemm flashinfer_cutedsl flashinfer_cutlass flashinfer_mxfp4 flashinfer_trtllm marlin triton
         triton_kernel`,
      ),
      "--moe-runner-backend",
    ],
    [TEXT, "--speculative-algorithm"],
    [{ kind: "json" }, "--json-model-override-args", DEEP],
    [integer(1, MAX_PARTS), "--nnodes", CLUSTER],
    [integer(0, MAX_PARTS), "--node-rank", CLUSTER],
    [TEXT, "--dist-init-addr", CLUSTER],
  ]),
  owned: {
    "--host": OWN_PLACE,
    "--port": OWN_PLACE,
    "--api-key":
      "Leave it out: only the runner reaches its engines. Make keys with `tug key create`.",
    "--model-path": "Name the model by its reference.",
    "--model": "Name the model by its reference.",
    "--tokenizer-path": "Package the tokenizer with the model.",
    "--served-model-name": "Give the model another name with `tug tag`.",
    "--is-embedding": "Ask for embeddings: the mode follows.",
    "--base-gpu-id": "Leave it out: the runner shares out the GPUs.",
    "--enable-metrics": "Leave it out: they are always on.",
    "--config": "Write the flags themselves.",
    "--enable-lora": MERGED,
    "--lora-paths": MERGED,
  },
  folds: {
    "--context-length": (value) => ({ context_size: Number(value) }),
    "--max-running-requests": (value) => ({ parallel: Number(value) }),
    "--kv-cache-dtype": (value) =>
      value === "auto" ? {} : { cache_type_k: value, cache_type_v: value },
  },
  stretching: new Set(["--json-model-override-args"]),
  memory: (said) => ({ gpus: parallelOf(said, PARALLEL) }),
};
