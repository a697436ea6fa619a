/** What requests cost that wait: one model is busy, and nothing else fits beside it. Linux only. */
import { request } from "node:http";
import { ask } from "../load/client.ts";
import { loadHome } from "../load/models.ts";
import {
  anonymousBytes,
  cpuByThread,
  cpuMsSince,
  cpuTicks,
  enginePids,
} from "../load/processes.ts";
import type { BenchResult } from "./report.ts";
import { startServe } from "./serve.ts";
import { RUNTIME_SETTINGS } from "../../src/client/own-command.ts";

const HELD = 512;
/** Before anything is measured. */
const WARM = 64;
const MEMORY_LIMIT = 40_000_000;
const WATCHED_MS = 20_000;
/**
 * One tick: it may fall due for what ran before. Beyond what Bun's own server takes for as many connections, which moves
 * with the machine by a factor of four. Milliseconds.
 */
const ADDED_LIMIT_MS = 10;
const CONTEXT = 512;
/** What arriving left has been collected (half a minute later at the latest) and given back (once a minute). */
const SETTLING_MS = 70_000;
/** The request that is refused is so at once. */
const REFUSAL_MS = 5000;
const SHAPE = { embedding: 512, heads: 8, kvHeads: 4, feedForward: 1536, context: 4096 };
const SPECS = [1, 2].map((seed) => ({ layers: 6, ...SHAPE, seed }));

const BARE_SERVER = `
  const fetch = () => new Promise(() => {});
  console.log(Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch }).url.origin);
`;

export async function benchQueue(): Promise<BenchResult> {
  await using home = await loadHome(SPECS);
  const [busy = "", awaited = ""] = home.models;
  const need = await home.estimate(busy, CONTEXT);
  // An engine that stands still is ended when it has been silent for so long.
  const env = { TUG_MEMORY_BUDGET: `ram=${Math.ceil(need * 1.2)}`, TUG_SILENCE_TIMEOUT: "10m" };
  await using runner = await startServe({ home: home.path, env });
  await warmUp(runner.url, busy);
  const leave = new AbortController();
  const { signal } = leave;
  const [engine = 0] = enginePids(runner.pid);
  // A request that does not end: its engine stands still.
  process.kill(engine, "SIGSTOP");
  const first = ask(runner.url, { model: busy, contextSize: CONTEXT, signal });
  await warmUpWaiting(runner.url, awaited);
  await Bun.sleep(SETTLING_MS);
  const before = anonymousBytes(runner.pid);
  const held = Array.from({ length: HELD }, () => send(runner.url, awaited, signal));
  let answered = 0;
  for (const one of held) void one.then((reply) => (answered += reply === undefined ? 0 : 1));
  await using bare = await bareServer(signal);
  await Bun.sleep(SETTLING_MS);
  const [threads, bareThreads] = [cpuByThread(runner.pid), cpuByThread(bare.pid)];
  const [ticksBefore, bareTicksBefore] = [cpuTicks(runner.pid), cpuTicks(bare.pid)];
  await Bun.sleep(WATCHED_MS);
  const usedMs = cpuMsSince(threads, runner.pid);
  const bareMs = cpuMsSince(bareThreads, bare.pid);
  const ticks = cpuTicks(runner.pid) - ticksBefore;
  const bareTicks = cpuTicks(bare.pid) - bareTicksBefore;
  // Only now: to refuse, and to record it, takes time.
  const refused = await send(runner.url, awaited, AbortSignal.timeout(REFUSAL_MS));
  const grown = anonymousBytes(runner.pid) - before;
  const waiting = HELD - answered;
  leave.abort();
  process.kill(engine, "SIGCONT");
  await Promise.all([first, ...held]);
  return toResult({ grown, usedMs, bareMs, ticks, bareTicks, waiting, refused });
}

// --- internal ---

/** Code that was never run is not counted as what waiting costs. */
async function warmUp(url: string, model: string): Promise<void> {
  const warm = Array.from({ length: WARM }, () =>
    ask(url, { model, contextSize: CONTEXT, tokens: 1 }),
  );
  const answers = await Promise.all(warm);
  const bad = answers.find(({ status }) => status !== 200);
  if (bad !== undefined) throw new Error(bad.text);
}

/** As many wait, and leave again. */
async function warmUpWaiting(url: string, model: string): Promise<void> {
  const signal = AbortSignal.timeout(1000);
  await Promise.all(Array.from({ length: WARM }, () => send(url, model, signal)));
}

/** Bun's HTTP server and nothing else, with as many requests that wait. */
async function bareServer(signal: AbortSignal): Promise<AsyncDisposable & { pid: number }> {
  const child = Bun.spawn([process.execPath, "-e", BARE_SERVER], {
    env: { ...process.env, ...RUNTIME_SETTINGS },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const dispose = async (): Promise<void> => {
    child.kill();
    await child.exited;
  };
  const reader = child.stdout.getReader();
  const { value = new Uint8Array() } = await reader.read();
  const url = new TextDecoder().decode(value).trim();
  for (let count = 0; count < HELD; count++) void send(url, "none", signal);
  return { pid: child.pid, [Symbol.asyncDispose]: dispose };
}

interface Reply {
  readonly status: number | undefined;
  readonly retryAfter: string | undefined;
}

/** Not by `fetch`: Bun sends 256 at once, and keeps the rest to itself. @returns undefined for one that was given up */
function send(url: string, model: string, signal: AbortSignal): Promise<Reply | undefined> {
  const { promise, resolve } = Promise.withResolvers<Reply | undefined>();
  const outgoing = request(`${url}/v1/chat/completions`, { method: "POST", agent: false, signal });
  outgoing.on("response", (response) => {
    response.resume();
    const { statusCode: status, headers } = response;
    resolve({ status, retryAfter: headers["retry-after"] });
  });
  outgoing.on("error", () => resolve(undefined));
  const messages = [{ role: "user", content: "Tell me a story." }];
  outgoing.end(JSON.stringify({ model, context_size: CONTEXT, messages }));
  return promise;
}

interface Found {
  readonly grown: number;
  /** Of the threads that are there in the end. */
  readonly usedMs: number;
  /** Of a server that does nothing but hold as many. */
  readonly bareMs: number;
  /** Of all threads, those that ended too. */
  readonly ticks: number;
  readonly bareTicks: number;
  /** Those held that have no answer in the end. */
  readonly waiting: number;
  readonly refused: Reply | undefined;
}

function toResult({ grown, usedMs, bareMs, waiting, refused, ...found }: Found): BenchResult {
  const { ticks, bareTicks } = found;
  return {
    name: "queue",
    title: "Waiting requests",
    table: [
      [`${waiting} requests waiting for room`, "measured"],
      [
        "memory of its own that the runner took for them (RssAnon)",
        `${(grown / 1e6).toFixed(1)} MB`,
      ],
      [
        `processor time of the runner in ${WATCHED_MS / 1000} s`,
        `${usedMs.toFixed(1)} ms (${ticks} ticks)`,
      ],
      [
        "that of Bun's HTTP server alone, with as many",
        `${bareMs.toFixed(1)} ms (${bareTicks} ticks)`,
      ],
      ["the next request", `${refused?.status}, Retry-After: ${refused?.retryAfter}`],
    ],
    bars: [
      { text: `${HELD} requests wait at once`, isKept: waiting === HELD },
      {
        text: `${HELD} waiting requests take at most ${MEMORY_LIMIT / 1e6} MB`,
        isKept: grown <= MEMORY_LIMIT,
      },
      {
        text: `waiting takes no processor time beyond that (at most a tick of ${ADDED_LIMIT_MS} ms)`,
        isKept: usedMs - bareMs <= ADDED_LIMIT_MS && ticks - bareTicks <= 1,
      },
      {
        text: `request ${HELD + 1} gets 429 with Retry-After`,
        isKept: refused?.status === 429 && Number(refused.retryAfter) > 0,
      },
    ],
  };
}
