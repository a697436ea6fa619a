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
  /** How its weights are quantised. */
  readonly quantization?: string;
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
  ...[LINUX, LINUX_ARM, MAC].flatMap((machine): Row[] => [
    { format: "dduf", mode: "image-generation", machine, expected: "diffusers" },
    { format: "diffusers", mode: "image-generation", machine, expected: "diffusers" },
  ]),
  {
    format: "dduf",
    mode: "image-generation",
    machine: WINDOWS,
    expected: "diffusers does not run here: it needs a Mac",
  },
  {
    format: "diffusers",
    machine: LINUX,
    installed: ["mlx", "transformers"],
    expected: "no engine offers completion for diffusers models",
  },
  {
    format: "safetensors",
    mode: "image-generation",
    machine: LINUX,
    installed: ["diffusers"],
    expected: "no engine offers image-generation for safetensors models",
  },
  {
    format: "gguf",
    mode: "image-generation",
    machine: LINUX,
    asked: "diffusers",
    expected: "diffusers does not read gguf models",
  },
  // Quantised weights go to whoever reads them.
  ...["mlx", "awq", "gptq", "mxfp4", "compressed-tensors"].map((quantization): Row => ({
    format: "safetensors",
    quantization,
    machine: LINUX,
    installed: ["transformers"],
    expected: quantization === "mxfp4" ? "transformers" : "mlx",
  })),
  {
    format: "safetensors",
    quantization: "bitsandbytes",
    machine: LINUX,
    installed: ["mlx", "transformers"],
    expected: "mlx does not read weights that are quantised with BITSANDBYTES",
  },
  {
    format: "safetensors",
    quantization: "bitsandbytes",
    machine: LINUX,
    installed: ["mlx", "vllm"],
    expected: "vllm",
  },
  {
    format: "safetensors",
    quantization: "mlx",
    machine: LINUX,
    installed: ["vllm", "sglang"],
    expected: "mlx",
  },
  {
    format: "safetensors",
    quantization: "mlx",
    machine: LINUX,
    asked: "vllm",
    expected: "vllm does not read weights that are quantised for MLX",
  },
  {
    format: "safetensors",
    quantization: "gptq",
    machine: MAC,
    asked: "transformers",
    expected: "transformers does not read weights that are quantised with GPTQ",
  },
  {
    format: "safetensors",
    quantization: "exl2",
    machine: LINUX,
    installed: ["vllm"],
    expected: "vllm does not read weights that are quantised with EXL2",
  },
  // PyTorch's checkpoints.
  ...[LINUX, LINUX_ARM, MAC].map((machine): Row => ({
    format: "pytorch",
    machine,
    expected: "transformers",
  })),
  { format: "pytorch", machine: WINDOWS, expected: "transformers does not run here" },
  {
    format: "pytorch",
    machine: LINUX,
    asked: "mlx",
    expected: "mlx does not read pytorch models",
  },
  ...["tflite", "coreml", "tensorrt", "openvino"].map((format): Row => ({
    format,
    machine: LINUX,
    expected: `no engine offers completion for ${format} models`,
  })),
];

for (const row of ROWS) {
  const { format, quantization, mode = "completion", machine } = row;
  const { installed = [], asked, expected } = row;
  const where = `${machine.platform} ${machine.arch}`;
  const extras = [...installed.map((name) => `with ${name}`), ...(asked ? [`asked ${asked}`] : [])];
  const what = quantization === undefined ? format : `${format} in ${quantization}`;
  test(`routing: ${[what, mode, where, ...extras].join(", ")}: ${expected}`, async () => {
    const traits = { quantization, hasAutoMap: false, hasModelFile: false };
    const request = { model: { name: "m", format }, traits, mode, machine, backend: asked };

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

test.each([
  ["tflite", undefined, "as safetensors or GGUF"],
  ["coreml", undefined, "MLX runs it on a Mac"],
  ["tensorrt", undefined, "vLLM runs it on NVIDIA GPUs"],
  ["safetensors", "exl2", "Take the same model as GGUF"],
  ["safetensors", "exl3", "Take the same model as GGUF"],
  ["nobodys", undefined, "Configure an engine for it"],
])(
  "routing: of %s in %s the error says the nearest way",
  async (...[format, quantization, way]) => {
    const traits = { quantization, hasAutoMap: false, hasModelFile: false };
    const request = {
      model: { name: "m", format },
      traits,
      mode: "completion",
      machine: LINUX,
    } as const;

    const error = await chooseBackend(request, BACKENDS, () => Promise.resolve(true)).catch(
      (thrown: AppError) => thrown,
    );

    expect(error).toMatchObject({ code: "unsupported_model", hint: expect.stringContaining(way) });
  },
);
