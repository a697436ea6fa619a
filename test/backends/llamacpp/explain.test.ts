import { describe, expect, test } from "bun:test";

import { llamacpp } from "../../../backends/llamacpp/index.ts";

/** As llama-server 0.7.0 (build 11669) wrote them. */
const LOGS = {
  truncated: `0.00.027.069 E llama_model_load: error loading model: tensor 'blk.1.attn_output.weight' data is not within the file bounds, model is corrupted or incomplete
0.00.027.571 E srv    load_model: failed to load model, '/tmp/m.gguf'
0.00.028.009 E srv  llama_server: exiting due to model loading error`,
  notGguf: `0.00.028.976 E gguf_init_from_reader: invalid magic characters: 'f%?R', expected 'GGUF'
0.00.028.982 E llama_model_load: error loading model: llama_model_loader: failed to load model from /tmp/junk.gguf`,
  missing: `0.00.027.874 E gguf_init_from_file: failed to open GGUF file '/m.gguf' (No such file or directory)
0.00.027.878 E llama_model_load: error loading model: llama_model_loader: failed to load model from /m.gguf`,
  architecture: `0.00.018.106 E llama_model_load: error loading model: unknown model architecture: 'zorblax'`,
  memory: `0.01.816.136 E llama_init_from_model: failed to initialize the context: std::bad_alloc`,
  cuda: `ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory`,
  metal: `ggml_metal_buffer_type_alloc_buffer: error: failed to allocate buffer, size = 8192.50 MiB`,
  projector: `0.00.029.327 E mtmd_init_from_file: error: Failed to load CLIP model from /m.gguf`,
  draft: `0.00.039.737 E gguf_init_from_reader: invalid magic characters: 'f%?R', expected 'GGUF'
0.00.039.776 E srv    load_model: failed to load draft model, '/tmp/junk.gguf'`,
  template: `0.00.000.983 E common_chat_templates_init: error: parser: Parser Error: Expected }} (Got )
...{{ bad...`,
  split: `0.00.018.937 E gguf_init_from_file: failed to open GGUF file '/m-00002-of-00003.gguf' (No such file or directory)
0.00.018.962 E llama_model_load: error loading model: llama_model_loader: failed to load GGUF split from /m-00002-of-00003.gguf`,
  notFirst: `0.00.018.598 E llama_model_load: error loading model: illegal split file idx: 1 (file: /m), model must be loaded with the first split`,
  value: `error while handling argument "--ctx-size": stoi

usage:
-c,    --ctx-size N                     size of the prompt context`,
  flag: `error: invalid argument: --bogus-flag`,
  socket: `0.00.016.090 E srv         start: couldn't bind HTTP server socket, hostname: /nodir/x.sock, port: 9931`,
  assertion: `/build/ggml/src/ggml.c:1703: GGML_ASSERT(id_to_token.size() == token_to_id.size()) failed`,
  flash: `0.00.039.549 E llama_init_from_model: quantized V cache requires flash_attn to be enabled
0.00.040.901 E srv  llama_server: exiting due to model loading error`,
  thrown: `terminate called after throwing an instance of 'std::runtime_error'
  what():  failed to parse grammar`,
  glibc: `/opt/llama-server: /lib/x86_64-linux-gnu/libc.so.6: version \`GLIBC_2.43' not found`,
};

function reasonOf(stderrTail: string): string {
  return llamacpp.explainExit({ exitCode: 1, signal: null, stderrTail }).reason;
}

describe("llamacpp.explainExit", () => {
  test.each([
    ["truncated", "the model file is corrupt or incomplete"],
    ["notGguf", "the model file is not a GGUF file"],
    ["missing", "cannot open /m.gguf: no such file or directory"],
    ["architecture", "this llama.cpp does not know the architecture `zorblax`"],
    ["memory", "not enough memory"],
    ["cuda", "not enough GPU memory (CUDA)"],
    ["metal", "not enough memory for a buffer of 8192.50 MiB"],
    ["projector", "the multimodal projector cannot be loaded"],
    ["draft", "the draft model cannot be loaded"],
    ["template", "the chat template is invalid: parser: Parser Error: Expected }} (Got )"],
    ["split", "a part of the model is missing: /m-00002-of-00003.gguf"],
    ["notFirst", "the model does not start with its first part"],
    ["value", "the engine refuses the flag `--ctx-size`: stoi"],
    ["flag", "this build of the engine does not know the flag `--bogus-flag`"],
    ["socket", "the engine cannot listen on its socket"],
    ["flash", "a quantized cache of values needs flash attention"],
    ["thrown", "the engine gave up: failed to parse grammar"],
    [
      "assertion",
      "the engine stopped at a failed check: GGML_ASSERT(id_to_token.size() == token_to_id.size()) failed",
    ],
    ["glibc", "the engine does not fit this system: GLIBC_2.43"],
  ] as const)("explain: the log `%s` becomes a sentence", (log, expected) => {
    expect(reasonOf(LOGS[log])).toBe(expected);
  });

  test("explain: an unknown error is quoted without its time stamp", () => {
    const log = "0.00.1 I fine\n0.00.027.571 E srv load_model: the moon is full\n0.00.2 I bye\n";

    expect(reasonOf(log)).toBe(
      "the engine ended with exit code 1: srv load_model: the moon is full",
    );
  });

  test("explain: a long line is cut", () => {
    expect(reasonOf(`error ${"x".repeat(5000)}`).length).toBeLessThan(300);
  });

  test.each([
    [{ exitCode: 3, signal: null }, "the engine ended with exit code 3"],
    [{ exitCode: null, signal: "SIGSEGV" }, "the engine was ended by SIGSEGV"],
    [
      { exitCode: null, signal: "SIGKILL" },
      "the engine was ended by SIGKILL, probably by the system for lack of memory",
    ],
    [
      { exitCode: null, signal: "SIGILL" },
      "the engine was ended by SIGILL: this processor lacks an instruction that the engine needs",
    ],
    [{ exitCode: null, signal: null }, "the engine ended"],
  ])("explain: a silent end %j is described", (facts, expected) => {
    expect(llamacpp.explainExit({ ...facts, stderrTail: "" }).reason).toBe(expected);
  });

  test.each<[string, string, string]>([
    ["malloc", LOGS.memory, "not enough memory"],
    ["cuda", LOGS.cuda, "not enough GPU memory (CUDA)"],
    [
      "vulkan",
      "vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
      "not enough GPU memory (Vulkan)",
    ],
    ["rocm", "hipMalloc failed: out of memory", "not enough GPU memory (ROCm)"],
    ["metal", LOGS.metal, "not enough memory for a buffer of 8192.50 MiB"],
    [
      "the cache",
      "0.00.046.600 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1536294912\n0.00.047.859 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
      "not enough memory for a buffer of 1466 MiB",
    ],
    [
      "a thread",
      "terminate called after throwing an instance of 'std::system_error'\n  what():  Resource temporarily unavailable",
      "not enough memory",
    ],
    ["mapping", "error loading model: mmap failed: Cannot allocate memory", "not enough memory"],
    [
      "a crash",
      "Fatal signal: Segmentation fault\nerror creating backtrace: mmap: 12",
      "not enough memory",
    ],
  ])("explain: memory that ran out (%s) is told from other ends", (_what, stderrTail, reason) => {
    expect(llamacpp.explainExit({ exitCode: 1, signal: null, stderrTail })).toMatchObject({
      reason,
      isOutOfMemory: true,
    });
  });

  test("explain: a lost GPU is none of memory", () => {
    const stderrTail = "vk::Queue::submit: ErrorDeviceLost";

    expect(llamacpp.explainExit({ exitCode: 1, signal: null, stderrTail })).toMatchObject({
      reason: "the GPU is gone or does not answer",
      isOutOfMemory: undefined,
    });
  });

  test.each<[boolean | undefined, boolean, string]>([
    [true, true, "the engine was ended by SIGKILL, by the system for lack of memory"],
    [false, false, "the engine was ended by SIGKILL"],
    [undefined, true, "the engine was ended by SIGKILL, probably by the system for lack of memory"],
  ])("explain: SIGKILL where memory was short: %p", (wasMemoryShort, isOutOfMemory, reason) => {
    const facts = { exitCode: null, signal: "SIGKILL", stderrTail: "", wasMemoryShort };

    const explained = llamacpp.explainExit(facts);

    expect([explained.reason, explained.isOutOfMemory ?? false]).toEqual([reason, isOutOfMemory]);
  });
});
