/**
 * Requests for pictures, as OpenAI's clients send them: JSON, and for edits a form with files, too. Engines get JSON with
 * pictures in base64.
 *
 * @see https://platform.openai.com/docs/api-reference/images
 */
import * as v from "valibot";
import { AppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";
import { checkJsonShape } from "./json-shape.ts";
import type { BodyBudget } from "./body-budget.ts";
import type { HeldBody } from "./inference.ts";
import { parseValue, readBody } from "./request-body.ts";
import { WORKER_FIELDS } from "./worker-request.ts";

/** As OpenAI has it. */
const MAX_COUNT = 10;
const MAX_PROMPT_CHARACTERS = 32_000;
const MAX_PARTIALS = 3;
/** Of the engines that there are: a model need not be loaded to be told. Pixels. */
const SIDES = { least: 64, most: 2048, step: 8 } as const;
const SIZE_RULE = `must be \`auto\`, or WIDTHxHEIGHT, multiples of ${SIDES.step} from ${SIDES.least} to ${SIDES.most}`;
/** Forms have some twenty fields. */
const MAX_FORM_FIELDS = 100;
/** OpenAI takes as many pictures. */
const MAX_PICTURES = 16;

const count = (least: number, most: number) =>
  v.nullish(v.pipe(v.number(), v.integer(), v.minValue(least), v.maxValue(most)));

const IMAGE_FIELDS = {
  ...WORKER_FIELDS,
  prompt: v.pipe(
    v.string(),
    v.regex(/\S/, "must not be empty"),
    v.maxLength(MAX_PROMPT_CHARACTERS, `must have at most ${MAX_PROMPT_CHARACTERS} characters`),
  ),
  n: count(1, MAX_COUNT),
  size: v.pipe(
    v.nullish(v.pipe(v.string(), v.regex(/^(?:auto|\d{1,5}x\d{1,5})$/, SIZE_RULE))),
    v.description("`auto`, or width and height such as `512x512`; the model's own unless given."),
  ),
  response_format: v.pipe(
    v.nullish(v.picklist(["b64_json", "url"])),
    v.description("`b64_json` unless given; a URL is good for an hour."),
  ),
  output_format: v.nullish(v.picklist(["png", "jpeg", "webp"])),
  output_compression: count(0, 100),
  quality: v.nullish(v.picklist(["low", "medium", "high", "auto", "standard", "hd"])),
  negative_prompt: v.nullish(v.string()),
  num_inference_steps: count(1, 150),
  guidance_scale: v.nullish(v.pipe(v.number(), v.minValue(0), v.maxValue(20))),
  seed: v.pipe(count(0, 2 ** 32 - 1), v.description("Each further picture has the next one.")),
  stream: v.nullish(v.boolean()),
  partial_images: count(0, MAX_PARTIALS),
};

/** `POST /v1/images/generations`. */
export const ImageGenerationRequest = v.looseObject(IMAGE_FIELDS);

const PICTURE = v.union([v.string(), v.looseObject({ image_url: v.optional(v.string()) })]);

/** `POST /v1/images/edits`, as JSON. As a form the same fields are text, and `image`, `image[]` and `mask` are files. */
export const ImageEditRequest = v.looseObject({
  ...IMAGE_FIELDS,
  image: v.pipe(
    v.nullish(v.union([v.array(PICTURE), PICTURE])),
    v.description("A `data:` URL or base64; `images` is another word for it."),
  ),
  images: v.nullish(v.array(PICTURE)),
  mask: v.nullish(PICTURE),
  strength: v.pipe(
    v.nullish(v.pipe(v.number(), v.minValue(0.01), v.maxValue(1))),
    v.description("How much of the picture is drawn anew."),
  ),
});

export type ImageRequest = v.InferOutput<typeof ImageGenerationRequest>;

/** @throws invalid_request for a size that no engine draws */
export function requireSize({ size }: Pick<ImageRequest, "size">): void {
  const sides =
    /^(\d+)x(\d+)$/
      .exec(size ?? "")
      ?.slice(1)
      .map(Number) ?? [];
  if (sides.every(isSide)) return;
  throw new AppError("invalid_request", `cannot read the request: \`size\` ${SIZE_RULE}`, {
    details: { param: "size" },
  });
}

/** @throws as `readInferenceBody`, and invalid_request (a form or a picture that cannot be read) */
export async function readEdit(
  request: Request,
  bodies: BodyBudget,
): Promise<HeldBody<ImageRequest>> {
  using held = new DisposableStack();
  const room = held.use(bodies.open());
  const bytes = await readBody(request, { maxBytes: bodies.maxBodyBytes, take: room.take });
  const type = request.headers.get("content-type") ?? "";
  const isForm = /^multipart\/form-data\b/i.test(type);
  const sent = isForm ? await readForm(bytes, type) : readJson(bytes);
  const { image, images, mask, ...rest } = parseValue(ImageEditRequest, sent);
  const pictures = [image ?? [], images ?? []].flat().map((one) => toBase64(one, "image"));
  requirePictures(pictures.length);
  const value = {
    ...rest,
    images: pictures,
    ...(mask === undefined || mask === null ? {} : { mask: toBase64(mask, "mask") }),
  };
  const kept = held.move();
  return { value, bytes, keep: () => kept.move(), [Symbol.dispose]: () => kept.dispose() };
}

// --- internal ---

function isSide(pixels: number): boolean {
  return pixels >= SIDES.least && pixels <= SIDES.most && pixels % SIDES.step === 0;
}

function readJson(bytes: Uint8Array): unknown {
  if (bytes.byteLength === 0) throw unreadable("the body is empty, it must be JSON or a form");
  checkJsonShape(bytes);
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (isRecord(value)) return value;
  } catch (cause) {
    throw unreadable(`the body is not JSON (${(cause as Error).message.slice(0, 200)})`);
  }
  throw unreadable("the body must be a JSON object");
}

/** Forms have no types: these fields are no text. */
const NUMBERS: ReadonlySet<string> = new Set(
  `n output_compression num_inference_steps guidance_scale seed partial_images strength context_size num_ctx`.split(
    " ",
  ),
);
const FLAGS: ReadonlySet<string> = new Set(["stream"]);
const PICTURES: ReadonlySet<string> = new Set(["image", "images", "mask"]);

async function readForm(
  bytes: Uint8Array<ArrayBuffer>,
  type: string,
): Promise<Readonly<Record<string, unknown>>> {
  const form = await parseForm(bytes, type);
  const fields: Record<string, unknown> = {};
  const images: string[] = [];
  let seen = 0;
  for (const [key, value] of form) {
    seen += 1;
    if (seen > MAX_FORM_FIELDS)
      throw unreadable(`the form has more than ${MAX_FORM_FIELDS} fields`);
    const name = key.replace(/\[\d*\]$/, "");
    if (!PICTURES.has(name)) fields[name] = toField(name, await textOf(value));
    else if (name === "mask") fields["mask"] = await pictureOf(value);
    else images.push(await pictureOf(value));
  }
  return { ...fields, images };
}

async function parseForm(bytes: Uint8Array<ArrayBuffer>, type: string) {
  try {
    return await new Response(bytes, { headers: { "content-type": type } }).formData();
  } catch {
    throw unreadable("the form cannot be read: it is cut short, or its boundary is another one");
  }
}

function textOf(value: string | Blob): string | Promise<string> {
  return typeof value === "string" ? value : value.text();
}

async function pictureOf(value: string | Blob): Promise<string> {
  return typeof value === "string"
    ? value
    : Buffer.from(await value.arrayBuffer()).toString("base64");
}

function toField(name: string, text: string): unknown {
  if (text === "" && name !== "prompt" && name !== "model") return null;
  if (NUMBERS.has(name)) return /^-?\d+(?:\.\d+)?$/.test(text.trim()) ? Number(text) : text;
  if (FLAGS.has(name) && /^(?:true|false)$/i.test(text)) return text.toLowerCase() === "true";
  return text;
}

function toBase64(
  picture: string | { readonly image_url?: string | undefined },
  param: string,
): string {
  const text = typeof picture === "string" ? picture : picture.image_url;
  if (text === undefined || text === "") {
    throw unreadable(`\`${param}\` is no picture: files are not kept here`, param);
  }
  if (/^https?:/i.test(text)) {
    throw unreadable(`\`${param}\` is an address, and nothing is fetched`, param);
  }
  const data = /^data:[^,]{0,100};base64,/i.exec(text);
  return data === null ? text : text.slice(data[0].length);
}

function requirePictures(found: number): void {
  if (found === 0) throw unreadable("`image` is required", "image");
  if (found > MAX_PICTURES) throw unreadable(`\`image\` has more than ${MAX_PICTURES}`, "image");
}

function unreadable(reason: string, param?: string): AppError {
  return new AppError("invalid_request", `cannot read the request: ${reason}`, {
    hint: "Send pictures as files of a form, or in base64.",
    ...(param === undefined ? {} : { details: { param } }),
  });
}
