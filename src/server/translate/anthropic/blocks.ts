/**
 * Blocks of content as clients send them. What hosts of Anthropic's models do for the client (search, code, files) has no
 * blocks here: their types are refused by name.
 *
 * @see https://docs.anthropic.com/en/api/messages
 */
import * as v from "valibot";

/** Known to be a name everywhere: what a model writes into a call, and what comes back. */
export const TOOL_NAME = v.pipe(
  v.string(),
  v.regex(/^[a-zA-Z0-9_-]{1,128}$/, "must be 1 to 128 letters, digits, `_` or `-`"),
);

/** `cache_control` and `citations` are ignored: the engine keeps what it can by itself. */
export const TextBlock = v.looseObject({ type: v.literal("text"), text: v.string() });

const Base64Image = v.looseObject({
  type: v.literal("base64"),
  media_type: v.picklist(["image/jpeg", "image/png", "image/gif", "image/webp"]),
  data: v.string(),
});
const UrlImage = v.looseObject({
  type: v.literal("url"),
  url: v.pipe(
    v.string(),
    v.regex(
      /^data:image\//i,
      "must be a `data:` URL of an image: nothing is fetched from elsewhere; send the image itself",
    ),
    v.description("A `data:` URL of an image."),
  ),
});
const ImageBlock = v.looseObject({
  type: v.literal("image"),
  source: v.variant("type", [Base64Image, UrlImage]),
});

const SearchResultBlock = v.looseObject({
  type: v.literal("search_result"),
  source: v.string(),
  title: v.string(),
  content: v.array(TextBlock),
});

const TextSource = v.looseObject({ type: v.literal("text"), data: v.string() });
const ContentSource = v.looseObject({
  type: v.literal("content"),
  content: v.union([v.string(), v.array(v.variant("type", [TextBlock, ImageBlock]))]),
});
/** Text only: no engine reads PDF. */
const DocumentBlock = v.looseObject({
  type: v.literal("document"),
  source: v.variant("type", [TextSource, ContentSource]),
  title: v.nullish(v.string()),
  context: v.nullish(v.string()),
});

const ToolUseBlock = v.looseObject({
  type: v.literal("tool_use"),
  id: v.pipe(v.string(), v.nonEmpty("must not be empty")),
  name: TOOL_NAME,
  input: v.looseObject({}),
});

const ToolResultBlock = v.looseObject({
  type: v.literal("tool_result"),
  tool_use_id: v.pipe(v.string(), v.nonEmpty("must not be empty")),
  content: v.nullish(
    v.union([
      v.string(),
      v.array(v.variant("type", [TextBlock, ImageBlock, SearchResultBlock, DocumentBlock])),
    ]),
  ),
  is_error: v.nullish(v.boolean()),
});

/** Any signature is taken: there is nothing to check it with. */
const ThinkingBlock = v.looseObject({ type: v.literal("thinking"), thinking: v.string() });
const RedactedThinkingBlock = v.looseObject({ type: v.literal("redacted_thinking") });

export const ContentBlock = v.variant("type", [
  TextBlock,
  ImageBlock,
  DocumentBlock,
  SearchResultBlock,
  ToolUseBlock,
  ToolResultBlock,
  ThinkingBlock,
  RedactedThinkingBlock,
]);

export type Block = v.InferOutput<typeof ContentBlock>;
export type BlockOf<Type extends Block["type"]> = Extract<Block, { readonly type: Type }>;
