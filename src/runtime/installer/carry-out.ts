/** From a plan to a tested engine in its place: stage, test, rename. What fails the test never becomes visible. */
import { chmod, mkdtemp, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { errnoOf } from "../../errors.ts";
import { log } from "../../log.ts";
import type { Backend, Installation } from "../backend.ts";
import {
  RETIRED_PREFIX,
  STAGING_PREFIX,
  bind,
  installationDirectory,
  readRecord,
  writeRecord,
} from "./layout.ts";
import { phaseOf } from "./source.ts";
import type { EnginePlan, SourceContext } from "./source.ts";

/** Throws if the engine does not work. */
export type Verify = (
  installation: Installation,
  backend: Backend,
  signal: AbortSignal,
) => Promise<void>;

export interface CarryOutOptions {
  /** The directory of all backends. The caller holds the lock of this one. */
  readonly root: string;
  /** The name of the source. */
  readonly source: string;
  readonly verify: Verify;
  readonly context: SourceContext;
  /** Of the choice of its variant: kept with it. */
  readonly reason?: string | undefined;
}

/** Reuses an installation of the same version and variant that still passes the test. */
export async function carryOut(plan: EnginePlan, options: CarryOutOptions): Promise<Installation> {
  const { root, source, context } = options;
  const { backend } = context;
  if (plan.inPlace !== undefined) {
    const installation = record(plan, options, plan.inPlace);
    await test(installation, options);
    return installation;
  }
  const target = installationDirectory(root, backend.name, plan);
  const present = await readRecord(target);
  if (present !== undefined && isSame(present, plan, source) && (await passes(present, options))) {
    return present;
  }
  const home = join(root, backend.name);
  const staged = await mkdtemp(join(home, STAGING_PREFIX));
  try {
    const command = await plan.fetch(staged);
    const stored = record(plan, options, { directory: target, command });
    await test(bind(stored, staged), options);
    await writeRecord(staged, stored);
    // Temporary directories are private; an engine need not be.
    await chmod(staged, 0o755);
    await replaceDirectory(staged, target);
    return bind(stored, target);
  } finally {
    await rm(staged, { recursive: true, force: true });
  }
}

export function logInstalled({ backend, version, variant, source }: Installation): void {
  log.info(
    `installer: engine installed backend=${backend} version=${version} variant=${variant} source=${source}`,
  );
}

// --- internal ---

function record(
  plan: EnginePlan,
  { source, context, reason }: CarryOutOptions,
  place: { readonly directory: string; readonly command: readonly string[] },
): Installation {
  return {
    backend: context.backend.name,
    version: plan.version,
    variant: plan.variant,
    source,
    directory: place.directory,
    command: place.command,
    installedAt: new Date().toISOString(),
    ...(reason === undefined ? {} : { reason }),
    ...(plan.needs === undefined ? {} : { needs: plan.needs }),
  };
}

/** With another Python it is another engine, though it has the same version. */
function isSame(present: Installation, plan: EnginePlan, source: string): boolean {
  const [has, wants] = [present.needs ?? [], plan.needs ?? []];
  return present.source === source && has.join("\0") === wants.join("\0");
}

async function test(installation: Installation, options: CarryOutOptions): Promise<void> {
  const { verify, context } = options;
  const { backend, signal } = context;
  context.onProgress(phaseOf(backend, "testing"));
  try {
    await verify(installation, backend, signal);
  } catch (error) {
    signal.throwIfAborted();
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`version ${installation.version} failed its test: ${reason}`, { cause: error });
  }
}

async function passes(installation: Installation, options: CarryOutOptions): Promise<boolean> {
  try {
    await test(installation, options);
    return true;
  } catch (error) {
    options.context.signal.throwIfAborted();
    log.debug(`installer: installed engine is broken reason=${String(error)}`);
    return false;
  }
}

/** A rename cannot replace a directory that has files: what is there steps aside first, and back if need be. */
async function replaceDirectory(staged: string, target: string): Promise<void> {
  const aside = join(dirname(target), `${RETIRED_PREFIX}${basename(target)}`);
  const retired = await rename(target, aside).then(
    () => true,
    (error: unknown) => {
      if (errnoOf(error) === "ENOENT") return false;
      throw error;
    },
  );
  try {
    await rename(staged, target);
  } catch (error) {
    if (retired) await rename(aside, target);
    throw error;
  }
  await rm(aside, { recursive: true, force: true });
}
