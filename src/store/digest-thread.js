/**
 * What `ThreadDigester` runs in a thread of its own: hashes the pieces of an open file. Plain JavaScript, because a compiled
 * executable carries it as a file that is loaded as it is.
 *
 * Each message is a task with a `kind`; the answer is `{ value }` or `{ error: { message, code } }`, in the order of the
 * tasks.
 */
import { readSync } from "node:fs";
import { crc32 } from "node:zlib";

/** So often the state of the digest is remembered, so that a repair need not hash all over again. Bytes. */
const SNAPSHOT_BYTES = 64 * 1024 * 1024;

let hasher = new Bun.CryptoHasher("sha256");
let offset = 0;
let snapshots = [];
let buffer = new Uint8Array(0);

const TASKS = {
  /** Hashes what follows the digest's offset. The value is how many pieces were sound, up to the first that is not. */
  hash({ file, pieces }) {
    for (const [index, { start, end, crc }] of pieces.entries()) {
      const bytes = read(file, start, end - start);
      if (bytes.length !== end - start || crc32(bytes) !== crc) return index;
      update(bytes.subarray(offset - start));
    }
    return pieces.length;
  },
  /** Goes back to before an offset. The value is where it stands then. */
  rewind({ to }) {
    snapshots = snapshots.filter((snapshot) => snapshot.offset <= to);
    const last = snapshots.at(-1);
    hasher = last?.hasher.copy() ?? new Bun.CryptoHasher("sha256");
    offset = last?.offset ?? 0;
    return offset;
  },
  /** The value is the digest up to here, in hexadecimal. */
  digest() {
    return hasher.copy().digest("hex");
  },
};

globalThis.addEventListener("message", ({ data }) => {
  try {
    postMessage({ value: TASKS[data.kind](data) });
  } catch (error) {
    postMessage({ error: { message: error.message, code: error.code } });
  }
});

function update(bytes) {
  hasher.update(bytes);
  offset += bytes.length;
  if (offset - (snapshots.at(-1)?.offset ?? 0) >= SNAPSHOT_BYTES)
    snapshots.push({ offset, hasher: hasher.copy() });
}

function read(file, start, length) {
  if (buffer.length < length) buffer = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const count = readSync(file, buffer, done, length - done, start + done);
    if (count === 0) break;
    done += count;
  }
  return buffer.subarray(0, done);
}
