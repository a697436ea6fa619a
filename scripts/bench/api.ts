/**
 * What translating costs: the same model asked in the words of each API, in turns with OpenAI's, whose bodies pass
 * untouched. Linux only.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { numberedPieces, writeScriptedModel } from "../../test/helpers/scripted-model.ts";
import { cpuByThread, cpuMsSince } from "../load/processes.ts";
import { median } from "./median.ts";
import type { BenchResult } from "./report.ts";
import { startServe } from "./serve.ts";

const PAIRS = 200;
const WARM_UPS = 20;
/** Four of them fit the context at once. */
const TOKENS = 800;
const STREAMS = 4;
const ROUNDS = 5;
const ADDED_MS_LIMIT = 2;
const CPU_LIMIT = 1.5;
const SHORT = "bench/short";
const LONG = "bench/long";
/** HTTP_PROXY would be asked about this machine. Bun knows `false`, its types do not. */
const NO_PROXY: object = { proxy: false };

interface Api {
  readonly name: string;
  readonly path: string;
  readonly body: (model: string, stream: boolean) => object;
}

const MESSAGES = [{ role: "user", content: "Go." }];
const PASSED: Api = {
  name: "OpenAI chat",
  path: "/v1/chat/completions",
  body: (model, stream) => ({ model, messages: MESSAGES, stream }),
};
const TRANSLATED: readonly Api[] = [
  {
    name: "OpenAI responses",
    path: "/v1/responses",
    body: (model, stream) => ({ model, input: "Go.", stream }),
  },
  {
    name: "OpenAI responses, not stored",
    path: "/v1/responses",
    body: (model, stream) => ({ model, input: "Go.", stream, store: false }),
  },
  {
    name: "Anthropic messages",
    path: "/anthropic/v1/messages",
    body: (model, stream) => ({ model, messages: MESSAGES, max_tokens: 2 * TOKENS, stream }),
  },
  {
    name: "Ollama chat",
    path: "/api/chat",
    body: (model, stream) => ({ model, messages: MESSAGES, stream }),
  },
  {
    name: "Ollama generate",
    path: "/api/generate",
    body: (model, stream) => ({ model, prompt: "Go.", stream }),
  },
];

interface Found {
  readonly api: Api;
  /** Milliseconds of a whole answer beyond that of OpenAI's chat: the median over pairs. */
  readonly addedMs: number;
  /** Microseconds of the runner's processor time for each streamed token. */
  readonly tokenUs: number;
}

export async function benchApi(): Promise<BenchResult> {
  await using runner = await startServe();
  await runner.tug(["install-runner"]);
  for (const [name, pieces] of [
    [SHORT, ["Yes"]],
    [LONG, numberedPieces(TOKENS)],
  ] as const) {
    const file = join(runner.home, "scripted.gguf");
    await writeScriptedModel(file, { pieces });
    await runner.tug(["package", "--gguf", file, name]);
    await rm(file);
  }
  const { url, pid } = runner;
  const passed = { api: PASSED, addedMs: 0, tokenUs: await tokenCost(url, pid, PASSED) };
  const found: Found[] = [passed];
  for (const api of TRANSLATED) {
    const addedMs = await addedLatency(url, api);
    found.push({ api, addedMs, tokenUs: await tokenCost(url, pid, api) });
  }
  return toResult(found);
}

// --- internal ---

async function addedLatency(url: string, api: Api): Promise<number> {
  const differences: number[] = [];
  for (let pair = 0; pair < WARM_UPS + PAIRS; pair += 1) {
    const isPassedFirst = pair % 2 === 0;
    const first = await wholeMs(url, isPassedFirst ? PASSED : api);
    const second = await wholeMs(url, isPassedFirst ? api : PASSED);
    if (pair >= WARM_UPS) differences.push(isPassedFirst ? second - first : first - second);
  }
  return median(differences);
}

async function wholeMs(url: string, api: Api): Promise<number> {
  const startedAt = performance.now();
  const text = await answerOf(url, api, { model: SHORT, stream: false });
  const elapsedMs = performance.now() - startedAt;
  if (!text.includes("Yes")) throw new Error(`${api.path} answered ${text.slice(0, 300)}`);
  return elapsedMs;
}

async function tokenCost(url: string, pid: number, api: Api): Promise<number> {
  const load = (): Promise<string[]> =>
    Promise.all(
      Array.from({ length: STREAMS }, () => answerOf(url, api, { model: LONG, stream: true })),
    );
  await load();
  const costs: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const before = cpuByThread(pid);
    const answers = await load();
    costs.push((cpuMsSince(before, pid) * 1000) / (STREAMS * TOKENS));
    const bad = answers.find((text) => !text.includes(`w${TOKENS}`));
    if (bad !== undefined) throw new Error(`${api.path} streamed ${bad.slice(-300)}`);
  }
  return median(costs);
}

async function answerOf(
  url: string,
  { path, body }: Api,
  { model, stream }: { readonly model: string; readonly stream: boolean },
): Promise<string> {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body(model, stream)),
    keepalive: false,
    ...NO_PROXY,
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${path} answered ${response.status}: ${text}`);
  return text;
}

function toResult(found: readonly Found[]): BenchResult {
  const passedUs = found[0]?.tokenUs ?? Number.NaN;
  return {
    name: "api",
    title: "Translating between APIs",
    table: [
      ["API", "a whole answer takes longer by", "processor time a streamed token", "ratio"],
      ...found.map(({ api, addedMs, tokenUs }) => [
        api.name,
        `${addedMs.toFixed(2)} ms`,
        `${tokenUs.toFixed(1)} µs`,
        `× ${(tokenUs / passedUs).toFixed(2)}`,
      ]),
    ],
    bars: found.slice(1).flatMap(({ api, addedMs, tokenUs }) => [
      {
        text: `${api.name}: at most ${ADDED_MS_LIMIT} ms more`,
        isKept: addedMs <= ADDED_MS_LIMIT,
      },
      {
        text: `${api.name}: at most ${CPU_LIMIT} × the processor time a token`,
        isKept: tokenUs <= CPU_LIMIT * passedUs,
      },
    ]),
    notes: [
      `Medians: ${PAIRS} pairs of whole answers back to back; ${ROUNDS} rounds of ${STREAMS} streams of ${TOKENS} tokens at once.`,
    ],
  };
}
