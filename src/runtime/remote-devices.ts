/**
 * RPC servers as devices: each is a place for layers, and one model at a time has it, because a server talks to one
 * client. `claimRemotes` and `remotesOf` are pure.
 */
import { AppError } from "../errors.ts";
import type { Backend, Installation } from "./backend.ts";
import type { Demand, DeviceId } from "./demand.ts";
import type { Device } from "./hardware/devices.ts";
import { runCommand } from "./installer/command.ts";
import { type Answer, readAnswer } from "./remote-answer.ts";

export interface RemoteDevicesOptions {
  /** `host:port`. */
  readonly servers: readonly string[];
  readonly backend: Pick<Backend, "rpc">;
  /** The engine that asks them; undefined if none is installed. */
  activeEngine(): Promise<Pick<Installation, "command"> | undefined>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** For tests. Monotonic milliseconds. */
  readonly now?: () => number;
}

/** Enough for an engine to start, and to ask once over a slow line. */
const LIST_MS = 10_000;
/** What a server offers changes when it is started again, which nobody tells. */
const KNOWN_MS = 300_000;
/** Many requests at once ask once. */
const FAILED_MS = 2000;
const PREFIX = "rpc:";

const WHY: Readonly<Record<Exclude<Answer, "ready">, string>> = {
  busy: "is serving somebody else",
  absent: "does not answer",
};

/** What the servers offer, asked when a plan needs it, and remembered. Nothing polls. */
export class RemoteDevices {
  readonly #options: RemoteDevicesOptions;
  readonly #known = new Map<string, { readonly device: Promise<Device>; untilMs: number }>();

  constructor(options: RemoteDevicesOptions) {
    this.#options = options;
  }

  /**
   * In the order in which they are configured. Never throws: a device that cannot be had has a `problem`.
   *
   * @param held by workers: such a server answers nobody else, so what is known of it stands
   */
  async read(held: ReadonlySet<DeviceId>): Promise<readonly Device[]> {
    const { servers } = this.#options;
    if (servers.length === 0) return [];
    const engine = await this.#options.activeEngine();
    if (engine === undefined) return servers.map((server) => toDevice(server, 0));
    return Promise.all(servers.map((server) => this.#device(server, { engine, held })));
  }

  // --- internal ---

  #device(
    server: string,
    { engine, held }: { engine: Pick<Installation, "command">; held: ReadonlySet<DeviceId> },
  ): Promise<Device> {
    const { now = () => performance.now() } = this.#options;
    const known = this.#known.get(server);
    const isHeld = held.has(PREFIX + server);
    if (known !== undefined && (isHeld || now() < known.untilMs)) return known.device;
    const entry = { device: this.#ask(server, engine), untilMs: Number.POSITIVE_INFINITY };
    this.#known.set(server, entry);
    return entry.device.then((device) => {
      entry.untilMs = now() + (device.problem === undefined ? KNOWN_MS : FAILED_MS);
      return device;
    });
  }

  /** By the engine's own words: the protocol has another version in every other build. */
  async #ask(server: string, { command }: Pick<Installation, "command">): Promise<Device> {
    const { env, backend } = this.#options;
    const signal = AbortSignal.timeout(LIST_MS);
    try {
      const answer = await readAnswer(server, { signal });
      if (answer !== "ready") return { ...toDevice(server, 0), problem: WHY[answer] };
      const { args, env: own } = backend.rpc?.listDevices(server) ?? { args: [], env: {} };
      const options = { signal, timeoutMs: LIST_MS, env: { ...env, ...own }, diesWithThis: true };
      const { stdout } = await runCommand([...command, ...args], options);
      const bytes = backend.rpc?.parseDevices(stdout);
      if (bytes !== undefined) return toDevice(server, bytes);
      return { ...toDevice(server, 0), problem: "offers no device" };
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      return { ...toDevice(server, 0), problem: `cannot be asked: ${why.slice(0, 200)}` };
    }
  }
}

/** The addresses among devices, in their order; undefined if there are none. */
export function remotesOf(devices: readonly Device[]): readonly string[] | undefined {
  const remotes = devices.filter(isRemote).map(({ id }) => id.slice(PREFIX.length));
  return remotes.length === 0 ? undefined : remotes;
}

export function isRemote({ kind }: Pick<Device, "kind">): boolean {
  return kind === "rpc";
}

/** Whoever uses a server has all of it. @param budget of all devices */
export function claimRemotes(demand: Demand, devices: readonly Device[], budget: Demand): Demand {
  const claimed = devices.filter(isRemote).map(({ id }) => [id, budget[id] ?? 0] as const);
  return claimed.length === 0 ? demand : { ...demand, ...Object.fromEntries(claimed) };
}

/** What a demand claims of servers: nobody measures it. */
export function remoteShare(demand: Demand): Demand {
  const share = Object.entries(demand).filter(([id]) => id.startsWith(PREFIX));
  return Object.fromEntries(share);
}

/** What was measured of a demand: the rest was only claimed. */
export function withoutRemotes(demand: Demand): Demand {
  return Object.fromEntries(Object.entries(demand).filter(([id]) => !id.startsWith(PREFIX)));
}

/** @throws worker_failed, naming the first server that cannot be used */
export function assertUsable(modelName: string, devices: readonly Device[]): void {
  for (const { id, problem } of devices.filter(isRemote)) {
    if (problem !== undefined) throw unusable(modelName, id.slice(PREFIX.length), problem);
  }
}

/**
 * Asked once more when a model is loaded: a plan may be older than that.
 *
 * @throws worker_failed, as `assertUsable`; the signal's reason
 */
export async function assertAnswering(
  modelName: string,
  servers: readonly string[] | undefined,
  signal: AbortSignal,
): Promise<void> {
  const answers = (servers ?? []).map(async (server) => {
    const answer = await readAnswer(server, { signal });
    if (answer !== "ready") throw unusable(modelName, server, WHY[answer]);
  });
  await Promise.all(answers);
}

// --- internal ---

function toDevice(server: string, bytes: number): Device {
  return { id: PREFIX + server, kind: "rpc", name: null, totalBytes: bytes, freeBytes: null };
}

function unusable(modelName: string, server: string, problem: string): AppError {
  return new AppError(
    "worker_failed",
    `cannot load \`${modelName}\`: the RPC server ${server} ${problem}`,
    {
      hint: "See whether `tug rpc serve` runs there, or take it out of `rpc_servers` (TUG_RPC_SERVERS).",
      details: { server },
    },
  );
}
