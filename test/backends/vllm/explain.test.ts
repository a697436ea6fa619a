import { describe, expect, test } from "bun:test";

import { vllm } from "../../../backends/vllm/index.ts";
import type { ExitReason } from "../../../src/runtime/backend.ts";

function explain(stderrTail: string, exitCode: number | null = 1): ExitReason {
  return vllm.explainExit({ exitCode, signal: exitCode === null ? "SIGKILL" : null, stderrTail });
}

/** As vLLM 0.32 tells it: the process that computes, then the one that listens. */
function inCore(error: string): string {
  const prefix = "(EngineCore pid=4711) ERROR 11-21 20:00:00 [core.py:1142] ";
  const core = [
    "EngineCore failed to start.",
    "Traceback (most recent call last):",
    '  File "/e/vllm/v1/engine/core.py", line 1116, in run_engine_core',
    error,
  ];
  return [
    "(APIServer pid=4700) INFO 11-21 19:59:00 [utils.py:299] vLLM server version 0.32.0",
    "(APIServer pid=4700) INFO 11-21 19:59:00 [utils.py:233] non-default args: {'trust_remote_code': True}",
    "(EngineCore pid=4711) INFO 11-21 19:59:09 [core.py:1] with config: model='/m', trust_remote_code=True,",
    ...core.map((line) => prefix + line),
    "(EngineCore pid=4711) Process EngineCore:",
    "(APIServer pid=4700) Traceback (most recent call last):",
    "(APIServer pid=4700)     raise RuntimeError(",
    "(APIServer pid=4700) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    "",
  ].join("\n");
}

const NO_CACHE =
  "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine (this flag also controls CPU memory reservation on the CPU backend, despite its name).";
const CACHE_TOO_SMALL =
  "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is needed, which is larger than the available KV cache memory (4.1 GiB). Based on the available memory, the estimated maximum model length is 33568. Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or decreasing `max_model_len` when initializing the engine.";
const TOO_LONG =
  "ValueError: User-specified max_model_len (99999) is greater than the derived max_model_len (max_position_embeddings=4096 or model_max_length=None in model's config.json). To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.";

describe("vllm.explainExit: memory", () => {
  test.each([
    [
      "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.63 GiB of which 1.20 GiB is free.",
      "not enough GPU memory for 2.50 GiB",
    ],
    [
      "ValueError: Free memory on device cuda:0 (3.21/23.64 GiB) on startup is less than desired GPU memory utilization (0.92, 21.75 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
      "not enough GPU memory: others hold it, 3.21 of 23.64 GiB are free",
    ],
    [NO_CACHE, "not enough GPU memory: the weights leave none for a context"],
    [CACHE_TOO_SMALL, "a context of 131072 tokens does not fit the GPU's memory: 33568 would"],
    ["RuntimeError: CUDA error: out of memory", "not enough GPU memory"],
  ])("explain: %s", (error, reason) => {
    const found = explain(inCore(error));

    expect(found.reason).toBe(reason);
    expect(found.isOutOfMemory).toBe(true);
    expect(found.hint).toMatch(/^[A-Z].*\.$/);
  });
});

describe("vllm.explainExit", () => {
  test.each([
    [TOO_LONG, "a context of 99999 tokens is more than the model's own, which is 4096"],
    [
      "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue.",
      "it finds no GPU that it is made for",
    ],
    [
      "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver",
      "the NVIDIA driver is too old: it knows CUDA 12.2",
    ],
    [
      "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU",
      "it finds no NVIDIA GPU",
    ],
    [
      "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
      "it finds no NVIDIA GPU",
    ],
    [
      "ValueError: Model architectures ['NobodyForCausalLM'] are not supported for now. Supported architectures: dict_keys(['A'])",
      "it does not know the architecture 'NobodyForCausalLM'",
    ],
    [
      "ValueError: The checkpoint you are trying to load has model type `nobody` but Transformers does not recognize this architecture.",
      "it does not know the architecture `nobody`",
    ],
    [
      "ValueError: The checkpoint has model type `nobody` but Transformers does not recognize it.\nRuntimeError: Failed to load the model config. If the model is a custom model, consider setting `trust_remote_code=True`",
      "it does not know the architecture `nobody`",
    ],
    [
      "RuntimeError: Failed to load the model config. If the model is a custom model not yet available in the HuggingFace transformers library, consider setting `trust_remote_code=True` in LLM or using the `--trust-remote-code` flag in the CLI.",
      "the model comes with code of its own, which is not run",
    ],
    [
      "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
      "its GPUs cannot talk to each other (NCCL: unhandled system error (run with NCCL_DEBUG=INFO for details))",
    ],
    [
      "ValueError: Total number of attention heads (14) must be divisible by tensor parallel size (4).",
      "its 14 heads cannot be shared out to 4 GPUs",
    ],
    [
      "TypeError: --tool-call-parser llama3_json cannot be used with the tokenizer of '/b': Llama3JsonToolParser could not locate the bot token",
      "the model has not the words that `--tool-call-parser llama3_json` looks for",
    ],
    [
      "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
      "this GPU is too old for it",
    ],
    ["ModuleNotFoundError: No module named 'vllm._C'", "its Python lacks `vllm._C`"],
    [
      "ImportError: /e/vllm/_C.abi3.so: undefined symbol: _ZN3c106detail",
      "parts of it do not belong together",
    ],
    [
      "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory",
      "its Python lacks `libcudart.so.13`",
    ],
    [
      "RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
      "it compiles parts of itself for this GPU, and there is no C compiler",
    ],
  ])("explain: %s", (error, reason) => {
    const found = explain(inCore(error));

    expect(found.reason).toBe(reason);
    expect(found.isOutOfMemory).toBeUndefined();
    expect(found.hint).toMatch(/^[A-Z].*\.$/);
  });

  test("explain: a flag that another version does not know", () => {
    const found = explain(
      "usage: vllm serve [model_tag] [options]\nvllm: error: unrecognized arguments: --uds\n",
      2,
    );

    expect(found.reason).toBe("this version of it does not know `--uds`");
  });

  test("explain: of what nobody knows the cause is told, not that there was one", () => {
    expect(explain(inCore("KeyError: 'layers.0.weight'")).reason).toBe(
      "KeyError: 'layers.0.weight'",
    );
  });

  test("explain: half an installation names the engine to install", () => {
    expect(explain("ModuleNotFoundError: No module named 'vllm'").hint).toContain("--backend vllm");
  });

  test("explain: a page of noise is one sentence, in no time", () => {
    const startMs = performance.now();
    const found = explain(`${"(".repeat(60_000)}\n${"a=".repeat(2000)}`);

    expect(found.reason.length).toBeLessThan(300);
    expect(performance.now() - startMs).toBeLessThan(1000);
    expect(explain("", null).reason).toContain("SIGKILL");
  });
});
