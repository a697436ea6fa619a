/** With which certificate the port speaks TLS, if it does: the user's files, or one that is made here. */
import { hostname as machineName, networkInterfaces } from "node:os";
import { readFile, stat } from "node:fs/promises";
import { AppError, errnoOf } from "../../errors.ts";
import { log } from "../../log.ts";
import { checkPair, type TlsFiles } from "./pair.ts";

export interface TlsSettings {
  /** Whether one is made here when no files are named. */
  readonly enabled: boolean;
  /** Paths of PEM files; empty: none. */
  readonly certFile: string;
  readonly keyFile: string;
  /** Where the one that is made here is kept. */
  readonly directory: string;
  /** What the listener is bound to. */
  readonly hostname: string;
  /** Other names of this machine, as `parseHosts` returns them. */
  readonly hosts: readonly string[];
}

/** A certificate with its chain has a few KiB. */
const MAX_FILE_BYTES = 1024 * 1024;
const WARN_BEFORE_MS = 30 * 86_400_000;

/**
 * @returns undefined if the port speaks plain HTTP
 * @throws usage (files that are not there, do not fit or have expired), forbidden, conflict (the made ones are unusable)
 */
export async function tlsCredentials(settings: TlsSettings): Promise<TlsFiles | undefined> {
  const { certFile, keyFile, enabled } = settings;
  if (certFile !== "" || keyFile !== "") return readGiven(certFile, keyFile);
  if (!enabled) return undefined;
  const { generatedCertificate } = await import("./generated.ts");
  return generatedCertificate({
    directory: settings.directory,
    machine: {
      hostname: machineName(),
      addresses: ownAddresses(),
      others: [settings.hostname, ...settings.hosts],
    },
    now: new Date(),
  });
}

// --- internal ---

async function readGiven(certFile: string, keyFile: string): Promise<TlsFiles> {
  if (certFile === "" || keyFile === "") {
    const [has, lacks] = certFile === "" ? ["key", "certificate"] : ["certificate", "key"];
    throw new AppError("usage", `cannot speak TLS: there is a ${has}, but no ${lacks}`, {
      hint: "Give both `--tls-cert FILE` and `--tls-key FILE`, or `--tls` for a certificate that is made here.",
    });
  }
  const [cert, key] = await Promise.all([readPem(certFile), readPem(keyFile)]);
  const now = new Date();
  const problem = checkPair({ cert, key }, now);
  if (problem !== null) {
    throw new AppError(
      "usage",
      `cannot speak TLS with \`${certFile}\` and \`${keyFile}\`: ${problem}`,
      {
        hint: "Give a certificate (with its chain) and its key, without a password, as PEM files.",
      },
    );
  }
  const { X509Certificate } = await import("node:crypto");
  const { validTo } = new X509Certificate(cert);
  if (Date.parse(validTo) - now.getTime() < WARN_BEFORE_MS) {
    log.warn(`tls: the certificate expires soon file=${certFile} until=${validTo}`);
  }
  return { cert, key, authority: null };
}

async function readPem(path: string): Promise<string> {
  try {
    const facts = await stat(path);
    if (facts.size > MAX_FILE_BYTES) throw unreadable(path, "it is too large for a PEM file");
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof AppError) throw error;
    const code = errnoOf(error);
    const reason =
      code === "ENOENT" ? "there is no such file" : `it cannot be read (${code ?? "unknown"})`;
    throw unreadable(path, reason, error);
  }
}

function unreadable(path: string, reason: string, cause?: unknown): AppError {
  return new AppError("usage", `cannot speak TLS with \`${path}\`: ${reason}`, {
    hint: "Give PEM files with `--tls-cert` and `--tls-key`, or TUG_TLS_CERT and TUG_TLS_KEY.",
    cause,
  });
}

/** Without link-local IPv6 ones, which mean something only together with an interface. */
function ownAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((entries) => entries ?? [])
    .map(({ address }) => address)
    .filter((address) => !/^fe[89ab]/i.test(address));
}
