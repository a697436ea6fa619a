/**
 * Kills `tug pull` of the compiled executable at random moments until it is done: `bun scripts/crash-pull.ts [N]`.
 *
 * A registry on loopback sends a blob of 1 GiB at a bounded rate, so that what it has sent is what the client had time to
 * take, and counts the bytes. Then it measures what one wrong byte costs, in transit and on the disk. Exit 1 if more than
 * 3 % is fetched twice, if repair costs more than two ranges, or if anything is wrong in the end.
 */
import { randomInt } from "node:crypto";
import { mkdir, mkdtemp, open, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hexOf, parseDigest } from "../src/oci/digest.ts";
import { type FakeRegistry, startFakeRegistry } from "../test/fakes/registry.ts";
import { tugBinary } from "../test/helpers/binary.ts";
import { cleanEnvironment, runCli } from "../test/helpers/run-cli.ts";
import { writeLargeGguf } from "./bench/large-model.ts";

const KILLS = 20;
const BLOB_BYTES = 1024 ** 3;
/** Fetched twice over all kills, of the blob. */
const WASTE_LIMIT = 0.03;
/** Of each connection: with eight of them the blob takes its 20 seconds, so that each kill falls amid it. */
const BYTES_PER_SECOND = 6_000_000;
/** The kills spread over most of the transfer. Milliseconds. */
const LIFE_MS = { least: 300, most: 1_500 };
/** The model's config is sent besides the blob. */
const CONFIG_BYTES = 1024;
/** What a byte that the disk changed may cost besides the blob: two ranges of 64 MiB. */
const REPAIR_LIMIT = 2 * 64 * 1024 ** 2;
const TIMEOUT_MS = 120_000;

const kills = Number(process.argv[2] ?? KILLS);
const directory = await mkdtemp(join(tmpdir(), "tug-crash-"));
try {
  process.exitCode = await conduct();
} finally {
  await rm(directory, { recursive: true, force: true });
}

// --- internal ---

interface Subject {
  readonly registry: FakeRegistry;
  readonly digest: string;
  readonly size: number;
}

async function conduct(): Promise<number> {
  const file = await writeLargeGguf(join(directory, "large.gguf"), BLOB_BYTES);
  await using registry = await startFakeRegistry();
  const { weights } = await registry.addModel("crash/m:1", Bun.file(file.path));
  const subject = { registry, ...weights };
  const failures = [
    ...(await killed(subject)),
    ...(await flippedInTransit(subject)),
    ...(await flippedOnDisk(subject)),
  ];
  for (const failure of failures) console.error(failure);
  return failures.length === 0 ? 0 : 1;
}

async function killed(subject: Subject): Promise<string[]> {
  const { registry, size } = subject;
  const home = await newHome("killed");
  registry.fault({ kind: "slow", bytesPerSecond: BYTES_PER_SECOND, path: "/blobs/" });
  let count = 0;
  let isDone = false;
  while (count < kills && !isDone) {
    isDone = await pullFor(subject, home, randomInt(LIFE_MS.least, LIFE_MS.most));
    if (!isDone) count += 1;
  }
  registry.clearFaults();
  const failures = isDone ? [] : await finishPull(subject, home);
  const sent = takeBytes(registry);
  const waste = sent / size - 1;
  console.log(
    `crash-pull: killed ${count} times: ${sent} bytes fetched of ${size}: ${percent(waste)} twice`,
  );
  if (count < Math.min(kills, 10)) failures.push(`only ${count} kills before it was done`);
  if (waste > WASTE_LIMIT) failures.push(`more than ${percent(WASTE_LIMIT)} was fetched twice`);
  return failures;
}

async function flippedInTransit(subject: Subject): Promise<string[]> {
  const { registry, size, digest } = subject;
  const home = await newHome("transit");
  const at = Math.floor(size / 2);
  const flip = registry.fault({ kind: "flip", at, method: "GET", path: digest, times: 1 });
  // One connection: with more, another one may bring the byte unharmed.
  const failures = await finishPull(subject, home, "--connections", "1");
  registry.clearFaults();
  if (flip.hits !== 1) failures.push("no byte was flipped in transit");
  // Nothing but the right bytes can tell which ones are wrong: ranges are fetched again until the digest fits.
  return [...failures, ...judge("a byte flipped in transit", takeBytes(registry) - size, size)];
}

/** A byte of what a killed pull has on the disk. */
async function flippedOnDisk(subject: Subject): Promise<string[]> {
  const { registry, size } = subject;
  const home = await newHome("disk");
  const slow = { kind: "slow", bytesPerSecond: BYTES_PER_SECOND, path: "/blobs/" } as const;
  registry.fault(slow);
  await pullFor(subject, home, 10 * LIFE_MS.most);
  registry.clearFaults();
  const before = takeBytes(registry);
  if (before > size) return ["the pull was done before its bytes could be damaged"];
  await flipByte(home, Math.floor(before / 16));
  const failures = await finishPull(subject, home);
  const after = takeBytes(registry);
  return [...failures, ...judge("a byte flipped on the disk", before + after - size, REPAIR_LIMIT)];
}

/** @returns whether it ended by itself, well */
async function pullFor({ registry }: Subject, home: string, lifeMs: number): Promise<boolean> {
  const child = Bun.spawn([await tugBinary(), "pull", `${registry.host}/crash/m:1`], {
    env: { ...cleanEnvironment(), TUG_HOME: home },
    stdio: ["ignore", "ignore", "ignore"],
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), lifeMs);
  const exitCode = await child.exited;
  clearTimeout(timer);
  return exitCode === 0;
}

/** Pulls to the end and has the store check itself. */
async function finishPull(
  { registry, digest }: Subject,
  home: string,
  ...flags: readonly string[]
): Promise<string[]> {
  const options = { env: { TUG_HOME: home }, timeoutMs: TIMEOUT_MS };
  const pulled = await runCli(["pull", `${registry.host}/crash/m:1`, ...flags], options);
  if (pulled.exitCode !== 0) return [`pull failed: ${pulled.stderr}`];
  const verified = await runCli(["verify"], options);
  if (verified.exitCode !== 0) return [`verify failed: ${verified.stdout}${verified.stderr}`];
  const blob = Bun.file(join(home, "models", "blobs", "sha256", hexOf(parseDigest(digest))));
  const debris = await readdir(join(home, "models", "ingest"));
  return [
    ...((await blob.exists()) ? [] : ["the blob is not in the store"]),
    ...debris.map((name) => `debris: ingest/${name}`),
  ];
}

async function flipByte(home: string, offset: number): Promise<void> {
  const ingest = join(home, "models", "ingest");
  const name = (await readdir(ingest)).find((it) => it.endsWith(".part"));
  if (name === undefined) throw new Error("a killed pull left no partial blob");
  await using file = await open(join(ingest, name), "r+");
  const byte = new Uint8Array(1);
  await file.read(byte, 0, 1, offset);
  await file.write(Uint8Array.of((byte[0] ?? 0) ^ 0xff), 0, 1, offset);
}

function judge(what: string, extra: number, limit: number): string[] {
  console.log(`crash-pull: ${what}: ${extra} bytes more`);
  if (extra < CONFIG_BYTES) return [`${what}: nothing was fetched again`];
  return extra > limit + CONFIG_BYTES ? [`${what}: cost more than ${limit} bytes`] : [];
}

/** Of blobs, sent since the last call. */
function takeBytes(registry: FakeRegistry): number {
  const bytes = registry.blobBytesSent();
  registry.requests.length = 0;
  return bytes;
}

async function newHome(name: string): Promise<string> {
  const home = join(directory, name);
  await mkdir(home);
  return home;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(2)} %`;
}
