/** `bun run bench start|proxy|swap|queue|idle|pull|push|gaps|estimate|sandbox|api|all`: measures the compiled binary and writes docs/benchmarks.md. */
import { ensureCompiled } from "../compile/freshness.ts";
import { benchApi } from "./api.ts";
import { benchEstimate } from "./estimate.ts";
import { benchGaps } from "./gaps.ts";
import { benchIdle } from "./idle.ts";
import { benchProxy } from "./proxy.ts";
import { benchPull } from "./pull.ts";
import { benchPush } from "./push.ts";
import { benchQueue } from "./queue.ts";
import { type BenchResult, publish } from "./report.ts";
import { benchSandbox } from "./sandbox.ts";
import { benchStart } from "./start.ts";
import { benchSwap } from "./swap.ts";

const BENCHMARKS: Readonly<Record<string, () => Promise<BenchResult>>> = {
  start: benchStart,
  proxy: benchProxy,
  swap: benchSwap,
  queue: benchQueue,
  idle: benchIdle,
  pull: benchPull,
  push: benchPush,
  gaps: benchGaps,
  estimate: benchEstimate,
  sandbox: benchSandbox,
  api: benchApi,
};

if (import.meta.main) {
  try {
    process.exitCode = await main(process.argv[2]);
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

// --- internal ---

/** @returns 1 if a bar was missed, 2 if there is no such benchmark */
async function main(name: string | undefined): Promise<number> {
  const known = Object.keys(BENCHMARKS);
  const chosen = name === "all" ? known : known.filter((it) => it === name);
  if (chosen.length === 0) {
    console.error(`usage: bun run bench ${[...known, "all"].join("|")}`);
    return 2;
  }
  await ensureCompiled();
  let missed = 0;
  for (const benchmark of chosen) {
    const result = await BENCHMARKS[benchmark]?.();
    if (result === undefined) continue;
    await publish(result);
    missed += result.bars.filter(({ isKept }) => !isKept).length;
  }
  return missed === 0 ? 0 : 1;
}
