/**
 * Files and images named in a message.
 *
 * `@name`, `@"a name"` and `@'a name'` are replaced by the text of the file; an image by that name is attached. An
 * image is also attached if its path stands in the message: in quotes, or beginning with `/`, `./`, `../`, `~/` or a
 * drive. Names that are no file stay as typed. What a file contains is never searched for further names.
 */
import { open, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, isAbsolute, join, resolve } from "node:path";
import type { ContentPart } from "../api/chat.ts";
import { AppError } from "../errors.ts";

/** Bytes of one text file: about 250 000 tokens, more than most contexts hold. */
export const TEXT_FILE_LIMIT = 1024 * 1024;
/** Bytes of one image, as Docker Model Runner has it. */
const IMAGE_LIMIT = 100 * 1000 * 1000;
/** Bytes of all attachments of one message: as base64 they must fit into a request of 512 MB. */
const ATTACHMENTS_LIMIT = 300 * 1000 * 1000;
/** Places where a name may begin; the rest of a longer message stays as typed. */
const CANDIDATE_LIMIT = 1000;
/** Characters of a name, as PATH_MAX of Linux has it. */
const PATH_LIMIT = 4096;
/** Ends tried for one unquoted name, each of which costs a look at the disk. */
const END_LIMIT = 8;

export interface AttachmentOptions {
  /** What relative names are relative to; default: the working directory. */
  readonly directory?: string;
  /** What `~` stands for; default: the home directory. */
  readonly home?: string;
  readonly signal?: AbortSignal;
  /** Include only what is marked with `@`, not every path of an image that is mentioned. Default false. */
  readonly isMarkedOnly?: boolean;
}

export interface ExpandedMessage {
  /** Plain text, or with images: all of them, then the text unless it is empty. */
  readonly content: string | readonly ContentPart[];
  /** Names of what was included, in order. */
  readonly files: readonly string[];
}

/** A name that may begin at a place of a message, and where it may end. */
export interface Candidate {
  readonly kind: "file" | "image";
  /** Offset of its first character, the `@` or quote included. */
  readonly start: number;
  /** Best first. `end` is the offset behind it, `path` the name without quotes and escapes. */
  readonly ends: readonly { readonly end: number; readonly path: string }[];
}

/** Every place where a name may begin, in order. Pure; whether it is a file is for `expandMessage` to see. */
export function findCandidates(message: string): Candidate[] {
  const candidates: Candidate[] = [];
  for (const match of message.matchAll(START)) {
    if (candidates.length === CANDIDATE_LIMIT) break;
    const start = match.index + (match[1]?.length ?? 0);
    const candidate = readCandidate(message, start);
    if (candidate !== undefined && candidate.ends.length > 0) candidates.push(candidate);
  }
  return candidates;
}

/**
 * @throws request_too_large (a file over its limit) · invalid_request (binary, or not the image its name says) ·
 *         not_found (a file that exists and cannot be read) · cancelled
 */
export async function expandMessage(
  message: string,
  options: AttachmentOptions = {},
): Promise<ExpandedMessage> {
  const images: ContentPart[] = [];
  const files: string[] = [];
  let text = "";
  let copied = 0;
  let bytes = 0;
  for (const candidate of findCandidates(message)) {
    options.signal?.throwIfAborted();
    if (candidate.start < copied) continue;
    if (options.isMarkedOnly === true && message[candidate.start] !== "@") continue;
    const found = await findFile(candidate, options);
    if (found === undefined) continue;
    bytes += found.sizeBytes;
    if (bytes > ATTACHMENTS_LIMIT)
      throw tooLarge(found.path, "all files together", ATTACHMENTS_LIMIT);
    text += message.slice(copied, candidate.start);
    copied = found.end;
    files.push(found.path);
    const isImage = hasImageName(found.path);
    if (isImage) images.push(await readImage(found));
    else text += await readText(found);
  }
  text += message.slice(copied);
  if (images.length === 0) return { content: text, files };
  const rest = text.trim();
  return {
    content: [...images, ...(rest === "" ? [] : [{ type: "text", text: rest } as const])],
    files,
  };
}

/** The media type that the first bytes of an image show, or undefined. */
export function sniffImage(bytes: Uint8Array): string | undefined {
  const head = Buffer.from(bytes.subarray(0, 12)).toString("latin1");
  if (head.startsWith("\u00FF\u00D8\u00FF")) return "image/jpeg";
  if (head.startsWith("\u0089PNG\r\n\u001A\n")) return "image/png";
  if (head.startsWith("RIFF") && head.slice(8, 12) === "WEBP") return "image/webp";
  if (head.startsWith("GIF87a") || head.startsWith("GIF89a")) return "image/gif";
  return undefined;
}

// --- internal ---

/** A name begins at the start or after white space or an opening bracket, so that `me@host` is none. */
const START = /(^|[\s([{<,;:])(?=@|["'`]|\.{0,2}[/\\]|~[/\\]|[A-Za-z]:[/\\])/g;
const IMAGE_NAME = /\.(?:jpe?g|png|webp|gif)$/i;
/** Where an unquoted path of an image may end. */
const IMAGE_END = /\.(?:jpe?g|png|webp|gif)(?![\w-])/gi;
const TRAILING_PUNCTUATION = /[.,;:!?)\]}>'"`…]$/;
/** What a shell escapes in a name that is dropped on a terminal. A backslash before anything else is a separator. */
const ESCAPED = /\\([ ()[\]{}'"`$&;<>|*?#~!\\])/g;

interface FoundFile {
  readonly path: string;
  readonly absolute: string;
  readonly end: number;
  readonly sizeBytes: number;
}

function readCandidate(message: string, start: number): Candidate | undefined {
  const isReference = message[start] === "@";
  const begin = isReference ? start + 1 : start;
  const quote = message[begin] ?? "";
  if (`"'\``.includes(quote) && quote !== "") {
    const path = readQuoted(message, begin);
    if (path === undefined || (!isReference && !IMAGE_NAME.test(path))) return undefined;
    const end = begin + path.length + 2;
    return { kind: isReference ? "file" : "image", start, ends: [{ end, path }] };
  }
  return isReference
    ? { kind: "file", start, ends: referenceEnds(message, begin) }
    : { kind: "image", start, ends: imageEnds(message, start) };
}

function readQuoted(message: string, begin: number): string | undefined {
  const rest = message.slice(begin + 1, begin + 1 + PATH_LIMIT);
  const path = rest.slice(0, Math.max(0, rest.indexOf(message.charAt(begin))));
  return path === "" || path.includes("\n") ? undefined : path;
}

/** The run of characters up to white space, then the same with less and less punctuation at its end. */
function referenceEnds(message: string, begin: number): Candidate["ends"] {
  const rest = message.slice(begin, begin + PATH_LIMIT);
  const run = /^(?:\\[ ()[\]{}'"`$&;<>|*?#~!\\]|[^\s"'`])+/.exec(rest)?.[0] ?? "";
  const ends: { end: number; path: string }[] = [];
  for (let text = run; text !== "" && ends.length < END_LIMIT; text = text.slice(0, -1)) {
    ends.push({ end: begin + text.length, path: unescape(text) });
    if (!TRAILING_PUNCTUATION.test(text)) break;
  }
  return ends;
}

/** Spaces are allowed in the path of an image, so every extension on the line may be its end; the first is likeliest. */
function imageEnds(message: string, start: number): Candidate["ends"] {
  const line = /^[^\n"'`]*/.exec(message.slice(start, start + PATH_LIMIT))?.[0] ?? "";
  return [...line.matchAll(IMAGE_END)].slice(0, END_LIMIT).map((match) => {
    const length = match.index + match[0].length;
    return { end: start + length, path: unescape(line.slice(0, length)) };
  });
}

function unescape(text: string): string {
  return text.replaceAll(ESCAPED, "$1");
}

function hasImageName(path: string): boolean {
  return IMAGE_NAME.test(path);
}

async function findFile(
  candidate: Candidate,
  options: AttachmentOptions,
): Promise<FoundFile | undefined> {
  for (const { end, path } of candidate.ends) {
    const absolute = toAbsolute(path, options);
    try {
      const facts = await stat(absolute);
      // A pipe or a device would never end, and a directory is no text.
      if (facts.isFile()) return { path, absolute, end, sizeBytes: facts.size };
    } catch {
      // No file of this name: it may be shorter, or no name at all.
    }
  }
  return undefined;
}

function toAbsolute(path: string, options: AttachmentOptions): string {
  const { directory = process.cwd(), home = homedir() } = options;
  if (/^~[/\\]/.test(path)) return join(home, path.slice(2));
  return isAbsolute(path) ? path : resolve(directory, path);
}

async function readText(file: FoundFile): Promise<string> {
  const bytes = await readBounded(file, TEXT_FILE_LIMIT);
  try {
    if (bytes.includes(0)) throw new TypeError("a zero byte");
    // The byte order mark, if any, is taken off.
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new AppError("invalid_request", `cannot include \`${file.path}\`: it is not text`, {
      hint: "Include text in UTF-8 only, or take the `@` away.",
      cause,
    });
  }
}

async function readImage(file: FoundFile): Promise<ContentPart> {
  const bytes = await readBounded(file, IMAGE_LIMIT);
  const type = sniffImage(bytes);
  if (type === undefined) {
    throw new AppError("invalid_request", `cannot attach \`${file.path}\`: it is not an image`, {
      hint: "Attach a JPEG, PNG, WebP or GIF file.",
    });
  }
  const url = `data:${type};base64,${Buffer.from(bytes).toString("base64")}`;
  return { type: "image_url", image_url: { url } };
}

/** Reads at most one byte more than `limit`, even if the file grows meanwhile. */
async function readBounded(file: FoundFile, limit: number): Promise<Uint8Array> {
  if (file.sizeBytes > limit) throw tooLarge(file.path, basename(file.path), limit);
  let bytes: Uint8Array;
  try {
    await using handle = await open(file.absolute, "r");
    const buffer = new Uint8Array(Math.min(limit, file.sizeBytes) + 1);
    let length = 0;
    for (;;) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length, length);
      length += bytesRead;
      if (bytesRead === 0 || length === buffer.length) break;
    }
    bytes = buffer.subarray(0, Math.min(length, file.sizeBytes));
  } catch (cause) {
    throw new AppError("not_found", `cannot read \`${file.path}\`: ${(cause as Error).message}`, {
      hint: "Check that you may read the file.",
      cause,
    });
  }
  return bytes;
}

function tooLarge(path: string, what: string, limit: number): AppError {
  const size = limit === TEXT_FILE_LIMIT ? "1 MiB" : `${limit / 1_000_000} MB`;
  return new AppError("request_too_large", `cannot include \`${path}\`: ${what} is over ${size}`, {
    hint: "Include a smaller file, or a part of it.",
    details: { limit_bytes: limit },
  });
}
