/** A supervisor over fake engines: real processes and sockets, a clock that goes when it is told to. */
import { join } from "node:path";

import type { AppError } from "../../src/errors.ts";
import type { RunnableModel } from "../../src/runtime/backend.ts";
import {
  type AcquireRequest,
  Supervisor,
  type SupervisorDeps,
  type SupervisorLimits,
} from "../../src/runtime/supervisor.ts";
import type { Lease } from "../../src/runtime/lease.ts";
import type { WorkerRecord } from "../../src/state/worker-records.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { fakeBackend, fakeInstallation } from "./backend.ts";
import { FakeClock } from "./clock.ts";
import { type FakePlan, fakePlan } from "./plan.ts";

export interface Supervised extends AsyncDisposable {
  readonly directory: string;
  readonly supervisor: Supervisor;
  readonly clock: FakeClock;
  readonly records: Map<number, WorkerRecord>;
  /** Like `acquire`, with less to say. */
  acquire(
    model: string | RunnableModel,
    options?: Partial<Omit<FakePlan, "model">> & Omit<Partial<AcquireRequest>, "plan">,
  ): ReturnType<Supervisor["acquire"]>;
}

export async function setUp(
  limits: Partial<SupervisorLimits> = {},
  deps: Partial<SupervisorDeps> = {},
): Promise<Supervised> {
  const directory = await tempDir();
  const records = new Map<number, WorkerRecord>();
  const clock = new FakeClock();
  const supervisor = new Supervisor({
    backends: [fakeBackend()],
    installer: {
      ensure: () => Promise.resolve(fakeInstallation()),
      active: () => Promise.resolve(undefined),
    },
    runDirectory: join(directory.path, "run"),
    logDirectory: join(directory.path, "logs"),
    pidStore: {
      add: (record) => void records.set(record.pid, record),
      remove: (pid) => void records.delete(pid),
      list: () => [...records.values()],
    },
    limits: { maxWorkers: 2, queueLimit: 512, keepAliveMs: 300_000, stopGraceMs: 5000, ...limits },
    cores: 1,
    clock,
    ...deps,
  });
  return {
    directory: directory.path,
    supervisor,
    clock,
    records,
    acquire: (model, { signal = new AbortController().signal, onProgress, reason, ...plan } = {}) =>
      supervisor.acquire({ plan: fakePlan({ ...plan, model }), signal, onProgress, reason }),
    async [Symbol.asyncDispose]() {
      await supervisor.close({ graceMs: 0 });
      await directory[Symbol.asyncDispose]();
    },
  };
}

export function failureOf(promise: Promise<unknown>): Promise<AppError> {
  return promise.then(
    () => {
      throw new Error("it did not fail");
    },
    (thrown: unknown) => thrown as AppError,
  );
}

/** The path of the socket that a lease's engine listens on. */
export function socketOf({ address }: Pick<Lease, "address">): string {
  if (typeof address === "string") return address;
  throw new Error("the engine listens on a port");
}

/** The pid of the only worker. */
export function onlyPid(supervisor: Supervisor): number {
  const [worker] = supervisor.list();
  if (typeof worker?.pid !== "number") throw new Error("there is no worker with a process");
  return worker.pid;
}
