/** The parser of GGUF headers, over anything that gives bytes by position. */
import type { GGUFValueType } from "@huggingface/gguf";
import { AppError } from "../errors.ts";
import { invalidFile, truncatedHeader } from "./read-error.ts";

/** The parser asks for 2 MB at a time and looks ahead; past the end of the file it gets this much of nothing. Bytes. */
const LOOKAHEAD_BYTES = 4_000_000;
/** The parser takes an URL and a fetch function, or opens the file itself, at each read and without a way to stop it. */
const PARSER_URL = "http://gguf.invalid/";

/** A GGUF file that can be read by position. */
export interface GgufSource {
  /** For messages. */
  readonly name: string;
  readonly sizeBytes: number;
  /** The bytes from `start` to before `end`, which is never beyond the file's end. */
  read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
}

export type HeaderValue = string | number | bigint | boolean | readonly HeaderValue[];

/** As the parser gives it; arrays say what is in them. */
export interface TypedValue {
  readonly value: unknown;
  readonly type: GGUFValueType;
  readonly subType?: GGUFValueType;
}

export type ParsedGguf = Awaited<ReturnType<typeof parseGguf>>;

/** @throws invalid_model_file, and whatever reading throws */
export async function parseGguf(source: GgufSource, { signal }: { signal: AbortSignal }) {
  const library = await import("@huggingface/gguf");
  const { name, sizeBytes } = source;
  const read = Object.assign(
    async (_url: unknown, init?: RequestInit) => {
      signal.throwIfAborted();
      const range = new Headers(init?.headers).get("range") ?? "";
      const [start = 0, end = 0] = (range.match(/\d+/g) ?? []).map(Number);
      if (start > sizeBytes + LOOKAHEAD_BYTES) throw truncatedHeader(name);
      const stop = Math.min(end + 1, sizeBytes);
      return new Response(stop > start ? await source.read(start, stop) : new Uint8Array());
    },
    { preconnect: () => undefined },
  );
  try {
    const output = await library.gguf(PARSER_URL, { fetch: read, typedMetadata: true });
    return {
      ...output,
      fileTypes: library.GGMLFileQuantizationType,
      types: library.GGMLQuantizationType,
      valueTypes: library.GGUFValueType,
    };
  } catch (error) {
    if (error instanceof AppError || signal.aborted) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw invalidFile(name, `its header is damaged (${reason.slice(0, 200)})`, { cause: error });
  }
}
