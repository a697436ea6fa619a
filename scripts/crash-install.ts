/**
 * Kills `tug install-runner` of the compiled executable at random moments: `bun scripts/crash-install.ts [N] [ENGINE …]`.
 *
 * N kills an engine, spread over what an installation takes. After each one there is either no engine or a whole one that
 * works, nothing else is in the way, and the next attempt goes on. In the end it is installed, answers, and no debris is
 * left. Exit 1 otherwise. Needs the ways that the engines come by: Debian's packages, the package index of Python.
 */
import { randomInt } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tugBinary } from "../test/helpers/binary.ts";
import { SAFETENSORS } from "../test/helpers/pebble.ts";
import { killAll, processesNaming } from "../test/helpers/processes.ts";
import { cleanEnvironment, runCli } from "../test/helpers/run-cli.ts";

const KILLS = 20;
const TIMEOUT_MS = 300_000;
const QUESTION = "What is the capital of France?";
/** Each with a model that it runs. */
const ENGINES: Readonly<Record<string, readonly string[]>> = {
  "llama.cpp": [],
  mlx: ["package", "--safetensors-dir", SAFETENSORS, "crash/st"],
};

const kills = Number(process.argv[2] ?? KILLS);
const names = process.argv.length > 3 ? process.argv.slice(3) : Object.keys(ENGINES);
const binary = await tugBinary();
const failures: string[] = [];
for (const name of names) failures.push(...(await crash(name)));
for (const failure of failures) console.error(`crash-install: ${failure}`);
process.exitCode = failures.length === 0 ? 0 : 1;

// --- internal ---

async function crash(engine: string): Promise<string[]> {
  const home = await mkdtemp(join(tmpdir(), "tug-crash-install-"));
  const problems: string[] = [];
  try {
    const wholeMs = await measure(engine);
    let whole = 0;
    for (let count = 0; count < kills; count += 1) {
      await killedAfter(randomInt(10, Math.round(wholeMs)), engine, home);
      const isThere = await isInstalled(engine, home);
      if (!isThere) continue;
      whole += 1;
      problems.push(...(await tryOut(engine, home)));
      await tug(["uninstall-runner", "--backend", engine], home);
    }
    const { exitCode, stderr } = await tug(["install-runner", "--backend", engine], home);
    if (exitCode !== 0) problems.push(`${engine}: not installed in the end: ${stderr}`);
    problems.push(...(await tryOut(engine, home)), ...(await debris(engine, home)));
    console.log(
      `crash-install: ${engine}: ${kills} kills within ${(wholeMs / 1000).toFixed(1)} s each, ${whole} left a whole engine, ${problems.length} failures`,
    );
  } finally {
    await tug(["stop-runner", "--force"], home);
    await killAll(await processesNaming(home));
    await rm(home, { recursive: true, force: true });
  }
  return problems;
}

/** What an installation takes that nobody disturbs. Milliseconds. */
async function measure(engine: string): Promise<number> {
  const home = await mkdtemp(join(tmpdir(), "tug-crash-install-"));
  const startMs = performance.now();
  const { exitCode, stderr } = await tug(["install-runner", "--backend", engine], home);
  const tookMs = performance.now() - startMs;
  await rm(home, { recursive: true, force: true });
  if (exitCode !== 0) throw new Error(`${engine} cannot be installed here: ${stderr}`);
  return tookMs;
}

/** What it has started goes on for a while, as it does for a user. */
async function killedAfter(ms: number, engine: string, home: string): Promise<void> {
  const child = Bun.spawn([binary, "install-runner", "--backend", engine], {
    env: { ...cleanEnvironment(), TUG_HOME: home },
    stdio: ["ignore", "ignore", "ignore"],
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), ms);
  await child.exited;
  clearTimeout(timer);
}

async function isInstalled(engine: string, home: string): Promise<boolean> {
  const pointer = Bun.file(join(home, "backends", engine, "active.json"));
  return pointer.exists();
}

async function tryOut(engine: string, home: string): Promise<string[]> {
  const prepare = ENGINES[engine] ?? [];
  if (prepare.length > 0) await tug(prepare, home);
  const model = prepare.at(-1) ?? "pebble";
  const { exitCode, stdout, stderr } = await tug(["run", model, QUESTION], home);
  await tug(["stop-runner", "--force"], home);
  return exitCode === 0 && stdout.includes("Paris")
    ? []
    : [`${engine} answers: ${stdout}${stderr}`];
}

async function debris(engine: string, home: string): Promise<string[]> {
  const found = await readdir(join(home, "backends", engine));
  return found.filter((name) => name.startsWith(".")).map((name) => `${engine}: ${name} is left`);
}

function tug(args: readonly string[], home: string) {
  return runCli(args, { env: { TUG_HOME: home, TUG_PORT: "0" }, timeoutMs: TIMEOUT_MS });
}
