/** Digests of the OCI image specification; SHA-256 is the only algorithm in use for models. */
import { AppError } from "../errors.ts";

declare const brand: unique symbol;

/** `sha256:` and 64 lower-case hexadecimal digits. */
export type Digest = `sha256:${string}` & { readonly [brand]: "Digest" };

/**
 * @throws invalid_reference
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests
 */
export function parseDigest(text: string): Digest {
  const digest = tryParseDigest(text);
  if (digest !== undefined) return digest;
  throw new AppError(
    "invalid_reference",
    `cannot read digest \`${text.slice(0, 200)}\`: ${fault(text)}`,
    {
      hint: "Give a digest as `sha256:` followed by 64 lower-case hexadecimal digits.",
    },
  );
}

export function tryParseDigest(text: string): Digest | undefined {
  return DIGEST.test(text) ? (text as Digest) : undefined;
}

export function digestOf(bytes: Uint8Array): Digest {
  return digestOfHex(new Bun.CryptoHasher("sha256").update(bytes).digest("hex"));
}

/** The digest of a finished SHA-256 in hexadecimal. */
export function digestOfHex(hex: string): Digest {
  return parseDigest(`sha256:${hex}`);
}

/** The 64 digits: a digest's name on disk. */
export function hexOf(digest: Digest): string {
  return digest.slice("sha256:".length);
}

// --- internal ---

const DIGEST = /^sha256:[0-9a-f]{64}$/;

function fault(text: string): string {
  const [algorithm, encoded] = text.split(":", 2);
  if (encoded === undefined) return "it names no algorithm";
  if (algorithm !== "sha256") return `\`${algorithm?.slice(0, 32)}\` is not a supported algorithm`;
  return encoded.length === 64
    ? "it has characters that are not lower-case hexadecimal"
    : "it has not 64 digits";
}
