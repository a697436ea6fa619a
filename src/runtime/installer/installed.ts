/**
 * Which of an engine's versions is used: listing, choosing, going back, removing. Whatever changes something here needs
 * the engine's lock.
 */
import { rename, rm } from "node:fs/promises";
import { join, sep } from "node:path";

import { AppError } from "../../errors.ts";
import { log } from "../../log.ts";
import type { Backend, Installation } from "../backend.ts";
import {
  installedSize,
  isUsable,
  type Pointer,
  readInstallations,
  readPointer,
  sameEngine,
  STAGING_PREFIX,
  writePointer,
} from "./layout.ts";

/** What of a version somebody typed, or of the list of those there are, is shown. */
const MAX_SHOWN = 80;
const MAX_LISTED = 10;

export interface ListedInstallation extends Installation {
  readonly active: boolean;
  /** 0 for one that is used in place. */
  readonly sizeBytes: number;
}

/** How a version is written where several variants of it may be installed. */
export function labelOf({ version, variant }: Pick<Installation, "version" | "variant">): string {
  return `${version}-${variant}`;
}

/** @param wanted a label, or a version for all variants of it */
export function matching<T extends Pick<Installation, "version" | "variant">>(
  all: readonly T[],
  wanted: string,
): T[] {
  const exact = all.filter((one) => labelOf(one) === wanted);
  return exact.length > 0 ? exact : all.filter(({ version }) => version === wanted);
}

/** False for one that is used where it is: its files are the user's. */
function isOwn(root: string, { backend, directory }: Installation): boolean {
  return directory.startsWith(join(root, backend) + sep);
}

/** @param active the one in use; an environment variable may name it */
export async function listInstalled(
  root: string,
  backend: string,
  active: Installation | undefined,
): Promise<ListedInstallation[]> {
  const choices = await readChoices(root, backend);
  const isListed = active === undefined || choices.some((one) => sameEngine(one, active));
  const all = isListed ? choices : [active, ...choices];
  return Promise.all(
    all.map(async (installation) => ({
      ...installation,
      active: active !== undefined && sameEngine(installation, active),
      sizeBytes: isOwn(root, installation) ? await installedSize(installation.directory) : 0,
    })),
  );
}

/** What can be chosen: those that were used in place, last ones only, and those installed. */
export async function readChoices(root: string, backend: string): Promise<Installation[]> {
  return onlyUsable((await readKnown(root, backend)).all);
}

/** The version that `rollBack` would go back to. */
export async function readPrevious(
  root: string,
  backend: string,
): Promise<Installation | undefined> {
  const pointer = await readPointer(root, backend);
  const previous = pointer?.previous ?? undefined;
  if (pointer === undefined || previous === undefined) return undefined;
  const isOther = !sameEngine(previous, pointer.active) && (await isUsable(previous));
  return isOther ? previous : undefined;
}

/** Makes it the active one; that which was is remembered. */
export async function activate(root: string, installation: Installation): Promise<void> {
  const { backend } = installation;
  const before = await readPointer(root, backend);
  const replaced = before?.active;
  const previous =
    replaced === undefined || sameEngine(replaced, installation) ? before?.previous : replaced;
  await writePointer(root, backend, { active: installation, previous: previous ?? null });
}

/** @throws backend_not_installed, with those that are; usage if several variants are meant */
export async function useVersion(
  root: string,
  { name }: Backend,
  wanted: string,
): Promise<Installation> {
  const choices = await readChoices(root, name);
  const [found, ...others] = matching(choices, wanted);
  const shown = `${name} ${wanted.slice(0, MAX_SHOWN)}`;
  if (found === undefined) {
    throw new AppError("backend_not_installed", `cannot use ${shown}: it is not installed`, {
      hint:
        choices.length === 0
          ? `Install it with \`tug install-runner --backend ${name}\`.`
          : `Installed are ${listed(choices)}; \`tug install-runner --backend ${name} --version V\` installs another.`,
      details: { installed: choices.map(labelOf) },
    });
  }
  if (others.some((other) => labelOf(other) !== labelOf(found))) {
    throw new AppError("usage", `cannot use ${shown}: several variants of it are installed`, {
      hint: `Choose one of: ${listed([found, ...others])}.`,
    });
  }
  await activate(root, found);
  logUse(found);
  return found;
}

/** Exchanges the active version and the one before it. @throws backend_not_installed if there is none before it */
export async function rollBack(root: string, { name }: Backend): Promise<Installation> {
  const previous = await readPrevious(root, name);
  if (previous === undefined) {
    const choices = await readChoices(root, name);
    throw new AppError(
      "backend_not_installed",
      `cannot roll back ${name}: no version was used before that is still here`,
      {
        hint: rollBackHint(name, choices),
      },
    );
  }
  await activate(root, previous);
  logUse(previous);
  return previous;
}

/**
 * @param wanted a label or version; undefined: all
 * @returns what was removed; what is used in place is forgotten, not removed
 * @throws backend_not_installed if one was named that is not there
 */
export async function removeInstalled(
  root: string,
  backend: string,
  wanted: string | undefined,
): Promise<Installation[]> {
  const { all, pointer } = await readKnown(root, backend);
  const chosen = wanted === undefined ? all : matching(all, wanted);
  if (wanted !== undefined && chosen.length === 0) throw notThere(backend, wanted, all);
  // The pointer first: an interruption then leaves unused files, not a pointer to nothing.
  if (pointer !== undefined && chosen.length > 0) {
    const kept = await onlyUsable(all.filter((one) => !chosen.includes(one)));
    await writePointer(root, backend, pointerTo(kept, pointer));
  }
  for (const one of chosen.filter((candidate) => isOwn(root, candidate))) {
    // At once: half of an engine must never be taken for one. What an interruption leaves goes with the next change.
    const aside = join(root, backend, `${STAGING_PREFIX}${crypto.randomUUID()}`);
    await rename(one.directory, aside);
    await rm(aside, { recursive: true, force: true });
  }
  return [...chosen];
}

// --- internal ---

function rollBackHint(name: string, choices: readonly Installation[]): string {
  const install = `tug install-runner --backend ${name}`;
  if (choices.length === 0) return `Install it with \`${install}\`.`;
  return choices.length > 1
    ? `Installed are ${listed(choices)}; choose one with \`tug engines use\`.`
    : `\`${install} --version V\` installs another.`;
}

function notThere(backend: string, wanted: string, all: readonly Installation[]): AppError {
  const shown = `${backend} ${wanted.slice(0, MAX_SHOWN)}`;
  return new AppError("backend_not_installed", `cannot uninstall ${shown}: it is not installed`, {
    hint: all.length === 0 ? "`tug engines` shows what is." : `Installed are ${listed(all)}.`,
    details: { installed: all.map(labelOf) },
  });
}

interface Known {
  readonly pointer: Pointer | undefined;
  /** One used in place may be gone meanwhile. */
  readonly all: readonly Installation[];
}

async function readKnown(root: string, backend: string): Promise<Known> {
  const [installed, pointer] = await Promise.all([
    readInstallations(root, backend),
    readPointer(root, backend),
  ]);
  const used = [pointer?.active, pointer?.previous].filter(
    (one) => one !== undefined && one !== null,
  );
  const inPlace = used.filter((one) => !isOwn(root, one));
  return { pointer, all: [...inPlace, ...installed] };
}

/** The same one stays active if it can, else the one before it, else the last. */
function pointerTo(kept: readonly Installation[], before: Pointer): Pointer | undefined {
  const find = (one: Installation | null): Installation | undefined =>
    one === null ? undefined : kept.find((other) => sameEngine(one, other));
  const previous = find(before.previous);
  const active = find(before.active) ?? previous ?? kept.at(-1);
  if (active === undefined) return undefined;
  return { active, previous: previous === undefined || previous === active ? null : previous };
}

async function onlyUsable(all: readonly Installation[]): Promise<Installation[]> {
  const usable = await Promise.all(all.map((one) => isUsable(one)));
  return all.filter((_, index) => usable[index] === true);
}

function listed(choices: readonly Installation[]): string {
  const labels = [...new Set(choices.map(labelOf))];
  const more = labels.length > MAX_LISTED ? ", …" : "";
  return labels.slice(0, MAX_LISTED).join(", ") + more;
}

function logUse({ backend, version, variant }: Installation): void {
  log.info(`installer: engine chosen backend=${backend} version=${version} variant=${variant}`);
}
