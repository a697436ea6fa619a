/** Who has a TCP port of this machine, in words. */
import { readdir, readFile, readlink } from "node:fs/promises";

/** A process on this machine answers at once or is not worth waiting for. */
const ASK_TIMEOUT_MS = 1000;
/** LISTEN in /proc/net/tcp, see include/net/tcp_states.h of Linux. */
const LISTEN = "0A";

export interface PortAddress {
  readonly hostname: string;
  readonly port: number;
}

/** Such as "another tug runner (process 12)", "`node` (process 12)" or "another program". */
export async function describePortHolder(address: PortAddress): Promise<string> {
  const pid = await askRunner(address);
  if (pid !== undefined) {
    return `another tug runner (process ${pid}); each TUG_HOME and each user has one`;
  }
  const holder = process.platform === "linux" ? await findHolder(address.port) : undefined;
  return holder === undefined ? "another program" : `\`${holder.name}\` (process ${holder.pid})`;
}

/** Inodes of the sockets that listen on the port. @param table the text of /proc/net/tcp or tcp6 */
export function listeningInodes(table: string, port: number): string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return table.split("\n").flatMap((line) => {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    const isIt = local?.endsWith(suffix) === true && state === LISTEN && inode !== undefined;
    return isIt ? [inode] : [];
  });
}

// --- internal ---

async function askRunner({ hostname, port }: PortAddress): Promise<number | undefined> {
  const host = hostname.includes(":") && !hostname.startsWith("[") ? `[${hostname}]` : hostname;
  try {
    const response = await fetch(`http://${host}:${port}/runner`, {
      signal: AbortSignal.timeout(ASK_TIMEOUT_MS),
      keepalive: false,
      redirect: "manual",
      // HTTP_PROXY would otherwise be asked about this machine. Bun knows `false`, its types do not.
      ...({ proxy: false } as object),
    });
    const { pid, started_at: startedAt } = (await response.json()) as Record<string, unknown>;
    return typeof pid === "number" && typeof startedAt === "string" ? pid : undefined;
  } catch {
    // Not a runner, or not one that answers.
    return undefined;
  }
}

async function findHolder(port: number): Promise<{ pid: string; name: string } | undefined> {
  const tables = await Promise.all(["/proc/net/tcp", "/proc/net/tcp6"].map(readOrEmpty));
  const links = tables
    .flatMap((table) => listeningInodes(table, port))
    .map((inode) => `socket:[${inode}]`);
  if (links.length === 0) return undefined;
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    if (!(await hasOpen(pid, links))) continue;
    return { pid, name: (await readOrEmpty(`/proc/${pid}/comm`)).trim() };
  }
  return undefined;
}

async function hasOpen(pid: string, links: readonly string[]): Promise<boolean> {
  try {
    const directory = `/proc/${pid}/fd`;
    const files = await readdir(directory);
    const targets = await Promise.allSettled(files.map((file) => readlink(`${directory}/${file}`)));
    return targets.some((one) => one.status === "fulfilled" && links.includes(one.value));
  } catch {
    // It has gone, or belongs to another user.
    return false;
  }
}

async function readOrEmpty(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return "";
  }
}
