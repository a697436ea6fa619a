import { describe, expect, test } from "bun:test";

import { sglang } from "../../../backends/sglang/index.ts";

/** As SGLang 0.5 tells it: a scheduler fails, the server hears of it. */
function inScheduler(error: string): string {
  return [
    "UserWarning: 'python -m sglang.launch_server' is still supported, but 'sglang serve' is the recommended entrypoint.",
    "[2026-11-21 20:00:00] server_args=ServerArgs(model_path='/m', trust_remote_code=False, port=1)",
    "[2026-11-21 20:00:00 TP0] Init torch distributed begin.",
    "[2026-11-21 20:00:01 TP0] Scheduler hit an exception: Traceback (most recent call last):",
    '  File "/e/sglang/srt/managers/scheduler.py", line 1, in run_scheduler_process',
    error,
    "",
    "[2026-11-21 20:00:01] Received sigquit from a child process. It usually means the child failed.",
    "",
  ].join("\n");
}

describe("sglang.explainExit", () => {
  test.each([
    [
      "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
      "not enough GPU memory: the weights leave none for a context",
      true,
    ],
    [
      "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity",
      "not enough GPU memory for 512.00 MiB",
      true,
    ],
    [
      "ValueError: Warning: User-specified context_length (99999) is greater than the derived context_length (4096). This may lead to incorrect model outputs",
      "a context of 99999 tokens is more than the model's own, which is 4096",
      undefined,
    ],
    [
      "ModuleNotFoundError: No module named 'sgl_kernel'",
      "its Python lacks `sgl_kernel`",
      undefined,
    ],
    [
      "RuntimeError: No accelerator (CUDA, XPU, HPU, NPU, MUSA, MPS) or platform plugin is available.",
      "it finds no GPU that it is made for",
      undefined,
    ],
    ["KeyError: 'lm_head'", "KeyError: 'lm_head'", undefined],
  ])("explain: %s", (error, reason, isOutOfMemory) => {
    expect(
      sglang.explainExit({ exitCode: 1, signal: null, stderrTail: inScheduler(error) }),
    ).toMatchObject({ reason, ...(isOutOfMemory === undefined ? {} : { isOutOfMemory }) });
  });
});
