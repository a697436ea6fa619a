/** What a swap costs over doing it by hand: A is loaded, there is room for one, and B is asked for. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { loadHome } from "../load/models.ts";
import { ask } from "../load/client.ts";
import { enginePids } from "../load/processes.ts";
import type { BenchResult } from "./report.ts";
import { startServe } from "./serve.ts";
import { median } from "./median.ts";

const ROUNDS = 11;
const ADDED_MS_LIMIT = 100;
const CONTEXT = 2048;
const SHAPE = { embedding: 768, heads: 8, kvHeads: 4, feedForward: 2304, context: 4096 };
const SPECS = [1, 2].map((seed) => ({ layers: 12, ...SHAPE, seed }));
/** As often as somebody in a hurry would look. */
const POLL_MS = 2;

export async function benchSwap(): Promise<BenchResult> {
  await using home = await loadHome(SPECS);
  const [a = "", b = ""] = home.models;
  const need = Math.max(await home.estimate(a, CONTEXT), await home.estimate(b, CONTEXT));
  const env = { TUG_MEMORY_BUDGET: `ram=${Math.ceil(need * 1.2)}`, TUG_SANDBOX: "auto" };
  await using runner = await startServe({ home: home.path, env });
  const swapped: number[] = [];
  const byHand: number[] = [];
  const commands = new Map<string, readonly string[]>();
  for (let round = 0; round < ROUNDS; round += 1) {
    const model = round % 2 === 0 ? a : b;
    const answer = await ask(runner.url, {
      model,
      contextSize: CONTEXT,
      tokens: 1,
      isStream: true,
    });
    if (answer.status !== 200) throw new Error(answer.text);
    // The first one evicts nobody.
    if (round > 0) swapped.push(answer.firstByteMs - answer.startedMs);
    commands.set(model, await engineCommand(runner.pid));
  }
  await home.tug(["unload", "--all", "--wait"]);
  let running = await startEngine(commands.get(b) ?? [], home.path);
  for (let round = 1; round < ROUNDS; round += 1) {
    const startedMs = performance.now();
    running.kill("SIGTERM");
    await running.exited;
    running = await startEngine(commands.get(round % 2 === 1 ? a : b) ?? [], home.path);
    await firstToken(join(home.path, "hand.sock"));
    byHand.push(performance.now() - startedMs);
  }
  running.kill("SIGKILL");
  await running.exited;
  return toResult(median(swapped), median(byHand));
}

// --- internal ---

function toResult(swapMs: number, handMs: number): BenchResult {
  const addedMs = swapMs - handMs;
  return {
    name: "swap",
    title: "Swapping models",
    table: [
      ["from the request for B, A loaded, to B's first token", "median"],
      ["through Tug, which unloads A", `${swapMs.toFixed(0)} ms`],
      ["llama-server A ended, B started and asked by hand", `${handMs.toFixed(0)} ms`],
    ],
    bars: [
      {
        text: `a swap takes at most ${ADDED_MS_LIMIT} ms more than by hand (${addedMs.toFixed(0)} ms)`,
        isKept: addedMs <= ADDED_MS_LIMIT,
      },
    ],
  };
}

/** As Tug started it. */
async function engineCommand(runnerPid: number): Promise<readonly string[]> {
  const [pid] = enginePids(runnerPid);
  const text = await readFile(`/proc/${pid}/cmdline`, "utf8");
  return text.split("\0").slice(0, -1);
}

async function startEngine(command: readonly string[], home: string): Promise<Bun.Subprocess> {
  const socket = join(home, "hand.sock");
  await Bun.file(socket)
    .delete()
    .catch(() => undefined);
  const host = command.indexOf("--host") + 1;
  const child = Bun.spawn(command.with(host, socket), { stdio: ["ignore", "ignore", "ignore"] });
  while (child.exitCode === null) {
    const health = await fetch("http://engine/health", { unix: socket }).catch(() => undefined);
    if (health?.ok === true) return child;
    await Bun.sleep(POLL_MS);
  }
  throw new Error(`the engine left with ${child.exitCode}`);
}

async function firstToken(socket: string): Promise<void> {
  const response = await fetch("http://engine/v1/chat/completions", {
    method: "POST",
    unix: socket,
    body: JSON.stringify({
      messages: [{ role: "user", content: "Tell me a story." }],
      max_tokens: 1,
      stream: true,
      ignore_eos: true,
    }),
  });
  if (!response.ok) throw new Error(await response.text());
  await response.text();
}
