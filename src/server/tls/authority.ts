/**
 * A certificate authority of one machine, and what it signs. The only importer of `@peculiar/x509`; to be imported
 * lazily, because it takes tens of milliseconds to load.
 *
 * The authority is bound to names that resolve nowhere in public (RFC 5280 §4.2.1.10): whoever steals its key cannot pass
 * for a site of the web with those who trust it.
 */
import type * as X509 from "@peculiar/x509";
import { installReflectMetadata } from "./reflect.ts";
import { nameConstraints } from "./name-constraints.ts";
import { type CertificateNames, isAddress } from "./names.ts";

/** PEM texts. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

const AUTHORITY_DAYS = 3650;
/** What browsers accept at most. @see https://cabforum.org/working-groups/server/baseline-requirements/ (§6.3.2, then 398) */
const CERTIFICATE_DAYS = 397;
const DAY_MS = 86_400_000;
/** For clients whose clock is behind. */
const BACKDATE_MS = 3_600_000;
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
/** Serial numbers are unique by chance; 16 bytes with the sign bit cleared. */
const SERIAL_BYTES = 16;

/**
 * @param hostname of this machine, shown by whoever lists authorities
 * @param options.domains it may sign for, with all names below them, besides addresses
 */
export async function createAuthority(
  hostname: string,
  { domains, now }: { readonly domains: readonly string[]; readonly now: Date },
): Promise<KeyPair> {
  const x509 = await loadLibrary();
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const constraints = nameConstraints(domains);
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomSerial(),
    name: subject(`Tug authority of ${hostname}`),
    notBefore: new Date(now.getTime() - BACKDATE_MS),
    notAfter: new Date(now.getTime() + AUTHORITY_DAYS * DAY_MS),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      new x509.Extension(NAME_CONSTRAINTS_OID, true, constraints),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: pemText(cert.toString("pem")), key: await exportKey(keys.privateKey) };
}

/** For 397 days, or as long as the authority lives. @returns the certificate followed by the authority's */
export async function signCertificate(
  authority: KeyPair,
  { names, now }: { readonly names: CertificateNames; readonly now: Date },
): Promise<KeyPair> {
  const x509 = await loadLibrary();
  const issuer = new x509.X509Certificate(authority.cert);
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const end = Math.min(now.getTime() + CERTIFICATE_DAYS * DAY_MS, issuer.notAfter.getTime());
  const cert = await x509.X509CertificateGenerator.create({
    serialNumber: randomSerial(),
    subject: subject(names[0] ?? "localhost"),
    issuer: issuer.subjectName,
    notBefore: new Date(now.getTime() - BACKDATE_MS),
    notAfter: new Date(end),
    signingAlgorithm: ALGORITHM,
    signingKey: await importKey(authority.key),
    publicKey: keys.publicKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({
          type: isAddress(value) ? ("ip" as const) : ("dns" as const),
          value,
        })),
      ),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return {
    cert: pemText(cert.toString("pem")) + pemText(authority.cert),
    key: await exportKey(keys.privateKey),
  };
}

// --- internal ---

const NAME_CONSTRAINTS_OID = "2.5.29.30";

async function loadLibrary(): Promise<typeof X509> {
  installReflectMetadata();
  return import("@peculiar/x509");
}

function subject(commonName: string): X509.JsonName {
  // X.520 gives a common name 64 characters.
  return [{ O: ["Tug"] }, { CN: [commonName.slice(0, 64)] }];
}

function randomSerial(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(SERIAL_BYTES));
  // Positive, and without a leading zero byte, which DER would leave out.
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return Buffer.from(bytes).toString("hex");
}

async function exportKey(key: CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey("pkcs8", key)).toString("base64");
  const lines = der.match(/.{1,64}/g) ?? [];
  return `-----BEGIN PRIVATE KEY-----\n${lines.join("\n")}\n-----END PRIVATE KEY-----\n`;
}

async function importKey(pem: string): Promise<CryptoKey> {
  const base64 = pem.replaceAll(/-----[A-Z ]+-----|\s/g, "");
  return crypto.subtle.importKey("pkcs8", Buffer.from(base64, "base64"), ALGORITHM, false, [
    "sign",
  ]);
}

function pemText(text: string): string {
  return `${text.trim()}\n`;
}
