/** Starting this program again, with the settings that Bun reads from the environment at start only. */
import { join } from "node:path";

/** What the runner needs of Bun. */
export const RUNTIME_SETTINGS: Readonly<Record<string, string>> = {
  // Fetches beyond this many wait in silence; the default of 256 is fewer than the streams a runner serves.
  BUN_CONFIG_MAX_HTTP_REQUESTS: "16384",
  // Periodic collections would wake an idle runner for ever; it collects once when it becomes idle instead.
  BUN_GC_TIMER_DISABLE: "1",
  // Bytes that the collector believes the machine has: garbage would grow with the memory of the real one, which is for
  // models. Half as much costs processor time: it collects all the while.
  BUN_JSC_forceRAMSize: String(128 * 1024 * 1024),
  // The heap grows to this multiple of what was alive before it is collected. By default to twice as much: with a thousand
  // streams 10 MB of garbage more, for no less processor time.
  BUN_JSC_smallHeapGrowthFactor: "1.5",
  // Milliseconds. By default the allocator looks for pages to give back each time anything wakes: a third of the processor
  // time of a runner whose requests only wait.
  MIMALLOC_PURGE_HOLES_MIN_INTERVAL: "60000",
};

/** The executable, or Bun with the entry file in a source checkout. */
export function ownCommand(): string[] {
  if (Bun.isStandaloneExecutable) return [process.execPath];
  return [process.execPath, join(import.meta.dir, "..", "main.ts")];
}

/**
 * Replaces this process by itself with the settings in place: same pid, terminal and arguments. Returns if they are in
 * place, or where a process cannot be replaced (Windows).
 */
export function ensureRuntimeSettings(): void {
  const isSet = Object.entries(RUNTIME_SETTINGS).every(
    ([name, value]) => process.env[name] === value,
  );
  const { execve } = process as { execve?: (file: string, argv: string[], env: object) => never };
  if (isSet || execve === undefined || process.platform === "win32") return;
  const argv = [...ownCommand(), ...process.argv.slice(2)];
  execve.call(process, process.execPath, argv, { ...process.env, ...RUNTIME_SETTINGS });
}
