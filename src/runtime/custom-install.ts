/** Where the program of an engine of the user's own is, and what it runs with. Runs nothing. */
import { access, constants, readFile, realpath, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, dirname, isAbsolute, join, relative } from "node:path";
import { AppError } from "../errors.ts";
import type { Installation } from "./backend.ts";
import type { CustomDefinition } from "./custom-definition.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** As `Installation.source`. */
const SOURCE = "config";
/** Characters of the digest that stand for a version: memory that was measured with another command is of no use. */
const VERSION_LENGTH = 8;
/** Places that the sandbox has itself, and all of what it hides. */
const UNSHOWN: ReadonlySet<string> = new Set(["/", "/proc", "/dev", "/sys", "/tmp", "/var/tmp"]);

/** @throws install_failed if the program is not there */
export async function findCustomEngine(
  definition: CustomDefinition,
  env: Env,
): Promise<Installation> {
  const program = await findProgram(definition, env);
  const { cwd } = definition;
  if (cwd !== undefined) await requireDirectory(definition.name, expandHome(cwd, env));
  const { mtimeMs } = await stat(program);
  return {
    backend: definition.name,
    version: Bun.SHA256.hash(JSON.stringify(definition), "hex").slice(0, VERSION_LENGTH),
    // A build of the user's own may use any GPU.
    variant: "host",
    source: SOURCE,
    // Nothing of it is Tug's, and what lies beside the program is none of the engine's.
    directory: program,
    command: [program],
    installedAt: new Date(mtimeMs).toISOString(),
    needs: await findNeeds(definition, program, homeOf(env)),
  };
}

/** @returns `~/x` as an absolute path; the rest as it is */
export function expandHome(word: string, env: Env = process.env): string {
  return word.startsWith("~/") ? join(homeOf(env), word.slice(2)) : word;
}

// --- internal ---

function homeOf(env: Env): string {
  return env["HOME"] || homedir();
}

async function findProgram({ name, command }: CustomDefinition, env: Env): Promise<string> {
  const program = expandHome(command[0] ?? "", env);
  if (!isAbsolute(program)) {
    const found = Bun.which(program, { PATH: env["PATH"] ?? "" });
    if (found !== null) return found;
    throw missing(name, program, "is not on PATH");
  }
  const facts = await stat(program).catch(() => undefined);
  if (facts === undefined) throw missing(name, program, "is not there");
  const isRunnable = await access(program, constants.X_OK).then(
    () => facts.isFile(),
    () => false,
  );
  if (!isRunnable) throw missing(name, program, "cannot be executed");
  return program;
}

function missing(name: string, program: string, reason: string): AppError {
  return new AppError(
    "install_failed",
    `cannot start ${name}: its program \`${program.slice(0, 200)}\` ${reason}`,
    { hint: `Install it, or correct \`command\` of \`[engines."${name}"]\` in config.toml.` },
  );
}

/**
 * Files and directories that the command names, such as a script, and what interpreters have beside them. A word may
 * name what is to be written, or no file at all: only what is there counts.
 */
async function findNeeds(
  { command, reads, cwd }: CustomDefinition,
  program: string,
  home: string,
): Promise<readonly string[]> {
  const words = command.slice(1).map((word) => word.replace(/^-[^=]*=/, ""));
  const named = [...words, ...reads, ...(cwd === undefined ? [] : [cwd])].map((word) =>
    expandHome(word, { HOME: home }),
  );
  const places = [...named.filter((word) => isAbsolute(word)), ...(await beside(program, home))];
  const found = await Promise.all(places.map((place) => isShown(place)));
  return [...new Set(places.filter((_, index) => found[index]))];
}

/** @throws install_failed */
async function requireDirectory(name: string, path: string): Promise<void> {
  const facts = await stat(path).catch(() => undefined);
  if (facts?.isDirectory() === true) return;
  throw new AppError(
    "install_failed",
    `cannot start ${name}: there is no directory \`${path.slice(0, 200)}\``,
    { hint: `Make it, or correct \`cwd\` of \`[engines."${name}"]\` in config.toml.` },
  );
}

async function isShown(path: string): Promise<boolean> {
  const facts = await stat(path).catch(() => undefined);
  return (facts?.isFile() === true || facts?.isDirectory() === true) && !UNSHOWN.has(path);
}

/**
 * Of a virtual environment all of it; of an interpreter the `lib` beside its `bin`. Of a script that stands for one of
 * several versions (`shims` of pyenv, rbenv, nodenv, mise) the directory that holds these.
 */
async function beside(program: string, home: string): Promise<readonly string[]> {
  const target = await realpath(program).catch(() => program);
  const places: string[] = [];
  for (const directory of new Set([dirname(program), dirname(target)])) {
    const root = dirname(directory);
    if (basename(directory) === "shims" && !contains(root, home)) places.push(root);
    if (basename(directory) !== "bin") continue;
    const isEnvironment = await readFile(join(root, "pyvenv.cfg")).then(
      () => true,
      () => false,
    );
    const place = isEnvironment ? root : join(root, "lib");
    if (!contains(place, home)) places.push(place);
  }
  return places;
}

/** Whether `inner` is `place` or in it. */
function contains(place: string, inner: string): boolean {
  const way = relative(place, inner);
  return !way.startsWith("..") && !isAbsolute(way);
}
