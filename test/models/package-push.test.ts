import { describe, expect, test } from "bun:test";
import { appendFile, readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { PackageRequest } from "../../src/api/models.ts";
import type { Progress, Warning } from "../../src/api/progress.ts";
import { createHttp } from "../../src/http/http.ts";
import { packageModel } from "../../src/models/package.ts";
import type { Remotes } from "../../src/models/remotes.ts";
import { createRegistry } from "../../src/oci/registry.ts";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { failureOf } from "../store/failure-of.ts";
import { bench, type Bench, EMPTY_DDUF, safetensorsFiles, shard } from "./package-bench.ts";

const isInsecure = (): boolean => true;

function remotes(): Pick<Remotes, "registry"> {
  const http = createHttp({ offline: false, caBundle: "", isInsecure });
  const nobody = {
    find: async () => undefined,
    save: async () => "",
    remove: async () => undefined,
  };
  return {
    registry: createRegistry({ http, credentials: nobody, mirrors: new Map(), isInsecure }),
  };
}

interface Pushed {
  readonly result: Awaited<ReturnType<typeof packageModel>>;
  readonly events: readonly (Progress | Warning)[];
}

async function push(
  it: Bench,
  { host }: FakeRegistry,
  request: Partial<PackageRequest> = {},
): Promise<Pushed> {
  const { safetensors_dir: directory, dduf, from } = request;
  const isOther = (directory ?? dduf ?? from) !== undefined;
  const events: (Progress | Warning)[] = [];
  const result = await packageModel(
    it.store,
    { model: `${host}/me/m:1`, push: true, ...(isOther ? {} : { gguf: PEBBLE }), ...request },
    {
      signal: new AbortController().signal,
      onProgress: (event) => events.push(event),
      sourceDateEpoch: "",
      remotes,
    },
  );
  return { result, events };
}

/** The bytes of a model's manifest in the registry. */
async function manifestOf(registry: FakeRegistry, name: string): Promise<string> {
  const [repository, tag] = name.split(":");
  const accept = "application/vnd.oci.image.manifest.v1+json";
  const response = await fetch(`${registry.url}/v2/${repository}/manifests/${tag}`, {
    headers: { accept },
  });
  expect(response.status).toBe(200);
  return response.text();
}

async function stored(it: Bench, digest: string): Promise<string> {
  return readFile(join(it.store.root, "blobs", "sha256", digest.slice(7)), "utf8");
}

describe("package --push", () => {
  test("push: the registry has what the store would have, and the store nothing", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    const license = await it.file("LICENSE");

    const { result } = await push(it, registry, { licenses: [license] });

    expect(await it.contents()).toEqual([]);
    expect(await readdir(it.path)).toEqual(["LICENSE"]);
    const id = await it.package({ licenses: [license] });
    expect(result).toMatchObject({ id, digest: id, reference: `${registry.host}/me/m:1` });
    expect(await manifestOf(registry, "me/m:1")).toBe(await stored(it, id));
    expect(result.size_bytes).toBe((await it.store.resolve(id)).sizeBytes);
    expect(result.uploaded_bytes).toBe(result.size_bytes);
  });

  test("push: shards, directories, DDUF and ModelPack are the same models there as here", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    const requests: readonly Partial<PackageRequest>[] = [
      { gguf: FIRST_SHARD },
      { gguf: PEBBLE, format: "cncf" },
      {
        safetensors_dir: await it.directory("m", {
          ...safetensorsFiles(),
          "a/LICENSE": "a licence",
        }),
      },
      { dduf: await it.file("p.dduf", EMPTY_DDUF) },
    ];

    for (const request of requests) {
      const { result } = await push(it, registry, request);
      expect(await it.package(request)).toBe(result.id);
      expect(await manifestOf(registry, "me/m:1")).toBe(await stored(it, result.id));
    }
  });

  test("push: again sends no blob", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    await push(it, registry);
    const posts = registry.count("POST");

    const { result } = await push(it, registry);

    expect(registry.count("POST")).toBe(posts);
    expect(result.reused_bytes).toBeGreaterThan(3_000_000);
  });

  test("push: progress says what is hashed and what is sent", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();

    const { events } = await push(it, registry);

    const phases = events.flatMap((event) => (event.type === "progress" ? [event.phase] : []));
    expect([...new Set(phases)]).toEqual(["hashing", "uploading", "pushed"]);
    expect(events[0]).toMatchObject({ id: "pebble.gguf", total_bytes: 3_000_768 });
  });

  test("push: with keep it is in the store as well", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();

    const { result } = await push(it, registry, { keep: true });

    const model = await it.store.resolve(result.id);
    expect(model.tags).toEqual([`${registry.host}/me/m:1`]);
    expect(await manifestOf(registry, "me/m:1")).toBe(await stored(it, result.id));
  });

  test("push: a variant takes its layers from the store, or lets the registry mount them", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    await push(it, registry, { model: `${registry.host}/me/base:1`, keep: true });
    const before = await it.contents();
    const request = { from: `${registry.host}/me/base:1`, context_size: 512 };

    const { result } = await push(it, registry, {
      ...request,
      licenses: [await it.file("LICENSE")],
    });

    expect(await it.contents()).toEqual(before);
    expect(await manifestOf(registry, "me/m:1")).toContain(DOCKER_LICENSE);
    expect(result.uploaded_bytes).toBeLessThan(20_000);
    expect(registry.requests.some(({ query }) => query.get("from") === "me/base")).toBe(true);
    // Somewhere else its layers are sent.
    await using other = await startFakeRegistry();
    const elsewhere = await push(it, other, request);
    expect(elsewhere.result.uploaded_bytes).toBeGreaterThan(3_000_000);
  });

  test("push: a variant with nothing but another name is the same model", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    const id = await it.package();

    const { result } = await push(it, registry, { from: id });

    expect(result.id).toBe(id);
    expect(await manifestOf(registry, "me/m:1")).toBe(await stored(it, id));
  });

  test("push: a file that changes while it is hashed is refused, and nothing is sent", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    const directory = await it.directory("m", { "a.safetensors": shard(1), "b.txt": "text" });
    const touched: Promise<void>[] = [];

    const error = await failureOf(
      packageModel(
        it.store,
        { model: `${registry.host}/me/m:1`, safetensors_dir: directory, push: true },
        {
          signal: new AbortController().signal,
          remotes,
          onProgress: () => touched.push(utimes(join(directory, "b.txt"), 1, 1)),
        },
      ),
    );

    await Promise.all(touched);
    expect(error).toMatchObject({ code: "conflict" });
    expect(error.message).toContain("`b.txt`: it changed meanwhile");
    expect(registry.requests).toEqual([]);
  });

  test("push: a file that changes after it was hashed is never published", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    const directory = await it.directory("m", { "a.safetensors": shard(1), "b.txt": "text" });
    const change = (file: string): Promise<void> => writeFile(join(directory, file), "TEXT");

    const error = await failureOf(
      packageModel(
        it.store,
        { model: `${registry.host}/me/m:1`, safetensors_dir: directory, push: true },
        {
          signal: new AbortController().signal,
          // Made when everything has been hashed.
          remotes: async () => {
            await change("b.txt");
            return remotes();
          },
        },
      ),
    );

    expect(error).toMatchObject({ code: "conflict" });
    expect(registry.tags.size).toBe(0);
  });

  test("push: a file that goes away after it was hashed is named", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    const gguf = await it.file("m.gguf", await readFile(PEBBLE));
    const truncated = packageModel(
      it.store,
      { model: `${registry.host}/me/m:1`, gguf, push: true },
      {
        signal: new AbortController().signal,
        remotes: async () => {
          await writeFile(gguf, "short");
          return remotes();
        },
      },
    );

    expect(await failureOf(truncated)).toMatchObject({ code: "conflict" });
    expect(registry.tags.size).toBe(0);
  });

  test("push: an abort while hashing ends it before anything is sent", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    const aborting = new AbortController();
    const gguf = await it.file("m.gguf", await readFile(PEBBLE));
    await appendFile(gguf, Buffer.alloc(8_000_000));

    const packaging = packageModel(
      it.store,
      { model: `${registry.host}/me/m:1`, gguf, push: true },
      { signal: aborting.signal, remotes, onProgress: () => aborting.abort() },
    );

    expect((await failureOf(packaging)).name).toBe("AbortError");
    expect(registry.requests).toEqual([]);
  });

  test("push: what cannot be pushed is refused before a file is read", async () => {
    await using it = await bench();
    const missing = join(it.path, "none.gguf");
    const signal = new AbortController().signal;
    const elsewhere = { model: "hf.co/me/m", gguf: missing, push: true };
    const linked = { model: "me/m", gguf: missing, push: true, link: true };
    const unreachable = { model: "localhost:1/me/m", gguf: PEBBLE, push: true };

    expect(await failureOf(packageModel(it.store, elsewhere, { signal, remotes }))).toMatchObject({
      code: "not_supported",
    });
    expect(await failureOf(packageModel(it.store, linked, { signal, remotes }))).toMatchObject({
      code: "usage",
    });
    expect(await failureOf(packageModel(it.store, unreachable, { signal }))).toMatchObject({
      code: "not_supported",
    });
  });
});

const DOCKER_LICENSE = "application/vnd.docker.ai.license";
