import { expect, test } from "bun:test";
import { describeIf } from "../helpers/test-if.ts";
import { join } from "node:path";
import { Store } from "../../src/store/store.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { commitSample } from "./sample-model.ts";

const skopeo = Bun.which("skopeo");

describeIf(skopeo !== null, "there is no skopeo here")("skopeo", () => {
  test("store: skopeo reads a model by its canonical reference, byte for byte", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "models"));
    const model = await commitSample(store, { name: "pebble:V1" });
    await commitSample(store, { name: "other", weights: "other" });

    const raw = await run("inspect", "--raw", `oci:${store.root}:docker.io/ai/pebble:V1`);

    expect(raw).toEqual(Buffer.from(await store.readBlob(model.manifestDescriptor)));
  });

  test("store: skopeo copies a model out of one store and into another", async () => {
    await using directory = await tempDir();
    const from = Store.open(join(directory.path, "from"));
    const to = Store.open(join(directory.path, "to"));
    const model = await commitSample(from, { name: "pebble" });
    await commitSample(to, { name: "other", weights: "other" });

    await run(
      "copy",
      `oci:${from.root}:docker.io/ai/pebble:latest`,
      `oci:${to.root}:docker.io/ai/copied:latest`,
    );

    expect((await to.resolve("copied")).digest).toBe(model.digest);
    expect((await to.verify({ signal: new AbortController().signal })).problems).toEqual([]);
    expect((await to.prune({ all: true, dryRun: true })).blobs).toBe(0);
  });
});

async function run(...args: readonly string[]): Promise<Buffer> {
  const child = Bun.spawn([skopeo ?? "skopeo", ...args], { stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([child.stdout.bytes(), child.stderr.text()]);
  if ((await child.exited) !== 0) throw new Error(stderr);
  return Buffer.from(stdout);
}
