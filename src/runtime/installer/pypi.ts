/**
 * Engines that are Python packages: an environment of their own from locked requirements with hashes, made by uv; or an
 * environment of the user's, used where it is.
 */
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve, sep } from "node:path";

import { AppError } from "../../errors.ts";
import { log } from "../../log.ts";
import type { Backend, InstallRecipe, Installation } from "../backend.ts";
import { runCommand } from "./command.ts";
import { askPython, pythonIn } from "./own-python.ts";
import { DIRECTORY, report, variantOf } from "./source.ts";
import type { EnginePlan, InstallSource, SourceContext, SourceRequest } from "./source.ts";
import { certificateVariables, findUv, indexVariables } from "./uv.ts";

/** Gigabytes over a slow line; uv gives up by itself where nothing comes. */
const INSTALL_BOUND_MS = 6 * 3_600_000;
/** It looks for a Python, or makes an empty environment; with a download of one, minutes. */
const PREPARE_BOUND_MS = 600_000;
/** Starting a Python, on a slow disk. */
const ASK_BOUND_MS = 60_000;
/** Without a byte for so long a connection counts as dead. Seconds. */
const HTTP_TIMEOUT_S = "60";

type Recipe = NonNullable<InstallRecipe["pypi"]>;

export const pypiInstallSource: InstallSource = {
  name: "pypi",
  network: true,
  variants: true,

  isAskedFor: ({ backend, env }) => ownPython(backend.recipe.pypi, env) !== undefined,

  async resolve(request: SourceRequest, context: SourceContext): Promise<EnginePlan> {
    const own = request.python ?? ownPython(recipeOf(context), context.env);
    if (own !== undefined) return planOwn(resolve(own), request, context);
    return planLocked(request, context);
  },
};

/** An environment outlives versions of Tug: what starts it is of this one. */
export async function renewLauncher(
  { directory, source }: Installation,
  { recipe: { pypi: recipe } }: Backend,
): Promise<void> {
  if (recipe === undefined || source !== pypiInstallSource.name) return;
  const present = await readFile(join(directory, LAUNCHER_NAME), "utf8").catch(() => "");
  if (present !== recipe.launcher) await writeLauncher(directory, recipe);
}

// --- internal ---

function recipeOf({ backend }: SourceContext): Recipe {
  const recipe = backend.recipe.pypi;
  if (recipe === undefined) throw new Error(`${backend.name} is no Python package`);
  return recipe;
}

function ownPython(recipe: Recipe | undefined, env: SourceContext["env"]): string | undefined {
  const variable = recipe?.environment.find((name) => (env[name] ?? "") !== "");
  return variable === undefined ? undefined : env[variable];
}

/** Nothing is copied but the program that starts it. */
async function planOwn(
  path: string,
  request: SourceRequest,
  context: SourceContext,
): Promise<EnginePlan> {
  const recipe = recipeOf(context);
  report(context, { phase: "resolving" });
  const { python, version, prefixes } = await askPython(path, recipe, context);
  if (request.version !== undefined && request.version !== version) {
    throw new Error(`\`${python}\` has version ${version}, not ${request.version.slice(0, 80)}`);
  }
  return {
    version,
    variant: "host",
    needs: prefixes,
    fetch: async (directory) => {
      await writeLauncher(directory, recipe);
      return [python, LAUNCHER];
    },
  };
}

const LAUNCHER_NAME = "launch.py";
const LAUNCHER = `${DIRECTORY}${sep}${LAUNCHER_NAME}`;

async function writeLauncher(directory: string, { launcher }: Recipe): Promise<void> {
  const path = join(directory, LAUNCHER_NAME);
  // A worker that starts at this moment reads the old one or the new one.
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, launcher);
  await rename(temporary, path);
}

async function planLocked(
  { gpu, version }: SourceRequest,
  context: SourceContext,
): Promise<EnginePlan> {
  const recipe = recipeOf(context);
  const { machine } = context;
  const requirements = recipe.requirements(machine, gpu);
  if (requirements === undefined) {
    const { platform, arch } = machine;
    throw new AppError(
      "not_supported",
      `its ${variantOf(gpu)} packages for ${platform} ${arch} are not on PyPI: install it yourself, and name its Python with \`--python PATH\``,
    );
  }
  if (version !== undefined && version !== recipe.version) {
    throw new AppError(
      "not_supported",
      `it locks version ${recipe.version}: install another one yourself, and name its Python with \`--python PATH\``,
    );
  }
  report(context, { phase: "resolving" });
  const uv = await findUv(context);
  const python = await findPython(uv, recipe, context);
  const { prefixes } = await askPrefixes(python, context);
  return {
    version: recipe.version,
    variant: variantOf(gpu),
    needs: prefixes,
    fetch: async (directory) => {
      await makeEnvironment({ uv, python, directory, requirements, context });
      await writeLauncher(directory, recipe);
      return [`${DIRECTORY}${sep}${pythonIn(ENVIRONMENT)}`, LAUNCHER];
    },
  };
}

const ENVIRONMENT = "environment";

/** One that is here, else one that uv fetches. */
async function findPython(uv: string, { python }: Recipe, context: SourceContext): Promise<string> {
  const find = ["python", "find", "--no-project", "--system", python];
  try {
    return await firstLine(uv, [...find, "--no-python-downloads"], context);
  } catch (error) {
    context.signal.throwIfAborted();
    report(context, { phase: "downloading", id: "python" });
    try {
      await runUv(uv, ["python", "install", "--no-bin", python], {
        context,
        timeoutMs: PREPARE_BOUND_MS,
      });
      return await firstLine(uv, [...find, "--managed-python"], context);
    } catch {
      context.signal.throwIfAborted();
      throw new Error(
        `there is no Python ${python} on PATH, and none could be fetched: install one with your system's packages`,
        { cause: error },
      );
    }
  }
}

async function firstLine(
  uv: string,
  args: readonly string[],
  context: SourceContext,
): Promise<string> {
  const { stdout } = await runUv(uv, args, { context, timeoutMs: PREPARE_BOUND_MS });
  const [line = ""] = stdout.trim().split("\n");
  if (line === "") throw new Error("uv named no Python");
  return line;
}

/** Of a Python that has nothing installed yet. */
async function askPrefixes(python: string, context: SourceContext) {
  const text = "import sys\nprint(sys.prefix, sys.base_prefix, sep='\\n')";
  const { stdout } = await runCommand([python, "-I", "-B", "-c", text], {
    signal: context.signal,
    env: context.env,
    timeoutMs: ASK_BOUND_MS,
  });
  return { prefixes: [...new Set(stdout.trim().split("\n"))] };
}

interface EnvironmentInput {
  readonly uv: string;
  readonly python: string;
  readonly directory: string;
  readonly requirements: string;
  readonly context: SourceContext;
}

/** What was downloaded stays in the cache until all of it is installed: the next attempt goes on with it. */
async function makeEnvironment(input: EnvironmentInput): Promise<void> {
  const { uv, python, directory, requirements, context } = input;
  const environment = join(directory, ENVIRONMENT);
  const list = join(directory, "requirements.txt");
  await writeFile(list, requirements);
  const make = ["venv", "--no-project", "--relocatable", "--python", python, environment];
  await runUv(uv, make, { context, timeoutMs: PREPARE_BOUND_MS });
  const install = ["pip", "install", "--python", join(directory, pythonIn(ENVIRONMENT))];
  const rules = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--compile-bytecode"];
  const onErrorLine = progressOf(context);
  await runUv(uv, [...install, ...rules, "-r", list], {
    context,
    timeoutMs: INSTALL_BOUND_MS,
    onErrorLine,
  });
  await rm(cacheOf(context), { recursive: true, force: true }).catch((error: unknown) =>
    log.debug(`installer: cache kept reason=${String(error)}`),
  );
}

/** uv names what is large, with its size, when it begins with it, and once more when it has it. */
function progressOf(context: SourceContext): (line: string) => void {
  const sizes = new Map<string, number>();
  let done = 0;
  return (line) => {
    if (line.startsWith("Prepared ")) report(context, { phase: "unpacking" });
    const begun = DOWNLOADING.exec(line);
    const ended = /^\s*Downloaded (\S+)/.exec(line);
    if (begun === null && ended === null) return;
    if (begun !== null) sizes.set(begun[1] ?? "", bytesOf(begun));
    done += sizes.get(ended?.[1] ?? "") ?? 0;
    const total = [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
    report(context, { phase: "downloading", done, total });
  };
}

const DOWNLOADING = /^\s*Downloading (\S+) \(([\d.]+)([KMG]iB)\)/;

function bytesOf([, , amount, unit = ""]: RegExpExecArray): number {
  return Math.round(Number(amount) * (UNITS[unit] ?? 1));
}

const UNITS: Readonly<Record<string, number>> = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };

/** One for each engine: they are installed at once, and the first to be done drops its own. */
function cacheOf({ cacheDirectory, backend }: SourceContext): string {
  return join(cacheDirectory, "uv-cache", backend.name);
}

interface UvOptions {
  readonly context: SourceContext;
  readonly timeoutMs: number;
  readonly onErrorLine?: (line: string) => void;
}

/** @throws insufficient_storage; any other Error is a clause */
async function runUv(uv: string, args: readonly string[], { context, ...options }: UvOptions) {
  const { signal, env, cacheDirectory, dataDirectory } = context;
  await mkdir(cacheDirectory, { recursive: true });
  const run = runCommand([uv, ...args], {
    ...options,
    diesWithThis: true,
    signal,
    cwd: cacheDirectory,
    complaintIn: uvComplaint,
    env: {
      ...certificateVariables(),
      ...env,
      ...NOT_MEANT,
      ...indexVariables(env),
      UV_CACHE_DIR: cacheOf(context),
      UV_PYTHON_INSTALL_DIR: join(dataDirectory, ".python"),
      UV_HTTP_TIMEOUT: HTTP_TIMEOUT_S,
      UV_NO_CONFIG: "1",
      UV_NO_PROGRESS: "1",
    },
  });
  return run.catch((error: unknown) => {
    signal.throwIfAborted();
    throw isFullDisk(error) ? diskFull(context, error) : error;
  });
}

/** Variables for the caller's own environments and projects. */
const NOT_MEANT: Readonly<Record<string, undefined>> = Object.fromEntries(
  `VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH UV_PYTHON UV_SYSTEM_PYTHON UV_CONSTRAINT UV_OVERRIDE UV_EXCLUDE_NEWER
  UV_NO_BINARY UV_PROJECT_ENVIRONMENT UV_WORKING_DIRECTORY UV_TORCH_BACKEND`
    .split(/\s+/)
    .map((name) => [name, undefined]),
);

/** Its first line, and the last of the causes below: what is between says where it was. */
function uvComplaint(stderr: string): string | undefined {
  const lines = stderr.split("\n");
  const problem = lines.map((line) => /^(?:error:| *×) *(.+)/.exec(line)?.[1]).find(Boolean);
  const cause = lines
    .map((line) => /^ *(?:cause:|Caused by:|[├╰]─▶) *(.+)/.exec(line)?.[1])
    .findLast(Boolean);
  const said = [problem, cause].filter((part) => part !== undefined);
  if (said.length > 0) return said.map((part) => part.trim().replace(/[.:]$/, "")).join(": ");
  return lines.findLast((line) => line.trim() !== "" && !UV_PROGRESS.test(line))?.trim();
}

const UV_PROGRESS = /^\s*(?:Downloading|Downloaded|Prepared|Resolved|Installed|Using|Creating)\b/;

function isFullDisk(error: unknown): boolean {
  const text = error instanceof Error ? error.message : "";
  return /No space left on device|Disk quota exceeded|not enough space on the disk/i.test(text);
}

function diskFull({ backend, cacheDirectory }: SourceContext, cause: unknown): AppError {
  return new AppError("insufficient_storage", `cannot install ${backend.name}: the disk is full`, {
    hint: `Free some space and try again: what was downloaded is kept in ${cacheDirectory}.`,
    cause,
  });
}
