import { afterAll, beforeAll } from "bun:test";
import { cp, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../../scripts/compile/freshness.ts";
import { acquireLock } from "../../src/lock.ts";
import { tugBinary } from "./binary.ts";
import { freePort } from "./free-port.ts";
import { killAll, processesNaming } from "./processes.ts";
import { type CliResult, type RunOptions, runCli } from "./run-cli.ts";
import { tempDir } from "./temp-dir.ts";

/** A `TUG_HOME` of its own with a free port: nothing of it touches another test or the user's own runner. */
export interface TugHome extends AsyncDisposable {
  readonly path: string;
  readonly port: number;
  /** Base URL of the API once a runner runs. */
  readonly url: string;
  readonly env: Readonly<Record<string, string>>;
  /** Runs the compiled binary in this home. */
  tug(args: readonly string[], options?: RunOptions): Promise<CliResult>;
}

/** The first test that needs an engine waits for its installation and the compilation before it. */
const SETUP_TIMEOUT_MS = 240_000;
/** Fetching an engine over a slow line; here it takes seconds. */
const INSTALL_TIMEOUT_MS = 180_000;
const STOP_TIMEOUT_MS = 20_000;

/**
 * @param options.engine with the engine in place, copied from one that is installed once for all tests
 * @returns a home whose disposal stops its runner, kills what is left of it and removes it
 */
export async function tugHome(
  options: { engine?: boolean; env?: Readonly<Record<string, string>> } = {},
): Promise<TugHome> {
  const directory = await tempDir();
  const { path } = directory;
  if (options.engine === true) await copyEngine(path);
  const port = await freePort();
  const env = {
    TUG_HOME: path,
    // The user's own registry credentials and caches are none of a test's business.
    HOME: join(path, "user"),
    TUG_PORT: String(port),
    // A test that is killed leaves no runner behind for half an hour.
    TUG_IDLE_EXIT: "60s",
    ...options.env,
  };
  const tug = (args: readonly string[], run: RunOptions = {}): Promise<CliResult> =>
    runCli(args, { ...run, env: { ...env, ...run.env } });
  return {
    path,
    port,
    url: `http://127.0.0.1:${port}`,
    env,
    tug,
    async [Symbol.asyncDispose]() {
      await tug(["stop-runner", "--force"], { timeoutMs: STOP_TIMEOUT_MS }).catch(() => undefined);
      await killAll(await processesNaming(path));
      await directory[Symbol.asyncDispose]();
    },
  };
}

/** One home with an engine for all tests of a `describe`; the function gives it once they run. */
export function sharedTugHome(): () => TugHome {
  let home: TugHome | undefined;
  beforeAll(async () => {
    home = await tugHome({ engine: true });
  }, SETUP_TIMEOUT_MS);
  afterAll(async () => {
    await home?.[Symbol.asyncDispose]();
  });
  return () => {
    if (home === undefined) throw new Error("the home is there once the tests run");
    return home;
  };
}

// --- internal ---

const SHARED_HOME = join(ROOT, "dist", "test-home");

/** Names the binary that installed it. */
const STAMP = "built-for";
/** Beside the home, which is removed and made anew under it. */
const SHARED_HOME_LOCK = `${SHARED_HOME}.lock`;

/** One process at a time: another one's older or newer binary would remove what is being copied. */
async function copyEngine(home: string): Promise<void> {
  await tugBinary();
  using _lock = await acquireLock(SHARED_HOME_LOCK, { waitMs: INSTALL_TIMEOUT_MS });
  await cp(await installOnce(), join(home, "backends"), { recursive: true });
}

/** Kept for the next run as long as the binary is the same: the installer itself has tests of its own. */
async function installOnce(): Promise<string> {
  const stamp = String(Bun.file(await tugBinary()).lastModified);
  const backends = join(SHARED_HOME, "backends");
  const builtFor = await readFile(join(SHARED_HOME, STAMP), "utf8").catch(() => "");
  if (builtFor === stamp) return backends;
  // The old one goes when the new one is there: an installation that fails takes nothing away.
  const fresh = `${SHARED_HOME}.new`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { recursive: true });
  const { exitCode, stderr } = await runCli(["install-runner"], {
    env: { TUG_HOME: fresh },
    timeoutMs: INSTALL_TIMEOUT_MS,
  });
  if (exitCode !== 0) throw new Error(`cannot install the engine for the tests:\n${stderr}`);
  await writeFile(join(fresh, STAMP), stamp);
  await rm(SHARED_HOME, { recursive: true, force: true });
  await rename(fresh, SHARED_HOME);
  return backends;
}
