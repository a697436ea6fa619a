/**
 * Kills whatever installs, changes or removes engines at random moments: `bun scripts/crash-install.ts [N] [PATH …]`.
 *
 * N kills a path, spread over what it takes. Most are of the compiled executable: `llama.cpp` (Debian's packages), `mlx`
 * and `onnx` (the package index of Python), `path` (a program on PATH), `python` (an environment of the user's own),
 * `use`, `rollback`, `uninstall`. `github` and `oci` are the same installer in a process of its own, with places on this
 * machine that stand for theirs.
 *
 * After each kill the engines can be listed, each that is listed is whole, one that is in use answers, and what was
 * started goes too; the next attempt is not disturbed. In the end it is installed, answers, and no debris is left. Exit 1
 * otherwise.
 */
import { randomInt } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isUsable } from "../src/runtime/installer/layout.ts";
import { tugBinary } from "../test/helpers/binary.ts";
import { eventually } from "../test/helpers/eventually.ts";
import { killAll, processesNaming } from "../test/helpers/processes.ts";
import { cleanEnvironment } from "../test/helpers/run-cli.ts";
import {
  debrisOf,
  ENGINE as STAND_IN_ENGINE,
  STAND_INS,
  startSource,
  type StandIn,
} from "../test/runtime/installer/killed-install.ts";
import {
  type CrashPath,
  describeEngine,
  modelFor,
  mustTug,
  PATHS,
  QUESTION,
  tug,
} from "./crash-install-paths.ts";

const KILLS = 20;
/** What was started may need a moment to notice that it is alone. */
const GONE_MS = 5000;
/** Before it no program has done anything. */
const FIRST_MS = 10;
const INSTALL_MS = 60_000;
/** Libraries of 4 MiB that come with an engine from a place that stands for a source. */
const LIBRARIES = 8;

const kills = Number(process.argv[2] ?? KILLS);
const names =
  process.argv.length > 3 ? process.argv.slice(3) : [...Object.keys(PATHS), ...STAND_INS];
const binary = await tugBinary();
let failed = 0;
for (const name of names) {
  const failures = await inHome((home) => crash(name, home));
  for (const failure of failures) console.error(`crash-install: ${name}: ${failure}`);
  failed += failures.length;
}
process.exitCode = failed === 0 ? 0 : 1;

// --- internal ---

function crash(name: string, home: string): Promise<string[]> {
  const standIn = STAND_INS.find((one) => one === name);
  if (standIn !== undefined) return crashStandIn(standIn, home);
  const path = PATHS[name];
  if (path === undefined) throw new Error(`there is no path ${name}`);
  return crashTug(name, home, path);
}

async function crashTug(
  name: string,
  home: string,
  prepare: (home: string) => Promise<CrashPath>,
): Promise<string[]> {
  const path = await prepare(home);
  const model = await modelFor(path.engine, home);
  const tries = { path, home, model };
  const wholeMs = await measure(path, home);
  const problems: string[] = [];
  let left = 0;
  for (let count = 0; count < kills; count += 1) {
    await path.reset?.(home);
    await killAfter([binary, ...path.argv(count)], { wholeMs, home, env: path.env });
    const { isThere, found } = await lookAfter(tries);
    if (isThere) left += 1;
    problems.push(...found);
  }
  await mustTug(path.finish, home, path.env);
  const last = await lookAfter(tries);
  if (!last.isThere) problems.push("it is not installed in the end");
  problems.push(...last.found, ...(await debris(path.engine, home)));
  tell({ name, wholeMs, left, problems });
  return problems;
}

interface Tries {
  readonly path: CrashPath;
  readonly home: string;
  readonly model: string;
}

/** What a kill has left: the engine, if there is one, answers. */
async function lookAfter({
  path,
  home,
  model,
}: Tries): Promise<{ readonly isThere: boolean; readonly found: string[] }> {
  const found = await strays(home);
  const { installed, problem, state } = await describeEngine(path.engine, home);
  const active = installed.filter((one) => one.active);
  if (active.length > 1) found.push("several versions are in use");
  if (state === "unavailable") found.push(`it cannot be had: ${problem}`);
  if (path.keepsEngine === true && active.length === 0) found.push("no version is in use");
  if (active.length > 0) found.push(...(await tryOut({ path, home, model })));
  return { isThere: active.length > 0, found };
}

async function tryOut({ path, home, model }: Tries): Promise<string[]> {
  const { exitCode, stdout, stderr } = await tug(["run", model, QUESTION], home, path.env);
  await tug(["stop-runner", "--force"], home);
  const isRight = exitCode === 0 && stdout.includes("Paris");
  return isRight ? [] : [`it answers: ${stdout}${stderr}`];
}

/** What was started goes with the one that was killed. */
async function strays(home: string): Promise<string[]> {
  const gone = async (): Promise<boolean> => (await processesNaming(home)).length === 0;
  return eventually(gone, GONE_MS).then(
    () => [],
    async () => {
      const left = await processesNaming(home);
      await killAll(left);
      return left.map(({ argv }) => `\`${argv.join(" ").slice(0, 200)}\` still runs`);
    },
  );
}

/** Staged directories, records that were being written, downloads. */
async function debris(engine: string, home: string): Promise<string[]> {
  const cache = join(home, "cache");
  const [caches, downloads] = await Promise.all([
    namesIn(cache),
    namesIn(join(cache, "downloads")),
  ]);
  const staged = caches.filter((name) => name.startsWith("."));
  const all = [...(await debrisOf(home, engine)), ...staged, ...downloads];
  return all.map((name) => `${name} is left`);
}

async function crashStandIn(name: StandIn, root: string): Promise<string[]> {
  await using source = await startSource(name, LIBRARIES);
  const argv = source.argv(root);
  const installer = source.installer(root);
  const remove = () => installer.uninstall({ backend: STAND_IN_ENGINE });
  const startMs = performance.now();
  await Bun.spawn([...argv], { stdio: ["ignore", "ignore", "ignore"] }).exited;
  const wholeMs = performance.now() - startMs;
  const problems: string[] = [];
  let left = 0;
  for (let count = 0; count < kills; count += 1) {
    await remove();
    await killAfter(argv, { wholeMs, home: root });
    problems.push(...(await strays(root)));
    for (const one of await installer.list()) {
      if (one.active) left += 1;
      if (!(await isUsable(one))) problems.push(`${one.directory} is no engine`);
    }
  }
  const signal = AbortSignal.timeout(INSTALL_MS);
  await installer.ensure(STAND_IN_ENGINE, { signal, onProgress: () => undefined });
  problems.push(...(await debris(STAND_IN_ENGINE, root)));
  tell({ name, wholeMs, left, problems });
  return problems;
}

/** What it takes if nobody disturbs it. Milliseconds. */
async function measure(path: CrashPath, home: string): Promise<number> {
  await path.reset?.(home);
  const startMs = performance.now();
  await mustTug(path.argv(1), home, path.env);
  return performance.now() - startMs;
}

async function killAfter(
  argv: readonly string[],
  {
    wholeMs,
    home,
    env,
  }: {
    readonly wholeMs: number;
    readonly home: string;
    readonly env?: Readonly<Record<string, string>> | undefined;
  },
): Promise<void> {
  const child = Bun.spawn([...argv], {
    env: { ...cleanEnvironment(), TUG_HOME: home, ...env },
    stdio: ["ignore", "ignore", "ignore"],
  });
  const timer = setTimeout(
    () => child.kill("SIGKILL"),
    randomInt(FIRST_MS, Math.max(FIRST_MS + 1, Math.round(wholeMs))),
  );
  await child.exited;
  clearTimeout(timer);
}

async function inHome<T>(work: (home: string) => Promise<T>): Promise<T> {
  const home = await mkdtemp(join(tmpdir(), "tug-crash-install-"));
  try {
    return await work(home);
  } finally {
    await tug(["stop-runner", "--force"], home);
    await killAll(await processesNaming(home));
    await rm(home, { recursive: true, force: true });
  }
}

async function namesIn(directory: string): Promise<string[]> {
  return readdir(directory).catch(() => []);
}

function tell({
  name,
  wholeMs,
  left,
  problems,
}: {
  readonly name: string;
  readonly wholeMs: number;
  readonly left: number;
  readonly problems: readonly string[];
}): void {
  const seconds = (wholeMs / 1000).toFixed(1);
  console.log(
    `crash-install: ${name}: ${kills} kills within ${seconds} s each, ${left} left an engine in use, ${problems.length} failures`,
  );
}
