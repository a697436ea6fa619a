import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { certificates } from "./certificates.ts";
import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";
import { tempDir } from "./temp-dir.ts";

export const dockerRegistry = Bun.which("docker-registry");
export const htpasswd = Bun.which("htpasswd");

export interface DockerRegistryOptions {
  /** Only this user may do anything. */
  readonly user?: { readonly name: string; readonly password: string };
  /** HTTPS with a certificate of the tests' own authority. */
  readonly tls?: boolean;
}

/** The registry that everybody runs (`distribution`), with an empty storage of its own. */
export interface DockerRegistry extends AsyncDisposable {
  /** `localhost:PORT`, as in references. */
  readonly host: string;
  readonly port: number;
  readonly url: string;
  /** Bytes of the blobs that it stores. */
  storedBlobs(): Promise<number>;
}

const START_TIMEOUT_MS = 20_000;

export async function startDockerRegistry(
  options: DockerRegistryOptions = {},
): Promise<DockerRegistry> {
  const directory = await tempDir();
  const port = await freePort();
  const config = join(directory.path, "config.yml");
  await writeFile(
    config,
    Bun.YAML.stringify(await configure(directory.path, port, options), null, 2),
  );
  const child = Bun.spawn([dockerRegistry ?? "docker-registry", "serve", config], {
    env: { PATH: process.env["PATH"] ?? "" },
    stdout: "ignore",
    stderr: "ignore",
  });
  const dispose = async (): Promise<void> => {
    child.kill("SIGKILL");
    await child.exited;
    await directory[Symbol.asyncDispose]();
  };
  const url = `${options.tls === true ? "https" : "http"}://localhost:${port}`;
  try {
    await eventually(() => answers(url, child), START_TIMEOUT_MS);
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    host: `localhost:${port}`,
    port,
    url,
    storedBlobs: () => count(join(directory.path, "storage")),
    [Symbol.asyncDispose]: dispose,
  };
}

// --- internal ---

async function configure(
  directory: string,
  port: number,
  { user, tls = false }: DockerRegistryOptions,
): Promise<object> {
  return {
    version: 0.1,
    log: { level: "error", accesslog: { disabled: true } },
    storage: {
      filesystem: { rootdirectory: join(directory, "storage") },
      delete: { enabled: true },
      // Looks for abandoned uploads at random moments.
      maintenance: { uploadpurging: { enabled: false } },
    },
    http: { addr: `127.0.0.1:${port}`, ...(tls ? { tls: await tlsFiles() } : {}) },
    ...(user === undefined ? {} : { auth: { htpasswd: await passwordFile(directory, user) } }),
  };
}

async function tlsFiles(): Promise<object> {
  const { certFile, keyFile } = await certificates();
  return { certificate: certFile, key: keyFile };
}

async function passwordFile(
  directory: string,
  { name, password }: { name: string; password: string },
): Promise<object> {
  // The registry knows bcrypt only; the lowest cost, because it is paid on every request.
  const child = Bun.spawn([htpasswd ?? "htpasswd", "-niBC", "4", name], {
    stdin: new Blob([password]),
    stdout: "pipe",
    stderr: "ignore",
  });
  const line = await child.stdout.text();
  if ((await child.exited) !== 0) throw new Error("htpasswd failed");
  const path = join(directory, "htpasswd");
  await writeFile(path, line);
  return { realm: "Tug tests", path };
}

async function answers(url: string, child: Bun.Subprocess): Promise<boolean> {
  if (child.exitCode !== null) throw new Error(`docker-registry left with ${child.exitCode}`);
  // HTTPS_PROXY would be asked about this machine. Bun knows `false`, its types do not.
  const options: object = { tls: { rejectUnauthorized: false }, proxy: false };
  const response = await fetch(`${url}/v2/`, options);
  return response.status === 200 || response.status === 401;
}

async function count(storage: string): Promise<number> {
  const files = new Bun.Glob("docker/registry/v2/blobs/sha256/*/*/data").scan({ cwd: storage });
  let total = 0;
  for await (const file of files) total += Bun.file(join(storage, file)).size;
  return total;
}
