/** Asks a tool of the system or of a GPU's vendor, within bounds: of time, even where its driver hangs, and of output. */
import { log } from "../../log.ts";
import { engineEnvironment } from "../process.ts";

/** These tools answer in well under a second; a driver that hangs must not hang an install or a load. */
const PROBE_TIMEOUT_MS = 5000;
/** `vulkaninfo` writes about 200 kB a GPU. */
const OUTPUT_LIMIT_BYTES = 4_000_000;

export type Env = Readonly<Record<string, string | undefined>>;

export interface ProbeOptions {
  readonly env: Env;
  readonly signal?: AbortSignal | undefined;
  /** 5 s unless given. */
  readonly timeoutMs?: number;
}

/** `failed` has what was printed before the end; `silent` took too long, printed too much or could not be started. */
export type ToolAnswer =
  | { readonly kind: "missing" }
  | { readonly kind: "silent" }
  | { readonly kind: "answered" | "failed"; readonly output: string };

/**
 * What a tool prints, or nothing if it is missing, fails, prints too much or takes too long.
 *
 * @throws the signal's reason, and nothing else
 */
export async function probe(argv: readonly string[], options: ProbeOptions): Promise<string> {
  const answer = await askTool(argv, options);
  return answer.kind === "answered" ? answer.output : "";
}

/**
 * Runs a tool, found by its name on PATH or by its path, and says how that went.
 *
 * @throws the signal's reason, and nothing else
 */
export async function askTool(argv: readonly string[], options: ProbeOptions): Promise<ToolAnswer> {
  options.signal?.throwIfAborted();
  const name = argv[0] ?? "";
  const program = Bun.which(name, { PATH: options.env["PATH"] ?? "" });
  if (program === null) return { kind: "missing" };
  const child = spawn([program, ...argv.slice(1)], options.env);
  if (child === undefined) return { kind: "silent" };
  let answer: ToolAnswer | undefined;
  try {
    // A tool stuck in the kernel does not even die of SIGKILL: nothing here waits for its end alone.
    answer = await withinBounds(finish(child), options);
  } finally {
    if (answer?.kind !== "answered") end(child);
  }
  if (answer?.kind !== "answered") log.debug(`hardware: no answer tool=${name}`);
  return answer ?? { kind: "silent" };
}

// --- internal ---

type Child = Bun.Subprocess<"ignore", "pipe", "ignore">;

/** @returns undefined if it takes too long @throws the signal's reason */
async function withinBounds<T>(
  promise: Promise<T>,
  { signal, timeoutMs = PROBE_TIMEOUT_MS }: ProbeOptions,
): Promise<T | undefined> {
  const { promise: interrupted, resolve } = Promise.withResolvers<undefined>();
  const interrupt = (): void => resolve(undefined);
  const timer = setTimeout(interrupt, timeoutMs);
  signal?.addEventListener("abort", interrupt, { once: true });
  try {
    const result = await Promise.race([promise, interrupted]);
    signal?.throwIfAborted();
    return result;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", interrupt);
  }
}

/** In a group of its own: a script's children would hold the pipe open when the script has been killed. */
function spawn(command: readonly string[], env: Env): Child | undefined {
  try {
    const child = Bun.spawn([...command], {
      env: { ...engineEnvironment(env), LC_ALL: "C" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
      detached: process.platform !== "win32",
      windowsHide: true,
    });
    child.unref();
    return child;
  } catch (thrown) {
    log.debug(`hardware: not started tool=${command[0] ?? ""} reason=${String(thrown)}`);
    return undefined;
  }
}

async function finish(child: Child): Promise<ToolAnswer> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  try {
    for await (const chunk of child.stdout) {
      bytes += chunk.byteLength;
      if (bytes > OUTPUT_LIMIT_BYTES) return { kind: "silent" };
      text += decoder.decode(chunk, { stream: true });
    }
  } catch {
    return { kind: "silent" };
  }
  const output = text + decoder.decode();
  return { kind: (await child.exited) === 0 ? "answered" : "failed", output };
}

/** The whole group: the tool may be gone while its children are not. Harmless if nobody is left. */
function end(child: Child): void {
  try {
    if (process.platform === "win32") child.kill("SIGKILL");
    else process.kill(-child.pid, "SIGKILL");
  } catch {
    // They went by themselves.
  }
}
