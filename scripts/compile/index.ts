/**
 * Compiles Tug into one executable: `bun run compile [--all | --target NAME]`.
 *
 * Without an argument it makes `dist/tug` for this machine; `--target` and `--all` make `dist/tug-<target>`. Runtimes of
 * other targets come from the npm registry. Prints a line a file and writes `dist/SHA256SUMS`.
 */
import { chmod, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { fileName, findTarget, hostTarget, type Target, TARGETS } from "./targets.ts";
import { canRunHere, verifyFormat, verifyRun } from "./verify.ts";

const ROOT = join(import.meta.dir, "..", "..");
const DIST = join(ROOT, "dist");

export interface Job {
  readonly target: Target;
  /** Absolute path of the executable. */
  readonly output: string;
  /** Made for the machine that compiles: it must run. */
  readonly asHost: boolean;
}

export interface Built {
  readonly output: string;
  readonly sizeBytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
  /** Whether it was run, or why not. */
  readonly checked: string;
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

/** @throws Error if the host is none of the targets, or the name is unknown */
export function planJobs(
  options: { all: boolean; target: string | undefined },
  dist: string,
): Job[] {
  const job = (target: Target, asHost: boolean): Job => ({
    target,
    output: join(dist, fileName(target, { asHost })),
    asHost,
  });
  if (options.all) return TARGETS.map((target) => job(target, false));
  if (options.target !== undefined) {
    const target = findTarget(options.target);
    if (target !== undefined) return [job(target, false)];
    const names = TARGETS.map(({ name }) => name).join(", ");
    throw new Error(`unknown target \`${options.target}\`; there are ${names}`);
  }
  const { platform, arch } = process;
  const host = hostTarget({ platform, arch, musl: isMusl() });
  if (host === undefined) throw new Error(`there is no target for ${platform}-${arch}`);
  return [job(host, true)];
}

// --- internal ---

interface PackageFacts {
  readonly version: string;
  readonly engines: { readonly bun: string };
}

async function main(words: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...words],
    options: { all: { type: "boolean", default: false }, target: { type: "string" } },
  });
  const facts = (await Bun.file(join(ROOT, "package.json")).json()) as PackageFacts;
  if (Bun.version !== facts.engines.bun) {
    throw new Error(
      `this is Bun ${Bun.version}, and package.json asks for ${facts.engines.bun}: run \`npx -y bun@${facts.engines.bun} run compile\``,
    );
  }
  const jobs = planJobs({ all: values.all, target: values.target }, DIST);
  await mkdir(DIST, { recursive: true });
  for (const job of jobs) report(await build(job, facts.version));
  await recordSums(jobs);
}

/** Compiles beside the destination and moves the result into place only once it has been checked. */
async function build({ target, output, asHost }: Job, version: string): Promise<Built> {
  const staging = await mkdtemp(join(DIST, ".build-"));
  try {
    const staged = join(staging, basename(output));
    await runBunBuild(target, staged, version);
    const facts = await verifyFormat(staged, target);
    const wasRun = canRunHere(facts) && (await verifyRun(staged, version));
    if (!wasRun && asHost) throw new Error(`${basename(output)} does not load on this machine`);
    await chmod(staged, 0o755);
    await rename(staged, output);
    const { size } = await stat(output);
    const checked = wasRun ? "run" : `format only: ${target.name} cannot run on this machine`;
    return { output, sizeBytes: size, sha256: await sha256Of(output), checked };
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

async function runBunBuild(target: Target, outfile: string, version: string): Promise<void> {
  const child = Bun.spawn(
    [
      process.execPath,
      "build",
      "--compile",
      `--target=${target.bunTarget}`,
      "--production",
      // Lazy imports start fast only with splitting, and bytecode works only with ESM.
      "--bytecode",
      "--splitting",
      "--format=esm",
      "--sourcemap",
      // The .env and bunfig.toml of the directory a user happens to be in are not ours to run.
      "--no-compile-autoload-dotenv",
      "--no-compile-autoload-bunfig",
      "--define",
      `TUG_VERSION=${JSON.stringify(version)}`,
      `--outfile=${outfile}`,
      join(ROOT, "src", "main.ts"),
    ],
    { cwd: ROOT, stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  );
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) {
    throw new Error(`cannot compile for ${target.name}:\n${stdout}${stderr}`);
  }
  // Bun says so, leaves with 0, and the executable dies at its first line.
  if (/failed to generate bytecode/i.test(stdout + stderr)) {
    throw new Error(`no bytecode for ${target.name}:\n${stdout}${stderr}`);
  }
}

function report({ output, sizeBytes, sha256, checked }: Built): void {
  const size = `${(sizeBytes / 1e6).toFixed(1)} MB`;
  console.log(`${basename(output)}  ${size}  sha256:${sha256}  (${checked})`);
}

/** Writes `dist/SHA256SUMS`, in the form that `sha256sum -c` reads, of these files and those it named before. */
async function recordSums(jobs: readonly Job[]): Promise<void> {
  const file = join(DIST, "SHA256SUMS");
  const names = new Set(jobs.map(({ output }) => basename(output)));
  const before = await readFile(file, "utf8").catch(() => "");
  for (const line of before.split("\n")) {
    const name = line.slice(66);
    if (name !== "" && (await Bun.file(join(DIST, name)).exists())) names.add(name);
  }
  const lines: string[] = [];
  for (const name of [...names].toSorted()) {
    lines.push(`${await sha256Of(join(DIST, name))}  ${name}\n`);
  }
  await writeFile(file, lines.join(""));
}

async function sha256Of(path: string): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of Bun.file(path).stream()) hasher.update(chunk);
  return hasher.digest("hex");
}

/** glibc names its version in the report; musl does not. */
function isMusl(): boolean {
  if (process.platform !== "linux") return false;
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime === undefined;
}
