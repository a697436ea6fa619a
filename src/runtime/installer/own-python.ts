/** An environment of the user's own: where its Python is, and what it has. */
import { stat } from "node:fs/promises";
import { join } from "node:path";

import { errnoOf } from "../../errors.ts";
import type { InstallRecipe } from "../backend.ts";
import { type CommandOptions, runCommand } from "./command.ts";

/** Importing an engine reads thousands of files. */
const ASK_BOUND_MS = 60_000;

type PythonPackage = Pick<NonNullable<InstallRecipe["pypi"]>, "package" | "module">;

/** What an environment says of itself. */
interface PythonFacts {
  /** The program. */
  readonly python: string;
  /** Of the package. */
  readonly version: string;
  /** Its own directory, and that of the Python it was made with. */
  readonly prefixes: readonly string[];
}

/**
 * @param path of a `python`, or of the directory of its environment
 * @throws Error whose message is a clause: it is not there, is no Python 3, or lacks the package
 */
export async function askPython(
  path: string,
  { package: name, module }: PythonPackage,
  context: Pick<CommandOptions, "signal" | "env">,
): Promise<PythonFacts> {
  const python = await interpreterAt(path);
  const question = [python, "-I", "-B", "-c", QUESTION, name, module];
  const options = { ...context, timeoutMs: ASK_BOUND_MS };
  const answer = await runCommand(question, options).catch(async (error: unknown) => {
    context.signal.throwIfAborted();
    throw await toClause(error, python, options);
  });
  const facts = readFacts(answer.stdout);
  if (facts === undefined) throw new Error(`\`${python}\` is no Python`);
  return { ...facts, python };
}

/** In the directory of an environment. */
export function pythonIn(environment: string): string {
  return process.platform === "win32"
    ? join(environment, "Scripts", "python.exe")
    : join(environment, "bin", "python");
}

// --- internal ---

/** Its complaint, a traceback's last line, is what a failed command is reported with. */
const QUESTION = [
  "import importlib.metadata as m, importlib.util as u, json, sys",
  "found = u.find_spec(sys.argv[2])",
  "sys.exit('`%s` is not installed there' % sys.argv[1]) if found is None else None",
  // Builds for other hardware may go by another name.
  "try: version = m.version(sys.argv[1])",
  "except m.PackageNotFoundError: version = m.version(m.packages_distributions()[sys.argv[2]][0])",
  "print()",
  "print(json.dumps([version, sys.prefix, sys.base_prefix]))",
].join("\n");

/** What packages print when Python starts may come before it. */
function readFacts(stdout: string): Omit<PythonFacts, "python"> | undefined {
  try {
    const facts = JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as unknown;
    if (!Array.isArray(facts) || facts.length < 3) return undefined;
    const [version = "", ...prefixes] = facts.map(String);
    return { version, prefixes: [...new Set(prefixes)] };
  } catch {
    return undefined;
  }
}

async function interpreterAt(path: string): Promise<string> {
  const candidates = [path, pythonIn(path)];
  for (const candidate of candidates) {
    if ((await stat(candidate).catch(() => undefined))?.isFile() === true) return candidate;
  }
  throw new Error(`there is no Python at \`${path}\``);
}

async function toClause(thrown: unknown, python: string, options: CommandOptions): Promise<Error> {
  const code = errnoOf(thrown);
  if (code !== undefined) return new Error(`\`${python}\` cannot be started (${code})`);
  // Python 2 does not understand the question, and says its version elsewhere.
  const told = await runCommand([python, "-V"], options).catch(() => undefined);
  const old = /^Python (2[\d.]*)/m.exec(`${told?.stdout}${told?.stderr}`)?.[1];
  if (old !== undefined) return new Error(`\`${python}\` is Python ${old}, which is too old`);
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
