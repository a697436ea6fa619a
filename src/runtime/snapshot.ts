/** What the world may see of a worker. */
import type { SettingMismatch } from "../api/settings.ts";
import type { EngineReport, Mode } from "./backend.ts";
import type { Demand, DeviceId } from "./demand.ts";
import type { EngineAddress } from "./engine-address.ts";
import type { WorkerPlan } from "./planner.ts";
import type { SandboxName } from "./sandbox/sandbox.ts";
import { leaseCount, type SchedulerWorker, unloadAtMs } from "./scheduler-worker.ts";
import type { ProgressEvent, WarningEvent } from "./worker.ts";

/** How far a load is. Bytes are null where nobody knows. */
export interface LoadProgress {
  /** `installing`, `loading`, … */
  readonly phase: string;
  readonly doneBytes: number | null;
  readonly totalBytes: number | null;
}

export interface WorkerSnapshot {
  readonly id: number;
  /** Workers with the same one run the same model in the same way. */
  readonly key: string;
  readonly backend: string;
  /** The name it was first asked for by. */
  readonly modelName: string;
  readonly modelId: string;
  /** Of the model that drafts for it; null without. */
  readonly draftModelId: string | null;
  readonly mode: Mode;
  readonly state: "starting" | "ready" | "asleep" | "draining";
  /** Leases held. */
  readonly inUse: number;
  /** Requests it serves at once; null if nobody knows. */
  readonly slots: number | null;
  /** Tokens that one request may use; null if nobody knows. */
  readonly contextTokens: number | null;
  /** Null while it was never used. */
  readonly lastUsed: Date | null;
  /** -1 never unloads it. */
  readonly keepAliveMs: number;
  /** When it will be unloaded; null while in use or pinned. */
  readonly expiresAt: Date | null;
  readonly pinned: boolean;
  readonly pid: number | null;
  /** Where the engine listens; not for clients. */
  readonly address?: EngineAddress;
  /** What it counts for: the plan's, or more if more was measured. */
  readonly demand: Demand;
  /** What its process holds now, in main memory; null where nobody measures. */
  readonly measured: Demand | null;
  /** Where its memory is, `ram` last. */
  readonly devices: readonly DeviceId[];
  /** Null before its process is started. */
  readonly sandbox: SandboxName | null;
  /** It listens on a port, so nothing parts it from the machine's network. */
  readonly sharesNetwork?: boolean;
  /** What the engine does otherwise than it was told. */
  readonly mismatches: readonly SettingMismatch[];
  /** What the engine said of itself when it was ready; null if it tells nothing. */
  readonly report: EngineReport | null;
  /** Null unless it is starting. */
  readonly progress: LoadProgress | null;
}

/** What the scheduler does not know. */
export interface SnapshotFacts {
  readonly plan: WorkerPlan;
  readonly pid: number | null;
  readonly address: EngineAddress;
  readonly wasUsed: boolean;
  readonly residentBytes: number | undefined;
  readonly sandbox: SandboxName | undefined;
  readonly mismatches: readonly SettingMismatch[];
  readonly report: EngineReport | undefined;
  readonly progress: ProgressEvent | WarningEvent | undefined;
}

export function toSnapshot(worker: SchedulerWorker, facts: SnapshotFacts): WorkerSnapshot {
  const { plan, residentBytes } = facts;
  return {
    id: worker.id,
    key: worker.key,
    ...identityOf(plan),
    ...timesOf(worker, facts.wasUsed),
    state: worker.kind === "stopping" ? "draining" : worker.kind,
    inUse: leaseCount(worker),
    slots: number(facts.report?.["parallel"]) ?? plan.settings.parallel ?? null,
    contextTokens: contextOf(facts),
    pinned: worker.pinned,
    pid: facts.pid,
    address: facts.address,
    sharesNetwork:
      (typeof facts.address === "number" && facts.sandbox !== "container") ||
      plan.settings.remotes !== undefined ||
      plan.cluster !== undefined,
    demand: worker.demand,
    measured: residentBytes === undefined ? null : { ram: residentBytes },
    devices: devicesOf(worker.demand),
    sandbox: facts.sandbox ?? null,
    mismatches: facts.mismatches,
    report: facts.report ?? null,
    progress: worker.kind === "starting" ? progressOf(facts) : null,
  };
}

/** How much of the weights a process has read, as far as its memory tells; null if it does not. */
export function loadedBytes(residentBytes: number | undefined, weightBytes: number): number | null {
  return residentBytes === undefined ? null : Math.min(residentBytes, weightBytes);
}

// --- internal ---

function identityOf({ backend, model, draft, mode }: WorkerPlan) {
  const draftModelId = draft?.id ?? null;
  return { backend, modelName: model.name, modelId: model.id, draftModelId, mode };
}

function timesOf(worker: SchedulerWorker, wasUsed: boolean) {
  const expiresMs = unloadAtMs(worker);
  const lastUsedMs = "lastUsedMs" in worker && wasUsed ? worker.lastUsedMs : undefined;
  return {
    keepAliveMs: worker.keepAliveMs,
    lastUsed: lastUsedMs === undefined ? null : new Date(lastUsedMs),
    expiresAt: expiresMs === undefined ? null : new Date(expiresMs),
  };
}

function contextOf({ report, plan }: SnapshotFacts): number | null {
  const { contextTokens } = plan.settings;
  // A picture has no tokens.
  const isTold =
    contextTokens !== undefined && contextTokens > 0 && plan.mode !== "image-generation";
  const planned = isTold ? contextTokens : null;
  return number(report?.["context_size"]) ?? planned;
}

function number(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}

function devicesOf(demand: Demand): readonly DeviceId[] {
  const named = Object.keys(demand).filter((device) => (demand[device] ?? 0) > 0);
  return named.toSorted((a, b) => Number(a === "ram") - Number(b === "ram") || (a < b ? -1 : 1));
}

/** A mapped file becomes resident as it is read: that much is known of any engine. */
function progressOf({ progress, residentBytes, plan }: SnapshotFacts): LoadProgress | null {
  if (progress?.type !== "progress") return null;
  const { phase, done_bytes, total_bytes } = progress;
  const loaded = phase === "loading" ? loadedBytes(residentBytes, plan.model.weightBytes) : null;
  return { phase, doneBytes: loaded ?? done_bytes, totalBytes: total_bytes };
}
