import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A certificate for `127.0.0.1` and `localhost`, and the authority that signed it, which nobody trusts. */
export interface Certificates {
  /** PEM file of the authority: what `TUG_CA_BUNDLE` is given. */
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
  /** PEM texts of the certificate and its key. */
  readonly cert: string;
  readonly key: string;
}

export const openssl = Bun.which("openssl");

let made: Promise<Certificates> | undefined;

/** Made by openssl, once a process. They are removed when it exits. */
export function certificates(): Promise<Certificates> {
  made ??= make();
  return made;
}

// --- internal ---

async function make(): Promise<Certificates> {
  const directory = await mkdtemp(join(tmpdir(), "tug-test-ca-"));
  process.once("exit", () => void Bun.spawnSync(["rm", "-rf", directory]));
  try {
    return await makeIn(directory);
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

async function makeIn(directory: string): Promise<Certificates> {
  const file = (name: string): string => join(directory, name);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await run(
    "req",
    "-x509",
    ...key,
    "-days",
    "2",
    "-subj",
    "/CN=Tug test authority",
    "-keyout",
    file("ca.key"),
    "-out",
    file("ca.pem"),
  );
  await run(
    "req",
    ...key,
    "-subj",
    "/CN=localhost",
    "-keyout",
    file("server.key"),
    "-out",
    file("server.csr"),
  );
  await writeFile(file("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  await run(
    "x509",
    "-req",
    "-in",
    file("server.csr"),
    "-CA",
    file("ca.pem"),
    "-CAkey",
    file("ca.key"),
    "-CAcreateserial",
    "-days",
    "2",
    "-extfile",
    file("names"),
    "-out",
    file("server.pem"),
  );
  return {
    caFile: file("ca.pem"),
    certFile: file("server.pem"),
    keyFile: file("server.key"),
    cert: await readFile(file("server.pem"), "utf8"),
    key: await readFile(file("server.key"), "utf8"),
  };
}

async function run(...args: readonly string[]): Promise<void> {
  const child = Bun.spawn([openssl ?? "openssl", ...args], { stdout: "ignore", stderr: "pipe" });
  const stderr = await child.stderr.text();
  if ((await child.exited) !== 0) throw new Error(`openssl ${args[0]} failed: ${stderr}`);
}
