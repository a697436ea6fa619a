/** The extension that binds an authority to domains (RFC 5280 §4.2.1.10), in DER. Pure. */

const CONTEXT_DNS = 0x82;
const SEQUENCE = 0x30;
const PERMITTED_SUBTREES = 0xa0;

/**
 * Domains alone: the BoringSSL in Bun refuses certificates whose authority is bound to addresses.
 *
 * @param domains each stands for itself and all names below it
 * @returns the value of the extension
 */
export function nameConstraints(domains: readonly string[]): Uint8Array<ArrayBuffer> {
  const subtrees = domains.flatMap((domain) =>
    tlv(SEQUENCE, tlv(CONTEXT_DNS, [...Buffer.from(domain, "ascii")])),
  );
  return new Uint8Array(tlv(SEQUENCE, tlv(PERMITTED_SUBTREES, subtrees)));
}

// --- internal ---

function tlv(tag: number, value: readonly number[]): number[] {
  const { length } = value;
  if (length < 0x80) return [tag, length, ...value];
  if (length < 0x100) return [tag, 0x81, length, ...value];
  return [tag, 0x82, length >> 8, length & 0xff, ...value];
}
