/**
 * Requests of the Messages API. Unknown fields pass unread, as do those that concern the host alone: `metadata`,
 * `service_tier`, `container`, `cache_control`, `inference_geo`, `speed`.
 *
 * @see https://docs.anthropic.com/en/api/messages
 * @see https://docs.anthropic.com/en/api/messages-count-tokens
 */
import * as v from "valibot";
import { WORKER_FIELDS } from "../../worker-request.ts";
import { ContentBlock, TextBlock, TOOL_NAME } from "./blocks.ts";

/** What the API itself allows. */
const MAX_MESSAGES = 100_000;
/** Engines look for each of them at each token, for all their clients in one thread: from here on it is felt. */
const MAX_STOPS = 8192;

const Message = v.looseObject({
  role: v.picklist(["user", "assistant", "system"]),
  content: v.union([v.string(), v.array(ContentBlock)]),
});

/** The API's own tools (`web_search_…`, `bash_…`, …) run at its host, or are known to its models alone. */
const Tool = v.looseObject({
  type: v.nullish(v.literal("custom")),
  name: TOOL_NAME,
  description: v.nullish(v.string()),
  input_schema: v.looseObject({ type: v.literal("object") }),
});

const IS_PARALLEL_DISABLED = v.nullish(v.boolean());
const ToolChoice = v.variant("type", [
  v.looseObject({ type: v.literal("auto"), disable_parallel_tool_use: IS_PARALLEL_DISABLED }),
  v.looseObject({ type: v.literal("any"), disable_parallel_tool_use: IS_PARALLEL_DISABLED }),
  v.looseObject({
    type: v.literal("tool"),
    name: v.string(),
    disable_parallel_tool_use: IS_PARALLEL_DISABLED,
  }),
  v.looseObject({ type: v.literal("none") }),
]);

const DISPLAY = v.nullish(v.picklist(["summarized", "omitted"]));
const Thinking = v.variant("type", [
  v.looseObject({
    type: v.literal("enabled"),
    budget_tokens: v.pipe(
      v.number(),
      v.integer("must be a whole number"),
      v.minValue(1, "must be at least 1"),
    ),
    display: DISPLAY,
  }),
  v.looseObject({ type: v.literal("adaptive"), display: DISPLAY }),
  v.looseObject({ type: v.literal("between_tools") }),
  v.looseObject({ type: v.literal("disabled") }),
]);

const OutputFormat = v.looseObject({ type: v.literal("json_schema"), schema: v.looseObject({}) });

const CONVERSATION = {
  ...WORKER_FIELDS,
  messages: v.pipe(
    v.array(Message),
    v.minLength(1, "must have at least one message"),
    v.maxLength(MAX_MESSAGES, `must have at most ${MAX_MESSAGES} messages`),
  ),
  system: v.nullish(v.union([v.string(), v.array(TextBlock)])),
  tools: v.nullish(v.array(Tool)),
  tool_choice: v.nullish(ToolChoice),
  thinking: v.nullish(Thinking),
  output_config: v.nullish(
    v.looseObject({
      effort: v.nullish(v.picklist(["low", "medium", "high", "xhigh", "max"])),
      format: v.nullish(OutputFormat),
    }),
  ),
  output_format: v.pipe(
    v.nullish(OutputFormat),
    v.description("The earlier place of `output_config.format`."),
  ),
};

const PROBABILITY = v.nullish(
  v.pipe(v.number(), v.minValue(0, "must be at least 0"), v.maxValue(1, "must be at most 1")),
);

export const MessagesRequest = v.looseObject({
  ...CONVERSATION,
  max_tokens: v.pipe(
    v.number(),
    v.integer("must be a whole number"),
    v.minValue(0, "must be at least 0"),
    v.description("0 reads the prompt and answers nothing."),
  ),
  stop_sequences: v.nullish(
    v.pipe(
      v.array(v.pipe(v.string(), v.regex(/\S/, "must have more than white space in it"))),
      v.maxLength(MAX_STOPS, `must have at most ${MAX_STOPS}`),
    ),
  ),
  stream: v.nullish(v.boolean()),
  temperature: PROBABILITY,
  top_p: PROBABILITY,
  top_k: v.nullish(
    v.pipe(v.number(), v.integer("must be a whole number"), v.minValue(0, "must be at least 0")),
  ),
});

export const CountTokensRequest = v.looseObject(CONVERSATION);

export type Messages = v.InferOutput<typeof MessagesRequest>;
export type Conversation = v.InferOutput<typeof CountTokensRequest>;
