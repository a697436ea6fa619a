/** Ends what a runner that was killed left behind. Rarely anything: see the watcher in process.ts. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { log } from "../log.ts";
import { findContainerPrograms, removeContainers } from "./container-leftovers.ts";
import { readStartTime } from "./process-identity.ts";
import { signalGroup } from "./process.ts";
import type { PidStore } from "./worker.ts";

/**
 * Kills the recorded processes that are still the same ones, with their groups, and clears the records and their places.
 *
 * @param runDirectory where workers have their sockets
 * @returns how many it killed
 */
export async function reapLeftovers(records: PidStore, runDirectory: string): Promise<number> {
  const killed = killLeftovers(records);
  const names = await readdir(runDirectory).catch((): string[] => []);
  const places = names.filter((one) => /^w\d+$/.test(one));
  const programs = await findContainerPrograms(runDirectory, places);
  for (const name of places) {
    await rm(join(runDirectory, name), { recursive: true, force: true });
  }
  // In the background: a runner must not wait for a container engine to start.
  for (const program of programs) void removeContainers(program, runDirectory);
  return killed;
}

// --- internal ---

function killLeftovers(records: PidStore): number {
  let killed = 0;
  for (const { pid, startTime } of records.list()) {
    if (readStartTime(pid) === startTime && signalGroup(pid, "SIGKILL")) killed += 1;
    records.remove(pid);
  }
  if (killed > 0) log.info(`runtime: leftover engines killed count=${killed}`);
  return killed;
}
