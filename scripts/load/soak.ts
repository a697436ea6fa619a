/**
 * Many clients, more models than memory: `bun scripts/load/soak.ts [REQUESTS] [one]`.
 *
 * A budget for two of five models (with `one`: for one), 8 clients, three context sizes at random. Every request must be
 * answered with 200 and whole, what the engines hold together must stay within the budget, and a pinned model must never
 * leave. Exit 1 otherwise.
 */
import { startServe } from "../bench/serve.ts";
import { type Answer, ask, eachAtOnce, seeded } from "./client.ts";
import { loadHome } from "./models.ts";
import { enginePids, residentBytes } from "./processes.ts";

const REQUESTS = 500;
const CLIENTS = 8;
const CONTEXTS = [512, 1024, 2048];
const SAMPLE_MS = 50;
const TOLERANCE = 1.05;
const SHAPE = { embedding: 512, heads: 8, kvHeads: 4, feedForward: 1536, context: 4096 };
const SPECS = [
  { layers: 4, ...SHAPE, seed: 1 },
  { layers: 6, ...SHAPE, seed: 2 },
  { layers: 8, ...SHAPE, seed: 3 },
  { layers: 10, ...SHAPE, seed: 4 },
  { layers: 12, ...SHAPE, seed: 5 },
];

const requests = Number(process.argv[2] ?? REQUESTS);
const isForOne = process.argv[3] === "one";

await using home = await loadHome(SPECS);
const pinned = isForOne ? undefined : home.models[0];
const needs = await Promise.all(
  home.models.map((model) => home.estimate(model, Math.max(...CONTEXTS))),
);
const largest = needs.toSorted((a, b) => b - a);
// It is pinned with the context that it gets by itself: all it was trained for.
const pinnedNeed = pinned === undefined ? 0 : await home.estimate(pinned, SHAPE.context);
const room = [largest[0], pinnedNeed];
const budget = Math.ceil(room.reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0) * 1.02);
await using runner = await startServe({
  home: home.path,
  env: { TUG_MEMORY_BUDGET: `ram=${budget}` },
});
if (pinned !== undefined) await home.tug(["pin", pinned]);
const pinnedPid = await pidOf(pinned);

let peak = 0;
let samples = 0;
const sampler = setInterval(() => {
  const held = enginePids(runner.pid).reduce((sum, pid) => sum + residentBytes(pid), 0);
  peak = Math.max(peak, held);
  samples += 1;
}, SAMPLE_MS);

const random = seeded(7);
const questions = Array.from({ length: requests }, () => ({
  model: home.models[Math.floor(random() * home.models.length)] ?? "",
  contextSize: CONTEXTS[Math.floor(random() * CONTEXTS.length)] ?? 512,
  isStream: random() < 0.5,
}));
const answers: Answer[] = [];
const startedMs = performance.now();
await eachAtOnce(questions, CLIENTS, async (question) => {
  const answer = await ask(runner.url, question);
  answers.push(answer);
  if (answer.status !== 200 || !answer.isWhole) {
    console.error(`${question.model} ${answer.status}: ${answer.text.slice(0, 300)}`);
  }
});
const seconds = (performance.now() - startedMs) / 1000;
clearInterval(sampler);

const waits = answers.map((it) => it.endedMs - it.startedMs).toSorted((a, b) => a - b);
const whole = answers.filter((it) => it.status === 200 && it.isWhole).length;
const hasStayed =
  pinned === undefined || (pinnedPid !== undefined && (await pidOf(pinned)) === pinnedPid);
// Engines that are not found hold nothing, which is no proof.
const isMeasured = peak >= Math.min(...needs) / 2;
const share = peak / budget;
console.log(
  `soak: ${whole} of ${requests} answered in ${seconds.toFixed(0)} s; longest ${((waits.at(-1) ?? 0) / 1000).toFixed(1)} s, median ${((waits[waits.length >> 1] ?? 0) / 1000).toFixed(1)} s`,
);
console.log(
  `soak: budget ${(budget / 1e6).toFixed(0)} MB, at most ${(peak / 1e6).toFixed(0)} MB resident (${(share * 100).toFixed(1)} %, ${samples} samples)`,
);
if (pinned !== undefined)
  console.log(`soak: the pinned model ${hasStayed ? "stayed" : "was unloaded"}`);
if (!isMeasured) console.error("soak: the engines were not found, so nothing was measured");
process.exitCode = whole === requests && isMeasured && share <= TOLERANCE && hasStayed ? 0 : 1;

async function pidOf(model: string | undefined): Promise<number | undefined> {
  if (model === undefined) return undefined;
  const rows = JSON.parse(await home.tug(["ps", "--json"])) as {
    model_name: string;
    pid: number;
  }[];
  return rows.find(({ model_name }) => model_name.includes(model))?.pid;
}
