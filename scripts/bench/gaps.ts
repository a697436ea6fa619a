/** What a pull does to an answer that is being streamed: the gaps between tokens, with none, beside it and in the runner. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startDockerRegistry } from "../../test/helpers/docker-registry.ts";
import { BINARY } from "../compile/freshness.ts";
import { seedModel, writeLargeGguf } from "./large-model.ts";
import type { BenchResult } from "./report.ts";
import { type BenchRunner, startServe } from "./serve.ts";
import { median } from "./median.ts";
import { timedCommand } from "./timed-command.ts";

const ROUNDS = 3;
const LARGE_BYTES = 2 * 1024 ** 3;
const WATCHED_MS = 5_000;
/** What a pull may add to the gap that 99 % stay below: with it they are still shorter than a frame of the screen. */
const ADDED_MS = 10;

/** HTTP_PROXY would be asked about this machine. Bun knows `false`, its types do not. */
const NO_PROXY: object = { proxy: false };

interface Gaps {
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly longestMs: number;
}

interface Sample {
  readonly alone: Gaps;
  readonly beside: Gaps;
  readonly inside: Gaps;
}

export async function benchGaps(): Promise<BenchResult> {
  const directory = await mkdtemp(join(tmpdir(), "tug-bench-"));
  try {
    await using registry = await startDockerRegistry();
    const file = await writeLargeGguf(join(directory, "large.gguf"), LARGE_BYTES);
    await seedModel(registry.url, "bench/m", file);
    await rm(file.path);
    await using runner = await startServe();
    await runner.tug(["install-runner"]);
    await stream(runner, () => Promise.resolve());
    const samples: Sample[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      samples.push(await measure(runner, { name: `${registry.host}/bench/m:1`, directory }));
    }
    return toResult(samples);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

// --- internal ---

async function measure(
  runner: BenchRunner,
  { name, directory }: { name: string; directory: string },
): Promise<Sample> {
  const alone = await stream(runner, () => Bun.sleep(WATCHED_MS));
  const home = join(directory, "other");
  const beside = await stream(runner, async () => {
    await timedCommand([BINARY, "pull", name, "--quiet"], {
      env: { ...process.env, TUG_HOME: home },
    });
  });
  await rm(home, { recursive: true, force: true });
  const inside = await stream(runner, async () => {
    await runner.tug(["pull", name, "--detach"]);
    await allDone(runner);
  });
  await runner.tug(["rm", name]);
  await runner.tug(["prune"]);
  return { alone, beside, inside };
}

async function allDone(runner: BenchRunner): Promise<void> {
  for (;;) {
    const response = await fetch(`${runner.url}/models/pulls`, NO_PROXY);
    const jobs = (await response.json()) as { state: string; error: unknown }[];
    const last = jobs.find(({ state }) => state === "failed" || state === "cancelled");
    if (last !== undefined) throw new Error(`the pull failed: ${JSON.stringify(last.error)}`);
    if (jobs.length > 0 && jobs.every(({ state }) => state === "done")) return;
    await Bun.sleep(200);
  }
}

/** Gaps between the tokens of answers that are streamed one after another while `work` goes on. */
async function stream(runner: BenchRunner, work: () => Promise<void>): Promise<Gaps> {
  const state = { isDone: false };
  const gaps: number[] = [];
  const working = work().finally(() => {
    state.isDone = true;
  });
  do {
    gaps.push(...(await answer(runner)));
  } while (!state.isDone);
  await working;
  const sorted = gaps.toSorted((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return { medianMs: at(0.5), p99Ms: at(0.99), longestMs: at(1) };
}

async function answer(runner: BenchRunner): Promise<number[]> {
  const response = await fetch(`${runner.url}/v1/chat/completions`, {
    method: "POST",
    body: JSON.stringify({
      model: "pebble",
      messages: [{ role: "user", content: "Tell me a long story." }],
      stream: true,
      max_tokens: 400,
      ignore_eos: true,
      keep_alive: -1,
    }),
    ...NO_PROXY,
  });
  if (!response.ok) throw new Error(`the runner answered ${response.status}`);
  const decoder = new TextDecoder();
  const gaps: number[] = [];
  let lastAt: number | undefined;
  for await (const chunk of response.body ?? []) {
    if (!decoder.decode(chunk).includes('"content":"')) continue;
    const now = performance.now();
    if (lastAt !== undefined) gaps.push(now - lastAt);
    lastAt = now;
  }
  return gaps;
}

function toResult(samples: readonly Sample[]): BenchResult {
  const of = (key: keyof Sample, gap: keyof Gaps): number =>
    median(samples.map((sample) => sample[key][gap]));
  const limit = of("alone", "p99Ms") + ADDED_MS;
  const row = (name: string, key: keyof Sample): string[] => [
    name,
    `${of(key, "medianMs").toFixed(2)} ms`,
    `${of(key, "p99Ms").toFixed(2)} ms`,
    `${of(key, "longestMs").toFixed(1)} ms`,
    `× ${(of(key, "p99Ms") / of("alone", "p99Ms")).toFixed(2)}`,
  ];
  return {
    name: "gaps",
    title: "Answering during a pull",
    table: [
      ["gaps between tokens", "median", "99 %", "longest", "99 % to without"],
      row("without a pull", "alone"),
      row("`tug pull` of 2 GiB in another process", "beside"),
      row("`tug pull --detach`: in the runner", "inside"),
    ],
    bars: [
      {
        text: `beside a pull the gap that 99 % stay below is at most ${ADDED_MS} ms longer`,
        isKept: of("beside", "p99Ms") <= limit,
      },
      {
        text: "the same with the pull in the runner",
        isKept: of("inside", "p99Ms") <= limit,
      },
    ],
    notes: [`Medians over ${ROUNDS} rounds. The registry runs on the same machine.`],
  };
}
