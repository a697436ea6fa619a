/** What a model's own `config.json` says that decides which engines read it, and whether code comes with it. Pure. */
import { isRecord } from "../oci/descriptor.ts";

export interface ModelTraits {
  /** `model_type`; undefined if it does not say. */
  readonly architecture?: string | undefined;
  /** Lower case: `gptq`, `awq`, `fp8`, `bitsandbytes`, …, or `mlx` for its own; undefined: the weights are not quantised. */
  readonly quantization?: string | undefined;
  /** It names classes in Python files of its own, as transformers and those who build on it load them. */
  readonly hasAutoMap: boolean;
  /** It names a Python file of its own, as mlx-lm loads it. */
  readonly hasModelFile: boolean;
}

/** Names of methods and architectures are short words. Characters. */
const MAX_NAME = 64;

/**
 * @param config any JSON object
 * @see https://huggingface.co/docs/transformers/custom_models (`auto_map`)
 * @see https://huggingface.co/docs/transformers/main_classes/quantization (`quant_method`)
 * @see https://github.com/ml-explore/mlx-lm/blob/main/mlx_lm/utils.py (`quantization`, `model_file`)
 */
export function toTraits(config: Readonly<Record<string, unknown>>): ModelTraits {
  const { model_type: type, auto_map: classes, model_file: file } = config;
  return {
    architecture: name(type),
    quantization: toQuantization(config),
    hasAutoMap: isRecord(classes) && Object.keys(classes).length > 0,
    hasModelFile: file !== undefined && file !== null,
  };
}

// --- internal ---

/** Models of several kinds of input keep what is said of their texts apart. */
function toQuantization(config: Readonly<Record<string, unknown>>): string | undefined {
  const inner = isRecord(config["text_config"]) ? config["text_config"] : {};
  // mlx-lm looks at its own first, and writes it under both names, without a method.
  const own = [config["quantization"], inner["quantization"]].find(isRecord);
  if (own !== undefined && isMlx(own)) return "mlx";
  const settings = [
    config["quantization_config"],
    inner["quantization_config"],
    config["compression_config"],
  ].find(isRecord);
  if (settings === undefined) return undefined;
  const method = name(settings["quant_method"])?.toLowerCase();
  if (method !== undefined) return method.replaceAll("_", "-");
  if (settings === config["compression_config"]) return "compressed-tensors";
  if (settings["load_in_4bit"] === true || settings["load_in_8bit"] === true) return "bitsandbytes";
  return isMlx(settings) ? "mlx" : undefined;
}

function isMlx(settings: Readonly<Record<string, unknown>>): boolean {
  return Number.isInteger(settings["group_size"]) && Number.isInteger(settings["bits"]);
}

function name(value: unknown): string | undefined {
  return typeof value === "string" && /^[\w.+-]+$/.test(value) && value.length <= MAX_NAME
    ? value
    : undefined;
}
