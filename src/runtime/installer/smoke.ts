/** Proves that an engine works on this machine: starts it with a small model and asks it a question. */
import { mkdir, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { errnoOf } from "../../errors.ts";
import type { Backend, Bundle, ExitFacts, Installation } from "../backend.ts";
import { spawnEngine } from "../process.ts";
import type { EngineProcess, SpawnOptions } from "../process.ts";
import { pause } from "../../pause.ts";
import { makeSmokeDirectory } from "./smoke-directory.ts";

/** The model has a few megabytes; a machine that needs longer than this cannot serve anything. Unless the engine says. */
const SMOKE_BOUND_MS = 60_000;
/** Of a GPU, for an engine that takes its share whole: others may hold some of it. */
const SMOKE_GPU_SHARE = 0.4;
const POLL_MS = 20;
/** It has nothing to save. */
const STOP_GRACE_MS = 500;
const CONTEXT_TOKENS = 512;
const ANSWER_TOKENS = 32;
const QUESTION = "What is the capital of France?";

export interface SmokeOptions {
  /** A GGUF; of one whose name starts with `pebble` the answer is known and required. */
  readonly model: string;
  readonly platform: NodeJS.Platform;
  readonly signal: AbortSignal;
}

/** @throws Error whose message is a clause that says what went wrong */
export async function smokeTest(
  installation: Installation,
  backend: Backend,
  options: SmokeOptions,
): Promise<void> {
  options.signal.throwIfAborted();
  const directory = await makeSmokeDirectory();
  try {
    await using engine = await startEngine({ installation, backend, directory, options });
    await waitUntilReady(engine, backend);
    const answer = await ask(engine, backend);
    const isPebble = backend.smokeFiles === undefined && isNamedPebble(options.model);
    const expected = isPebble ? "Paris" : "";
    if (answer.trim() === "") throw new Error("it gave an empty answer");
    if (!answer.includes(expected)) {
      throw new Error(`it answered \`${answer.slice(0, 100)}\` instead of \`${expected}\``);
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

// --- internal ---

interface Engine extends AsyncDisposable {
  readonly socket: string;
  readonly signal: AbortSignal;
  /** The caller's, to tell its abort from the bound. */
  readonly callerSignal: AbortSignal;
  hasExited(): boolean;
  /** Why it ended, from its stderr. */
  reason(): Promise<string>;
}

interface StartInput {
  readonly installation: Installation;
  readonly backend: Backend;
  readonly directory: string;
  readonly options: SmokeOptions;
}

async function startEngine(input: StartInput): Promise<Engine> {
  const { installation, backend, directory, options } = input;
  const socket = join(directory, "smoke.sock");
  const { args, env } = backend.args({
    bundle: await bundleFor(backend, options.model, directory),
    mode: backend.modes[0] ?? "completion",
    alias: "smoke-test",
    settings: { contextTokens: CONTEXT_TOKENS, runtimeFlags: [] },
    socket,
    cores: 1,
    platform: options.platform,
    variant: installation.variant,
    gpuShare: backend.reservesGpus === undefined ? undefined : SMOKE_GPU_SHARE,
  });
  const child = spawn({
    command: [...installation.command, ...args],
    env,
    directory,
    onOutput: () => Promise.resolve(),
    graceMs: STOP_GRACE_MS,
  });
  const { smokeBoundMs: boundMs = SMOKE_BOUND_MS } = backend;
  let facts: ExitFacts | undefined;
  void child.exited.then((ended) => (facts = ended));
  return {
    socket,
    signal: AbortSignal.any([options.signal, AbortSignal.timeout(boundMs)]),
    callerSignal: options.signal,
    hasExited: () => facts !== undefined,
    reason: async () => backend.explainExit(await child.exited).reason,
    [Symbol.asyncDispose]: () => child.terminate(),
  };
}

/** Where no shell stands between, a program that is not there is an exception. */
function spawn(options: SpawnOptions): EngineProcess {
  try {
    return spawnEngine(options);
  } catch (error) {
    const why = errnoOf(error) ?? (error instanceof Error ? error.message : String(error));
    throw new Error(`\`${options.command[0]}\` cannot be started (${why})`, { cause: error });
  }
}

async function waitUntilReady(engine: Engine, backend: Backend): Promise<void> {
  for (;;) {
    if (engine.hasExited()) throw new Error(await engine.reason());
    engine.callerSignal.throwIfAborted();
    if (engine.signal.aborted) {
      const { smokeBoundMs = SMOKE_BOUND_MS } = backend;
      throw new Error(`it was not ready within ${smokeBoundMs / 1000} s`);
    }
    // Refused while the engine has not bound its socket yet.
    const answer = await request(engine, backend.readinessPath).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.ok === true) return;
    await pause(POLL_MS, engine.signal);
  }
}

async function ask(engine: Engine, { servedModel, smokeRequest }: Backend): Promise<string> {
  const { path, body } = smokeRequest ?? {
    path: "/v1/chat/completions",
    body: {
      ...(servedModel === undefined ? {} : { model: servedModel }),
      messages: [{ role: "user", content: QUESTION }],
      max_tokens: ANSWER_TOKENS,
      temperature: 0,
    },
  };
  const answer = await request(engine, path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  }).catch(async (error: unknown) => {
    engine.callerSignal.throwIfAborted();
    if (engine.signal.aborted) throw new Error("it did not answer in time", { cause: error });
    throw new Error(await engine.reason(), { cause: error });
  });
  if (!answer.ok) throw new Error(`it answered with status ${answer.status}`);
  if (smokeRequest !== undefined) return answer.text();
  const parsed = (await answer.json()) as {
    choices?: readonly { message?: { content?: string } }[];
  };
  return parsed.choices?.[0]?.message?.content ?? "";
}

function request(engine: Engine, path: string, init: RequestInit = {}): Promise<Response> {
  const { socket: unix, signal } = engine;
  return fetch(`http://localhost${path}`, { ...init, unix, signal, keepalive: false });
}

function isNamedPebble(model: string): boolean {
  return basename(model).startsWith("pebble");
}

async function bundleFor(backend: Backend, model: string, directory: string): Promise<Bundle> {
  const files = Object.entries(backend.smokeFiles?.() ?? {});
  if (files.length > 0) return writeBundle(files, join(directory, "model"), backend);
  const { size } = await stat(model);
  return { directory: dirname(model), format: "gguf", model, weightBytes: size };
}

async function writeBundle(
  files: readonly (readonly [string, string | Uint8Array])[],
  directory: string,
  { formats: [format = "safetensors"] }: Backend,
): Promise<Bundle> {
  await mkdir(directory);
  for (const [name, content] of files) await writeFile(join(directory, name), content);
  const weights = files.filter(([name]) => name.endsWith(`.${format}`));
  const weightBytes = weights.reduce((sum, [, content]) => sum + content.length, 0);
  return { directory, format, model: join(directory, weights[0]?.[0] ?? ""), weightBytes };
}
