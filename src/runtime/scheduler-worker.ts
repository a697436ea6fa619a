/** A worker as the scheduler knows it: ids, sizes and times. Values and pure questions about them. */
import type { Candidate } from "./eviction.ts";

export type StopReason = "evicted" | "idle" | "unloaded" | "shutdown";

interface Identity {
  readonly id: number;
  readonly key: string;
  readonly bytes: number;
  /** -1 pins. */
  readonly keepAliveMs: number;
}

interface Life {
  readonly loadMs: number;
  readonly readyMs: number;
  readonly lastUsedMs: number;
  readonly leases: number;
}

/** Each state carries what is legal in it. */
export type SchedulerWorker =
  | (Identity & {
      readonly kind: "starting";
      readonly startedMs: number;
      /** It was told to leave, but requests wait for it: it serves those first. */
      readonly leaving: boolean;
    })
  | (Identity & Life & { readonly kind: "ready" })
  /** Finishes what it has, takes no more. */
  | (Identity & Life & { readonly kind: "draining"; readonly reason: StopReason })
  /** Told to stop; holds its room until it has exited. */
  | (Identity & {
      readonly kind: "stopping";
      /** Absent if it never was ready. */
      readonly readyMs?: number;
      readonly lastUsedMs?: number;
    });

export function leaseCount(worker: SchedulerWorker): number {
  return "leases" in worker ? worker.leases : 0;
}

export function isIdle(worker: SchedulerWorker): boolean {
  return worker.kind === "ready" && worker.leases === 0;
}

/** Pinned workers leave only when they are told to. */
export function isPinned(worker: SchedulerWorker): boolean {
  if (worker.keepAliveMs >= 0) return false;
  return worker.kind === "ready" || (worker.kind === "starting" && !worker.leaving);
}

/** When an idle worker has outlived its keep-alive; undefined while it serves or is pinned. */
export function unloadAtMs(worker: SchedulerWorker): number | undefined {
  if (worker.kind !== "ready" || worker.leases > 0 || worker.keepAliveMs < 0) return undefined;
  return worker.lastUsedMs + worker.keepAliveMs;
}

export function toCandidate(worker: SchedulerWorker, nowMs: number): Candidate {
  const { id, bytes } = worker;
  const loadMs = "loadMs" in worker ? worker.loadMs : Infinity;
  return { id, bytes, loadMs, lastUsedMs: isIdle(worker) ? lastUsed(worker, nowMs) : nowMs };
}

// --- internal ---

function lastUsed(worker: SchedulerWorker, nowMs: number): number {
  return "lastUsedMs" in worker ? worker.lastUsedMs : nowMs;
}
