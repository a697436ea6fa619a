/** Tells a process from a later one that was given the same pid. */
import { readFileSync } from "node:fs";

/**
 * When the process started, in the platform's own form, opaque; undefined if it is not alive (a zombie is not) or the
 * platform does not say.
 *
 * @see proc_pid_stat(5): the fields after the command's closing parenthesis; state is 3, starttime 22
 */
export function readStartTime(pid: number): string | undefined {
  if (process.platform === "linux") return readProc(pid);
  return process.platform === "win32" ? undefined : readPs(pid);
}

// --- internal ---

function readProc(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state, startTicks] = [fields[0], fields[19]];
    if (state === undefined || startTicks === undefined || "ZX".includes(state)) return undefined;
    // Ticks count from boot, so they mean something within one boot only.
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()}/${startTicks}`;
  } catch {
    return undefined;
  }
}

/** Some milliseconds, once a worker start. */
function readPs(pid: number): string | undefined {
  const ps = Bun.spawnSync(["/bin/ps", "-o", "stat=,lstart=", "-p", String(pid)], {
    env: { LC_ALL: "C" },
    timeout: 2000,
  });
  const [state, ...started] = ps.stdout.toString().trim().split(/\s+/);
  return ps.success && state && !state.startsWith("Z") ? started.join(" ") : undefined;
}
