/**
 * Pins protect blobs and bundles from every sweep, in this and other processes, for as long as their holder lives.
 *
 * A pin is a lock file and a list. A sweep tries the lock: held, the list counts; free, the holder is dead and the pin
 * is debris. Lists change only under the store's lock, so that a sweep sees a blob pinned or not yet looked at, never between.
 */
import { randomBytes } from "node:crypto";
import { appendFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Digest } from "../oci/digest.ts";
import { orIfMissing } from "./files.ts";
import { type Layout, namesIn } from "./layout.ts";
import { tryLock } from "../lock.ts";

/** What holds a pin: a model being written, or one being used. */
export type PinKind = "transaction" | "bundle";

export interface Pin extends AsyncDisposable {
  /** Names what belongs to it on disk. */
  readonly id: string;
  /** The caller holds the store's lock. */
  add(digests: readonly Digest[]): Promise<void>;
}

export interface LivePin {
  readonly id: string;
  readonly kind: PinKind;
  readonly digests: readonly Digest[];
}

/** The caller holds the store's lock, and disposes of the pin. */
export async function createPin(layout: Layout, kind: PinKind): Promise<Pin> {
  const id = randomBytes(8).toString("hex");
  const [lockFile, listFile] = [join(layout.pins, `${id}.lock`), join(layout.pins, `${id}.pins`)];
  const lock = tryLock(lockFile);
  if (lock === undefined) throw new Error(`the new pin ${id} is held by somebody else`);
  const release = async (): Promise<void> => {
    lock[Symbol.dispose]();
    await rm(listFile, { force: true });
    await rm(lockFile, { force: true });
  };
  try {
    await writeFile(listFile, `${kind}\n`);
  } catch (error) {
    await release();
    throw error;
  }
  return {
    id,
    add: async (digests) => appendFile(listFile, digests.map((digest) => `${digest}\n`).join("")),
    [Symbol.asyncDispose]: release,
  };
}

/** The caller holds the store's lock. Pins of dead holders are removed, unless it is a rehearsal. */
export async function readPins(layout: Layout, options: { dryRun: boolean }): Promise<LivePin[]> {
  const live: LivePin[] = [];
  const ids = new Set((await namesIn(layout.pins)).map((name) => name.split(".")[0] ?? ""));
  for (const id of ids) {
    if (isHeld(layout, id)) live.push(await readPin(layout, id));
    else if (!options.dryRun) await removePin(layout, id);
  }
  return live;
}

// --- internal ---

function isHeld(layout: Layout, id: string): boolean {
  const lock = tryLock(join(layout.pins, `${id}.lock`), { create: false });
  lock?.[Symbol.dispose]();
  return lock === undefined;
}

async function readPin(layout: Layout, id: string): Promise<LivePin> {
  const text = await orIfMissing(readFile(join(layout.pins, `${id}.pins`), "utf8"), "");
  const [kind, ...digests] = text.split("\n").filter((line) => line !== "");
  return { id, kind: kind === "bundle" ? "bundle" : "transaction", digests: digests as Digest[] };
}

async function removePin(layout: Layout, id: string): Promise<void> {
  for (const suffix of ["pins", "lock", "lock-journal"]) {
    await rm(join(layout.pins, `${id}.${suffix}`), { force: true });
  }
}
