import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir } from "./temp-dir.ts";

export const strace = Bun.which("strace");

export interface Traced {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  /** `connect` calls to other than unix sockets, as strace writes them. */
  readonly connects: readonly string[];
}

/** Long enough for a runner that has to start and to stop under a tracer. */
const TIMEOUT_MS = 60_000;

/** Runs a command and everything that it starts under strace, until the last of them has ended. */
export async function traceConnects(
  words: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Traced> {
  await using directory = await tempDir();
  const log = join(directory.path, "trace");
  const options = ["-f", "-qq", "--seccomp-bpf", "-e", "trace=connect", "-e", "signal=none"];
  const child = Bun.spawn([strace ?? "strace", ...options, "-o", log, ...words], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  const exitCode = await child.exited;
  const calls = (await readFile(log, "utf8")).split("\n").filter((line) => /connect\(/.test(line));
  // A socket that sends datagrams can be connected, and no packet leaves: it counts all the same.
  const connects = calls.filter((line) => !line.includes("AF_UNIX"));
  return { exitCode, stdout, stderr, connects };
}
