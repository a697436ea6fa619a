/**
 * Requests for models that exclude each other: `bun scripts/load/burst.ts [REQUESTS]`.
 *
 * A burst ABCABC… over three models with room for one. It may cost six swaps at most, and nobody may wait longer than the
 * age cap after others that came when he did were served. Exit 1 otherwise.
 */
import { AGE_CAP_MS } from "../../src/runtime/scheduler.ts";
import { startServe } from "../bench/serve.ts";
import { type Answer, ask } from "./client.ts";
import { loadHome } from "./models.ts";

const REQUESTS = 60;
const MOST_SWAPS = 6;
const CONTEXT = 1024;
const SHAPE = { embedding: 512, heads: 8, kvHeads: 4, feedForward: 1536, context: 4096 };
const SPECS = [1, 2, 3].map((seed) => ({ layers: 8, ...SHAPE, seed }));

const requests = Number(process.argv[2] ?? REQUESTS);
await using home = await loadHome(SPECS);
const need = await home.estimate(home.models[0] ?? "", CONTEXT);
await using runner = await startServe({
  home: home.path,
  env: { TUG_MEMORY_BUDGET: `ram=${Math.ceil(need * 1.2)}` },
});
const events = new AbortController();
let loads = 0;
const begun = Promise.withResolvers<void>();
const watching = countLoads();
// The first event says what is loaded: from then on none is missed.
await Promise.race([begun.promise, watching]);
const answers: Answer[] = await Promise.all(
  Array.from({ length: requests }, (_, index) =>
    ask(runner.url, {
      model: home.models[index % home.models.length] ?? "",
      contextSize: CONTEXT,
      tokens: 16,
      isStream: true,
    }),
  ),
);
events.abort();
await watching;

const served = answers.filter((it) => it.status === 200 && it.isWhole);
const swaps = Math.max(0, loads - 1);
const ends = served.map((it) => it.endedMs);
const spread = Math.max(...ends) - Math.min(...ends);
console.log(
  `burst: ${served.length} of ${requests} answered, ${loads} loads, ${swaps} swaps (at most ${MOST_SWAPS}); first and last answer ${(spread / 1000).toFixed(1)} s apart (age cap ${AGE_CAP_MS / 1000} s)`,
);
process.exitCode =
  served.length === requests &&
  loads >= Math.min(requests, SPECS.length) &&
  swaps <= MOST_SWAPS &&
  spread <= AGE_CAP_MS
    ? 0
    : 1;

async function countLoads(): Promise<void> {
  const { signal } = events;
  try {
    const response = await fetch(`${runner.url}/engines/events`, { signal });
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of response.body ?? []) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      loads += lines.filter((line) => line === "event: loading").length;
      begun.resolve();
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
