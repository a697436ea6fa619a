import { cp, mkdir, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ROOT } from "../../scripts/compile/freshness.ts";
import { cleanEnvironment } from "./run-cli.ts";
import { tempDir } from "./temp-dir.ts";

/** A podman with a storage of its own, which no other test and no user of this machine sees. */
export interface Podman extends AsyncDisposable {
  /** What programs need in their environment to use it. */
  readonly env: Readonly<Record<string, string>>;
  run(...args: string[]): Promise<PodmanResult>;
}

export interface PodmanResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Of a container that does nothing: whoever cannot run that cannot run ours. */
const TRIAL_MS = 60_000;
const RUNTIMES: readonly string[] = ["crun", "runc"];

/** Why there is none, for the names of what is skipped; undefined if there is one. */
export function podmanProblem(podman: Podman | undefined): string | undefined {
  if (podman !== undefined) return undefined;
  return Bun.which("podman") === null
    ? "podman is not installed"
    : "podman cannot run containers here";
}

/** @returns undefined without podman, or if no runtime that is here can run containers */
export async function openPodman(): Promise<Podman | undefined> {
  if (Bun.which("podman") === null) return undefined;
  for (const runtime of RUNTIMES.filter((one) => Bun.which(one, { PATH: PATHS }) !== null)) {
    const podman = await createPodman(runtime);
    if (await works(podman)) return podman;
    await podman[Symbol.asyncDispose]();
  }
  return undefined;
}

/** Builds images of `test/fakes/nim-server.ts` without a network: the compiled program and its libraries. */
export async function buildNimImages(
  podman: Podman,
  images: readonly { readonly name: string; readonly behaviour: string }[],
): Promise<void> {
  await using directory = await tempDir();
  const root = join(directory.path, "root");
  await copyServer(root);
  for (const { name, behaviour } of images) {
    const lines = ["FROM scratch", "COPY root /", `ENTRYPOINT ["/server", "${behaviour}"]`];
    await writeFile(join(directory.path, "Containerfile"), lines.join("\n"));
    const built = await podman.run("build", "--quiet", "--tag", name, directory.path);
    if (built.exitCode !== 0) throw new Error(`cannot build an image:\n${built.stderr}`);
  }
}

// --- internal ---

/** Debian's runc lies where only root looks. */
const PATHS = `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`;

async function createPodman(runtime: string): Promise<Podman> {
  const directory = await tempDir();
  const path = (name: string): string => join(directory.path, name);
  const [graph, run, files] = [path("graph"), path("run"), path("containers.conf")];
  const storage = `[storage]\ndriver = "vfs"\ngraphroot = "${graph}"\nrunroot = "${run}"\n`;
  await writeFile(path("storage.conf"), storage);
  // A container for tests needs few files, and not every machine may raise the limits that podman sets by default.
  const limits = `default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]`;
  const engine = `[engine]\nruntime = "${runtime}"\ntmp_dir = "${path("tmp")}"\n`;
  await writeFile(files, `[containers]\n${limits}\n${engine}`);
  const env = {
    CONTAINERS_STORAGE_CONF: path("storage.conf"),
    CONTAINERS_CONF: files,
    PATH: PATHS,
  };
  const podman = async (...args: string[]): Promise<PodmanResult> => {
    const child = Bun.spawn(["podman", ...args], {
      env: { ...cleanEnvironment(), ...env },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: TRIAL_MS,
      killSignal: "SIGKILL",
    });
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    return { exitCode: await child.exited, stdout, stderr };
  };
  return {
    env,
    run: podman,
    async [Symbol.asyncDispose]() {
      await podman("rm", "--all", "--force", "--time", "0");
      await podman("system", "reset", "--force");
      await directory[Symbol.asyncDispose]();
    },
  };
}

/** With a published port, as NIM has one. */
async function works(podman: Podman): Promise<boolean> {
  await using directory = await tempDir();
  const busybox = Bun.which("busybox");
  const root = join(directory.path, "root");
  await mkdir(root);
  if (busybox !== null) await cp(busybox, join(root, "true"));
  else await copyLibraries("/bin/true", root, "true");
  await writeFile(
    join(directory.path, "Containerfile"),
    `FROM scratch\nCOPY root /\nENTRYPOINT ["/true"]\n`,
  );
  const built = await podman.run("build", "--quiet", "--tag", "trial", directory.path);
  if (built.exitCode !== 0) return false;
  const ran = await podman.run("run", "--rm", "--publish=127.0.0.1::8000", "localhost/trial");
  return ran.exitCode === 0 || /applet not found/.test(ran.stderr);
}

async function copyServer(root: string): Promise<void> {
  await using directory = await tempDir();
  const program = join(directory.path, "server");
  const entry = join(ROOT, "test", "fakes", "nim-server.ts");
  const child = Bun.spawn([process.execPath, "build", "--compile", entry, "--outfile", program], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const stderr = await child.stderr.text();
  if ((await child.exited) !== 0) throw new Error(`cannot compile the server:\n${stderr}`);
  await mkdir(root, { recursive: true });
  await copyLibraries(program, root, "server");
  await mkdir(join(root, "tmp"));
}

async function copyLibraries(program: string, root: string, name: string): Promise<void> {
  await cp(program, join(root, name));
  const child = Bun.spawn(["ldd", program], { stdio: ["ignore", "pipe", "ignore"] });
  const text = await child.stdout.text();
  for (const [library] of text.matchAll(/\/\S+/g)) {
    await mkdir(join(root, dirname(library)), { recursive: true });
    await cp(library, join(root, library), { dereference: true });
  }
  if ((await readdir(root)).length === 0) throw new Error("nothing was copied");
}
