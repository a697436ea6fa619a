/**
 * What confining an engine costs: llama-server with the built-in model, started and asked as it is and under
 * bubblewrap, in turns, so that a busy moment hits both.
 */
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type EngineProcess, spawnEngine } from "../../src/runtime/process.ts";
import { chooseSandbox, NO_SANDBOX } from "../../src/runtime/sandbox/index.ts";
import type { Sandbox } from "../../src/runtime/sandbox/sandbox.ts";
import { BINARY, ROOT } from "../compile/freshness.ts";
import type { BenchResult } from "./report.ts";
import { median } from "./median.ts";
import { timedCommand } from "./timed-command.ts";

const MODEL = join(ROOT, "src", "models", "pebble.gguf");
const STARTS = 20;
const ANSWERS = 10;
const WARM_UPS = 2;
const ANSWER_TOKENS = 200;
const START_LIMIT_MS = 20;
const RATIO_LIMIT = 0.97;
/** A start that takes longer has failed. */
const READY_LIMIT_MS = 30_000;

interface Engine {
  readonly directory: string;
  readonly command: readonly string[];
}

interface Running {
  readonly engine: EngineProcess;
  readonly socket: string;
  readonly startMs: number;
}

export async function benchSandbox(): Promise<BenchResult> {
  const home = await mkdtemp(join(tmpdir(), "tug-bench-"));
  try {
    await timedCommand([BINARY, "install-runner"], { env: { ...process.env, TUG_HOME: home } });
    return await compare(await readEngine(join(home, "backends", "llama.cpp")), home);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

// --- internal ---

async function compare(engine: Engine, home: string): Promise<BenchResult> {
  const { env, platform } = process;
  const confined = await chooseSandbox({ mode: "require", platform, env });
  const sandboxes = [NO_SANDBOX, confined];
  const starts: number[][] = [[], []];
  for (let round = 0; round < WARM_UPS + STARTS; round += 1) {
    for (const [index, sandbox] of sandboxes.entries()) {
      const running = await start(engine, { sandbox, home });
      running.engine.kill();
      await running.engine.exited;
      if (round >= WARM_UPS) starts[index]?.push(running.startMs);
    }
  }
  const [bare, inside] = [
    await start(engine, { sandbox: NO_SANDBOX, home }),
    await start(engine, { sandbox: confined, home }),
  ];
  const rates: number[][] = [[], []];
  for (let round = 0; round < WARM_UPS + ANSWERS; round += 1) {
    for (const [index, { socket }] of [bare, inside].entries()) {
      const rate = await tokensPerSecond(socket);
      if (round >= WARM_UPS) rates[index]?.push(rate);
    }
  }
  await Promise.all([bare.engine.terminate(), inside.engine.terminate()]);
  return toResult(starts, rates);
}

async function readEngine(root: string): Promise<Engine> {
  for await (const file of new Bun.Glob("*/install.json").scan(root)) {
    const directory = dirname(join(root, file));
    const record = JSON.parse(await readFile(join(root, file), "utf8")) as Engine;
    const command = record.command.map((word) => word.replace("{directory}", directory));
    return { directory, command };
  }
  throw new Error(`no engine in ${root}`);
}

async function start(
  { command, directory }: Engine,
  { sandbox, home }: { readonly sandbox: Sandbox; readonly home: string },
): Promise<Running> {
  const own = join(home, `worker-${sandbox.name}`);
  await rm(own, { recursive: true, force: true });
  await mkdir(own);
  const socket = join(own, "engine.sock");
  // One thread for each of the two that run at once.
  const args = ["--model", MODEL, "--host", socket, "--threads", "1"];
  const view = { readOnly: [directory, MODEL], writable: [own], devices: [] };
  const startedAt = performance.now();
  const engine = spawnEngine({
    command: sandbox.wrap([...command, ...args], view),
    sandbox,
    env: {},
    directory: own,
    onOutput: () => Promise.resolve(),
  });
  await untilReady(socket, startedAt + READY_LIMIT_MS);
  return { engine, socket, startMs: performance.now() - startedAt };
}

async function untilReady(socket: string, deadline: number): Promise<void> {
  while (performance.now() < deadline) {
    const response = await fetch("http://engine/health", { unix: socket }).catch(() => undefined);
    if (response?.ok === true) return;
    await Bun.sleep(1);
  }
  throw new Error(`no answer on ${socket} within ${READY_LIMIT_MS / 1000} s`);
}

/** As the engine counts: the way to it is the same. */
async function tokensPerSecond(socket: string): Promise<number> {
  const response = await fetch("http://engine/completion", {
    method: "POST",
    unix: socket,
    body: JSON.stringify({
      prompt: "Tell me a long story.",
      n_predict: ANSWER_TOKENS,
      ignore_eos: true,
      cache_prompt: false,
    }),
  });
  const { timings } = (await response.json()) as { timings?: { predicted_per_second?: number } };
  if (timings?.predicted_per_second === undefined) throw new Error("the engine tells no speed");
  return timings.predicted_per_second;
}

function toResult(starts: readonly number[][], rates: readonly number[][]): BenchResult {
  const [bareMs = 0, insideMs = 0] = starts.map(median);
  const [bareRate = 0, insideRate = 0] = rates.map(median);
  const addedMs = median(pairs(starts).map(([bare, inside]) => inside - bare));
  const ratio = median(pairs(rates).map(([bare, inside]) => inside / bare));
  return {
    name: "sandbox",
    title: "Confining an engine",
    table: [
      ["llama-server", "as it is", "under bubblewrap", "difference"],
      ["until it serves", ms(bareMs), ms(insideMs), `+${ms(addedMs)}`.replace("+-", "-")],
      ["tokens/s", bareRate.toFixed(0), insideRate.toFixed(0), `× ${ratio.toFixed(3)}`],
    ],
    bars: [
      {
        text: `a start takes at most ${START_LIMIT_MS} ms longer`,
        isKept: addedMs <= START_LIMIT_MS,
      },
      { text: `at least ${RATIO_LIMIT * 100} % of the tokens/s`, isKept: ratio >= RATIO_LIMIT },
    ],
    notes: ["Medians; the last column is the median over pairs measured back to back."],
  };
}

function pairs([left = [], right = []]: readonly (readonly number[])[]): [number, number][] {
  return left.map((value, index) => [value, right[index] ?? 0]);
}

function ms(value: number): string {
  return `${value.toFixed(1)} ms`;
}
