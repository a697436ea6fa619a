/** Images as Ollama takes them, base64 without a word on what they are, as data URIs. Pure. */
import { AppError } from "../../../errors.ts";
import type { ChatPart } from "../chat.ts";

/** One pass, however long the text is. */
const NOT_BASE64 = /[^A-Za-z0-9+/=\s]/;

/** What the beginnings of files are in base64. */
const TYPES: readonly { readonly start: RegExp; readonly type: string }[] = [
  { start: /^\/9j\//, type: "image/jpeg" },
  { start: /^iVBORw0KGgo/, type: "image/png" },
  { start: /^R0lGOD/, type: "image/gif" },
  // `RIFF`, four bytes of length, `WEBP`.
  { start: /^UklGR.{6}XRUJQ/, type: "image/webp" },
  { start: /^Qk[0-3]/, type: "image/bmp" },
];
/** Characters that tell the type. */
const HEAD_LENGTH = 64;

/**
 * @param where names the field, such as `messages[0].images`
 * @throws invalid_request
 */
export function toImageParts(
  images: readonly string[] | null | undefined,
  where: string,
): ChatPart[] {
  return (images ?? []).map((image, index) => ({
    type: "image_url",
    image_url: { url: toDataUri(image, `${where}[${index}]`) },
  }));
}

// --- internal ---

function toDataUri(image: string, where: string): string {
  if (image.startsWith("data:image/")) return image;
  if (NOT_BASE64.test(image)) throw invalid(where, "must be base64");
  // Encoders that break lines are common; engines stop reading at the first break.
  const data = /\s/.test(image) ? image.replaceAll(/\s+/g, "") : image;
  const head = data.slice(0, HEAD_LENGTH);
  const found = TYPES.find(({ start }) => start.test(head));
  if (found === undefined) throw invalid(where, "must be a PNG, JPEG, GIF, WebP or BMP image");
  return `data:${found.type};base64,${data}`;
}

function invalid(where: string, reason: string): AppError {
  return new AppError("invalid_request", `cannot read the request: \`${where}\` ${reason}`);
}
