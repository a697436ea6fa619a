/**
 * Engines that die, hang and run out of memory under load: `bun scripts/load/chaos.ts [ROUNDS]`.
 *
 * In each round one engine is killed, stopped (SIGSTOP) or deprived of memory (`prlimit --as`) at a random moment. The
 * runner must live, requests to others must finish, those affected must be answered or get a JSON error with the reason,
 * and in the end no lease, socket or process may be left. Exit 1 otherwise.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { startServe } from "../bench/serve.ts";
import { type Answer, ask, seeded } from "./client.ts";
import { loadHome } from "./models.ts";
import { descendants, enginePids, isRunning } from "./processes.ts";

const ROUNDS = 30;
const CLIENTS = 6;
const SHAPE = { embedding: 512, heads: 8, kvHeads: 4, feedForward: 1536, context: 4096 };
const SPECS = [1, 2, 3].map((seed) => ({ layers: 6, ...SHAPE, seed }));
const KINDS = ["kill", "stop", "memory"] as const;
/** Less than any allocation of a request needs, so that the next one fails. */
const STARVED_BYTES = 4096;
/** A moment without an engine is no round: another one is waited for. */
const MOST_MISSES = 3;
/** What holds a sandbox goes just after its engine. */
const LEAVING_MS = 3000;
/** A stopped engine is found out when a request to it has been silent this long. */
const SILENCE = "3s";

const rounds = Number(process.argv[2] ?? ROUNDS);
await using home = await loadHome(SPECS);
await using runner = await startServe({ home: home.path, env: { TUG_SILENCE_TIMEOUT: SILENCE } });
const random = seeded(11);
const over = new AbortController();
const failures: string[] = [];
let answered = 0;
let hurts = 0;
/** Requests that got an error, by what it says. */
const reasons = new Map<string, number>();
/** What a client does after an error. */
const PAUSE_MS = 250;

const clients = Array.from({ length: CLIENTS }, async (_, client) => {
  const model = home.models[client % home.models.length] ?? "";
  for (let turn = 0; !over.signal.aborted; turn += 1) {
    const isStream = turn % 2 === 0;
    const isServed = judge(
      await ask(runner.url, { model, contextSize: 1024, tokens: 32, isStream }),
      isStream,
    );
    if (!isServed) await Bun.sleep(PAUSE_MS);
  }
});
let misses = 0;
for (let round = 0; round < rounds && misses < rounds * MOST_MISSES;) {
  await Bun.sleep(300 + random() * 1500);
  const pids = enginePids(runner.pid);
  const pid = pids[Math.floor(random() * pids.length)];
  const kind = KINDS[round % KINDS.length] ?? "kill";
  if (pid === undefined || !hurt(pid, kind)) {
    misses += 1;
    continue;
  }
  console.log(`round ${round}: ${kind} ${pid}`);
  hurts += 1;
  round += 1;
  if (!isRunning(runner.pid)) {
    failures.push(`round ${round}: the runner died`);
    break;
  }
}
over.abort();
await Promise.all(clients);

const rows = JSON.parse(await home.tug(["ps", "--json"])) as { in_use: number }[];
const leases = rows.reduce((sum, { in_use }) => sum + in_use, 0);
if (leases > 0) failures.push(`${leases} leases are left`);
if (hurts < rounds) failures.push(`only ${hurts} of ${rounds} rounds found an engine`);
await home.tug(["unload", "--all", "--wait"]);
const limitMs = performance.now() + LEAVING_MS;
const left = (): number => descendants(runner.pid).filter(isRunning).length;
while (left() > 0 && performance.now() < limitMs) await Bun.sleep(20);
if (left() > 0) failures.push(`${left()} processes are left`);
const sockets = (await readdir(join(home.path, "run"), { recursive: true })).filter(
  (name) => name.endsWith(".sock") && !name.startsWith("runner"),
);
if (sockets.length > 0) failures.push(`sockets are left: ${sockets.join(", ")}`);
for (const failure of failures) console.error(failure);
for (const [reason, count] of reasons) console.log(`chaos: ${count} × ${reason}`);
const refused = [...reasons.values()].reduce((sum, count) => sum + count, 0);
console.log(
  `chaos: ${hurts} rounds, ${answered} requests answered, ${refused} ended with a reason, ${failures.length} failures`,
);
process.exitCode = failures.length === 0 ? 0 : 1;

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

/** An answer is whole, or an error says what happened: as JSON, or as the last event of a stream. */
function judge(answer: Answer, isStream: boolean): boolean {
  if (answer.status === 200 && answer.isWhole) {
    answered += 1;
    return true;
  }
  const json =
    isStream && answer.status === 200
      ? /data: (\{"error".*\})\n\n$/.exec(answer.text)?.[1]
      : answer.text;
  try {
    const { error } = JSON.parse(json ?? "") as { error: { message: string } };
    if (typeof error.message === "string" && error.message !== "") {
      const reason = error.message.replaceAll(/load\/m\d/g, "MODEL");
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
      return false;
    }
  } catch {
    // Not JSON: reported below.
  }
  failures.push(`no reason given: ${answer.status} ${answer.text.slice(-200)}`);
  return false;
}
