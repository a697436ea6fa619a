/** Which certificate authorities are trusted. */
import { X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { getCACertificates } from "node:tls";
import { AppError, errnoOf } from "../errors.ts";

/** The bundles of operating systems have 0.3 MiB. */
const MAX_BUNDLE_BYTES = 16 * 1024 * 1024;

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const BUNDLE_HINT = "Set TUG_CA_BUNDLE to a PEM file with the certificate of the authority.";

/**
 * Reads a PEM file with certificate authorities.
 *
 * @returns PEM text of those and of the ones trusted anyway, because a list given to a connection replaces the default
 * @throws usage (missing, unreadable, or without a valid certificate)
 */
export async function readAuthorities(path: string): Promise<string> {
  const text = await readBundle(path);
  const own = text.match(PEM_CERTIFICATE) ?? [];
  if (own.length === 0) throw unusable(path, "it has no PEM certificate");
  for (const [index, pem] of own.entries()) {
    try {
      void new X509Certificate(pem);
    } catch (cause) {
      throw unusable(path, `its certificate ${index + 1} is damaged`, cause);
    }
  }
  return [...getCACertificates("default"), ...own].join("\n");
}

// --- internal ---

async function readBundle(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > MAX_BUNDLE_BYTES)
      throw unusable(path, `it is larger than ${MAX_BUNDLE_BYTES} bytes`);
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof AppError) throw error;
    const code = errnoOf(error);
    const reason =
      code === "ENOENT" ? "there is no such file" : `it cannot be read (${code ?? "unknown"})`;
    throw unusable(path, reason, error);
  }
}

function unusable(path: string, reason: string, cause?: unknown): AppError {
  return new AppError("usage", `cannot use CA bundle \`${path}\`: ${reason}`, {
    hint: BUNDLE_HINT,
    cause,
  });
}
