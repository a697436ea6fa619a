/** A certificate and its key: do they fit, and is it time for them? */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { addressBytes, isAddress } from "./names.ts";

/** What the listener needs. PEM texts. */
export interface TlsFiles {
  /** The certificate, followed by those of its chain. */
  readonly cert: string;
  readonly key: string;
  /** File of the authority that clients have to trust; null if the certificate came from elsewhere. */
  readonly authority: string | null;
}

/** @returns what is wrong, for the end of a sentence; null if nothing is */
export function checkPair(
  { cert, key }: { readonly cert: string; readonly key: string },
  now: Date,
): string | null {
  const certificate = parseCertificate(cert);
  if (certificate === undefined) return "the certificate is not PEM, or damaged";
  const privateKey = parseKey(key);
  if (typeof privateKey === "string") return privateKey;
  if (!certificate.checkPrivateKey(privateKey)) return "the key is not the certificate's";
  const [from, to] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
  if (now.getTime() > to) return `the certificate expired on ${isoDay(to)}`;
  // The epoch stands for whoever does not care.
  if (now.getTime() !== 0 && now.getTime() < from) {
    return `the certificate is not valid before ${isoDay(from)}`;
  }
  return null;
}

/** Whether the certificate is for all of these. */
export function coversNames(certificate: X509Certificate, names: readonly string[]): boolean {
  const own = new Set((certificate.subjectAltName ?? "").split(", ").map(canonicalName));
  return names.every((name) => own.has(canonicalName(`${isAddress(name) ? "IP" : "DNS"}:${name}`)));
}

// --- internal ---

function parseCertificate(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

function parseKey(pem: string): KeyObject | string {
  if (pem.includes("ENCRYPTED")) return "the key is protected by a password";
  try {
    return createPrivateKey(pem);
  } catch {
    return "the key is not PEM, or damaged";
  }
}

function isoDay(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}

/** `DNS:name`, `IP Address:address` as X509Certificate prints them, addresses by their bytes. */
function canonicalName(entry: string): string {
  const [, kind, value = ""] = /^(DNS|IP)[^:]*:(.*)$/.exec(entry) ?? [];
  if (kind !== "IP") return `DNS:${value.toLowerCase()}`;
  return isAddress(value) ? `IP:${addressBytes(value).join(".")}` : entry;
}
