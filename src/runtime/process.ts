/**
 * One engine process: spawned in its own process group, its output drained, ended with its whole group.
 *
 * The group dies with this process, however that ends: a watcher in the group holds the reading end of a pipe whose
 * writing end is here, and kills the group when the pipe closes. Windows has no such group: there the process is plain.
 */
import { log } from "../log.ts";
import type { ExitFacts } from "./backend.ts";
import { countOomKills } from "./oom-kills.ts";
import { RingBuffer } from "./ring-buffer.ts";
import type { Sandbox } from "./sandbox/sandbox.ts";

/** Holds the reason of most failures and some context; attached to every failed worker. */
const STDERR_TAIL_BYTES = 64 * 1024;
/** An engine has to finish writing caches and free device memory; llama-server needs 4 to 24 ms. */
const TERM_GRACE_MS = 10_000;
/**
 * Asked once more after this: llama-server forgets a SIGTERM that comes just before its loop begins, which is after its
 * first 200, and a second one ends it at once. @see llama.cpp tools/server/server-queue.cpp start_loop
 */
const ASK_AGAIN_MS = 500;
/** SIGKILL is refused only by a process stuck in the kernel (a driver, a dead network disk). */
const KILL_GRACE_MS = 5000;
/** After the exit: for output that is still in the pipe. A process that left the group may hold it open for ever. */
const DRAIN_MS = 1000;

/**
 * The watcher ignores the signals that ask the engine to end, so that it still guards one that does not obey. Only
 * builtins of the shell are used. `$@` is the engine, which takes the place of the shell and keeps its pid.
 */
const LIFELINE =
  'exec 3<&0; (trap "" TERM INT HUP; read -r end <&3; kill -KILL 0) >/dev/null 2>&1 & exec "$@" </dev/null 3<&-';

/**
 * Variables that engines must not see: those that steer Bun, which may run an engine, the key to our own API, and
 * settings of llama.cpp, which would come from whichever shell happened to start the runner.
 */
const PRIVATE_VARIABLE = /^(?:BUN_.*|TUG_API_KEY|LLAMA_ARG_.*|LLAMA_API_KEY)$/;

export interface SpawnOptions {
  /** Absolute path of the program, then its arguments. */
  readonly command: readonly string[];
  /** Added to this process's own environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly directory: string;
  /** Output of both kinds, as it comes. Reading goes on when the promise resolves; it must not reject. */
  onOutput(chunk: Uint8Array): Promise<void>;
  /** From SIGTERM to SIGKILL. */
  readonly graceMs?: number;
  /** What the command is wrapped in, which may have to pass on that it is to end. */
  readonly sandbox?: Pick<Sandbox, "askToEnd"> | undefined;
}

export type Spawn = (options: SpawnOptions) => EngineProcess;

export interface EngineProcess {
  readonly pid: number;
  /** The process has ended, what was left of its group is killed and its output has been read. Never rejects. */
  readonly exited: Promise<ExitFacts>;
  /** Ends the group: politely, then by force. Idempotent; resolves when it has gone, or cannot be ended. */
  terminate(): Promise<void>;
  /** Ends the group by force, at once: for a process that does not listen. */
  kill(): void;
}

/** Before a command: its group dies with this process. It needs a pipe as its stdin, and a group (`detached`). */
export function lifeline(): readonly string[] {
  return process.platform === "win32" ? [] : ["/bin/sh", "-c", LIFELINE, "engine"];
}

export function spawnEngine(options: SpawnOptions): EngineProcess {
  const isWindows = process.platform === "win32";
  const oomKills = countOomKills();
  const child = Bun.spawn([...lifeline(), ...options.command], {
    cwd: options.directory,
    env: { ...engineEnvironment(process.env), ...options.env },
    stdio: ["pipe", "pipe", "pipe"],
    detached: !isWindows,
    windowsHide: true,
  });
  const tail = new RingBuffer(STDERR_TAIL_BYTES);
  const outputs = [
    drain(child.stdout, (chunk) => options.onOutput(chunk)),
    drain(child.stderr, (chunk) => {
      tail.append(chunk);
      return options.onOutput(chunk);
    }),
  ];
  const exited = (async (): Promise<ExitFacts> => {
    await child.exited;
    // The watcher is in the group until now, so the number cannot have gone to anyone else.
    signalGroup(child.pid, "SIGKILL");
    await child.stdin.end();
    await Promise.all(outputs.map((output) => output.end()));
    return {
      exitCode: child.exitCode,
      signal: child.signalCode?.toString() ?? null,
      stderrTail: tail.text(),
      wasMemoryShort: oomKills === undefined ? undefined : oomKills !== countOomKills(),
    };
  })();
  let termination: Promise<void> | undefined;
  const graceMs = options.graceMs ?? TERM_GRACE_MS;
  return {
    pid: child.pid,
    exited,
    terminate: () =>
      (termination ??= terminate({ pid: child.pid, exited, graceMs, sandbox: options.sandbox })),
    kill: () => void signalGroup(child.pid, "SIGKILL"),
  };
}

/** What an engine inherits. */
export function engineEnvironment(
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !PRIVATE_VARIABLE.test(name)));
}

/** Signals the group that a process leads. True if there was one. On Windows every signal ends the tree. */
export function signalGroup(pid: number, signal: "SIGTERM" | "SIGKILL" | "SIGCONT"): boolean {
  if (process.platform === "win32") {
    return Bun.spawnSync(["taskkill", "/PID", String(pid), "/T", "/F"]).success;
  }
  try {
    return process.kill(-pid, signal);
  } catch {
    return false;
  }
}

/** Whether the promise settles in time. Leaves no timer behind. */
export async function settlesWithin(promise: Promise<unknown>, boundMs: number): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), boundMs);
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

// --- internal ---

interface Output {
  /** Waits for the end of the stream, within a bound. */
  end(): Promise<void>;
}

function drain(
  stream: ReadableStream<Uint8Array>,
  onChunk: (chunk: Uint8Array) => Promise<void>,
): Output {
  const reader = stream.getReader();
  const finished = (async () => {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      await onChunk(next.value);
    }
  })().catch((thrown: unknown) =>
    log.debug(`runtime: engine output lost reason=${String(thrown)}`),
  );
  return {
    async end() {
      if (!(await settlesWithin(finished, DRAIN_MS))) await reader.cancel();
    },
  };
}

interface Termination {
  readonly pid: number;
  readonly exited: Promise<unknown>;
  readonly graceMs: number;
  readonly sandbox: SpawnOptions["sandbox"];
}

async function terminate({ pid, exited, graceMs, sandbox }: Termination): Promise<void> {
  const firstMs = Math.min(ASK_AGAIN_MS, graceMs);
  askToEnd(pid, sandbox);
  if (await settlesWithin(exited, firstMs)) return;
  askToEnd(pid, sandbox);
  if (await settlesWithin(exited, graceMs - firstMs)) return;
  log.warn(`runtime: engine ignored SIGTERM, killed pid=${pid} after_ms=${graceMs}`);
  signalGroup(pid, "SIGKILL");
  if (await settlesWithin(exited, KILL_GRACE_MS)) return;
  log.error(`runtime: engine cannot be killed pid=${pid}`);
}

function askToEnd(pid: number, sandbox: SpawnOptions["sandbox"]): void {
  // A sandbox that goes first would take the engine with it.
  const isAsked = sandbox?.askToEnd?.(pid) ?? false;
  if (!isAsked) signalGroup(pid, "SIGTERM");
  // A process that was stopped hears it when it goes on.
  if (process.platform !== "win32") signalGroup(pid, "SIGCONT");
}
