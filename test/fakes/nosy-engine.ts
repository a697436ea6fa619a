/**
 * A stand-in engine that tries to get at what is none of its business, and tells on its socket what it could.
 *
 * `bun nosy-engine.ts '{"socket": …}'`; SIGTERM makes it leave the file `bye` beside its socket and end with 0.
 */
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, type NetConnectOpts } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export interface NosyTargets {
  readonly socket: string;
  /** A file it is shown. */
  readonly model: string;
  /** A file it is not shown. */
  readonly secret: string;
  /** A file to make where nothing is its own. */
  readonly outside: string;
  readonly tcpPort: number;
  readonly abstractSocket: string;
  readonly runnerSocket: string;
  /** A process that runs outside. */
  readonly stranger: number;
  /** A value of a variable of the runner. */
  readonly token: string;
  /** A setting of the kernel; opened, never written. */
  readonly kernelSetting: string;
}

export interface NosyReport {
  readonly readsModel: boolean;
  readonly writesTemporary: boolean;
  readonly reached: Readonly<Record<keyof typeof ATTEMPTS, boolean>>;
  readonly openFiles: readonly string[];
}

const CONNECT_MS = 1000;

const ATTEMPTS = {
  readsHome: ({ secret }: NosyTargets) => readFileSync(secret, "utf8") !== "",
  writesOutside: ({ outside }: NosyTargets) => writes(outside),
  changesModel: ({ model }: NosyTargets) => opensForWriting(model),
  writesRoot: () => writes("/nosy-engine-was-here"),
  connectsTcp: ({ tcpPort }: NosyTargets) => connects({ host: "127.0.0.1", port: tcpPort }),
  connectsAbstract: ({ abstractSocket }: NosyTargets) => connects({ path: `\0${abstractSocket}` }),
  connectsRunner: ({ runnerSocket }: NosyTargets) => connects({ path: runnerSocket }),
  // The number may be another's in here; its words are not.
  seesProcesses: ({ stranger }: NosyTargets) => readable(`/proc/${stranger}/cmdline`, "sleep"),
  seesToken: ({ token }: NosyTargets) => environments().some((text) => text.includes(token)),
  changesKernel: ({ kernelSetting }: NosyTargets) => opensForWriting(kernelSetting),
} satisfies Record<string, (targets: NosyTargets) => boolean | Promise<boolean>>;

if (import.meta.main) {
  const targets = JSON.parse(process.argv[2] ?? "") as NosyTargets;
  process.on("SIGTERM", () => {
    writeFileSync(join(dirname(targets.socket), "bye"), "");
    process.exit(0);
  });
  Bun.serve({ unix: targets.socket, fetch: async () => Response.json(await snoop(targets)) });
}

// --- internal ---

async function snoop(targets: NosyTargets): Promise<NosyReport> {
  const reached: Partial<Record<keyof typeof ATTEMPTS, boolean>> = {};
  for (const [name, attempt] of Object.entries(ATTEMPTS)) {
    reached[name as keyof typeof ATTEMPTS] = await succeeds(() => attempt(targets));
  }
  return {
    readsModel: await succeeds(() => readFileSync(targets.model, "utf8") !== ""),
    writesTemporary: await succeeds(() => writes(join(tmpdir(), "nosy-engine"))),
    reached: reached as NosyReport["reached"],
    openFiles: readdirSync("/proc/self/fd"),
  };
}

async function succeeds(attempt: () => boolean | Promise<boolean>): Promise<boolean> {
  try {
    return await attempt();
  } catch {
    return false;
  }
}

function writes(path: string): boolean {
  writeFileSync(path, "");
  return true;
}

function opensForWriting(path: string): boolean {
  closeSync(openSync(path, "r+"));
  return true;
}

function readable(path: string, text: string): boolean {
  return readFileSync(path, "utf8").includes(text);
}

/** Its own, and those of all processes that it sees. */
function environments(): string[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.map((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, "utf8");
    } catch {
      return "";
    }
  });
}

function connects(address: NetConnectOpts): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ ...address, timeout: CONNECT_MS });
  socket.on("connect", () => resolve(true));
  socket.on("error", () => resolve(false));
  socket.on("timeout", () => resolve(false));
  return promise.finally(() => socket.destroy());
}
