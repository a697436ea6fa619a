import { readdir, readFile } from "node:fs/promises";
import { eventually } from "./eventually.ts";

export interface RunningProcess {
  readonly pid: number;
  readonly argv: readonly string[];
}

/** Whether processes can be looked at the way this file does. */
export const CAN_LIST_PROCESSES = process.platform === "linux";

/**
 * Every live process that has `text` in its arguments or, as `TUG_HOME=<text>`, in its environment. Zombies do not count.
 */
export async function processesNaming(text: string): Promise<RunningProcess[]> {
  if (!CAN_LIST_PROCESSES) return [];
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const found: RunningProcess[] = [];
  for (const pid of pids) {
    if (pid === process.pid || (await stateOf(pid)) === "Z") continue;
    const argv = await words(pid, "cmdline");
    const environment = await words(pid, "environ");
    const isNamed = argv.some((word) => word.includes(text));
    if (isNamed || environment.includes(`TUG_HOME=${text}`)) found.push({ pid, argv });
  }
  return found;
}

/** Engines among them, whatever loader starts them. */
export async function enginesOf(home: string): Promise<RunningProcess[]> {
  const all = await processesNaming(home);
  // The lifeline and the sandbox have the engine's command among their arguments; they are not the engine.
  return all.filter(
    ({ argv }) =>
      !/(^|\/)(sh|dash|bash|cat|env|setpriv|bwrap)$/.test(argv[0] ?? "") &&
      argv.some((word) => /(^|\/)llama-server(\.exe)?$/.test(word)),
  );
}

/** Runners among them: the daemon, and `tug serve`. */
export async function runnersOf(home: string): Promise<RunningProcess[]> {
  const all = await processesNaming(home);
  return all.filter(({ argv }) => argv[1] === "__runner" || argv[1] === "serve");
}

/** SIGKILL, and waits until they are gone. */
export async function killAll(processes: readonly RunningProcess[]): Promise<void> {
  for (const { pid } of processes) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It is gone already.
    }
  }
  for (const { pid } of processes) await eventually(async () => !(await isAlive(pid)));
}

/** False for a zombie too: pid 1 may take its time to reap. */
export async function isAlive(pid: number): Promise<boolean> {
  const state = await stateOf(pid);
  return state !== undefined && state !== "Z";
}

// --- internal ---

async function stateOf(pid: number): Promise<string | undefined> {
  const status = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  // The name in parentheses may hold anything, a parenthesis included.
  return status?.slice(status.lastIndexOf(")") + 2, status.lastIndexOf(")") + 3);
}

async function words(pid: number, file: "cmdline" | "environ"): Promise<string[]> {
  const text = await readFile(`/proc/${pid}/${file}`, "utf8").catch(() => "");
  return text.split("\0").filter((word) => word !== "");
}
