/** What a model is said to need before it is loaded, against what the engine then holds at most. */
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { llamacppArgs } from "../../backends/llamacpp/args.ts";
import type { Mode } from "../../src/runtime/backend.ts";
import { CHECKPOINTS, estimateMemory, IN_RAM, type RunShape } from "../../src/runtime/memory.ts";
import { measureProcess } from "../../src/runtime/measure.ts";
import { rearrangedBy } from "../../src/runtime/rearranged.ts";
import { readGgufShape } from "../../src/store/gguf.ts";
import { type RandomModelSpec, writeRandomModel } from "../../test/helpers/random-model.ts";
import { ROOT } from "../compile/freshness.ts";
import type { BenchResult } from "./report.ts";

const MIB = 1024 * 1024;
/** Of an estimate: whichever is larger. */
const TOLERANCE_RATIO = 0.1;
const TOLERANCE_BYTES = 64 * MIB;
const READY_MS = 30_000;
/** A prompt of this share of the context, so that caches and buffers are touched. */
const FILL_RATIO = 0.9;
/** More would take minutes on two processors. Tokens. */
const MAX_PROMPT = 2500;
const NEW_TOKENS = 16;
/** As the planner fills them in. */
const PARALLEL = 4;

interface Subject {
  readonly label: string;
  readonly spec: RandomModelSpec;
  readonly contextTokens: number;
  readonly mode?: Mode;
  readonly cacheType?: string;
}

const DENSE = { embedding: 1024, heads: 16, feedForward: 2816, context: 32_768 } as const;
const WIDE = { embedding: 2048, heads: 32, kvHeads: 8, feedForward: 5632, context: 8192 } as const;
const EXPERTS = {
  architecture: "qwen3moe",
  embedding: 768,
  heads: 12,
  kvHeads: 4,
  feedForward: 512,
  experts: 32,
  expertsUsed: 4,
  context: 16_384,
} as const;
const SLIDING = {
  architecture: "gemma3",
  embedding: 1024,
  heads: 16,
  kvHeads: 8,
  feedForward: 2816,
  context: 32_768,
  window: 512,
} as const;
const POOLED = {
  architecture: "nomic-bert",
  embedding: 768,
  heads: 12,
  feedForward: 3072,
  context: 2048,
  vocabulary: 30_000,
} as const;

const SUBJECTS: readonly Subject[] = [
  { label: "dense, F16", spec: { ...DENSE, layers: 8 }, contextTokens: 2048 },
  { label: "dense, Q8_0", spec: { ...DENSE, layers: 16, type: "Q8_0" }, contextTokens: 8192 },
  { label: "grouped-query, F16", spec: { ...DENSE, kvHeads: 4, layers: 10 }, contextTokens: 8192 },
  {
    label: "grouped-query, Q8_0, large vocabulary",
    spec: { ...DENSE, kvHeads: 4, layers: 12, vocabulary: 100_000, type: "Q8_0" },
    contextTokens: 32_768,
  },
  { label: "wide, Q8_0", spec: { ...WIDE, layers: 6, type: "Q8_0" }, contextTokens: 2048 },
  {
    label: "wide, Q4_0, cache q8_0",
    spec: { ...WIDE, layers: 10, type: "Q4_0" },
    contextTokens: 8192,
    cacheType: "q8_0",
  },
  { label: "experts, F16", spec: { ...EXPERTS, layers: 4 }, contextTokens: 2048 },
  { label: "experts, Q8_0", spec: { ...EXPERTS, layers: 8, type: "Q8_0" }, contextTokens: 8192 },
  { label: "sliding window, F16", spec: { ...SLIDING, layers: 12 }, contextTokens: 8192 },
  {
    label: "sliding window, Q8_0",
    spec: { ...SLIDING, layers: 18, type: "Q8_0" },
    contextTokens: 32_768,
  },
  {
    label: "embedding, F16",
    spec: { ...POOLED, layers: 8 },
    contextTokens: 2048,
    mode: "embedding",
  },
  {
    label: "embedding, Q8_0",
    spec: { ...POOLED, layers: 12, type: "Q8_0" },
    contextTokens: 2048,
    mode: "embedding",
  },
  // Beyond the promise.
  {
    label: "recurrent, F16",
    spec: { ...DENSE, architecture: "mamba", layers: 12 },
    contextTokens: 8192,
  },
];

/** What the rest of a Tug installation has; else the one that tests use. */
const ENGINE = process.env["TUG_LLAMA_SERVER"];

export async function benchEstimate(): Promise<BenchResult> {
  const directory = await mkdtemp(join(tmpdir(), "tug-estimate-"));
  const rows: Row[] = [];
  try {
    await mkdir(directory, { recursive: true });
    for (const subject of SUBJECTS) rows.push(await measure(subject, directory));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  const missed = rows.filter((row) => !isKept(row));
  return {
    name: "estimate",
    title: "Memory: the estimate against the measured peak",
    table: [
      ["model", "file", "context", "estimate", "peak", "difference", ""],
      ...rows.map(({ subject, bytes, estimate, peak }) => [
        subject.label,
        inMib(bytes),
        String(subject.contextTokens),
        inMib(estimate),
        inMib(peak),
        inMib(estimate - peak),
        `${(((estimate - peak) / peak) * 100).toFixed(1)} %`,
      ]),
    ],
    bars: [
      {
        text: `each within 10 % or 64 MiB${missed.length === 0 ? "" : `; not: ${missed.map(({ subject }) => subject.label).join(", ")}`}`,
        isKept: missed.length === 0,
      },
    ],
    notes: [
      "Random weights; the arguments are those Tug gives; 4 slots; prompts in all of them that together fill most of the context, at most 2500 tokens. The peak is VmHWM.",
    ],
  };
}

// --- internal ---

interface Row {
  readonly subject: Subject;
  readonly bytes: number;
  readonly estimate: number;
  readonly peak: number;
}

function isKept({ estimate, peak }: Row): boolean {
  const difference = Math.abs(estimate - peak);
  return difference <= peak * TOLERANCE_RATIO || difference <= TOLERANCE_BYTES;
}

function inMib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}

async function measure(subject: Subject, directory: string): Promise<Row> {
  const { contextTokens, mode = "completion", cacheType = "f16" } = subject;
  const model = join(directory, "model.gguf");
  const { bytes } = await writeRandomModel(model, subject.spec);
  const shape = await readGgufShape([{ location: model, name: "model.gguf" }], {
    signal: AbortSignal.timeout(READY_MS),
  });
  const socket = join(directory, "engine.sock");
  const { args, env } = llamacppArgs({
    bundle: { directory, format: "gguf", model, weightBytes: bytes },
    mode,
    settings: {
      contextTokens,
      parallel: PARALLEL,
      cacheTypeK: cacheType,
      cacheTypeV: cacheType,
      promptCacheMiB: 0,
      contextCheckpoints: CHECKPOINTS,
      runtimeFlags: [],
    },
    alias: "random",
    socket,
    cores: 2,
    platform: process.platform,
  });
  const run: RunShape = {
    contextTokens,
    parallel: PARALLEL,
    cacheTypeK: cacheType,
    cacheTypeV: cacheType,
    mode,
    projectorBytes: 0,
    adapterBytes: 0,
    offload: IN_RAM,
    loading: { isMapped: env["LLAMA_ARG_LOAD_MODE"] !== "none", ...(await rearranged()) },
  };
  const { demand, parts } = estimateMemory(shape, run);
  const peak = await peakOf({ command: [...(await engine()), ...args], env, socket, subject });
  if (process.env["TUG_BENCH_VERBOSE"] !== undefined) console.error(subject.label, parts);
  return { subject, bytes, estimate: demand["ram"] ?? 0, peak };
}

async function rearranged() {
  const text = await readFile("/proc/cpuinfo", "utf8").catch(() => "");
  const flags = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1] ?? "";
  return rearrangedBy({ arch: process.arch, flags: new Set(flags.split(" ")) });
}

async function engine(): Promise<readonly string[]> {
  if (ENGINE !== undefined) return [ENGINE];
  const home = join(ROOT, "dist", "test-home", "backends", "llama.cpp");
  const installed = new Bun.Glob("*/install.json").scan({ cwd: home });
  for await (const name of installed) {
    const { command } = (await Bun.file(join(home, name)).json()) as { command: string[] };
    return command.map((word) => word.replace("{directory}", join(home, name, "..")));
  }
  throw new Error("there is no llama-server: run the tests first, or set TUG_LLAMA_SERVER");
}

interface Launch {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly socket: string;
  readonly subject: Subject;
}

async function peakOf({ command, env, socket, subject }: Launch): Promise<number> {
  await rm(socket, { force: true });
  const engineProcess = Bun.spawn([...command], { env, stdio: ["ignore", "ignore", "ignore"] });
  try {
    await ready(socket, engineProcess);
    await Promise.all(requestsOf(subject).map((request) => answer(socket, request)));
    return measureProcess(engineProcess.pid)?.peakBytes ?? 0;
  } catch (error) {
    const ended = engineProcess.exitCode ?? engineProcess.signalCode ?? "running";
    throw new Error(`${subject.label}: ${(error as Error).message} (the engine: ${ended})`, {
      cause: error,
    });
  } finally {
    engineProcess.kill();
    await engineProcess.exited;
  }
}

interface Request {
  readonly path: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Conversations in all slots at once; an embedding is made of one input that is as long as it may be. */
function requestsOf({ contextTokens, mode, spec }: Subject): Request[] {
  const total = Math.min(MAX_PROMPT, Math.floor(contextTokens * FILL_RATIO));
  if (mode === "embedding") return [{ path: "/v1/embeddings", body: { input: prompt(total, 0) } }];
  // Two conversations at once with Mamba crash llama-server (build 11669), whatever its flags.
  const slots = spec.architecture === "mamba" ? 1 : PARALLEL;
  return Array.from({ length: slots }, (_, slot) => ({
    path: "/completion",
    body: {
      prompt: prompt(Math.floor(total / slots), slot),
      n_predict: NEW_TOKENS,
      temperature: 0,
    },
  }));
}

function prompt(length: number, seed: number): number[] {
  return Array.from({ length }, (_, index) => 300 + (((index + seed) * 7919) % 1500));
}

async function answer(socket: string, { path, body }: Request): Promise<void> {
  const response = await ask(socket, path, { method: "POST", body: JSON.stringify(body) });
  const text = await response.text();
  if (!response.ok) throw new Error(`the engine answered ${text}`);
}

async function ready(socket: string, engineProcess: Bun.Subprocess): Promise<void> {
  const deadlineMs = Date.now() + READY_MS;
  while (Date.now() < deadlineMs && engineProcess.exitCode === null) {
    const response = await ask(socket, "/health", {}).catch(() => undefined);
    if (response?.ok === true) return;
    await Bun.sleep(20);
  }
  throw new Error(`the engine did not become ready (exit code ${engineProcess.exitCode})`);
}

/** Bun knows `unix`, its types for `fetch` elsewhere do not. */
async function ask(socket: string, path: string, init: RequestInit): Promise<Response> {
  const options: object = { ...init, unix: socket, keepalive: false };
  return fetch(`http://engine${path}`, options);
}
