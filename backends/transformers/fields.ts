/**
 * Members of a request that `transformers serve` takes: those of OpenAI's description, some of which it ignores. It
 * refuses a request with any other one, such as llama.cpp's `top_k`.
 *
 * @see https://github.com/huggingface/transformers/blob/main/src/transformers/cli/serving/chat_completion.py
 */
export const FIELDS: ReadonlySet<string> = new Set(
  `audio best_of chat_template_kwargs echo frequency_penalty function_call functions generation_config logit_bias logprobs
  max_completion_tokens max_tokens messages metadata modalities model n parallel_tool_calls prediction presence_penalty prompt
  reasoning_effort response_format seed service_tier stop store stream stream_options suffix temperature tool_choice tools
  top_logprobs top_p user web_search_options`.split(/\s+/),
);
