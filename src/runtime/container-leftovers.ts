/** Removes containers that a runner of this home left behind when it was killed, and no others. */
import { readdir, readFile } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { runTool } from "../container/command.ts";
import { log } from "../log.ts";

/** Label of containers: the run directory of the runner that started them. */
const RUN_LABEL = "tug.run";
/** In a worker's directory, written before a container is made: the program that runs it, and the container's name. */
const MARK = "container";
const PLACE = /^w\d+$/;

/** A container engine with a busy disk takes seconds to remove one. */
const BOUND_MS = 60_000;
const MAX_IDS = 1000;

/**
 * Which container engines workers had that were left.
 *
 * @param places names of the directories in `runDirectory` that workers left
 * @returns absolute paths of programs; for most homes none
 */
export async function findContainerPrograms(
  runDirectory: string,
  places: readonly string[],
): Promise<ReadonlySet<string>> {
  const marks = await readMarks(runDirectory, places);
  return new Set(marks.map(([program = ""]) => program).filter((path) => isAbsolute(path)));
}

/**
 * Workers' directories must be gone: a container that one of them names is a new worker's, which may have started while
 * the container engine was still thinking. Never rejects.
 *
 * @returns how many it removed
 */
export async function removeContainers(program: string, runDirectory: string): Promise<number> {
  const { signal } = new AbortController();
  const ask = (...args: string[]) =>
    runTool([program, ...args], { signal, timeoutMs: BOUND_MS }).catch(() => undefined);
  const label = `label=${RUN_LABEL}=${runDirectory}`;
  const found = await ask("ps", "-a", "--filter", label, "--format", "{{.ID}} {{.Names}}");
  const lines = (found?.stdout ?? "").split("\n").map((line) => line.split(" "));
  let removed = 0;
  for (const [id = "", name = ""] of lines.slice(0, MAX_IDS)) {
    if (!/^[0-9a-f]{12,64}$/.test(id) || (await isServing(runDirectory, name))) continue;
    await ask("kill", id);
    const { exitCode } = (await ask("rm", "-f", id)) ?? {};
    if (exitCode === 0) removed += 1;
  }
  if (removed > 0) log.warn(`runtime: leftover containers removed count=${removed}`);
  return removed;
}

// --- internal ---

async function isServing(runDirectory: string, container: string): Promise<boolean> {
  const places = await readdir(runDirectory).catch((): string[] => []);
  const marks = await readMarks(
    runDirectory,
    places.filter((place) => PLACE.test(place)),
  );
  return marks.some(([, name]) => name === container);
}

/** The lines of each; none of what is not there. */
function readMarks(
  runDirectory: string,
  places: readonly string[],
): Promise<readonly (readonly string[])[]> {
  return Promise.all(
    places.map(async (place) => {
      const text = await readFile(join(runDirectory, place, MARK), "utf8").catch(() => "");
      return text.split("\n");
    }),
  );
}
