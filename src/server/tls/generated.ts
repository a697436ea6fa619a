/**
 * The certificate of a runner that brings none: an authority of this machine's own, which its user trusts once, and a
 * certificate that it signs, renewed at start. The authority stays: who trusts it goes on doing so.
 */
import { X509Certificate } from "node:crypto";
import { chmodSync, mkdirSync, statSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { AppError, errnoOf } from "../../errors.ts";
import { log } from "../../log.ts";
import { PRIVATE_DOMAINS } from "./domains.ts";
import { certificateNames, isName, type MachineNames } from "./names.ts";
import { checkPair, coversNames, type TlsFiles } from "./pair.ts";
import { writePrivate } from "./write-private.ts";

/** With less than this left, the next start renews. */
const RENEW_BEFORE_MS = 30 * 86_400_000;

const AUTHORITY = { cert: "ca.crt", key: "ca.key", domains: "ca.domains" } as const;
const CERTIFICATE = { cert: "server.crt", key: "server.key" } as const;

export interface GeneratedOptions {
  /** Private (0700); made if it is not there. */
  readonly directory: string;
  readonly machine: MachineNames;
  readonly now: Date;
}

/** @throws forbidden (others can read the directory), conflict (the authority's files are damaged) */
export async function generatedCertificate(options: GeneratedOptions): Promise<TlsFiles> {
  const { directory, machine, now } = options;
  ensurePrivate(directory);
  const authority = await readAuthority(options);
  const { names, leftOut } = certificateNames(machine, authority.domains);
  if (leftOut.length > 0) {
    log.warn(
      `tls: left out of the certificate, because the authority may not sign for them names=${leftOut.join(",")}`,
    );
  }
  const caFile = join(directory, AUTHORITY.cert);
  const found = await readPair(directory, CERTIFICATE);
  if (found !== undefined && isGood(found, { authority: authority.cert, names, now })) {
    return { ...found, authority: caFile };
  }
  const { signCertificate } = await import("./authority.ts");
  const made = await signCertificate(authority, { names, now });
  // The key first: a crash in between leaves a pair that does not match, which the next start replaces.
  await writePrivate(join(directory, CERTIFICATE.key), made.key);
  await writePrivate(join(directory, CERTIFICATE.cert), made.cert);
  log.info(`tls: made a certificate names=${names.join(",")}`);
  return { ...made, authority: caFile };
}

// --- internal ---

interface Authority {
  readonly cert: string;
  readonly key: string;
  readonly domains: readonly string[];
}

async function readAuthority({ directory, machine, now }: GeneratedOptions): Promise<Authority> {
  const found = await readPair(directory, AUTHORITY);
  if (found === undefined) return createAuthority({ directory, machine, now });
  const problem = checkPair(found, new Date(0)) ?? (isAuthority(found.cert) ? null : "it is none");
  if (problem !== null) {
    throw new AppError("conflict", `cannot use the authority in \`${directory}\`: ${problem}`, {
      hint: "Remove the directory for a new one, which clients then have to trust.",
    });
  }
  if (validUntil(found.cert) - now.getTime() < RENEW_BEFORE_MS) {
    log.warn("tls: the authority was about to expire; clients have to trust the new one");
    return createAuthority({ directory, machine, now });
  }
  const text = await readOrUndefined(join(directory, AUTHORITY.domains));
  return { ...found, domains: text?.split("\n").filter(isName) ?? PRIVATE_DOMAINS };
}

async function createAuthority({ directory, machine, now }: GeneratedOptions): Promise<Authority> {
  const authority = await import("./authority.ts");
  const own = machine.hostname.toLowerCase();
  const domains = isName(own) ? [...new Set([...PRIVATE_DOMAINS, own])] : PRIVATE_DOMAINS;
  const made = await authority.createAuthority(machine.hostname, { domains, now });
  // The certificate last: without it the rest is as good as not there.
  await rm(join(directory, AUTHORITY.cert), { force: true });
  await writePrivate(join(directory, AUTHORITY.domains), `${domains.join("\n")}\n`);
  await writePrivate(join(directory, AUTHORITY.key), made.key);
  await writePrivate(join(directory, AUTHORITY.cert), made.cert);
  return { ...made, domains };
}

function isGood(
  pair: { readonly cert: string; readonly key: string },
  wanted: { readonly authority: string; readonly names: readonly string[]; readonly now: Date },
): boolean {
  if (checkPair(pair, wanted.now) !== null) return false;
  const certificate = new X509Certificate(pair.cert);
  if (!certificate.verify(new X509Certificate(wanted.authority).publicKey)) return false;
  if (validUntil(pair.cert) - wanted.now.getTime() < RENEW_BEFORE_MS) return false;
  return coversNames(certificate, wanted.names);
}

function isAuthority(cert: string): boolean {
  return new X509Certificate(cert).ca;
}

function validUntil(cert: string): number {
  return Date.parse(new X509Certificate(cert).validTo);
}

/** @returns undefined if the certificate is not there; an absent key is an empty one */
async function readPair(
  directory: string,
  names: { readonly cert: string; readonly key: string },
): Promise<{ cert: string; key: string } | undefined> {
  const cert = await readOrUndefined(join(directory, names.cert));
  if (cert === undefined) return undefined;
  return { cert, key: (await readOrUndefined(join(directory, names.key))) ?? "" };
}

async function readOrUndefined(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw new AppError("conflict", `cannot read \`${path}\`: ${errnoOf(error) ?? "unknown"}`, {
      hint: "Make it readable, or remove its directory for a new authority.",
      cause: error,
    });
  }
}

function ensurePrivate(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (process.getuid === undefined) return;
  const { uid, mode } = statSync(directory);
  if (uid !== process.getuid()) {
    throw new AppError("forbidden", `cannot use \`${directory}\`: it belongs to another user`, {
      hint: "Set TUG_HOME to a directory of your own.",
    });
  }
  if ((mode & 0o077) !== 0) chmodSync(directory, 0o700);
}
