/** What requests cost that wait: one model is busy, and nothing else fits beside it. Linux only. */
import { loadHome } from "../load/models.ts";
import { ask, type Answer } from "../load/client.ts";
import { cpuMs, enginePids, residentBytes } from "../load/processes.ts";
import type { BenchResult } from "./report.ts";
import { startServe } from "./serve.ts";

const HELD = 512;
const MEMORY_LIMIT = 40_000_000;
const WATCHED_MS = 20_000;
const CONTEXT = 512;
/** Writing the requests down and sending the collector through them is done by then. */
const SETTLING_MS = 5000;
const SHAPE = { embedding: 512, heads: 8, kvHeads: 4, feedForward: 1536, context: 4096 };
const SPECS = [1, 2].map((seed) => ({ layers: 6, ...SHAPE, seed }));

export async function benchQueue(): Promise<BenchResult> {
  await using home = await loadHome(SPECS);
  const [busy = "", awaited = ""] = home.models;
  const need = await home.estimate(busy, CONTEXT);
  const env = { TUG_MEMORY_BUDGET: `ram=${Math.ceil(need * 1.2)}` };
  await using runner = await startServe({ home: home.path, env });
  await warmUp(runner.url, busy);
  const leave = new AbortController();
  const { signal } = leave;
  const [engine = 0] = enginePids(runner.pid);
  // A request that does not end: its engine stands still.
  process.kill(engine, "SIGSTOP");
  const first = ask(runner.url, { model: busy, contextSize: CONTEXT, signal });
  await Bun.sleep(SETTLING_MS);
  const before = residentBytes(runner.pid);
  const held: Promise<Answer>[] = [];
  for (let index = 0; index < HELD; index += 1) {
    held.push(ask(runner.url, { model: awaited, contextSize: CONTEXT, signal }));
  }
  await Bun.sleep(SETTLING_MS);
  const refused = await fetch(`${runner.url}/v1/chat/completions`, {
    method: "POST",
    body: JSON.stringify({ model: awaited, context_size: CONTEXT, messages: [] }),
    ...({ proxy: false } as object),
  });
  const cpuBefore = cpuMs(runner.pid);
  await Bun.sleep(WATCHED_MS);
  const usedMs = cpuMs(runner.pid) - cpuBefore;
  const grown = residentBytes(runner.pid) - before;
  leave.abort();
  process.kill(engine, "SIGCONT");
  await Promise.all([first, ...held]);
  return toResult({ grown, usedMs, refused });
}

// --- internal ---

/** Code that was never run is not counted as what waiting costs. */
async function warmUp(url: string, model: string): Promise<void> {
  const warm = Array.from({ length: 64 }, () =>
    ask(url, { model, contextSize: CONTEXT, tokens: 1 }),
  );
  const answers = await Promise.all(warm);
  const bad = answers.find(({ status }) => status !== 200);
  if (bad !== undefined) throw new Error(bad.text);
}

function toResult(found: { grown: number; usedMs: number; refused: Response }): BenchResult {
  const { grown, usedMs, refused } = found;
  const retryAfter = refused.headers.get("retry-after");
  return {
    name: "queue",
    title: "Waiting requests",
    table: [
      [`${HELD} requests waiting for room`, "measured"],
      ["memory that the runner took for them", `${(grown / 1e6).toFixed(1)} MB`],
      [`processor time of the runner in ${WATCHED_MS / 1000} s`, `${usedMs} ms`],
      ["the next request", `${refused.status}, Retry-After: ${retryAfter}`],
    ],
    bars: [
      {
        text: `${HELD} waiting requests take at most ${MEMORY_LIMIT / 1e6} MB`,
        isKept: grown <= MEMORY_LIMIT,
      },
      { text: "waiting takes no processor time (at most one tick)", isKept: usedMs <= 10 },
      {
        text: `request ${HELD + 1} gets 429 with Retry-After`,
        isKept: refused.status === 429 && Number(retryAfter) > 0,
      },
    ],
  };
}
