/** Whether the system ended processes because memory had run out. */
import { readFileSync } from "node:fs";

/**
 * How often the kernel's out-of-memory killer has struck since boot, in any control group; undefined where nobody counts.
 *
 * @see mm/oom_kill.c: `oom_kill` of /proc/vmstat, since Linux 4.13
 */
export function countOomKills(
  readFile: (path: string) => string = (path) => readFileSync(path, "utf8"),
): number | undefined {
  try {
    const found = /^oom_kill (\d+)$/m.exec(readFile("/proc/vmstat"));
    return found === null ? undefined : Number(found[1]);
  } catch {
    return undefined;
  }
}
