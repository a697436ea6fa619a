import { describe, expect, test } from "bun:test";

import { explainPythonExit } from "../../../backends/python/explain.ts";
import type { ExitFacts } from "../../../src/runtime/backend.ts";
import { testIf } from "../../helpers/test-if.ts";

const PYTHON = Bun.which("python3");
const python = testIf(PYTHON !== null, "there is no python3");

const EXIT: ExitFacts = { exitCode: 1, signal: null, stderrTail: "", wasMemoryShort: false };

function explain(stderrTail: string, facts: Partial<ExitFacts> = {}) {
  return explainPythonExit({ ...EXIT, ...facts, stderrTail });
}

/** What a program leaves on stderr. */
function run(program: string): string {
  const { stderr, exitCode } = Bun.spawnSync([PYTHON ?? "", "-I", "-c", program]);
  expect(exitCode).toBe(1);
  return stderr.toString();
}

/** Through so many frames. */
function deep(statement: string): string {
  return `
def go(depth):
    if depth:
        go(depth - 1)
    else:
        ${statement}
go(12)`;
}

const RAISED: readonly (readonly [name: string, program: string, reason: string])[] = [
  ["a plain error", deep("raise RuntimeError('no such layer: 7.')"), "no such layer: 7"],
  ["one that says little", deep("{}['lm_head.weight']"), "KeyError: 'lm_head.weight'"],
  ["one that says nothing", deep("assert False"), "AssertionError"],
  ["one with an empty text", deep("raise RuntimeError('')"), "RuntimeError"],
  [
    "a missing file",
    deep("open('/nonexistent/config.json')"),
    "[Errno 2] No such file or directory: '/nonexistent/config.json'",
  ],
  ["a missing module", "import mlx_of_nobody.core", "its Python lacks `mlx_of_nobody`"],
  ["too little memory", deep("raise MemoryError"), "not enough memory"],
  [
    "a system without memory",
    "import errno, os\nraise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))",
    "not enough memory",
  ],
  [
    "numpy's kind of memory error",
    "class _ArrayMemoryError(MemoryError): pass\nraise _ArrayMemoryError('of 8.00 GiB')",
    "not enough memory",
  ],
  [
    "a full disk",
    "import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))",
    "the disk is full",
  ],
  [
    "an architecture that MLX lacks, with its cause before it",
    `
try:
    import importlib; importlib.import_module('nobody.models.foo_bar')
except ImportError as error:
    raise ValueError('Model type foo_bar not supported.') from error`,
    "it does not know the architecture `foo_bar`",
  ],
  [
    "an architecture that transformers lacks",
    "raise ValueError('The checkpoint you are trying to load has model type `foo` but Transformers does not recognize this architecture. This could be because of an issue.')",
    "it does not know the architecture `foo`",
  ],
  [
    "code of the model's own",
    "raise ValueError('The repository x contains custom code which must be executed to correctly load the model.\\nPlease pass the argument `trust_remote_code=True` to allow custom code to be run.')",
    "the model comes with code of its own, which is not run",
  ],
  [
    "what follows from another error",
    "try:\n    {}['first']\nexcept KeyError:\n    raise ValueError('second')",
    "second",
  ],
  [
    "what only points to its cause",
    "try:\n    {}['first']\nexcept KeyError:\n    raise RuntimeError('Engine core initialization failed. See root cause above.')",
    "KeyError: 'first'",
  ],
  [
    "an error of a library's own",
    "class SafetensorError(Exception): pass\nSafetensorError.__module__ = 'safetensors_rust'\nraise SafetensorError('Error while deserializing header: HeaderTooLarge')",
    "SafetensorError: Error while deserializing header: HeaderTooLarge",
  ],
  ["a text of several lines", "raise ValueError('first\\nsecond\\nthird')", "first"],
  ["what ends it with a word", "import sys\nsys.exit('launch: not ready')", "not ready"],
];

describe("tracebacks of a real Python", () => {
  for (const [name, program, reason] of RAISED) {
    python(`explain: ${name}`, () => {
      expect(explain(run(program)).reason).toBe(reason);
    });
  }

  python("explain: a page of a traceback with colours and causes is one short sentence", () => {
    const colours = "\u001b[1;31mValueError\u001b[0m: \u001b[35mbad \u001b[0mhead";
    const page = `${run(deep("raise KeyError('x')")).repeat(50)}${colours}\r\n`;

    expect(page.length).toBeGreaterThan(10_000);
    expect(explain(page).reason).toBe("bad head");
  });
});

describe("explainPythonExit", () => {
  test.each([
    [
      "C++",
      "terminate called after throwing an instance of 'std::runtime_error'\n  what():  [matmul] Last dimension must match.\n",
      { exitCode: null, signal: "SIGABRT" },
      "the engine was ended by SIGABRT: [matmul] Last dimension must match",
    ],
    [
      "a fault of the interpreter",
      'Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n  File "x.py", line 1 in f\n\nExtension modules: numpy, torch (total: 2)\n',
      { exitCode: null, signal: "SIGSEGV" },
      "the engine was ended by SIGSEGV: Segmentation fault",
    ],
    [
      "a flag that it lacks",
      "usage: server.py [-h]\nserver.py: error: unrecognized arguments: --foo\n",
      { exitCode: 2 },
      "unrecognized arguments: --foo",
    ],
    ["nothing", "", { exitCode: 4 }, "the engine ended with exit code 4"],
    ["nothing at all", "", { exitCode: null }, "the engine ended"],
    [
      "noise alone",
      '2026-01-01 10:00:00,000 - INFO - Starting httpd at 127.0.0.1 on port 1...\n127.0.0.1 - - [01/Jan/2026 10:00:00] "GET /health HTTP/1.1" 200 -\nINFO:     Started\n/x/y.py:12: UserWarning: old\n  warnings.warn(\rLoading: 50%|#####     | 1/2\rLoading: 100%|####| 2/2\n',
      {},
      "the engine ended with exit code 1",
    ],
    [
      "an instruction",
      "",
      { exitCode: null, signal: "SIGILL" },
      "the engine was ended by SIGILL: this processor lacks an instruction that the engine needs",
    ],
    [
      "who was asked to end",
      "KeyError: 'of an answer long ago'\n",
      { exitCode: null, signal: "SIGTERM" },
      "the engine was ended by SIGTERM",
    ],
    [
      "the launcher, after the engine's own complaint",
      "KeyError: 'lm_head'\nlaunch: the engine answered its first request with status 500\n",
      {},
      "KeyError: 'lm_head'",
    ],
    [
      "the launcher alone",
      "launch: the engine answered its first request with status 500\n",
      {},
      "the engine answered its first request with status 500",
    ],
    [
      "vLLM",
      "ValueError: Model architectures ['Foo'] are not supported for now.\n",
      {},
      "it does not know the architecture `Foo`",
    ],
    [
      "a setting that is only logged",
      "config: trust_remote_code=False\nKeyError: 'x'\n",
      {},
      "KeyError: 'x'",
    ],
  ] as const)("explain: %s", (...[, text, facts, reason]) => {
    expect(explain(text, facts).reason).toBe(reason);
  });

  test.each([
    ["libc++abi: std::bad_alloc\n", {}],
    ["RuntimeError: [METAL] Command buffer execution failed: Insufficient Memory\n", {}],
    ["RuntimeError: [malloc] Unable to allocate 8589934592 bytes.\n", {}],
    [
      "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes\n",
      {},
    ],
    ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n", {}],
    ["Killed\n", { exitCode: 137, wasMemoryShort: undefined }],
    ["", { exitCode: null, signal: "SIGKILL", wasMemoryShort: true }],
    ["", { exitCode: null, signal: "SIGKILL", wasMemoryShort: undefined }],
  ] as const)("explain: memory ran out: %j", (text, facts) => {
    expect(explain(text, facts)).toMatchObject({ isOutOfMemory: true, hint: expect.any(String) });
  });

  test("explain: who was killed while there was memory was not short of it", () => {
    const facts = { exitCode: null, signal: "SIGKILL", wasMemoryShort: false } as const;

    expect(explain("KeyError: 'x'", facts)).toEqual({ reason: "the engine was ended by SIGKILL" });
  });

  test("explain: logs that only mention memory are not its end", () => {
    const text = "INFO 01-01 raise it if you run out of memory\nKeyError: 'x'\n";

    expect(explain(text)).toEqual({ reason: "KeyError: 'x'" });
  });

  test("explain: a line without an end is cut", () => {
    const { reason } = explain(`ValueError: ${"x".repeat(60_000)}`);
    const architecture = explain(`Model type ${"x".repeat(60_000)} not supported`).reason;

    expect(reason).toHaveLength(201);
    expect(architecture.length).toBeLessThan(250);
  });

  test("explain: hostile text takes no time", () => {
    const texts = [" ".repeat(65_536), "a.".repeat(32_768), "Model architectures ['".repeat(3000)];
    const startMs = performance.now();

    for (const text of texts) explain(text);

    expect(performance.now() - startMs).toBeLessThan(1000);
  });
});
