/**
 * What a runner does that does nothing: `bun scripts/load/quiet.ts [SECONDS]`.
 *
 * One worker is loaded and idle. Every system call of the runner is recorded by strace until the worker's deadline: each
 * moment at which anything wakes is counted, with the thread that did and what it did first. The worker must be gone at its
 * deadline, a second more or less. Exit 1 if the main thread wakes at all, or the worker leaves at another time.
 *
 * Only the main thread runs what is ours, timers included. The others belong to Bun: its allocator (`mi-scavenger`, which
 * gives memory back each 30 s) and JavaScriptCore's collector and compiler, which end themselves some seconds after work.
 */
import { readdirSync, readFileSync } from "node:fs";
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
/** A worker that is still there by then never leaves. */
const LATE_MS = 10_000;
/** Calls this close together are one awakening. Seconds. */
const ONE_MOMENT = 0.5;
/** Names of system calls that are shown of one moment. */
const SHOWN = 8;

const seconds = Number(process.argv[2] ?? SECONDS);
await ensureCompiled();
await using runner = await startServe({ env: { TUG_KEEP_ALIVE: `${seconds}s` } });
await runner.tug(["install-runner"]);
const answer = await ask(runner.url, { model: "pebble", tokens: 4 });
if (answer.status !== 200) throw new Error(answer.text);
const idleSinceMs = performance.now();
await Bun.sleep(SETTLING_MS);
// Now, for most are gone when the trace is read.
const names = new Map(listThreads(runner.pid).map((thread) => [thread, nameOf(thread)]));
const traceFile = join(tmpdir(), `tug-quiet-${process.pid}.trace`);
const strace = Bun.spawn(["strace", "-f", "-ttt", "-p", String(runner.pid), "-o", traceFile], {
  stdio: ["ignore", "ignore", "ignore"],
});
await Bun.sleep(seconds * 1000 - SETTLING_MS - MARGIN_MS);
strace.kill("SIGINT");
await strace.exited;
const limitMs = idleSinceMs + seconds * 1000 + LATE_MS;
while (enginePids(runner.pid).length > 0 && performance.now() < limitMs) await Bun.sleep(20);
const goneAfter = (performance.now() - idleSinceMs) / 1000;

interface Moment {
  at: number;
  readonly calls: string[];
}

const moments = new Map<string, Moment[]>();
let isWatched = false;
for (const line of (await readFile(traceFile, "utf8")).split("\n")) {
  const [, thread, time, call = ""] = /^(\d+)\s+([\d.]+) (.*)$/.exec(line) ?? [];
  isWatched ||= thread === String(runner.pid);
  // What was waiting when strace came, and what is waiting when it goes, is no awakening.
  if (thread === undefined || /restart_syscall|<unfinished|<detached/.test(line)) continue;
  const own = moments.get(thread) ?? [];
  const last = own.at(-1);
  const name = /(?:<\.\.\. )?(\w+)/.exec(call)?.[1] ?? "";
  if (last !== undefined && Number(time) - last.at <= ONE_MOMENT) {
    last.at = Number(time);
    last.calls.push(name);
  } else {
    own.push({ at: Number(time), calls: [name] });
  }
  moments.set(thread, own);
}
const minutes = (seconds * 1000 - SETTLING_MS - MARGIN_MS) / 60_000;
for (const [thread, own] of moments) {
  const name = names.get(thread) ?? "a thread that began later";
  console.log(`quiet: ${name} woke ${own.length} times in ${minutes.toFixed(1)} minutes`);
  for (const { calls } of own) console.log(`  ${[...new Set(calls)].slice(0, SHOWN).join(" ")}`);
}
const main = moments.get(String(runner.pid))?.length ?? 0;
console.log(
  `quiet: the main thread woke ${main} times; the worker was gone after ${goneAfter.toFixed(2)} s of ${seconds} s`,
);
await rm(traceFile, { force: true });
if (!isWatched) console.error("quiet: strace saw nothing of the runner, so nothing is proved");
process.exitCode = isWatched && main === 0 && Math.abs(goneAfter - seconds) <= 1 ? 0 : 1;

function listThreads(pid: number): readonly string[] {
  return readdirSync(`/proc/${pid}/task`);
}

function nameOf(thread: string): string {
  try {
    return readFileSync(`/proc/${runner.pid}/task/${thread}/comm`, "utf8").trim();
  } catch {
    return "a thread that has gone";
  }
}
