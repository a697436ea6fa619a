/** A stream in memory that says it is a terminal, or not. */
import { Writable } from "node:stream";

export interface MemoryStream extends NodeJS.WriteStream {
  readonly text: string;
}

export function memoryStream(
  options: { isTTY?: boolean; columns?: number; rows?: number; failWith?: string } = {},
): MemoryStream {
  let text = "";
  const stream = new Writable({
    write(chunk: Uint8Array, _, done) {
      text += chunk.toString();
      const { failWith } = options;
      done(failWith === undefined ? null : Object.assign(new Error(failWith), { code: failWith }));
    },
  });
  const { isTTY = false, columns = 80, rows = 24 } = options;
  Object.assign(stream, { isTTY, columns, rows });
  return Object.defineProperty(stream, "text", { get: () => text }) as unknown as MemoryStream;
}
