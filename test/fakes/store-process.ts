/** Another process that uses a store, up to a point where the test kills it: `bun store-process.ts ROLE PATH [NAME]`. */
import { parseReference } from "../../src/oci/reference.ts";
import { acquireLock } from "../../src/lock.ts";
import { Store } from "../../src/store/store.ts";
import { commitSample } from "../store/sample-model.ts";

const FOREVER_MS = 2 ** 31 - 1;
const COMMITS = 10;

const [, , role = "", path = "", name = ""] = process.argv;
const store = Store.open(path);

const ROLES: Readonly<Record<string, () => Promise<void>>> = {
  /** Holds a lock. */
  async lock() {
    const lock = await acquireLock(path);
    await stay("held");
    lock[Symbol.dispose]();
  },
  /** Stops amid a blob. */
  async write() {
    await using transaction = await store.begin();
    await transaction.ingestStream(unfinished());
  },
  /** Stops with a blob in the store that no model has yet. */
  async ingested() {
    await using transaction = await store.begin();
    const { digest } = await transaction.writeBlob(new TextEncoder().encode("not yet committed"));
    await stay(digest);
  },
  /** Keeps a bundle open. */
  async bundle() {
    await using bundle = await store.openBundle(await store.resolve(name));
    await stay(bundle.model);
  },
  /** Commits models, and gives the same tag to each. */
  async commit() {
    for (let index = 0; index < COMMITS; index += 1) {
      const model = await commitSample(store, {
        name: `${name}-${index}`,
        weights: `${name} ${index}`,
      });
      await store.tag(model.digest, parseReference("contended"));
    }
    process.stdout.write("done\n");
  },
};

await ROLES[role]?.();

async function* unfinished(): AsyncGenerator<Uint8Array> {
  yield new TextEncoder().encode("the first half");
  await stay("writing");
}

async function stay(message: string): Promise<void> {
  process.stdout.write(`${message}\n`);
  await Bun.sleep(FOREVER_MS);
}
