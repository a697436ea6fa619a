/** Makes tar archives byte by byte, so that anything in them can be wrong. */

export interface MadeEntry {
  readonly name: string;
  /** `0` file, `1` hard link, `2` link, `5` directory, or anything else a header can say. */
  readonly type?: string;
  readonly content?: Uint8Array | string;
  readonly target?: string;
  readonly mode?: number;
}

const BLOCK = 512;

/** A ustar of the given entries. */
export function tar(entries: readonly MadeEntry[]): Buffer<ArrayBuffer> {
  const blocks = entries.flatMap((entry) => {
    const content = Buffer.from(entry.content ?? "");
    return [header(entry, content.length), content, Buffer.alloc(-content.length & (BLOCK - 1))];
  });
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)]);
}

/** One PAX record, its own length counted. */
export function paxRecord(key: string, value: string): string {
  const body = ` ${key}=${value}\n`;
  let length = Buffer.byteLength(body);
  while (length !== Buffer.byteLength(body) + String(length).length) length += 1;
  return `${length}${body}`;
}

// --- internal ---

function header(entry: MadeEntry, size: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(entry.name, 0, 100);
  block.write((entry.mode ?? 0o644).toString(8).padStart(7, "0"), 100);
  block.write(size.toString(8).padStart(11, "0"), 124);
  block.write(entry.type ?? "0", 156);
  block.write(entry.target ?? "", 157, 100);
  block.write("ustar\u000000", 257);
  block.fill(" ", 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}
