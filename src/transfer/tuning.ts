/** The numbers of the transfer engine, each with its reason. Tests make them small. */
import { STALL_MS } from "../http/body.ts";
import { pause } from "../pause.ts";

const MIB = 1024 * 1024;

export interface TransferTuning {
  /** Without a byte for this long a connection is cut. Milliseconds. */
  readonly stallMs: number;
  /** Smaller blobs use one connection: they are over before a second one has said hello. */
  readonly largeBytes: number;
  /** Faster than this, bytes a second, one connection is enough: it fills a gigabit line, and nearly the processor. */
  readonly fastBytesPerSecond: number;
  /** So often the speed is looked at. Milliseconds. */
  readonly sampleMs: number;
  /** Connections of one blob. */
  readonly connectionsPerBlob: number;
  /** What a connection asks for at once, at most: long, because each request costs a round trip; not longer, because what
   *  is far from the beginning must be read from disk again to be hashed. */
  readonly longestSpanBytes: number;
  /** And at least, near the end. */
  readonly shortestSpanBytes: number;
  /** A source that refuses more connections, or is no faster with them, is not tried again for this long. Milliseconds. */
  readonly coolDownMs: number;
  /** Between two looks at a blob that another process fetches. Milliseconds. */
  readonly pollMs: number;
  /** A repair fetches so many bytes again at a time. */
  readonly repairBytes: number;
  /** Blobs of this size and more are hashed in a thread of their own. */
  readonly threadedBytes: number;
  /** For the pauses between attempts. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
}

export const TUNING: TransferTuning = {
  stallMs: STALL_MS,
  largeBytes: 8 * MIB,
  fastBytesPerSecond: 100 * MIB,
  sampleMs: 150,
  connectionsPerBlob: 8,
  longestSpanBytes: 64 * MIB,
  shortestSpanBytes: 4 * MIB,
  coolDownMs: 10_000,
  pollMs: 200,
  repairBytes: 64 * MIB,
  threadedBytes: 64 * MIB,
  wait: pause,
};
