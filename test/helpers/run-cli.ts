import { tugBinary } from "./binary.ts";
import { tempDir } from "./temp-dir.ts";

export interface CliResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

export interface RunOptions {
  /** Added to what is left of this process's environment; see `cleanEnvironment`. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** What it reads; nothing unless given. */
  readonly stdin?: string;
  /** Milliseconds until it is killed; 60,000 unless given. */
  readonly timeoutMs?: number;
}

/** A command that answers does so in seconds, installation of an engine apart. */
const TIMEOUT_MS = 60_000;

/** Runs the compiled binary to its end, with a fresh `TUG_HOME` unless `env` names one. */
export async function runCli(
  args: readonly string[],
  options: RunOptions = {},
): Promise<CliResult> {
  await using fresh = options.env?.["TUG_HOME"] === undefined ? await tempDir() : undefined;
  const child = Bun.spawn([await tugBinary(), ...args], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...cleanEnvironment(), ...(fresh && { TUG_HOME: fresh.path }), ...options.env },
    stdin: options.stdin === undefined ? "ignore" : new Blob([options.stdin]),
    stdout: "pipe",
    stderr: "pipe",
    timeout: options.timeoutMs ?? TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { stdout, stderr, exitCode: await child.exited };
}

/** This process's environment without what changes Tug's or Bun's behaviour or the look of its output. */
export function cleanEnvironment(): Record<string, string> {
  const meddling =
    /^(TUG_|BUN_|MODEL_RUNNER_|MODELS_PATH$|DMR_|DOCKER_MODEL_|LLAMA_|NO_COLOR$|FORCE_COLOR$|CI$|LOG_LEVEL$|NODE_ENV$|SOURCE_DATE_EPOCH$|DOCKER_|HF_|HUGGING_FACE_|OLLAMA_|INSECURE_REGISTRY$)/;
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && !meddling.test(name)) env[name] = value;
  }
  return env;
}
