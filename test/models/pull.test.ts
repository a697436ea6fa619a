import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Progress } from "../../src/api/progress.ts";
import { loadConfig } from "../../src/config.ts";
import { AppError } from "../../src/errors.ts";
import { ModelDistribution } from "../../src/models/distribution.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { resolvePaths } from "../../src/paths.ts";
import { Store } from "../../src/store/store.ts";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const WEIGHTS = new Uint8Array(300_000).map((_, index) => index % 253);
const signal = AbortSignal.timeout(30_000);

let registry: FakeRegistry;
beforeAll(async () => {
  registry = await startFakeRegistry();
});
afterAll(async () => registry.stop());

/** A machine with an empty store. */
async function machine(env: Record<string, string> = {}) {
  const home = await tempDir();
  const all = { TUG_HOME: home.path, HOME: home.path, ...env };
  const paths = resolvePaths(all, "linux");
  const config = loadConfig(join(home.path, "config.toml"), all);
  const store = Store.open(paths.models);
  const distribution = new ModelDistribution({ config, paths, store });
  const events: Progress[] = [];
  const warnings: string[] = [];
  const pull = (from: string, options: { platform?: string } = {}) =>
    distribution.pull(
      { from, ...options },
      {
        signal,
        onProgress: (event) =>
          void (event.type === "progress" ? events.push(event) : warnings.push(event.message)),
      },
    );
  return {
    store,
    pull,
    events,
    warnings,
    [Symbol.asyncDispose]: () => home[Symbol.asyncDispose](),
  };
}

async function failureOf(work: Promise<unknown>): Promise<AppError> {
  const error = await work.catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(AppError);
  return error as AppError;
}

/** Requests since it was asked last. */
function newRequests(): string[] {
  return registry.requests.splice(0).map(({ method, path }) => `${method} ${path.split("?")[0]}`);
}

describe("a model of a registry", () => {
  test("comes once; when nothing has changed, one HEAD is all that is asked", async () => {
    await using it = await machine();
    const { manifest } = await registry.addModel("me/once:v1", WEIGHTS);
    const name = `${registry.host}/me/once:v1`;

    const first = await it.pull(name);
    newRequests();
    const second = await it.pull(name);

    expect(first).toMatchObject({ reference: name, id: manifest.digest, up_to_date: false });
    expect(first.fetched_bytes).toBeGreaterThan(WEIGHTS.length);
    expect(second).toMatchObject({ id: manifest.digest, up_to_date: true, fetched_bytes: 0 });
    expect(newRequests()).toEqual(["HEAD /v2/me/once/manifests/v1"]);
  });

  test("whose tag has moved leaves the old one untagged, and shared layers where they are", async () => {
    await using it = await machine();
    await registry.addModel("me/moved:v1", WEIGHTS);
    const name = `${registry.host}/me/moved:v1`;
    const old = await it.pull(name);
    const changed = WEIGHTS.slice().fill(7, 0, 10);
    const { manifest } = await registry.addModel("me/moved:v1", changed);

    const next = await it.pull(name);

    expect(next.id).toBe(manifest.digest);
    const models = await it.store.list();
    expect(models.find(({ digest }) => digest === old.id)?.tags).toEqual([]);
    expect(models.find(({ digest }) => digest === next.id)?.tags).toEqual([name]);
  });

  test("by its digest needs no request once it is here", async () => {
    await using it = await machine();
    const { manifest } = await registry.addModel("me/digest:v1", WEIGHTS);
    const name = `${registry.host}/me/digest@${manifest.digest}`;
    await it.pull(name);
    newRequests();

    const again = await it.pull(name);
    const tagged = await it.pull(`${registry.host}/me/digest:new@${manifest.digest}`);

    expect(again.up_to_date).toBe(true);
    expect(tagged.up_to_date).toBe(false);
    expect((await it.store.resolve(`${registry.host}/me/digest:new`)).digest as string).toBe(
      manifest.digest,
    );
    expect(newRequests()).toEqual([]);
  });

  test("whose blob has gone from the disk is fetched again", async () => {
    await using it = await machine();
    const { weights } = await registry.addModel("me/gone:v1", WEIGHTS);
    const name = `${registry.host}/me/gone:v1`;
    await it.pull(name);
    await Bun.file(it.store.blobPath(weights.digest as never)).delete();

    const again = await it.pull(name);

    expect(again).toMatchObject({ up_to_date: false, fetched_bytes: WEIGHTS.length });
  });

  test("tells what it brings, each blob to its end", async () => {
    await using it = await machine();
    const { weights } = await registry.addModel("me/progress:v1", WEIGHTS);
    await it.pull(`${registry.host}/me/progress:v1`);
    const own = it.events.filter(({ id }) => id === weights.digest);
    expect(own[0]).toMatchObject({ phase: "waiting", total_bytes: WEIGHTS.length });
    expect(own.at(-1)).toMatchObject({ phase: "pulled", done_bytes: WEIGHTS.length });
  });
});

async function child(name: string, bytes: Uint8Array<ArrayBuffer>) {
  return (await registry.addModel(name, bytes)).manifest;
}

describe("an index", () => {
  test("gives the model of this platform, or of the one asked for", async () => {
    await using it = await machine();
    const amd = await child("me/multi:a", WEIGHTS);
    const arm = await child("me/multi:b", WEIGHTS.slice(1));
    registry.addManifest(
      "me/multi:latest",
      {
        schemaVersion: 2,
        mediaType: OCI_INDEX,
        manifests: [
          { ...amd, mediaType: OCI_MANIFEST, platform: { os: "linux", architecture: "amd64" } },
          { ...arm, mediaType: OCI_MANIFEST, platform: { os: "linux", architecture: "arm64" } },
        ],
      },
      OCI_INDEX,
    );
    const name = `${registry.host}/me/multi`;

    expect((await it.pull(name, { platform: "linux/arm64" })).id).toBe(arm.digest);
    expect((await it.pull(name, { platform: "linux/amd64" })).id).toBe(amd.digest);
    const failure = await failureOf(it.pull(name, { platform: "windows/amd64" }));
    expect(failure.code).toBe("unsupported_model");
    expect(failure.message + failure.hint).toContain("linux/arm64");
  });

  test("with one model needs no platform", async () => {
    await using it = await machine();
    const only = await child("me/single:a", WEIGHTS);
    registry.addManifest(
      "me/single:latest",
      {
        schemaVersion: 2,
        mediaType: OCI_INDEX,
        manifests: [{ ...only, mediaType: OCI_MANIFEST }],
      },
      OCI_INDEX,
    );
    expect((await it.pull(`${registry.host}/me/single`)).id).toBe(only.digest);
    newRequests();
    expect((await it.pull(`${registry.host}/me/single`)).up_to_date).toBe(true);
  });
});

describe("what cannot be pulled", () => {
  test("an image says that it is one", async () => {
    await using it = await machine();
    const config = await registry.addBlob(new TextEncoder().encode("{}"));
    const mediaType = "application/vnd.oci.image.config.v1+json";
    registry.addManifest(
      "me/image:latest",
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: { ...config, mediaType },
        layers: [],
      },
      OCI_MANIFEST,
    );
    const failure = await failureOf(it.pull(`${registry.host}/me/image`));
    expect(failure.message).toBe(
      `cannot pull \`${registry.host}/me/image\`: it is a container image (\`${mediaType}\`)`,
    );
  });

  test("offline, what is here is enough and what is not is named", async () => {
    await registry.addModel("me/offline:v1", WEIGHTS);
    const name = `${registry.host}/me/offline:v1`;
    await using it = await machine({ TUG_OFFLINE: "1" });
    newRequests();
    expect((await failureOf(it.pull(name))).code).toBe("offline");
    expect((await failureOf(it.pull("hf.co/org/repo"))).code).toBe("offline");
    expect((await failureOf(it.pull("ollama.com/llama3.2"))).code).toBe("offline");
    expect(newRequests()).toEqual([]);
    expect(await it.store.list()).toEqual([]);
  });

  test("nothing of a pull that fails stays in the list", async () => {
    await using it = await machine();
    const { weights } = await registry.addModel("me/broken:v1", WEIGHTS);
    registry.fault({ kind: "status", status: 404, path: weights.digest });
    const failure = await failureOf(it.pull(`${registry.host}/me/broken:v1`));
    registry.clearFaults();
    expect(failure.code).toBe("not_found");
    expect(await it.store.list()).toEqual([]);
  });
});
