/** Which engine serves what, where: the built-in engines, by format, platform, what is installed and what is asked for. */
import { expect, test } from "bun:test";
import { chooseBackend } from "../../src/runtime/backend-choice.ts";
import type { Machine, Mode, ModelFormat } from "../../src/runtime/backend.ts";
import { BACKENDS } from "../../src/runtime/backends.ts";
import { AppError } from "../../src/errors.ts";

const LINUX: Machine = { platform: "linux", arch: "x64" };
const LINUX_ARM: Machine = { platform: "linux", arch: "arm64" };
const MAC: Machine = { platform: "darwin", arch: "arm64" };
const OLD_MAC: Machine = { platform: "darwin", arch: "x64" };
const WINDOWS: Machine = { platform: "win32", arch: "x64" };

interface Row {
  readonly format: ModelFormat;
  readonly mode?: Mode;
  readonly machine: Machine;
  readonly installed?: readonly string[];
  readonly asked?: string;
  /** An engine, or what the error says. */
  readonly expected: string;
}

const ROWS: readonly Row[] = [
  ...[LINUX, LINUX_ARM, MAC, OLD_MAC, WINDOWS].map((machine): Row => ({
    format: "gguf",
    machine,
    expected: "llama.cpp",
  })),
  { format: "gguf", machine: LINUX, installed: ["mlx"], expected: "llama.cpp" },
  { format: "gguf", machine: LINUX, mode: "embedding", expected: "llama.cpp" },
  { format: "gguf", machine: LINUX, mode: "reranking", expected: "llama.cpp" },
  { format: "gguf", machine: LINUX, asked: "llama.cpp", expected: "llama.cpp" },
  { format: "gguf", machine: MAC, asked: "mlx", expected: "mlx does not read gguf models" },
  { format: "gguf", machine: LINUX, asked: "ollama", expected: "there is none of that name" },
  ...[LINUX, LINUX_ARM, MAC].map((machine): Row => ({
    format: "safetensors",
    machine,
    expected: "mlx",
  })),
  { format: "safetensors", machine: LINUX, installed: ["llama.cpp"], expected: "mlx" },
  { format: "safetensors", machine: MAC, asked: "mlx", expected: "mlx" },
  {
    format: "safetensors",
    machine: LINUX,
    asked: "llama.cpp",
    expected: "llama.cpp does not read safetensors models",
  },
  ...[WINDOWS, OLD_MAC].flatMap((machine): Row[] => [
    { format: "safetensors", machine, expected: "mlx does not run here: it needs a Mac" },
    {
      format: "safetensors",
      machine,
      asked: "mlx",
      expected: "mlx does not run here: it needs a Mac",
    },
  ]),
  {
    format: "safetensors",
    machine: LINUX,
    mode: "embedding",
    expected: "vllm is not installed",
  },
  { format: "safetensors", machine: LINUX, installed: ["sglang"], expected: "sglang" },
  { format: "safetensors", machine: LINUX, mode: "reranking", asked: "vllm", expected: "vllm" },
  {
    format: "safetensors",
    machine: MAC,
    asked: "vllm",
    expected: "vllm does not run here: it needs Linux",
  },
  {
    format: "safetensors",
    machine: LINUX,
    mode: "embedding",
    asked: "mlx",
    expected: "mlx does not offer embedding",
  },
  ...[LINUX, LINUX_ARM, MAC].flatMap((machine): Row[] => [
    { format: "onnx", machine, expected: "onnx" },
    { format: "onnx", machine, mode: "embedding", expected: "onnx" },
  ]),
  { format: "onnx", machine: WINDOWS, expected: "onnx does not run here: it needs a Mac" },
  { format: "onnx", machine: LINUX, asked: "mlx", expected: "mlx does not read onnx models" },
  { format: "dduf", machine: LINUX, expected: "no engine offers completion for dduf models" },
];

for (const { format, mode = "completion", machine, installed = [], asked, expected } of ROWS) {
  const where = `${machine.platform} ${machine.arch}`;
  const extras = [...installed.map((name) => `with ${name}`), ...(asked ? [`asked ${asked}`] : [])];
  test(`routing: ${[format, mode, where, ...extras].join(", ")}: ${expected}`, async () => {
    const request = { model: { name: "m", format }, mode, machine, backend: asked };

    const chosen = await chooseBackend(request, BACKENDS, isAmong(installed)).then(
      ({ name }) => name,
      (error: AppError) => error.message,
    );

    expect(chosen).toContain(expected);
  });
}

function isAmong(installed: readonly string[]): (name: string) => Promise<boolean> {
  return (name) => Promise.resolve(installed.includes(name));
}

test("routing: what cannot run here does not hide what could", async () => {
  const request = {
    model: { name: "m", format: "safetensors" },
    mode: "completion",
    machine: WINDOWS,
  } as const;

  const error = await chooseBackend(request, BACKENDS, () => Promise.resolve(false)).catch(
    (thrown: AppError) => thrown,
  );

  expect(error).toBeInstanceOf(AppError);
  expect(error).toMatchObject({ hint: "Use a model in one of these formats: gguf." });
});
