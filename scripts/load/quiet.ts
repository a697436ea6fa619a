/**
 * What a runner does that does nothing: `bun scripts/load/quiet.ts [SECONDS]`.
 *
 * One worker is loaded and idle. Every system call of the runner is recorded by strace until the worker's deadline: each
 * moment at which anything wakes is counted, with the thread that did. The worker must be gone at its deadline, a second
 * more or less. Exit 1 if the main thread wakes more than once a minute, or the worker leaves at another time.
 */
import { readFileSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureCompiled } from "../compile/freshness.ts";
import { startServe } from "../bench/serve.ts";
import { ask } from "./client.ts";
import { enginePids } from "./processes.ts";

const SECONDS = 180;
/** What the answer left to be done, the collector above all. */
const SETTLING_MS = 10_000;
/** Before the deadline: unloading is work. */
const MARGIN_MS = 3000;
/** Calls this close together are one awakening. Seconds. */
const ONE_MOMENT = 0.5;

const seconds = Number(process.argv[2] ?? SECONDS);
await ensureCompiled();
await using runner = await startServe({ env: { TUG_KEEP_ALIVE: `${seconds}s` } });
await runner.tug(["install-runner"]);
const answer = await ask(runner.url, { model: "pebble", tokens: 4 });
if (answer.status !== 200) throw new Error(answer.text);
const idleSinceMs = performance.now();
await Bun.sleep(SETTLING_MS);
const traceFile = join(tmpdir(), `tug-quiet-${process.pid}.trace`);
const strace = Bun.spawn(["strace", "-f", "-ttt", "-p", String(runner.pid), "-o", traceFile], {
  stdio: ["ignore", "ignore", "ignore"],
});
await Bun.sleep(seconds * 1000 - SETTLING_MS - MARGIN_MS);
strace.kill("SIGINT");
await strace.exited;
while (enginePids(runner.pid).length > 0) await Bun.sleep(20);
const goneAfter = (performance.now() - idleSinceMs) / 1000;

const moments = new Map<string, number[]>();
for (const line of (await readFile(traceFile, "utf8")).split("\n")) {
  const [, thread, time] = /^(\d+)\s+([\d.]+) /.exec(line) ?? [];
  // What was waiting when strace came, and what is waiting when it goes, is no awakening.
  if (thread === undefined || /restart_syscall|<unfinished|<detached/.test(line)) continue;
  const times = moments.get(thread) ?? [];
  if (Number(time) - (times.at(-1) ?? 0) > ONE_MOMENT) times.push(Number(time));
  moments.set(thread, times);
}
const minutes = (seconds * 1000 - SETTLING_MS - MARGIN_MS) / 60_000;
for (const [thread, times] of moments) {
  console.log(
    `quiet: thread ${nameOf(thread)} woke ${times.length} times in ${minutes.toFixed(1)} minutes`,
  );
}
const main = moments.get(String(runner.pid))?.length ?? 0;
console.log(
  `quiet: the main thread woke ${main} times; the worker was gone after ${goneAfter.toFixed(2)} s of ${seconds} s`,
);
await rm(traceFile, { force: true });
process.exitCode = main <= Math.floor(minutes) && Math.abs(goneAfter - seconds) <= 1 ? 0 : 1;

function nameOf(thread: string): string {
  try {
    return `${thread} (${readFileSync(`/proc/${runner.pid}/task/${thread}/comm`, "utf8").trim()})`;
  } catch {
    return thread;
  }
}
