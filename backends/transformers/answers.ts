/** How answers of `transformers serve` are told apart into text, thoughts and calls of tools. Values only. */

/**
 * By words of the model's chat template. transformers reads calls only of models whose tokenizer says how
 * (`response_template`), and of some families that it knows. Hermes's way is that of most others: JSON in a tag.
 *
 * A call that breaks off, or is no JSON, keeps its text: the rest of the answer is worth having.
 *
 * @see https://github.com/huggingface/transformers/blob/main/src/transformers/utils/chat_parsing/response_templates.py
 */
export const ANSWERS = [
  {
    with: ["<tool_call>", "arguments", "<|im_start|>"],
    // Qwen's later way, which transformers knows itself.
    without: ["<function="],
    template: {
      defaults: { role: "assistant" },
      start_anchor: "<|im_start|>assistant\n",
      fields: {
        reasoning_content: { open: "<think>", close: "</think>", content: "text" },
        tool_calls: {
          open_pattern: String.raw`\s*<tool_call>\s*\{\s*"name":\s*"(?P<name>[^"]{1,200})",\s*"arguments":\s*`,
          close_pattern: String.raw`\s*\}\s*</tool_call>`,
          repeats: true,
          content: "json",
          content_args: { allow_non_json: true },
          transform: { type: "function", function: { name: "{name}", arguments: "{content}" } },
        },
        content: {
          close_pattern: String.raw`\s*(?:<\|im_end\|>|<\|endoftext\|>|</s>)`,
          content: "text",
        },
      },
    },
  },
];
