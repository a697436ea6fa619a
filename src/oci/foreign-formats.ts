/** Formats that no engine here reads: how their files are told by their names, and what those have who come with one. Pure. */

export interface ForeignFormat {
  /** As `config.format` of an artifact has it. */
  readonly name: string;
  /** As people call it. */
  readonly title: string;
  /** Nearest way to a model that runs: sentences. */
  readonly way: string;
}

const AS_SAFETENSORS = "Take the model from which it was made, as safetensors";

const FORMATS = {
  tflite: {
    title: "TensorFlow Lite",
    way: `${AS_SAFETENSORS} or GGUF.`,
  },
  litertlm: {
    title: "LiteRT-LM (MediaPipe)",
    way: `${AS_SAFETENSORS} or GGUF: Gemma comes as both.`,
  },
  coreml: {
    title: "Core ML",
    way: `${AS_SAFETENSORS}: MLX runs it on a Mac.`,
  },
  tensorrt: {
    title: "TensorRT, built for one kind of GPU",
    way: `${AS_SAFETENSORS}: vLLM runs it on NVIDIA GPUs.`,
  },
  openvino: {
    title: "OpenVINO",
    way: `${AS_SAFETENSORS}, GGUF or ONNX.`,
  },
  keras: {
    title: "Keras",
    way: `${AS_SAFETENSORS} or GGUF.`,
  },
  flax: {
    title: "Flax",
    way: `${AS_SAFETENSORS}; \`save_pretrained\` of transformers before version 5 writes them.`,
  },
  npz: {
    title: "NumPy archives, as MLX had at first",
    way: "Take the same model as safetensors: `mlx_lm.convert` writes them.",
  },
  ggml: {
    title: "GGML, which GGUF has replaced",
    way: "Take the same model as GGUF, or convert it with llama.cpp's `convert_llama_ggml_to_gguf.py`.",
  },
  llamafile: {
    title: "llamafile, a program with a GGUF in it",
    way: "Take the GGUF out of it with `unzip FILE '*.gguf'`, and package that.",
  },
  exl2: { title: "EXL2", way: "Take the same model as GGUF: it comes in as few bits." },
  exl3: { title: "EXL3", way: "Take the same model as GGUF: it comes in as few bits." },
} as const satisfies Readonly<Record<string, Omit<ForeignFormat, "name">>>;

type ForeignName = keyof typeof FORMATS;

/** By the name of one file or directory. In order: the first that fits. */
const NAMES: readonly (readonly [RegExp, ForeignName])[] = [
  [/\.tflite$/i, "tflite"],
  [/\.(?:task|litertlm)$/i, "litertlm"],
  [/\.ml(?:package|model|modelc)(?:\/|$)/i, "coreml"],
  [/\.(?:engine|plan)$/i, "tensorrt"],
  [/(?:^|\/)openvino_[^/]*\.(?:xml|bin)$/i, "openvino"],
  [/\.(?:keras|h5)$/i, "keras"],
  [/\.msgpack$/i, "flax"],
  [/\.npz$/i, "npz"],
  [/\.llamafile$/i, "llamafile"],
  [/(?:^|\/)ggml-[^/]*\.bin$|\.ggml(?:v\d)?(?:\.[^/]*)?\.bin$|\.ggml$/i, "ggml"],
];

/** @returns undefined for a format that is read here, and for what nobody knows */
export function foreignFormat(name: string): ForeignFormat | undefined {
  return Object.hasOwn(FORMATS, name) ? { name, ...FORMATS[name as ForeignName] } : undefined;
}

/** @param paths with forward slashes; the first that is of such a format counts */
export function foreignFormatOf(paths: readonly string[]): ForeignFormat | undefined {
  for (const path of paths) {
    const found = NAMES.find(([pattern]) => pattern.test(path));
    if (found !== undefined) return foreignFormat(found[1]);
  }
  // OpenVINO's graphs have any name, and their weights the same one.
  const all = new Set(paths.map((path) => path.toLowerCase()));
  const hasPair = [...all].some(
    (path) => path.endsWith(".xml") && all.has(path.replace(/\.xml$/, ".bin")),
  );
  return hasPair ? foreignFormat("openvino") : undefined;
}
