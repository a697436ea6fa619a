/**
 * A JSON body for the record: media in it cut short, all of it bounded. Works on the bytes, because what is to be cut may
 * be hundreds of megabytes that nobody wants parsed. Pure.
 */

/** What stays of a picture: enough to see what it was. Characters; Docker Model Runner keeps as many. */
const KEPT_OF_MEDIA = 100;
/** A shorter string without any space may be a word, a digest or a key. Characters. */
const MIN_MEDIA = 512;
/** What is looked at to tell base64 from text. Characters. */
const SAMPLE = 256;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

export interface CutText {
  readonly text: string;
  /** Strings that were cut short. */
  readonly mediaCut: number;
  /** Longer than `maxBytes` even so: the end is missing. */
  readonly isCut: boolean;
}

/** @param maxBytes of the text, but for the note that follows what is cut */
export function cutMedia(bytes: Uint8Array, maxBytes: number): CutText {
  const kept: Uint8Array[] = [];
  let size = 0;
  let copied = 0;
  let mediaCut = 0;
  const keep = (end: number): void => {
    kept.push(bytes.subarray(copied, end));
    size += end - copied;
    copied = end;
  };
  for (const { start, end } of longStrings(bytes)) {
    // What comes now is cut off anyway.
    if (size + start - copied > maxBytes) break;
    if (!isMedia(bytes.subarray(start, end))) continue;
    keep(start + KEPT_OF_MEDIA);
    kept.push(Buffer.from(note(end - copied, "chars")));
    copied = end;
    mediaCut += 1;
  }
  // Beyond the bound nothing is needed, and the rest may be long.
  keep(Math.min(bytes.byteLength, copied + maxBytes + 1));
  const left = bytes.byteLength - copied;
  return { ...boundText(Buffer.concat(kept), maxBytes, left), mediaCut };
}

/** UTF-8, cut between two characters. @param left bytes that follow and are not given */
export function boundText(
  bytes: Uint8Array,
  maxBytes: number,
  left = 0,
): { readonly text: string; readonly isCut: boolean } {
  if (bytes.byteLength + left <= maxBytes) return { text: decode(bytes), isCut: false };
  let end = Math.min(bytes.byteLength, maxBytes);
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  const rest = note(bytes.byteLength + left - end, "bytes");
  return { text: decode(bytes.subarray(0, end)) + rest, isCut: true };
}

// --- internal ---

/** Strings of a JSON text that could be media, without their quotes. */
function* longStrings(bytes: Uint8Array): Iterable<{ start: number; end: number }> {
  let open = bytes.indexOf(QUOTE);
  while (open >= 0) {
    const start = open + 1;
    const end = endOfString(bytes, start);
    if (end < 0) return;
    if (end - start > MIN_MEDIA) yield { start, end };
    open = bytes.indexOf(QUOTE, end + 1);
  }
}

/** Index of the quote that ends it; -1 if none does. */
function endOfString(bytes: Uint8Array, start: number): number {
  let end = bytes.indexOf(QUOTE, start);
  while (end >= 0) {
    let before = end;
    while (before > start && bytes[before - 1] === BACKSLASH) before -= 1;
    if ((end - before) % 2 === 0) return end;
    end = bytes.indexOf(QUOTE, end + 1);
  }
  return -1;
}

/** A `data:` URL, or base64 alone (RFC 4648, both alphabets; JSON may escape the slash). */
function isMedia(content: Uint8Array): boolean {
  const head = Buffer.from(content.subarray(0, SAMPLE)).toString("latin1");
  if (/^data:[^,]*;base64,/i.test(head)) return true;
  const tail = Buffer.from(content.subarray(-SAMPLE)).toString("latin1");
  return /^[\w+/=\\-]+$/.test(head) && /^[\w+/=\\-]+$/.test(tail);
}

function note(count: number, what: string): string {
  return `...[truncated ${count} ${what}]`;
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
