/** An engine of the user's own, used where it is: named by an environment variable, else found on PATH. */
import { stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

import { AppError } from "../../errors.ts";
import type { Backend, Installation } from "../backend.ts";
import { runCommand } from "./command.ts";
import type { EnginePlan, InstallSource, SourceContext, SourceRequest } from "./source.ts";

const VERSION_TIMEOUT_MS = 10_000;

type Env = Readonly<Record<string, string | undefined>>;

export const pathInstallSource: InstallSource = {
  name: "path",
  network: false,
  variants: false,

  async resolve(request: SourceRequest, context: SourceContext): Promise<EnginePlan> {
    const { path } = context.backend.recipe;
    if (path === undefined) throw new Error(`${context.backend.name} cannot be used from a path`);
    const named = await namedExecutable(context.backend, context.env, context.machine.platform);
    const executable = named ?? Bun.which(path.executable, { PATH: context.env["PATH"] ?? "" });
    if (executable === null) throw new Error(`no \`${path.executable}\` is on PATH`);
    const version = (await askVersion(executable, context)) ?? "unknown";
    if (request.version !== undefined && request.version !== version) {
      throw new Error(`\`${executable}\` has version ${version}, not ${request.version}`);
    }
    const directory = dirname(executable);
    return {
      version,
      variant: "host",
      inPlace: { directory, command: [executable] },
      fetch: () => Promise.resolve([executable]),
    };
  },
};

/**
 * The installation that an environment variable names, or undefined if none is set. Runs nothing.
 *
 * @throws install_failed if the variable names nothing that can be run
 */
export async function installationFromEnvironment(
  backend: Backend,
  env: Env,
  platform: NodeJS.Platform,
): Promise<Installation | undefined> {
  const executable = await namedExecutable(backend, env, platform);
  if (executable === undefined) return undefined;
  return {
    backend: backend.name,
    version: "unknown",
    variant: "host",
    source: "path",
    directory: dirname(executable),
    command: [executable],
    installedAt: new Date((await stat(executable)).mtimeMs).toISOString(),
  };
}

// --- internal ---

async function namedExecutable(
  { recipe }: Backend,
  env: Env,
  platform: NodeJS.Platform,
): Promise<string | undefined> {
  if (recipe.path === undefined) return undefined;
  const { environment, executable } = recipe.path;
  const variable = environment.find((name) => (env[name] ?? "") !== "");
  if (variable === undefined) return undefined;
  const named = resolve(env[variable] ?? "");
  const file = platform === "win32" ? `${executable}.exe` : executable;
  for (const candidate of [named, join(named, file)]) {
    const found = await stat(candidate).catch(() => undefined);
    if (found?.isFile() === true) return candidate;
  }
  throw new AppError(
    "install_failed",
    `cannot use ${variable}: there is no \`${executable}\` at \`${named}\``,
    { hint: `Set ${variable} to the file or its directory, or unset it.` },
  );
}

/** llama-server prints its version on stderr or stdout, by age. */
async function askVersion(executable: string, context: SourceContext): Promise<string | undefined> {
  const { signal, env } = context;
  const answer = await runCommand([executable, "--version"], {
    signal,
    env,
    timeoutMs: VERSION_TIMEOUT_MS,
  });
  return parseVersion(`${answer.stdout}\n${answer.stderr}`);
}

/** `version: 0.7.0 (build 11669, commit Debian)` or `version: 9879 (a1b2c3d)`. */
function parseVersion(text: string): string | undefined {
  return /^version: (\S+)/m.exec(text)?.[1];
}
