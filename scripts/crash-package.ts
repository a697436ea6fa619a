/**
 * Kills `tug package` of the compiled executable at random moments: `bun scripts/crash-package.ts [N]`.
 *
 * Each round packages a file of its own. After each kill the store must open, `tug verify` must be clean and every model
 * whose command had succeeded must be there; in the end `tug prune` must leave no debris. Exit 1 otherwise.
 */
import { randomInt } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cleanEnvironment, runCli } from "../test/helpers/run-cli.ts";
import { tugBinary } from "../test/helpers/binary.ts";
import { writeSparseGguf } from "../test/store/gguf-file.ts";

const ROUNDS = 50;
/** Large enough that most kills fall amid the copy. Bytes of tensors. */
const TENSOR_BYTES = 64 * 1024 * 1024;

/** Verifying reads them all, each time. */
const KEPT_MODELS = 4;

const rounds = Number(process.argv[2] ?? ROUNDS);
const home = await mkdtemp(join(tmpdir(), "tug-crash-"));
const env = { TUG_HOME: home };
try {
  process.exitCode = await conduct();
} finally {
  await rm(home, { recursive: true, force: true });
}

// --- internal ---

async function conduct(): Promise<number> {
  const failures: string[] = [];
  const whole = new Set<string>();
  await packageOnce("first", Number.POSITIVE_INFINITY, whole);
  const usualMs = await packageOnce("second", Number.POSITIVE_INFINITY, whole);
  let killed = 0;
  // A command may be faster than its killer; that round tells nothing.
  for (let round = 0; killed < rounds && round < 3 * rounds; round += 1) {
    const before = whole.size;
    await packageOnce(`m${round}`, randomInt(Math.ceil(usualMs)), whole);
    if (whole.size === before) killed += 1;
    failures.push(...(await inspect(whole)).map((failure) => `round ${round}: ${failure}`));
    const [oldest] = whole;
    if (whole.size <= KEPT_MODELS || oldest === undefined) continue;
    await runCli(["rm", oldest], { env });
    whole.delete(oldest);
  }
  await runCli(["prune"], { env });
  failures.push(...(await debris()));
  for (const failure of failures) console.error(failure);
  const result = failures.length === 0 ? "nothing lost, no debris" : `${failures.length} failures`;
  console.log(`crash-package: ${killed} commands killed, ${whole.size} models left: ${result}`);
  return killed > 0 && failures.length === 0 ? 0 : 1;
}

/** @returns milliseconds until it ended */
async function packageOnce(name: string, killAfterMs: number, whole: Set<string>): Promise<number> {
  const file = join(home, `${name}.gguf`);
  await writeGguf(file, name);
  const start = performance.now();
  const child = Bun.spawn([await tugBinary(), "package", "--gguf", file, `crash/${name}`], {
    env: { ...cleanEnvironment(), ...env },
    stdio: ["ignore", "ignore", "ignore"],
  });
  const timer = Number.isFinite(killAfterMs)
    ? setTimeout(() => child.kill("SIGKILL"), killAfterMs)
    : undefined;
  if ((await child.exited) === 0) whole.add(`docker.io/crash/${name}:latest`);
  clearTimeout(timer);
  await rm(file, { force: true });
  return performance.now() - start;
}

/** One F32 tensor of zeros; the name makes the file differ from all others. */
async function writeGguf(path: string, name: string): Promise<void> {
  const values = {
    "general.architecture": { string: "llama" },
    "general.name": { string: name },
  };
  const tensors = [{ name: "t", shape: [TENSOR_BYTES / 4], dtype: 0, offset: 0 }];
  await writeSparseGguf(path, { values, tensors }, TENSOR_BYTES + 4096);
}

async function inspect(whole: ReadonlySet<string>): Promise<string[]> {
  const listed = await runCli(["list", "--json"], { env });
  const verified = await runCli(["verify"], { env });
  if (listed.exitCode !== 0) return [`list failed: ${listed.stdout}`];
  const models = JSON.parse(listed.stdout) as { tags: string[] }[];
  const tags = new Set(models.flatMap((model) => model.tags));
  const lost = [...whole].filter((tag) => !tags.has(tag)).map((tag) => `${tag} is lost`);
  return verified.exitCode === 0 ? lost : [...lost, `verify failed: ${verified.stderr}`];
}

/** A manifest, a config and weights for each model, and nothing else. */
async function debris(): Promise<string[]> {
  const list = await runCli(["list", "-q"], { env });
  const models = list.stdout.trim().split("\n").length;
  const [blobs, ingests, pins] = await Promise.all(
    ["blobs/sha256", "ingest", "pins"].map((folder) => readdir(join(home, "models", folder))),
  );
  const count = blobs?.length ?? 0;
  // The weights differ by one name, the configs need not differ.
  const surplus = count > models * 3 ? [`debris: ${count} blobs for ${models} models`] : [];
  return [
    ...surplus,
    ...[ingests, pins].flatMap((names) => names ?? []).map((name) => `debris: ${name}`),
  ];
}
