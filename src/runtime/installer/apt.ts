/**
 * Debian's own build, fetched by the host's own apt as any user, unpacked into one flat directory.
 *
 * Mirrors, proxies, credentials and keyrings are those apt is configured with: no host is named here. apt verifies the
 * whole chain (signed index, package list, SHA-256 of each package). Its state lives in directories of our own, so
 * nothing of the host's package management is touched.
 */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { AppError } from "../../errors.ts";
import type { Gpu, InstallRecipe } from "../backend.ts";
import { aptConfiguration, aptSource, parseRepositories, parseUris, signedBy } from "./apt-text.ts";
import type { AptPackage, AptRepository } from "./apt-text.ts";
import { runCommand } from "./command.ts";
import { flatten } from "./flatten.ts";
import { variantOf } from "./source.ts";
import type { EnginePlan, InstallSource, SourceContext, SourceRequest } from "./source.ts";

/** apt retries and times out by itself; these end it where it hangs. */
const QUERY_TIMEOUT_MS = 20_000;
const UPDATE_TIMEOUT_MS = 120_000;
const DOWNLOAD_TIMEOUT_MS = 1_800_000;
const UNPACK_TIMEOUT_MS = 120_000;

/** One record a line; apt leaves a variable it does not know as it is. */
const TARGET_FORMAT =
  "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)|$(SOURCESENTRY)|$(COMPONENT)|$(RELEASE)";

type AptRecipe = NonNullable<InstallRecipe["apt"]>;

export const aptInstallSource: InstallSource = {
  name: "apt",
  network: true,
  variants: true,

  async resolve(request: SourceRequest, context: SourceContext): Promise<EnginePlan> {
    const recipe = requireRecipe(context);
    const required = requirePackages(recipe, request.gpu);
    requireTools();
    const repository = await findRepository(recipe, context);
    const apt = await prepare(repository, context);
    report(context, "resolving");
    await update(apt);
    const extras = recipe.extras?.(request.gpu) ?? [];
    const packages = [...required, ...(await available(extras, apt))];
    const files = parseUris(await printUris(packages, apt));
    const version = versionOf(files, recipe.mainPackage);
    if (request.version !== undefined && request.version !== version) {
      throw new Error(`it has version ${version}, not ${request.version}`);
    }
    return {
      version,
      variant: variantOf(request.gpu),
      fetch: (directory) => fetchPackages({ recipe, files, packages, apt, directory }),
    };
  },
};

// --- internal ---

interface Apt {
  readonly configuration: string;
  readonly packagesDirectory: string;
  readonly context: SourceContext;
}

interface FetchInput {
  readonly recipe: AptRecipe;
  readonly packages: readonly string[];
  readonly files: readonly AptPackage[];
  readonly apt: Apt;
  readonly directory: string;
}

function requireRecipe({ backend, machine }: SourceContext): AptRecipe {
  const { apt } = backend.recipe;
  if (apt === undefined) throw new Error(`Debian has no package of ${backend.name}`);
  if (machine.platform !== "linux") throw new Error("it serves Debian and its family only");
  return apt;
}

function requirePackages(recipe: AptRecipe, gpu: Gpu): readonly string[] {
  const packages = recipe.packages(gpu);
  if (packages.length === 0) throw new Error(`Debian has no ${variantOf(gpu)} build`);
  return packages;
}

function requireTools(): void {
  for (const tool of ["apt-get", "apt-cache", "dpkg-deb"]) {
    if (Bun.which(tool) === null) throw new Error(`\`${tool}\` is not on this machine`);
  }
}

async function update(apt: Apt): Promise<void> {
  try {
    await run(["apt-get", "-q", "update"], apt, { timeoutMs: UPDATE_TIMEOUT_MS });
  } catch (error) {
    apt.context.signal.throwIfAborted();
    throw new AppError("registry_unavailable", (error as Error).message, { cause: error });
  }
}

function run(
  argv: readonly string[],
  apt: Apt,
  options: { timeoutMs: number; cwd?: string; onLine?: (line: string) => void },
): Promise<string> {
  const { env, signal } = apt.context;
  const [program = "", ...rest] = argv;
  const full = [program, "--config-file", apt.configuration, ...rest];
  return runCommand(full, { ...options, env, signal }).then(({ stdout }) => stdout);
}

/** A configured repository whose suites hold the engine, else Debian's own with the suite of the recipe. */
async function findRepository(recipe: AptRecipe, context: SourceContext): Promise<AptRepository> {
  const { env, signal } = context;
  const options = { env, signal, timeoutMs: QUERY_TIMEOUT_MS };
  const targets = ["apt-get", "indextargets", "--format", TARGET_FORMAT, "Created-By: Packages"];
  const [configured, known] = await Promise.all([
    runCommand(targets, options),
    runCommand(["apt-cache", "madison", recipe.mainPackage], options),
  ]);
  const repository = parseRepositories(configured.stdout, known.stdout, recipe.suite);
  if (repository === undefined) throw new Error("apt is configured with no Debian repository");
  return repository;
}

/** Writes a private apt configuration and the directories it names. */
async function prepare(repository: AptRepository, context: SourceContext): Promise<Apt> {
  const root = join(context.cacheDirectory, "apt");
  const packagesDirectory = join(root, "packages");
  const sourcesDirectory = join(root, "sources.d");
  for (const part of ["state/lists/partial", "cache/archives/partial", "packages", "sources.d"]) {
    await mkdir(join(root, part), { recursive: true });
  }
  const configuration = join(root, "apt.conf");
  const text = await Bun.file(repository.sourceFile)
    .text()
    .catch(() => "");
  await writeFile(join(root, "status"), "");
  await writeFile(configuration, aptConfiguration(root));
  await writeFile(
    join(sourcesDirectory, "tug.sources"),
    aptSource(repository, signedBy(text, repository.uri)),
  );
  return { configuration, packagesDirectory, context };
}

function printUris(packages: readonly string[], apt: Apt): Promise<string> {
  const argv = ["apt-get", "-q", "--print-uris", "download", ...packages];
  return run(argv, apt, { timeoutMs: QUERY_TIMEOUT_MS });
}

/** All of them, or none: apt refuses a list with a name that it does not know. */
async function available(packages: readonly string[], apt: Apt): Promise<readonly string[]> {
  if (packages.length === 0) return [];
  try {
    return parseUris(await printUris(packages, apt)).length === packages.length ? packages : [];
  } catch {
    apt.context.signal.throwIfAborted();
    return [];
  }
}

function versionOf(files: readonly AptPackage[], mainPackage: string): string {
  const main = files.find((file) => file.name === mainPackage);
  if (main === undefined) throw new Error(`the repository has no \`${mainPackage}\``);
  return main.version;
}

async function fetchPackages(input: FetchInput): Promise<readonly string[]> {
  const { recipe, files, apt, directory, packages } = input;
  await download(files, packages, apt);
  report(apt.context, "unpacking");
  const tree = join(directory, ".tree");
  await mkdir(tree);
  const { env, signal } = apt.context;
  for (const file of files) {
    const path = join(apt.packagesDirectory, file.fileName);
    const options = { env, signal, timeoutMs: UNPACK_TIMEOUT_MS };
    await runCommand(["dpkg-deb", "--extract", path, tree], options);
  }
  const names = await flatten({ tree, patterns: recipe.files, directory });
  await rm(tree, { recursive: true, force: true });
  // 12 MB that would only be read again if the same version were installed twice.
  await rm(apt.packagesDirectory, { recursive: true, force: true });
  return commandOf(names, recipe.executable);
}

async function download(
  files: readonly AptPackage[],
  packages: readonly string[],
  apt: Apt,
): Promise<void> {
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let reported = 0;
  const onLine = (line: string): void => {
    // `dlstatus:<item>:<percent of the whole>:<text>`, from apt's README.progress-reporting.
    const percent = /^dlstatus:\d+:([\d.]+):/.exec(line)?.[1];
    if (percent === undefined) return;
    const done = Math.min(total, Math.round((Number(percent) / 100) * total));
    if (done <= reported) return;
    reported = done;
    report(apt.context, "downloading", { done, total });
  };
  report(apt.context, "downloading", { done: 0, total });
  const argv = ["apt-get", "-q", "-o", "APT::Status-Fd=1", "download", ...packages];
  const options = { cwd: apt.packagesDirectory, timeoutMs: DOWNLOAD_TIMEOUT_MS, onLine };
  await run(argv, apt, options);
  if (reported < total) report(apt.context, "downloading", { done: total, total });
}

/** The loader that came with the packages runs the engine: the host's C library may be too old for it. */
function commandOf(names: readonly string[], executable: string): readonly string[] {
  const loader = names.find((name) => name.startsWith("ld-linux-"));
  if (!names.includes(executable)) throw new Error(`the packages do not hold \`${executable}\``);
  if (loader === undefined) throw new Error("the packages hold no dynamic loader");
  return [`{directory}/${loader}`, "--library-path", "{directory}", `{directory}/${executable}`];
}

function report(
  context: SourceContext,
  phase: string,
  bytes?: { done: number; total: number },
): void {
  const [done_bytes, total_bytes] = [bytes?.done ?? null, bytes?.total ?? null];
  context.onProgress({
    type: "progress",
    id: context.backend.name,
    phase,
    done_bytes,
    total_bytes,
  });
}
