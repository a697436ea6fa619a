/**
 * What the way through Tug costs: the same llama-server asked directly on its socket and through the runner's port, in
 * turns, so that a busy moment hits both.
 *
 * By itself: `bun scripts/bench/proxy.ts --proxied URL --direct SOCKET [--model NAME] [--rounds N]`.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "./median.ts";
import type { BenchResult } from "./report.ts";

interface Subjects {
  /** Base URL of a runner that has the model loaded. */
  readonly proxied: string;
  /** The unix socket of its worker. */
  readonly direct: string;
  readonly model: string;
  /** Pairs measured for the tokens per second; three times as many for the first token, whose answers are short. */
  readonly rounds: number;
}

/** A batch of requests at once. */
interface Load {
  readonly streams: number;
  /** Length of every answer. */
  readonly tokens: number;
}

interface Sample {
  /** Median over the streams of a batch. */
  readonly firstTokenMs: number;
  /** Of all streams together, over the whole batch. */
  readonly tokensPerSecond: number;
}

interface Comparison {
  readonly streams: number;
  readonly direct: Sample;
  readonly proxied: Sample;
  /** Medians over the pairs, not of the medians: a pair shares its moment. */
  readonly addedMs: number;
  readonly ratio: number;
}

const STREAMS = [1, 16];
/** Long enough that the rate is the engine's, and so short that a request behind others meets little of their answers. */
const LONG_ANSWER = 200;
const SHORT_ANSWER = 8;
const WARM_UPS = 2;
const ADDED_MS_LIMIT = 3;
const RATIO_LIMIT = 0.97;
/** HTTP_PROXY would be asked about this machine. Bun knows `false`, its types do not. */
const NO_PROXY: object = { proxy: false };

/** Starts a runner of its own, loads the built-in model, and measures it. */
export async function benchProxy(): Promise<BenchResult> {
  const { startServe } = await import("./serve.ts");
  await using runner = await startServe();
  await runner.tug(["install-runner"]);
  const answer = await fetch(`${runner.url}/v1/chat/completions`, {
    method: "POST",
    body: JSON.stringify({ ...request("pebble", 1), stream: false, keep_alive: -1 }),
    ...NO_PROXY,
  });
  if (!answer.ok) throw new Error(`the runner answered ${answer.status}: ${await answer.text()}`);
  const direct = await workerSocket(join(runner.home, "run"));
  return toResult(await measure({ proxied: runner.url, direct, model: "pebble", rounds: 20 }));
}

async function measure(subjects: Subjects): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const streams of STREAMS) comparisons.push(await compare(subjects, streams));
  return comparisons;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      proxied: { type: "string" },
      direct: { type: "string" },
      model: { type: "string", default: "pebble" },
      rounds: { type: "string", default: "20" },
    },
  });
  if (values.proxied === undefined || values.direct === undefined) {
    console.error("usage: bun scripts/bench/proxy.ts --proxied URL --direct SOCKET");
    process.exit(2);
  }
  const { proxied, direct, model } = values;
  const rounds = Number(values.rounds);
  const { table, bars } = toResult(await measure({ proxied, direct, model, rounds }));
  for (const row of table) console.log(row.map((cell) => cell.padEnd(24)).join(""));
  for (const { text, isKept } of bars) console.log(`${isKept ? "kept  " : "missed"}  ${text}`);
  process.exitCode = bars.every(({ isKept }) => isKept) ? 0 : 1;
}

// --- internal ---

async function compare(subjects: Subjects, streams: number): Promise<Comparison> {
  const { rounds } = subjects;
  const short = await pairs(subjects, { streams, tokens: SHORT_ANSWER }, 3 * rounds);
  const long = await pairs(subjects, { streams, tokens: LONG_ANSWER }, rounds);
  const summary = (side: 0 | 1): Sample => ({
    firstTokenMs: median(short.map((pair) => pair[side].firstTokenMs)),
    tokensPerSecond: median(long.map((pair) => pair[side].tokensPerSecond)),
  });
  return {
    streams,
    direct: summary(0),
    proxied: summary(1),
    addedMs: median(short.map(([direct, proxied]) => proxied.firstTokenMs - direct.firstTokenMs)),
    ratio: median(
      long.map(([direct, proxied]) => proxied.tokensPerSecond / direct.tokensPerSecond),
    ),
  };
}

/** Direct and proxied, back to back. */
async function pairs(subjects: Subjects, load: Load, rounds: number): Promise<[Sample, Sample][]> {
  const measured: [Sample, Sample][] = [];
  for (let round = 0; round < WARM_UPS + rounds; round += 1) {
    // Who goes first changes: the second one would otherwise always meet a warmer engine.
    const isDirectFirst = round % 2 === 0;
    const first = await batch(subjects, load, isDirectFirst);
    const second = await batch(subjects, load, !isDirectFirst);
    if (round >= WARM_UPS) measured.push(isDirectFirst ? [first, second] : [second, first]);
  }
  return measured;
}

async function batch(subjects: Subjects, load: Load, isDirect: boolean): Promise<Sample> {
  const { direct, proxied, model } = subjects;
  const { streams, tokens } = load;
  const base = isDirect ? "http://localhost" : proxied;
  const way: object = isDirect ? { unix: direct } : NO_PROXY;
  const body = JSON.stringify(request(model, tokens));
  const startedAt = performance.now();
  const firsts = await Promise.all(
    Array.from({ length: streams }, () => firstTokenMs(`${base}/v1/chat/completions`, body, way)),
  );
  const seconds = (performance.now() - startedAt) / 1000;
  return { firstTokenMs: median(firsts), tokensPerSecond: (streams * tokens) / seconds };
}

/** Every answer has the same length, and none profits from an earlier one's prompt. */
function request(model: string, tokens: number): object {
  return {
    model,
    messages: [{ role: "user", content: "Tell me a long story." }],
    stream: true,
    max_tokens: tokens,
    ignore_eos: true,
    cache_prompt: false,
  };
}

async function firstTokenMs(url: string, body: string, way: object): Promise<number> {
  const startedAt = performance.now();
  const response = await fetch(url, { method: "POST", body, keepalive: false, ...way });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  const decoder = new TextDecoder();
  let elapsedMs: number | undefined;
  let last: Uint8Array = new Uint8Array();
  for await (const chunk of response.body ?? []) {
    last = chunk;
    if (elapsedMs === undefined && decoder.decode(chunk).includes('"content":"'))
      elapsedMs = performance.now() - startedAt;
  }
  if (elapsedMs === undefined || !decoder.decode(last).endsWith("[DONE]\n\n"))
    throw new Error(`${url} did not stream a whole answer`);
  return elapsedMs;
}

async function workerSocket(directory: string): Promise<string> {
  const glob = new Bun.Glob("w*/e.sock");
  const names = await Array.fromAsync(glob.scan({ cwd: directory, onlyFiles: false }));
  const [only] = names;
  if (only === undefined || names.length > 1)
    throw new Error(`one worker's socket expected in ${directory}, not ${names.length}`);
  return join(directory, only);
}

function toResult(comparisons: readonly Comparison[]): BenchResult {
  return {
    name: "proxy",
    title: "Answering through the runner",
    table: [
      ["streams at once", "measure", "llama-server itself", "through Tug", "difference"],
      ...comparisons.flatMap(({ streams, direct, proxied, addedMs, ratio }) => [
        [
          String(streams),
          "first token",
          `${direct.firstTokenMs.toFixed(2)} ms`,
          `${proxied.firstTokenMs.toFixed(2)} ms`,
          `+${addedMs.toFixed(2)} ms`.replace("+-", "-"),
        ],
        [
          String(streams),
          "tokens/s",
          direct.tokensPerSecond.toFixed(0),
          proxied.tokensPerSecond.toFixed(0),
          `× ${ratio.toFixed(3)}`,
        ],
      ]),
    ],
    bars: comparisons.flatMap(({ streams, addedMs, ratio }) => [
      {
        text: `${streams} at once: the first token comes at most ${ADDED_MS_LIMIT} ms later`,
        isKept: addedMs <= ADDED_MS_LIMIT,
      },
      {
        text: `${streams} at once: at least ${RATIO_LIMIT * 100} % of the tokens/s`,
        isKept: ratio >= RATIO_LIMIT,
      },
    ]),
    notes: ["Medians; the last column is the median over pairs measured back to back."],
  };
}
