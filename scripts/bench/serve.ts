/** A runner of its own for a benchmark: `tug serve` with a fresh `TUG_HOME` and a free port. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BINARY } from "../compile/freshness.ts";

export interface BenchRunner extends AsyncDisposable {
  readonly home: string;
  readonly pid: number;
  /** Base URL on TCP. */
  readonly url: string;
  /** Runs `tug` against it and returns stdout. @throws Error if it fails */
  tug(args: readonly string[]): Promise<string>;
}

const START_TIMEOUT_MS = 30_000;

/** @param options.home one that exists and is kept; else a new one, removed in the end */
export async function startServe(
  options: { readonly env?: Readonly<Record<string, string>>; readonly home?: string } = {},
): Promise<BenchRunner> {
  const home = options.home ?? (await mkdtemp(join(tmpdir(), "tug-bench-")));
  const env = { ...process.env, TUG_HOME: home, TUG_PORT: "0", ...options.env };
  const child = Bun.spawn([BINARY, "serve"], {
    env,
    stdio: ["ignore", "ignore", process.env["BENCH_LOG"] === undefined ? "ignore" : "inherit"],
  });
  const tug = async (args: readonly string[]): Promise<string> => {
    const command = Bun.spawn([BINARY, ...args], { env, stdio: ["ignore", "pipe", "inherit"] });
    const stdout = await command.stdout.text();
    const exitCode = await command.exited;
    if (exitCode !== 0) throw new Error(`\`tug ${args.join(" ")}\` left with ${exitCode}`);
    return stdout;
  };
  const dispose = async (): Promise<void> => {
    child.kill("SIGTERM");
    await child.exited;
    if (options.home === undefined) await rm(home, { recursive: true, force: true });
  };
  try {
    const url = await endpointOf(child, tug);
    return { home, pid: child.pid, url, tug, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

// --- internal ---

async function endpointOf(
  child: Bun.Subprocess,
  tug: (args: readonly string[]) => Promise<string>,
): Promise<string> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (performance.now() < deadline && child.exitCode === null) {
    // It leaves with 1 until the runner answers.
    const text = await tug(["status", "--json"]).catch(() => "");
    if (text !== "") {
      const { endpoint } = JSON.parse(text) as { endpoint: string | null };
      if (endpoint === null) throw new Error("`tug serve` has no endpoint");
      return endpoint;
    }
    await Bun.sleep(50);
  }
  throw new Error(`\`tug serve\` did not answer within ${START_TIMEOUT_MS / 1000} s`);
}
