/**
 * Engines that die, hang and run out of memory under load: `bun scripts/load/chaos.ts [ROUNDS]`.
 *
 * In each round one engine is killed, stopped (SIGSTOP) or deprived of memory (`prlimit --as`) at a random moment. The
 * runner must live; requests to models whose engines were left alone must be answered; those to a hurt one must be
 * answered or get a JSON error with the reason; and in the end no lease, socket or process may be left. Exit 1 otherwise.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { startServe } from "../bench/serve.ts";
import { type Answer, ask, type Question, seeded } from "./client.ts";
import { loadHome } from "./models.ts";
import { descendants, enginePids, isRunning } from "./processes.ts";

const ROUNDS = 30;
const CLIENTS = 6;
const SHAPE = { embedding: 512, heads: 8, kvHeads: 4, feedForward: 1536, context: 4096 };
const SPECS = [1, 2, 3].map((seed) => ({ layers: 6, ...SHAPE, seed }));
const KINDS = ["kill", "stop", "memory"] as const;
/** Less than any allocation of a request needs, so that the next one fails. */
const STARVED_BYTES = 4096;
/** More than malloc ever keeps: it has to ask for it. */
const HUNGRY_BYTES = 40_000_000;
/** A moment without an engine that is well is no round: another one is waited for. */
const MOST_MISSES = 10;
/** Who is told to go needs a moment; what holds a sandbox goes just after its engine. */
const LEAVING_MS = 3000;
/** A stopped engine is found out when a request to it has been silent this long. */
const SILENCE = "3s";
/** What a client does after an error. */
const PAUSE_MS = 250;

/** One engine that something was done to. */
interface Hurt {
  readonly model: string;
  readonly pid: number;
  readonly kind: (typeof KINDS)[number];
  readonly atMs: number;
  /** The first whole answer of the model since its engine was gone. */
  healedMs: number;
}

const rounds = Number(process.argv[2] ?? ROUNDS);
await using home = await loadHome(SPECS);
await using runner = await startServe({ home: home.path, env: { TUG_SILENCE_TIMEOUT: SILENCE } });
const random = seeded(11);
const over = new AbortController();
const failures: string[] = [];
const hurts: Hurt[] = [];
/** Whole answers of models that were well, while another one was not. */
let untouched = 0;
let answered = 0;
/** Requests that got an error, by what it says. */
const reasons = new Map<string, number>();

const clients = Array.from({ length: CLIENTS }, async (_, client) => {
  const model = home.models[client % home.models.length] ?? "";
  for (let turn = 0; !over.signal.aborted; turn += 1) {
    const isServed = await put({ model, tokens: 32, isStream: turn % 2 === 0 });
    if (!isServed) await Bun.sleep(PAUSE_MS);
  }
});
const probes: Promise<boolean>[] = [];
let misses = 0;
for (let round = 0; round < rounds && misses < rounds * MOST_MISSES;) {
  await Bun.sleep(300 + random() * 1500);
  const kind = KINDS[round % KINDS.length] ?? "kill";
  const victim = await chooseVictim();
  if (victim === undefined || !hurt(victim.pid, kind)) {
    misses += 1;
    continue;
  }
  const { model, pid } = victim;
  hurts.push({ model, pid, kind, atMs: performance.now(), healedMs: Infinity });
  if (kind === "memory") probes.push(put({ model, tokens: 32, padding: HUNGRY_BYTES }));
  console.log(`round ${round}: ${kind} ${model} ${pid}`);
  round += 1;
  if (!isRunning(runner.pid)) {
    failures.push(`round ${round}: the runner died`);
    break;
  }
}
over.abort();
await Promise.all([...clients, ...probes]);

const starved = hurts.filter(({ kind }) => kind === "memory");
const alive = (): number => starved.filter(({ pid }) => isRunning(pid)).length;
await until(() => alive() === 0);
const ended = starved.length - alive();
if (ended < starved.length) {
  const pids = starved.filter(({ pid }) => isRunning(pid)).map(({ pid }) => pid);
  failures.push(`engines without memory are still there: ${pids.join(", ")}`);
}
const workers = JSON.parse(await home.tug(["ps", "--json"])) as { requests: number }[];
const leases = workers.reduce((sum, { requests }) => sum + requests, 0);
if (leases > 0) failures.push(`${leases} leases are left`);
if (hurts.length < rounds)
  failures.push(`only ${hurts.length} of ${rounds} rounds found an engine`);
if (untouched === 0) failures.push("no model was well while another one was not: nothing is shown");
await home.tug(["unload", "--all", "--wait"]);
const left = (): number => descendants(runner.pid).filter(isRunning).length;
await until(() => left() === 0);
if (left() > 0) failures.push(`${left()} processes are left`);
const sockets = (await readdir(join(home.path, "run"), { recursive: true })).filter(
  (name) => name.endsWith(".sock") && !name.startsWith("runner"),
);
if (sockets.length > 0) failures.push(`sockets are left: ${sockets.join(", ")}`);
for (const failure of failures) console.error(failure);
for (const [reason, count] of reasons) console.log(`chaos: ${count} × ${reason}`);
const refused = [...reasons.values()].reduce((sum, count) => sum + count, 0);
console.log(
  `chaos: ${hurts.length} rounds, ${answered} requests answered (${untouched} of them by models that were well while another was not), ${refused} to hurt models ended with a reason, ${ended} of ${starved.length} engines without memory ended, ${failures.length} failures`,
);
process.exitCode = failures.length === 0 ? 0 : 1;

async function until(isSo: () => boolean): Promise<void> {
  const limitMs = performance.now() + LEAVING_MS;
  while (!isSo() && performance.now() < limitMs) await Bun.sleep(20);
}

async function put(question: Question): Promise<boolean> {
  return judge(await ask(runner.url, { contextSize: 1024, ...question }), question);
}

/** An engine that is well, at random, and whose it is. */
async function chooseVictim(): Promise<{ model: string; pid: number } | undefined> {
  const rows = JSON.parse(await home.tug(["ps", "--json"])) as {
    model_name: string;
    pid: number | null;
  }[];
  const pids = enginePids(runner.pid).filter((it) => hurts.every((one) => one.pid !== it));
  const pid = pids[Math.floor(random() * pids.length)];
  const row = rows.find((it) => it.pid !== null && holds(it.pid, pid));
  const model = home.models.find((name) => row?.model_name.includes(name));
  return pid === undefined || model === undefined ? undefined : { model, pid };
}

/** Whether it is the process, or confines it. */
function holds(holder: number, pid: number | undefined): boolean {
  return pid !== undefined && (holder === pid || descendants(holder).includes(pid));
}

/** @returns false if it has just left by itself */
function hurt(pid: number, kind: (typeof KINDS)[number]): boolean {
  try {
    if (kind === "memory") {
      const limit = `--as=${STARVED_BYTES}`;
      return Bun.spawnSync(["prlimit", "--pid", String(pid), limit]).success;
    }
    return process.kill(pid, kind === "kill" ? "SIGKILL" : "SIGSTOP");
  } catch {
    return false;
  }
}

/** An answer is whole, or its model was hurt and an error says what happened: as JSON, or as the last event of a stream. */
function judge(answer: Answer, { model, isStream = false }: Question): boolean {
  const isUnwell = (it: Hurt): boolean =>
    it.atMs <= answer.endedMs && answer.startedMs <= it.healedMs;
  const wasHurt = hurts.some((it) => it.model === model && isUnwell(it));
  if (answer.status === 200 && answer.isWhole) {
    answered += 1;
    if (!wasHurt && hurts.some(isUnwell)) untouched += 1;
    heal(model, answer);
    return true;
  }
  const reason = reasonOf(answer, isStream);
  if (reason === undefined) {
    failures.push(`no reason given: ${answer.status} ${answer.text.slice(-200)}`);
  } else if (!wasHurt) {
    failures.push(`\`${model}\` was left alone, and yet: ${reason}`);
  } else {
    const common = reason.replaceAll(/load\/m\d/g, "MODEL").replaceAll(/\d+ (?=second)/g, "N ");
    reasons.set(common, (reasons.get(common) ?? 0) + 1);
  }
  return false;
}

/** The model answers again, by another engine. */
function heal(model: string, { startedMs, endedMs }: Answer): void {
  for (const it of hurts) {
    const isOver = it.model === model && it.healedMs === Infinity && !isRunning(it.pid);
    if (isOver && startedMs > it.atMs) it.healedMs = endedMs;
  }
}

function reasonOf(answer: Answer, isStream: boolean): string | undefined {
  const json =
    isStream && answer.status === 200
      ? /data: (\{"error".*\})\n\n$/.exec(answer.text)?.[1]
      : answer.text;
  try {
    const { error } = JSON.parse(json ?? "") as { error: { message?: unknown } };
    return typeof error.message === "string" && error.message !== "" ? error.message : undefined;
  } catch {
    return undefined;
  }
}
