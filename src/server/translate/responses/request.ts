/**
 * `POST /v1/responses`: its fields, and what they come to. Fields that nothing here can do are refused, not ignored,
 * where an answer without them would be another one.
 *
 * @see https://platform.openai.com/docs/api-reference/responses/create
 */
import * as v from "valibot";
import type {
  FunctionTool,
  ResponseObject,
  TextFormat,
  ToolChoice,
} from "../../../api/responses.ts";
import { WORKER_FIELDS } from "../../worker-request.ts";
import { refuse } from "./refuse.ts";

/** OpenAI's own bounds. */
const MAX_METADATA = 16;
const MAX_METADATA_KEY = 64;
const MAX_METADATA_VALUE = 512;
/** More tools than a context holds. */
const MAX_TOOLS = 1024;

const Name = v.pipe(v.string(), v.minLength(1), v.maxLength(128));
const Schema = v.record(v.string(), v.unknown());
const TokenCount = v.pipe(v.number(), v.integer(), v.minValue(1));
const FunctionFields = {
  name: v.optional(Name),
  description: v.nullish(v.string()),
  parameters: v.nullish(Schema),
  strict: v.nullish(v.boolean()),
};

const Tool = v.looseObject({
  type: v.pipe(v.string(), v.description("`function`; others beside those are left out.")),
  ...FunctionFields,
  function: v.pipe(
    v.nullish(v.looseObject(FunctionFields)),
    v.description("The same fields as chat completions have them."),
  ),
});

const NamedChoice = v.looseObject({
  type: v.string(),
  name: v.optional(v.string()),
  function: v.nullish(v.looseObject({ name: v.optional(v.string()) })),
  mode: v.nullish(v.picklist(["auto", "required"])),
  tools: v.nullish(v.array(v.looseObject({ type: v.string(), name: v.optional(v.string()) }))),
});

const Format = v.looseObject({
  type: v.picklist(["text", "json_object", "json_schema"]),
  name: v.nullish(v.string()),
  description: v.nullish(v.string()),
  schema: v.nullish(Schema),
  strict: v.nullish(v.boolean()),
});

export const ResponsesRequest = v.looseObject({
  ...WORKER_FIELDS,
  input: v.pipe(
    v.nullish(v.union([v.string(), v.array(v.looseObject({}))])),
    v.description("A text, or items: messages, function calls and their outputs, reasoning."),
  ),
  instructions: v.pipe(
    v.nullish(v.string()),
    v.description("A system message of this response only."),
  ),
  previous_response_id: v.nullish(v.string()),
  tools: v.nullish(v.pipe(v.array(Tool), v.maxLength(MAX_TOOLS))),
  tool_choice: v.nullish(v.union([v.picklist(["auto", "none", "required"]), NamedChoice])),
  parallel_tool_calls: v.nullish(v.boolean()),
  max_tool_calls: v.nullish(TokenCount),
  temperature: v.nullish(v.pipe(v.number(), v.minValue(0), v.maxValue(2))),
  top_p: v.nullish(v.pipe(v.number(), v.minValue(0), v.maxValue(1))),
  top_logprobs: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(20))),
  max_output_tokens: v.nullish(TokenCount),
  text: v.nullish(
    v.looseObject({
      format: v.nullish(Format),
      verbosity: v.nullish(v.picklist(["low", "medium", "high"])),
    }),
  ),
  reasoning: v.nullish(
    v.looseObject({
      effort: v.nullish(v.picklist(["none", "minimal", "low", "medium", "high", "xhigh", "max"])),
      summary: v.nullish(v.picklist(["auto", "concise", "detailed"])),
      generate_summary: v.nullish(v.picklist(["auto", "concise", "detailed"])),
    }),
  ),
  include: v.nullish(v.array(v.string())),
  truncation: v.pipe(
    v.nullish(v.picklist(["auto", "disabled"])),
    v.description("`auto` is refused: what is left out is the client's to choose."),
  ),
  metadata: v.nullish(v.record(v.string(), v.string())),
  user: v.nullish(v.string()),
  safety_identifier: v.nullish(v.string()),
  prompt_cache_key: v.nullish(v.string()),
  service_tier: v.nullish(v.string()),
  stream: v.nullish(v.boolean()),
  stream_options: v.nullish(v.looseObject({ include_obfuscation: v.nullish(v.boolean()) })),
  background: v.pipe(
    v.nullish(v.boolean()),
    v.description("Answered at once; the answer is made without the client."),
  ),
  store: v.pipe(v.nullish(v.boolean()), v.description("Default: true.")),
  conversation: v.pipe(v.nullish(v.unknown()), v.description("Refused.")),
  prompt: v.pipe(v.nullish(v.unknown()), v.description("Refused.")),
});

export type ResponsesBody = v.InferOutput<typeof ResponsesRequest>;

/** Of a response, what its request says. */
export type Echo = Omit<
  ResponseObject,
  | "id"
  | "object"
  | "created_at"
  | "status"
  | "completed_at"
  | "error"
  | "incomplete_details"
  | "output"
  | "usage"
>;

/** @throws invalid_request (naming the field) */
export function toEcho(body: ResponsesBody): Echo {
  refuseUnable(body);
  const tools = toTools(body.tools ?? []);
  return {
    model: body.model,
    background: body.background ?? false,
    store: body.store ?? true,
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    top_logprobs: body.top_logprobs ?? 0,
    service_tier: "default",
    truncation: "disabled",
    reasoning: toReasoning(body.reasoning),
    text: toText(body.text),
    tool_choice: toToolChoice(body.tool_choice, tools),
    tools,
    metadata: checkMetadata(body.metadata ?? {}),
    ...asSaid(body),
  };
}

// --- internal ---

/** Null unless the client says them. */
const AS_SAID = [
  "instructions",
  "max_output_tokens",
  "max_tool_calls",
  "previous_response_id",
  "prompt_cache_key",
  "safety_identifier",
  "temperature",
  "top_p",
  "user",
] as const;

function refuseUnable({
  conversation,
  prompt,
  truncation,
  background,
  store,
}: ResponsesBody): void {
  if (isGiven(conversation)) {
    throw refuse("conversation", "conversations are not kept", "Use `previous_response_id`.");
  }
  if (isGiven(prompt)) {
    throw refuse("prompt", "prompt templates are not kept", "Send `instructions` and `input`.");
  }
  if (truncation === "auto") {
    const hint = "Leave it out, and send what fits; a larger `context_size` can be asked for.";
    throw refuse("truncation", "`auto` is not supported", hint);
  }
  if (background === true && store === false) {
    throw refuse("background", "what runs in the background must be stored", "Leave `store` out.");
  }
}

function asSaid(body: ResponsesBody): Pick<Echo, (typeof AS_SAID)[number]> {
  const said = AS_SAID.map((name) => [name, body[name] ?? null]);
  return Object.fromEntries(said) as Pick<Echo, (typeof AS_SAID)[number]>;
}

function toReasoning(reasoning: ResponsesBody["reasoning"]): Echo["reasoning"] {
  return {
    effort: reasoning?.effort ?? null,
    // The older name of the same.
    summary: reasoning?.summary ?? reasoning?.generate_summary ?? null,
  };
}

function toText(text: ResponsesBody["text"]): Echo["text"] {
  return { format: toFormat(text?.format), verbosity: text?.verbosity ?? "medium" };
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

type ToolBody = v.InferOutput<typeof Tool>;

/**
 * Agents such as Codex offer OpenAI's own tools beside their functions, and do without; who offers nothing else counts
 * on them.
 */
function toTools(tools: readonly ToolBody[]): FunctionTool[] {
  const functions = tools.flatMap((tool, index) =>
    tool.type === "function" ? [toTool(tool, `tools.${index}`)] : [],
  );
  const [first] = tools;
  if (first === undefined || functions.length > 0) return functions;
  const reason = `tools of the type \`${first.type.slice(0, 80)}\` are not supported`;
  throw refuse("tools.0", reason, "Use tools of the type `function`.");
}

function toTool(tool: ToolBody, field: string): FunctionTool {
  const said = tool.function ?? tool;
  if (said.name === undefined) throw refuse(`${field}.name`, "it is required");
  return {
    type: "function",
    name: said.name,
    description: said.description ?? null,
    parameters: said.parameters ?? null,
    strict: said.strict ?? true,
  };
}

function toFormat(format: v.InferOutput<typeof Format> | null | undefined): TextFormat {
  if (format === null || format === undefined) return { type: "text" };
  if (format.type !== "json_schema") return { type: format.type };
  const { name, schema } = format;
  if (typeof name !== "string") throw refuse("text.format.name", "it is required");
  if (!isGiven(schema)) throw refuse("text.format.schema", "it is required");
  return {
    type: "json_schema",
    name,
    description: format.description ?? null,
    schema: schema ?? {},
    strict: format.strict ?? false,
  };
}

function toToolChoice(
  choice: ResponsesBody["tool_choice"],
  tools: readonly FunctionTool[],
): ToolChoice {
  if (choice === null || choice === undefined) return "auto";
  if (typeof choice === "string") {
    if (choice !== "required" || tools.length > 0) return choice;
    throw refuse("tool_choice", "there are no tools");
  }
  switch (choice.type) {
    case "function":
      return requireTool(choice.name ?? choice.function?.name, tools);
    case "allowed_tools":
      return toAllowed(choice, tools);
    default: {
      const type = choice.type.slice(0, 80);
      throw refuse("tool_choice", `the type \`${type}\` is not supported`);
    }
  }
}

function toAllowed(
  { mode, tools: named }: v.InferOutput<typeof NamedChoice>,
  tools: readonly FunctionTool[],
): ToolChoice {
  const allowed = (named ?? []).map(({ name }) => requireTool(name, tools));
  if (allowed.length === 0) throw refuse("tool_choice.tools", "it is required");
  return { type: "allowed_tools", mode: mode ?? "auto", tools: allowed };
}

interface NamedTool {
  readonly type: "function";
  readonly name: string;
}

function requireTool(name: string | undefined, tools: readonly FunctionTool[]): NamedTool {
  if (name !== undefined && tools.some((tool) => tool.name === name)) {
    return { type: "function", name };
  }
  const shown = name === undefined ? "a tool" : `\`${name.slice(0, 80)}\``;
  throw refuse("tool_choice", `${shown} is not among the tools`);
}

function checkMetadata(metadata: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(metadata);
  if (entries.length > MAX_METADATA) {
    throw refuse("metadata", `it has more than ${MAX_METADATA} entries`);
  }
  for (const [key, value] of entries) {
    if (key.length > MAX_METADATA_KEY) {
      throw refuse("metadata", `a key has more than ${MAX_METADATA_KEY} characters`);
    }
    if (value.length > MAX_METADATA_VALUE) {
      throw refuse("metadata", `a value has more than ${MAX_METADATA_VALUE} characters`);
    }
  }
  return { ...metadata };
}
