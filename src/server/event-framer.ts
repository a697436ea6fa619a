/**
 * Cuts a stream of Server-Sent Events at the ends of events, so that an error event can follow whatever was sent last:
 * there is no way to take back half an event.
 *
 * @see https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
 */

/** An event this long is passed on in pieces. Bytes. */
const MAX_HELD_BYTES = 1024 * 1024;

const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
const NOTHING = new Uint8Array();

export class EventFramer {
  #held: Uint8Array = NOTHING;

  /** @returns what may be sent now: up to the end of the last whole event; empty if there is none yet */
  push(chunk: Uint8Array): Uint8Array {
    // Engines write whole events: nearly every chunk leaves by this door, uncopied.
    if (this.#held.byteLength === 0 && endsEvent(chunk)) return chunk;
    const bytes = this.#held.byteLength === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const end = endOfLastEvent(bytes);
    const isTooLong = bytes.byteLength - end > MAX_HELD_BYTES;
    this.#held = isTooLong ? NOTHING : bytes.subarray(end);
    return isTooLong ? bytes : bytes.subarray(0, end);
  }

  /** What was held back, for a stream that ended by itself. */
  rest(): Uint8Array {
    const held = this.#held;
    this.#held = NOTHING;
    return held;
  }
}

// --- internal ---

function endsEvent(bytes: Uint8Array): boolean {
  const end = bytes.byteLength;
  if (bytes[end - 1] !== LINE_FEED) return false;
  const before = bytes[end - 2];
  return before === LINE_FEED || (before === CARRIAGE_RETURN && bytes[end - 3] === LINE_FEED);
}

/** Events end with an empty line; lines with LF, or CR LF. */
function endOfLastEvent(bytes: Uint8Array): number {
  let index = bytes.lastIndexOf(LINE_FEED);
  while (index > 0) {
    const before = bytes[index - 1] === CARRIAGE_RETURN ? index - 2 : index - 1;
    if (bytes[before] === LINE_FEED) return index + 1;
    index = bytes.lastIndexOf(LINE_FEED, index - 1);
  }
  return 0;
}
