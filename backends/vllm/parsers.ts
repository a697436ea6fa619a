/** Which of vLLM's parsers understand what a family of models writes. Pure. */

export interface Parsers {
  /** `--tool-call-parser` */
  readonly tools?: string | undefined;
  /** `--reasoning-parser` */
  readonly reasoning?: string | undefined;
}

/**
 * Of a model, by `model_type` of its `config.json`. vLLM refuses to start with a parser that misses a token of its own
 * in the model's vocabulary: families of which not all models have it (`llama`: Llama 3's and many others) have none
 * here, and get theirs by flags.
 *
 * @see https://docs.vllm.ai/en/stable/features/tool_calling/
 * @see https://docs.vllm.ai/en/stable/features/reasoning_outputs/
 */
export function parsersFor(architecture: string | undefined): Parsers {
  return BY_ARCHITECTURE.get(architecture ?? "") ?? {};
}

/** Every pair that may be chosen. */
export function allParsers(): readonly Parsers[] {
  return [...BY_ARCHITECTURE.values()];
}

// --- internal ---

/** Families, what they write calls in, and what thoughts; `-` for nothing. */
const TABLE = `
  qwen2 qwen2_moe qwen2_vl qwen2_5_vl            | hermes        | -
  qwen3 qwen3_moe qwen3_vl qwen3_vl_moe          | hermes        | qwen3
  qwen3_next qwen3_5 qwen3_5_moe                 | qwen3_coder   | qwen3
  gpt_oss                                        | openai        | openai_gptoss
  mistral3 ministral3 pixtral                    | mistral       | -
  glm4_moe glm4_moe_lite glm4v_moe               | glm45         | glm45
  deepseek_v32                                   | deepseek_v32  | deepseek_v3
  deepseek_v4                                    | deepseek_v4   | deepseek_v4
  gemma4 gemma4_text                             | gemma4        | gemma4
  granitemoehybrid                               | granite4      | -
  minimax_m2                                     | minimax_m2    | minimax_m2
  kimi_k2                                        | kimi_k2       | kimi_k2
  hunyuan_v1_moe                                 | hunyuan_a13b  | hunyuan_a13b
  ernie4_5_moe                                   | ernie45       | ernie45
  seed_oss                                       | seed_oss      | seed_oss
  internlm2                                      | internlm      | -
  jamba                                          | jamba         | -
  olmo3                                          | olmo3         | olmo3
  cohere2                                        | cohere_command3 | -
  step3_text step3_vl                            | step3         | step3
  lfm2 lfm2_moe                                  | lfm2          | -
  mimo mimo_v2_flash                             | mimo          | mimo
  nemotron_h                                     | qwen3_coder   | nemotron_v3
`;

const BY_ARCHITECTURE: ReadonlyMap<string, Parsers> = new Map(
  TABLE.trim()
    .split("\n")
    .flatMap((line) => {
      const [families = "", tools, reasoning] = line.split("|").map((cell) => cell.trim());
      const parsers = { tools: named(tools), reasoning: named(reasoning) };
      return families.split(/\s+/).map((family) => [family, parsers] as const);
    }),
);

function named(cell: string | undefined): string | undefined {
  return cell === "-" ? undefined : cell;
}
