/**
 * Kills processes that write to one store, at random moments: `bun scripts/crash.ts [N]`.
 *
 * After each kill the store must open, `verify` must be clean and every model whose commit was announced must be there;
 * in the end `prune` must leave no debris. Exit 1 otherwise.
 */
import { randomBytes, randomInt } from "node:crypto";
import { writeSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hexOf } from "../src/oci/digest.ts";
import { encodeCanonical } from "../src/oci/manifest.ts";
import { DOCKER_CONFIG_V01, DOCKER_GGUF, OCI_MANIFEST } from "../src/oci/media-types.ts";
import { parseReference } from "../src/oci/reference.ts";
import { Store, type Transaction } from "../src/store/store.ts";

const ROUNDS = 50;
/** Long enough for a few models, so that kills fall on every step. */
const LONGEST_LIFE_MS = 1_000;
const CHUNK_BYTES = 1024 * 1024;
const LARGEST_BLOB_CHUNKS = 16;

const [, , first = String(ROUNDS), root, child] = process.argv;
if (root === undefined || child === undefined) process.exit(await conduct(Number(first)));
await write(Store.open(root), child);

/** The parent. */
async function conduct(rounds: number): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), "tug-crash-"));
  const store = Store.open(join(directory, "models"));
  const failures: string[] = [];
  const committed = new Set<string>();
  let total = 0;
  try {
    for (let round = 0; round < rounds; round += 1) {
      total += await killOne(store.root, round, committed);
      failures.push(
        ...(await inspect(store, committed)).map((failure) => `round ${round}: ${failure}`),
      );
    }
    failures.push(...(await inspectDebris(store)));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  for (const failure of failures) console.error(failure);
  const result = failures.length === 0 ? "nothing lost, no debris" : `${failures.length} failures`;
  console.log(
    `crash: ${rounds} processes killed, ${total} models committed, ${committed.size} left: ${result}`,
  );
  return failures.length === 0 ? 0 : 1;
}

/** Adds what the process says it committed, and takes away what it was about to remove. @returns how many it committed */
async function killOne(storeRoot: string, round: number, committed: Set<string>): Promise<number> {
  const process_ = Bun.spawn([process.execPath, import.meta.path, "0", storeRoot, String(round)], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const reader = process_.stdout.getReader();
  const decoder = new TextDecoder();
  let text = decoder.decode((await reader.read()).value);
  await Bun.sleep(randomInt(LONGEST_LIFE_MS));
  process_.kill("SIGKILL");
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value);
  }
  await process_.exited;
  let count = 0;
  // A line that was cut off says nothing.
  for (const line of text.split("\n").slice(0, -1)) {
    const [what = "", name = ""] = line.split(" ");
    if (what === "committed") count += 1;
    if (what === "committed") committed.add(name);
    if (what === "removing") committed.delete(name);
  }
  return count;
}

async function inspect(store: Store, committed: ReadonlySet<string>): Promise<string[]> {
  const tags = new Set((await store.list()).flatMap((model) => model.tags));
  const lost = [...committed].filter((name) => !tags.has(name)).map((name) => `${name} is lost`);
  const { problems } = await store.verify({ signal: new AbortController().signal });
  return [...lost, ...problems.map(({ digest, problem }) => `${digest}: ${problem}`)];
}

async function inspectDebris(store: Store): Promise<string[]> {
  await store.prune({ all: false, dryRun: false });
  const models = await store.list();
  const wanted = new Set(
    models.flatMap(({ manifestDescriptor, manifest: { config, layers } }) =>
      [manifestDescriptor, config, ...layers].map(({ digest }) => hexOf(digest)),
    ),
  );
  const bundles = new Set(models.map(({ digest }) => hexOf(digest)));
  const debris: string[] = [];
  const look = async (folder: string, isWanted: (name: string) => boolean): Promise<void> => {
    const names = await readdir(join(store.root, folder));
    debris.push(
      ...names.filter((name) => !isWanted(name)).map((name) => `debris: ${folder}/${name}`),
    );
  };
  await look("blobs/sha256", (name) => wanted.has(name));
  await look("bundles", (name) => bundles.has(name));
  await look("ingest", () => false);
  await look("pins", () => false);
  await look(".", (name) =>
    /^(?:blobs|bundles|index\.json|ingest|lock|oci-layout|pins)$/.test(name),
  );
  return debris;
}

/** The child: writes models, opens, removes and prunes them, until it is killed. */
async function write(store: Store, round: string): Promise<void> {
  say("started");
  for (let index = 0; ; index += 1) {
    const name = `docker.io/crash/m${round}:v${index}`;
    await commitRandom(store, name);
    say(`committed ${name}`);
    if (index % 3 === 1)
      await (await store.openBundle(await store.resolve(name)))[Symbol.asyncDispose]();
    if (index % 2 === 0) await store.prune({ all: true, dryRun: false });
    const oldest = (await store.list())[0]?.tags[0];
    if (index % 3 === 2 && oldest !== undefined) {
      say(`removing ${oldest}`);
      await store.remove(oldest, { force: false });
    }
  }
}

async function commitRandom(store: Store, name: string): Promise<void> {
  await using transaction = await store.begin();
  const layers = [];
  for (let layer = 0; layer < 2; layer += 1) {
    layers.push({
      mediaType: DOCKER_GGUF,
      ...(await ingestRandom(transaction, `${store.root}-${process.pid}`)),
    });
  }
  const config = {
    mediaType: DOCKER_CONFIG_V01,
    ...(await transaction.writeBlob(randomBytes(100))),
  };
  const manifest = encodeCanonical({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers });
  await transaction.commit(manifest, parseReference(name));
}

async function ingestRandom(
  transaction: Transaction,
  file: string,
): Promise<{ digest: string; size: number }> {
  const chunks = randomInt(1, LARGEST_BLOB_CHUNKS);
  if (randomInt(2) === 0) return transaction.ingestStream(randomChunks(chunks));
  await writeFile(file, randomChunks(chunks));
  const { digest, size } = await transaction.ingestFile(file, { link: randomInt(2) === 0 });
  await rm(file, { force: true });
  return { digest, size };
}

async function* randomChunks(count: number): AsyncGenerator<Uint8Array> {
  for (let index = 0; index < count; index += 1) yield randomBytes(CHUNK_BYTES);
}

/** At once: what a killed process had buffered is lost. */
function say(line: string): void {
  writeSync(1, `${line}\n`);
}
