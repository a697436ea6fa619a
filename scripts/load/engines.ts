/**
 * Two engines under one budget: `bun scripts/load/engines.ts [REQUESTS] [ENGINE]`.
 *
 * A GGUF model (llama.cpp) and one of safetensors (ENGINE, mlx unless given) are asked in turns, with room for one of them:
 * each answer must be right, and what the engines hold must stay within the budget. Exit 1 otherwise.
 */
import { SAFETENSORS } from "../../test/helpers/pebble.ts";
import { ensureCompiled } from "../compile/freshness.ts";
import { startServe } from "../bench/serve.ts";
import { descendants, residentBytes } from "./processes.ts";

const REQUESTS = 100;
/** Of the larger model: the smaller one does not fit beside it. */
const SPARE_RATIO = 1.02;
/** As for one engine: estimates are estimates. */
const TOLERANCE = 1.05;
const SAMPLE_MS = 50;
const SAFETENSORS_MODEL = "load/pebble-st";
const MODELS = ["pebble", SAFETENSORS_MODEL];
const QUESTION = "What is the capital of France?";

const requests = Number(process.argv[2] ?? REQUESTS);
const engine = process.argv[3] ?? "mlx";
await ensureCompiled();
const need = await needOf();
const budget = Math.ceil(need * SPARE_RATIO);
await using runner = await startServe({ env: { TUG_MEMORY_BUDGET: `ram=${budget}` } });
await prepare(runner);
let peak = 0;
const sampler = setInterval(() => (peak = Math.max(peak, heldByEngines(runner.pid))), SAMPLE_MS);
const startMs = performance.now();
let right = 0;
const failures: string[] = [];
for (let count = 0; count < requests; count += 1) {
  const text = await ask(MODELS[count % MODELS.length] ?? "");
  if (text.includes("Paris")) right += 1;
  else failures.push(text.slice(0, 300));
}
clearInterval(sampler);
const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
if (peak > budget * TOLERANCE) failures.push(`the engines held ${megabytes(peak)}`);
console.log(
  `engines: ${right} of ${requests} right in ${seconds} s, in turns by llama.cpp and ${engine}; budget ${megabytes(budget)}, at most ${megabytes(peak)} held`,
);
for (const failure of new Set(failures)) console.error(`engines: ${failure}`);
process.exitCode = failures.length === 0 ? 0 : 1;

// --- internal ---

async function prepare({ tug }: Pick<typeof runner, "tug">): Promise<void> {
  await tug(["install-runner"]);
  await tug(["install-runner", "--backend", engine]);
  await tug(["package", "--safetensors-dir", SAFETENSORS, SAFETENSORS_MODEL]);
}

/** Of the larger one. Bytes. */
async function needOf(): Promise<number> {
  await using first = await startServe();
  await prepare(first);
  const estimates = await Promise.all(
    MODELS.map(async (model) => {
      const text = await first.tug(["estimate", model, "--json"]);
      const { estimate } = JSON.parse(text) as { estimate: { ram?: number } };
      return estimate.ram ?? 0;
    }),
  );
  return Math.max(...estimates);
}

async function ask(model: string): Promise<string> {
  const base = model === SAFETENSORS_MODEL ? `/engines/${engine}/v1` : "/v1";
  const response = await fetch(`${runner.url}${base}/chat/completions`, {
    method: "POST",
    body: JSON.stringify({
      model,
      temperature: 0,
      messages: [{ role: "user", content: QUESTION }],
    }),
    ...({ timeout: false } as object),
  });
  return response.text();
}

/** Shared pages of an interpreter's libraries count, each once a process. */
function heldByEngines(pid: number): number {
  return descendants(pid).reduce((sum, child) => sum + residentBytes(child), 0);
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}
