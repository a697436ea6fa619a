/** Which sandbox this machine has: found once, by trying it, when the first engine is to start. */
import { access, constants } from "node:fs/promises";

import { AppError } from "../../errors.ts";
import { log } from "../../log.ts";
import { settlesWithin, spawnEngine } from "../process.ts";
import { createBubblewrap } from "./bubblewrap.ts";
import { createLimits } from "./limits.ts";
import type { Sandbox, SandboxMode, SandboxName } from "./sandbox.ts";
import { createSeatbelt } from "./seatbelt.ts";

export interface SandboxOptions {
  readonly mode: SandboxMode;
  readonly platform: NodeJS.Platform;
  /** The runner's environment: `PATH` finds the programs, and the engine's environment is made of it. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log?: Pick<typeof log, "warn">;
  readonly signal?: AbortSignal;
  /** Where macOS has its program. */
  readonly sandboxExec?: string;
  /** For the trial. */
  readonly trialMs?: number;
}

/** The best there is, and, where that is not isolation, why. */
export interface FoundSandbox {
  readonly sandbox: Sandbox;
  readonly problem?: { readonly reason: string; readonly hint: string };
}

/** Where nothing is confined. */
export const NO_SANDBOX: Sandbox = { name: "none", wrap: (command) => command };

/** A trial takes milliseconds; one that hangs must not hold the first load. */
const TRIAL_MS = 2000;
/** Characters of a program's complaint that are shown. */
const QUOTE_LIMIT = 200;

const USER_NAMESPACES =
  "Allow unprivileged user namespaces: `sysctl kernel.unprivileged_userns_clone=1` on Debian, an AppArmor profile for bwrap on Ubuntu, `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined` for a container";

/**
 * Finds a sandbox and warns if it does not isolate. Each call tries anew, which takes about 10 ms.
 *
 * @throws sandbox_unavailable for `require` without isolation
 */
export async function chooseSandbox(options: SandboxOptions): Promise<Sandbox> {
  return settle(await findSandbox(options), options);
}

/** What a runner gives its engines, and says of it. */
export interface RememberedSandbox {
  /** As `chooseSandbox`, but each problem is warned of once. */
  choose(): Promise<Sandbox>;
  /** As `describeSandbox`. */
  describe(): Promise<SandboxDescription>;
}

/** In the words of the API. */
export interface SandboxDescription {
  readonly mode: SandboxMode;
  readonly name: SandboxName;
  readonly problem: string | null;
}

/** One that works is tried once, by who asks first. One that does not is tried again: it may be mended meanwhile. */
export function rememberSandbox(options: SandboxOptions): RememberedSandbox {
  let pending: Promise<FoundSandbox> | undefined;
  let warnedOf: string | undefined;
  const findOnce = async (): Promise<FoundSandbox> => {
    const mine = (pending ??= findSandbox(options));
    let isKept = false;
    try {
      const found = await mine;
      isKept = found.problem === undefined;
      return found;
    } finally {
      if (!isKept && pending === mine) pending = undefined;
    }
  };
  return {
    async choose() {
      const found = await findOnce();
      const reason = found.problem?.reason;
      if (reason !== undefined && reason === warnedOf) return found.sandbox;
      const sandbox = settle(found, options);
      warnedOf = reason;
      return sandbox;
    },
    describe: async () => describe(await findOnce(), options),
  };
}

/** As `chooseSandbox`, but warns of nothing and refuses nothing. */
export async function findSandbox(options: SandboxOptions): Promise<FoundSandbox> {
  if (options.mode === "off") return { sandbox: NO_SANDBOX };
  if (options.platform === "linux") return findOnLinux(options);
  if (options.platform === "darwin") return findOnMac(options);
  if (options.platform === "win32") {
    // A job object is made by calls of the system that no program at hand makes.
    const reason = "there is no sandbox for Windows yet";
    return { sandbox: NO_SANDBOX, problem: { reason, hint: "Run Tug in WSL" } };
  }
  const reason = `there is no sandbox for ${options.platform}`;
  return { sandbox: createLimits(undefined), problem: { reason, hint: "Run Tug on Linux" } };
}

// --- internal ---

/** @throws sandbox_unavailable for `require` without isolation */
function settle({ sandbox, problem }: FoundSandbox, options: SandboxOptions): Sandbox {
  if (problem === undefined) return sandbox;
  if (options.mode === "require") throw unavailable(problem);
  (options.log ?? log).warn(
    `runtime: isolation of engines found missing sandbox=${sandbox.name} reason=${JSON.stringify(problem.reason)}` +
      ` hint=${JSON.stringify(`${problem.hint}, or set sandbox = "off" to hear no more of it.`)}`,
  );
  return sandbox;
}

function describe({ sandbox, problem }: FoundSandbox, options: SandboxOptions): SandboxDescription {
  const text = problem === undefined ? null : `${problem.reason}. ${problem.hint}.`;
  return { mode: options.mode, name: sandbox.name, problem: text };
}

async function findOnLinux(options: SandboxOptions): Promise<FoundSandbox> {
  const { env } = options;
  const limits = createLimits(find("setpriv", env));
  const program = find("bwrap", env);
  if (program === undefined) {
    const hint = "Install it, with `apt install bubblewrap` or your system's package of that name";
    return { sandbox: limits, problem: { reason: "bubblewrap is not installed", hint } };
  }
  const sandbox = createBubblewrap({ program, env });
  const complaint = await tryOut(sandbox, options);
  if (complaint === undefined) return { sandbox };
  const reason = `bubblewrap does not work here: ${complaint}`;
  return { sandbox: limits, problem: { reason, hint: hintFor(complaint, program) } };
}

async function findOnMac(options: SandboxOptions): Promise<FoundSandbox> {
  const { env, sandboxExec: program = "/usr/bin/sandbox-exec" } = options;
  const sandbox = createSeatbelt({ program, env });
  const complaint = (await isExecutable(program))
    ? await tryOut(sandbox, options)
    : `\`${program}\` is missing`;
  if (complaint === undefined) return { sandbox };
  const reason = `sandbox-exec does not work here: ${complaint}`;
  const hint = "Check that macOS still has `/usr/bin/sandbox-exec`";
  return { sandbox: createLimits(undefined), problem: { reason, hint } };
}

/** What forbids namespaces forbids the mounts in them, too; anything else is not for an administrator. */
function hintFor(complaint: string, program: string): string {
  const isForbidden = /namespace|permi|denied|userns|uid map|mount/i.test(complaint);
  return isForbidden
    ? USER_NAMESPACES
    : `See what \`${program} --ro-bind / / true\` says, and install bubblewrap again`;
}

/**
 * Starts what does nothing as engines are started, in a group of its own that is ended whatever is left of it.
 *
 * @returns why it does not work, or undefined if it does
 */
async function tryOut(sandbox: Sandbox, options: SandboxOptions): Promise<string | undefined> {
  const { signal, trialMs = TRIAL_MS } = options;
  signal?.throwIfAborted();
  const child = spawnEngine({
    command: sandbox.wrap(["/bin/sh", "-c", ":"], {
      readOnly: [],
      writable: [],
      devices: [],
      needsSystem: true,
    }),
    env: {},
    // A directory that is in no view.
    directory: "/",
    onOutput: () => Promise.resolve(),
  });
  const stop = (): void => child.kill();
  signal?.addEventListener("abort", stop, { once: true });
  const isInTime = await settlesWithin(child.exited, trialMs);
  signal?.removeEventListener("abort", stop);
  if (!isInTime) child.kill();
  signal?.throwIfAborted();
  if (!isInTime) return `no answer within ${trialMs / 1000} s`;
  const { exitCode, signal: killedBy, stderrTail } = await child.exited;
  if (exitCode === 0) return undefined;
  return quote(stderrTail) || `it left with ${killedBy ?? `exit code ${exitCode}`}`;
}

function unavailable(problem: { readonly reason: string; readonly hint: string }): AppError {
  return new AppError(
    "sandbox_unavailable",
    `cannot start engines in a sandbox: ${problem.reason}`,
    { hint: `${problem.hint}, or set \`sandbox = "auto"\` (TUG_SANDBOX) to do without.` },
  );
}

/** `env` takes a word with `=` in it for a variable. */
function find(program: string, env: SandboxOptions["env"]): string | undefined {
  const found = Bun.which(program, { PATH: env["PATH"] ?? "" });
  return found === null || found.includes("=") ? undefined : found;
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** The last line, which names the cause, without control characters. */
function quote(text: string): string {
  const line = text.trim().split("\n").at(-1) ?? "";
  return line.replaceAll(/\p{Cc}/gu, " ").slice(0, QUOTE_LIMIT);
}
