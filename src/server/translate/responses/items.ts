/**
 * Input items as clients write them, checked and completed: each gets an id, a type and a status. What the model said
 * before comes back as input, too.
 *
 * @see https://platform.openai.com/docs/api-reference/responses/create#responses-create-input
 */
import * as v from "valibot";
import type {
  FunctionCallItem,
  InputMessage,
  InputPart,
  OutputMessage,
  ReasoningItem,
  ResponseItem,
} from "../../../api/responses.ts";
import type { MakeId } from "./ids.ts";
import { openReasoning } from "./reasoning.ts";
import { refuse } from "./refuse.ts";

/** Some thousand turns; no context holds more. */
const MAX_ITEMS = 20_000;
/** What a field was given is shown this far. Characters. */
const MAX_SHOWN = 80;

const Text = v.looseObject({ text: v.string() });
const Image = v.looseObject({
  image_url: v.nullish(v.union([v.string(), v.looseObject({ url: v.string() })])),
  detail: v.nullish(v.string()),
});
const Audio = v.looseObject({
  input_audio: v.looseObject({ data: v.string(), format: v.string() }),
});
const Refusal = v.looseObject({ refusal: v.string() });
const Parts = v.array(v.looseObject({ type: v.string() }));
const Content = v.union([v.string(), Parts]);
const Id = v.nullish(v.pipe(v.string(), v.nonEmpty(), v.maxLength(256)));

const MessageInput = v.looseObject({
  id: Id,
  role: v.picklist(["user", "assistant", "system", "developer"]),
  content: Content,
});
const FunctionCallInput = v.looseObject({
  id: Id,
  call_id: v.pipe(v.string(), v.nonEmpty(), v.maxLength(256)),
  name: v.pipe(v.string(), v.nonEmpty()),
  arguments: v.string(),
});
const FunctionOutputInput = v.looseObject({
  id: Id,
  call_id: v.pipe(v.string(), v.nonEmpty(), v.maxLength(256)),
  output: Content,
});
const ReasoningInput = v.looseObject({
  id: Id,
  summary: v.nullish(v.array(Text)),
  content: v.nullish(v.array(Text)),
  encrypted_content: v.nullish(v.string()),
});
const ReferenceInput = v.looseObject({ id: v.pipe(v.string(), v.nonEmpty()) });

export interface ItemContext {
  readonly makeId: MakeId;
  /** An item that is kept. @throws not_found */
  readonly findItem: (id: string, field: string) => ResponseItem;
}

/** @throws invalid_request, not_found (a reference to what is not kept); the field is named */
export function toItems(
  input: string | readonly Readonly<Record<string, unknown>>[] | null | undefined,
  context: ItemContext,
): ResponseItem[] {
  if (input === null || input === undefined) return [];
  if (typeof input === "string") {
    const content: InputPart[] = [{ type: "input_text", text: input }];
    return [toInputMessage(context.makeId("msg"), "user", content)];
  }
  if (input.length > MAX_ITEMS) throw refuse("input", `it has more than ${MAX_ITEMS} items`);
  return input.map((item, index) => toItem(item, `input.${index}`, context));
}

// --- internal ---

type Item = Readonly<Record<string, unknown>>;

function toItem(item: Item, field: string, { makeId, findItem }: ItemContext): ResponseItem {
  const type = item["type"] ?? (typeof item["role"] === "string" ? "message" : "item_reference");
  switch (type) {
    case "message":
      return toMessage(read(MessageInput, item, field), field, makeId);
    case "function_call":
      return toCall(read(FunctionCallInput, item, field), makeId);
    case "function_call_output": {
      const { id, call_id, output } = read(FunctionOutputInput, item, field);
      return {
        id: id ?? makeId("fco"),
        type: "function_call_output",
        status: "completed",
        call_id,
        output: typeof output === "string" ? output : toParts(output, `${field}.output`),
      };
    }
    case "reasoning":
      return toReasoning(read(ReasoningInput, item, field), makeId);
    case "item_reference":
      return findItem(read(ReferenceInput, item, field).id, field);
    default:
      throw refuse(`${field}.type`, `\`${shown(type)}\` is not supported`);
  }
}

function toMessage(
  { id, role, content }: v.InferOutput<typeof MessageInput>,
  field: string,
  makeId: MakeId,
): InputMessage | OutputMessage {
  const itemId = id ?? makeId("msg");
  const path = `${field}.content`;
  if (role !== "assistant") {
    const parts: InputPart[] =
      typeof content === "string"
        ? [{ type: "input_text", text: content }]
        : toParts(content, path);
    return toInputMessage(itemId, role, parts);
  }
  const texts =
    typeof content === "string"
      ? [content]
      : content.map((part, index) => toSaidText(part, `${path}.${index}`));
  return {
    id: itemId,
    type: "message",
    status: "completed",
    role,
    content: texts.map((text) => ({ type: "output_text", text, annotations: [], logprobs: [] })),
  };
}

function toInputMessage(
  id: string,
  role: InputMessage["role"],
  content: readonly InputPart[],
): InputMessage {
  return { id, type: "message", status: "completed", role, content };
}

function toSaidText(part: Item, field: string): string {
  switch (part["type"]) {
    case "output_text":
    case "input_text":
    case "text":
      return read(Text, part, field).text;
    case "refusal":
      return read(Refusal, part, field).refusal;
    default:
      throw refuse(`${field}.type`, `an assistant's message has no \`${shown(part["type"])}\``);
  }
}

function toParts(parts: readonly Item[], field: string): InputPart[] {
  return parts.map((part, index) => toPart(part, `${field}.${index}`));
}

function toPart(part: Item, field: string): InputPart {
  switch (part["type"]) {
    case "input_text":
    case "output_text":
    case "text":
      return { type: "input_text", text: read(Text, part, field).text };
    case "input_image": {
      const { image_url: image, detail } = read(Image, part, field);
      const url = typeof image === "string" ? image : image?.url;
      return { type: "input_image", image_url: checkImage(url, field), detail: detail ?? "auto" };
    }
    case "input_audio": {
      const { data, format } = read(Audio, part, field).input_audio;
      return { type: "input_audio", input_audio: { data, format } };
    }
    default:
      throw refuse(`${field}.type`, `\`${shown(part["type"])}\` is not supported`);
  }
}

/** Engines reach no network, and files are not kept. */
function checkImage(url: string | undefined, field: string): string {
  const hint = "Send it as `data:image/png;base64,…`.";
  if (url === undefined) {
    throw refuse(`${field}.image_url`, "it is required; files are not kept", hint);
  }
  if (/^data:/i.test(url)) return url;
  throw refuse(`${field}.image_url`, "images are not fetched from elsewhere", hint);
}

function toCall(call: v.InferOutput<typeof FunctionCallInput>, makeId: MakeId): FunctionCallItem {
  const { call_id, name } = call;
  return {
    id: call.id ?? makeId("fc"),
    type: "function_call",
    status: "completed",
    call_id,
    name,
    arguments: call.arguments,
  };
}

function toReasoning(
  { id, summary, content, encrypted_content }: v.InferOutput<typeof ReasoningInput>,
  makeId: MakeId,
): ReasoningItem {
  const opened = encrypted_content === null ? undefined : openReasoning(encrypted_content);
  const said = content ?? [];
  const texts = said.length === 0 && opened !== undefined ? [{ text: opened }] : said;
  return {
    id: id ?? makeId("rs"),
    type: "reasoning",
    status: "completed",
    summary: (summary ?? []).map(({ text }) => ({ type: "summary_text", text })),
    content: texts.map(({ text }) => ({ type: "reasoning_text", text })),
  };
}

/** @throws invalid_request naming the field */
function read<S extends v.GenericSchema>(
  schema: S,
  value: unknown,
  field: string,
): v.InferOutput<S> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const inner = v.getDotPath(issue);
  const path = inner === null ? field : `${field}.${inner}`;
  if (issue.received === "undefined") throw refuse(path, "it is required");
  const expected = issue.kind === "schema" ? issue.expected : null;
  if (expected === null) throw refuse(path, issue.message.slice(0, 200));
  throw refuse(path, `it must be ${expected}, not ${issue.received.slice(0, MAX_SHOWN)}`);
}

function shown(value: unknown): string {
  return typeof value === "string" ? value.slice(0, MAX_SHOWN) : typeof value;
}
