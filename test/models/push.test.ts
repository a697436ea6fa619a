import { readdir, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "bun:test";
import type { Progress, Warning } from "../../src/api/progress.ts";
import type { AppError } from "../../src/errors.ts";
import { fileSource, pushArtifact, pushModel } from "../../src/models/push.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { DOCKER_GGUF, DOCKER_LICENSE, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { Store } from "../../src/store/store.ts";
import {
  type FakeRegistry,
  type FakeRegistryOptions,
  startFakeRegistry,
} from "../fakes/registry.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { blobOf, memorySource, noise } from "../oci/upload-helpers.ts";
import { failureOf } from "../store/failure-of.ts";
import { commitSample } from "../store/sample-model.ts";
import { registryClient } from "./remote-registry.ts";

const NEVER = new AbortController().signal;
const LAYERS = [
  { content: "w".repeat(5000), mediaType: DOCKER_GGUF },
  { content: "free", mediaType: DOCKER_LICENSE },
];

interface World extends AsyncDisposable {
  readonly store: Store;
  readonly registry: FakeRegistry;
  /** `host/me/NAME`. */
  name(name: string): string;
  push(
    name: string,
    options?: {
      readonly to?: string;
      readonly signal?: AbortSignal;
      readonly onProgress?: (event: Progress | Warning) => void;
    },
  ): ReturnType<typeof pushModel>;
}

async function start(options: FakeRegistryOptions = {}): Promise<World> {
  const directory = await tempDir();
  const registry = await startFakeRegistry(options);
  const store = Store.open(join(directory.path, "models"));
  return {
    store,
    registry,
    name: (name) => `${registry.host}/me/${name}`,
    push: (name, call = {}) => pushModel(store, registryClient(), { name, signal: NEVER, ...call }),
    [Symbol.asyncDispose]: async () => {
      await registry.stop();
      await directory[Symbol.asyncDispose]();
    },
  };
}

describe("pushModel", () => {
  test("publishes the model as it is, the manifest last", async () => {
    await using world = await start();
    const { registry, store } = world;
    const model = await commitSample(store, { name: world.name("m:1"), layers: LAYERS });

    const result = await world.push(world.name("m:1"));

    expect(result).toEqual({
      reference: world.name("m:1"),
      digest: model.digest,
      size_bytes: model.sizeBytes,
      uploaded_bytes: model.sizeBytes,
      reused_bytes: 0,
    });
    expect(registry.tags.get("me/m:1")).toBe(model.digest);
    const manifest = registry.manifests.get(`me/m@${model.digest}`);
    expect(digestOf(manifest?.bytes ?? new Uint8Array())).toBe(model.digest);
    expect(manifest?.mediaType).toBe(OCI_MANIFEST);
    expect(registry.blobs.size).toBe(3);
    expect(registry.requests.at(-1)?.path).toBe("/v2/me/m/manifests/1");
    expect(registry.count("PUT", "/manifests/")).toBe(1);
  });

  test("of what is there costs a question a blob, and the manifest", async () => {
    await using world = await start();
    const model = await commitSample(world.store, { name: world.name("m:1"), layers: LAYERS });
    await world.push(world.name("m:1"));
    world.registry.requests.length = 0;

    const result = await world.push(world.name("m:1"));

    expect(result.reused_bytes).toBe(model.sizeBytes - model.manifestDescriptor.size);
    expect(result.uploaded_bytes).toBe(model.manifestDescriptor.size);
    const methods = world.registry.requests.map(({ method }) => method).toSorted();
    expect(methods).toEqual(["HEAD", "HEAD", "HEAD", "PUT"]);
  });

  test("under another name of the same registry mounts", async () => {
    await using world = await start();
    const model = await commitSample(world.store, { name: world.name("a:1"), layers: LAYERS });
    await world.push(world.name("a:1"));
    await world.store.tag(model.digest, parseReference(world.name("b:1")));
    world.registry.requests.length = 0;

    const result = await world.push(world.name("b:1"));

    expect(result.uploaded_bytes).toBe(model.manifestDescriptor.size);
    expect(world.registry.count("PUT", "/blobs/")).toBe(0);
    expect(world.registry.count("POST")).toBe(3);
    expect(world.registry.tags.get("me/b:1")).toBe(model.digest);
  });

  test("mounts what another model shares with it", async () => {
    await using world = await start();
    await commitSample(world.store, { name: world.name("base:1"), layers: LAYERS.slice(0, 1) });
    await world.push(world.name("base:1"));
    const model = await commitSample(world.store, {
      name: world.name("variant:1"),
      layers: LAYERS,
    });
    const events: string[] = [];

    await world.push(world.name("variant:1"), {
      onProgress: (event) => {
        if (event.type === "progress") events.push(`${event.phase} ${event.total_bytes}`);
      },
    });

    expect(events.filter((event) => !event.startsWith("uploading")).toSorted()).toEqual([
      `mounted ${model.manifest.config.size}`,
      "mounted 5000",
      "pushed 4",
    ]);
  });

  test("never mounts from another registry", async () => {
    await using world = await start();
    const model = await commitSample(world.store, { name: "me/elsewhere", layers: LAYERS });
    await world.store.tag(model.digest, parseReference(world.name("m:1")));

    await world.push(world.name("m:1"));

    expect(world.registry.requests.some(({ query }) => query.has("mount"))).toBe(false);
  });

  test("to a target leaves the model's own names alone", async () => {
    await using world = await start();
    await commitSample(world.store, { name: "me/mine", layers: LAYERS });

    const result = await world.push("me/mine", { to: world.name("theirs") });

    expect(result.reference).toBe(world.name("theirs:latest"));
    expect((await world.store.resolve("me/mine")).tags).toEqual(["docker.io/me/mine:latest"]);
  });

  test("by a part of the name goes where the whole name says", async () => {
    await using world = await start();
    await commitSample(world.store, { name: world.name("m:latest"), layers: LAYERS });

    const result = await world.push("m");

    expect(result.reference).toBe(world.name("m:latest"));
  });

  test("by digest goes to the one name that it has", async () => {
    await using world = await start();
    const model = await commitSample(world.store, { name: world.name("m:1"), layers: LAYERS });

    const result = await world.push(model.digest);

    expect(result.reference).toBe(world.name("m:1"));
  });

  test("by digest of a model with several names asks which", async () => {
    await using world = await start();
    const model = await commitSample(world.store, { name: world.name("m:1"), layers: LAYERS });
    await world.store.tag(model.digest, parseReference(world.name("m:2")));

    const failure = await failureOf(world.push(model.digest));

    expect(failure.code).toBe("usage");
    expect(failure.message).toContain("several names");
    expect(world.registry.requests).toHaveLength(0);
  });

  test("of a model without a name asks where to", async () => {
    await using world = await start();
    const model = await commitSample(world.store, { layers: LAYERS });

    const failure = await failureOf(world.push(model.digest));

    expect(failure.code).toBe("usage");
    expect((failure as AppError).hint).toContain("Say where to");
  });

  test("to a digest publishes without a tag, and only that digest", async () => {
    await using world = await start();
    const model = await commitSample(world.store, { name: "me/mine", layers: LAYERS });

    const to = `${world.registry.host}/me/m@${model.digest}`;
    const result = await world.push("me/mine", { to });
    const wrong = `${world.registry.host}/me/m@${blobOf(noise(1)).digest}`;
    const failure = await failureOf(world.push("me/mine", { to: wrong }));

    expect(result.reference).toBe(to);
    expect(world.registry.tags.size).toBe(0);
    expect(world.registry.manifests.has(`me/m@${model.digest}`)).toBe(true);
    expect(failure.code).toBe("invalid_reference");
  });

  test.each(["hf.co/me/m", "ollama.com/me/m", "registry.ollama.ai/library/m"])(
    "to `%s` is not supported, and says what is",
    async (to) => {
      await using world = await start();
      await commitSample(world.store, { name: "me/mine", layers: LAYERS });

      const failure = await failureOf(world.push("me/mine", { to }));

      expect(failure.code).toBe("not_supported");
      expect((failure as AppError).hint).toContain("OCI registry");
    },
  );

  test("of an unknown model says so", async () => {
    await using world = await start();

    const failure = await failureOf(world.push("me/none"));

    expect(failure.code).toBe("model_not_found");
  });

  test("of a model whose blob is missing fails before anything is sent", async () => {
    await using world = await start();
    const model = await commitSample(world.store, { name: world.name("m:1"), layers: LAYERS });
    const layer = model.manifest.layers[0]?.digest ?? model.digest;
    await Bun.file(world.store.blobPath(layer)).delete();

    const failure = await failureOf(world.push(world.name("m:1")));

    expect(failure.code).toBe("blob_not_found");
    expect(world.registry.requests).toHaveLength(0);
  });

  test.each([
    ["of another size", "w", false],
    ["with other bytes", "x".repeat(5000), true],
  ])("of a model with a blob %s publishes nothing", async (_name, content, isSent) => {
    await using world = await start();
    const model = await commitSample(world.store, { name: world.name("m:1"), layers: LAYERS });
    const path = world.store.blobPath(model.manifest.layers[0]?.digest ?? model.digest);
    await Bun.file(path).delete();
    await writeFile(path, content);

    const failure = await failureOf(world.push(world.name("m:1")));

    expect(failure.code).toBe("digest_mismatch");
    expect((failure as AppError).hint).toContain("tug verify");
    expect(world.registry.requests.length > 0).toBe(isSent);
    expect(world.registry.manifests.size).toBe(0);
    expect(world.registry.openUploads()).toBe(0);
  });

  test("that fails at one blob ends the others and publishes no manifest", async () => {
    await using world = await start();
    await commitSample(world.store, { name: world.name("m:1"), layers: LAYERS });
    world.registry.fault({ kind: "status", status: 403, method: "PUT", path: "/blobs/", times: 1 });

    const failure = await failureOf(world.push(world.name("m:1")));

    expect(failure.code).toBe("forbidden");
    expect(world.registry.manifests.size).toBe(0);
    expect(world.registry.openUploads()).toBe(0);
  });

  test("that is cancelled publishes no manifest and leaves no session", async () => {
    await using world = await start();
    await commitSample(world.store, { name: world.name("m:1"), layers: LAYERS });
    const controller = new AbortController();
    const onProgress = (): void => controller.abort();

    const failure = await failureOf(
      world.push(world.name("m:1"), { signal: controller.signal, onProgress }),
    );

    expect(failure.name).toBe("AbortError");
    expect(world.registry.manifests.size).toBe(0);
    expect(world.registry.openUploads()).toBe(0);
  });
});

describe("pushArtifact", () => {
  test("publishes bytes that are in no store, each digest once", async () => {
    await using registry = await startFakeRegistry();
    const bytes = noise(3000);
    const config = new TextEncoder().encode("{}");
    const manifest = new TextEncoder().encode(
      JSON.stringify({ schemaVersion: 2, config: blobOf(config), layers: [blobOf(bytes)] }),
    );
    const blob = { ...blobOf(bytes), source: memorySource(bytes) };
    const small = { ...blobOf(config), source: memorySource(config) };

    const result = await pushArtifact(
      registryClient(),
      {
        reference: parseReference(`${registry.host}/me/m:1`),
        manifest,
        mediaType: OCI_MANIFEST,
        blobs: [blob, blob, small],
      },
      { signal: NEVER },
    );

    expect(result).toEqual({
      reference: `${registry.host}/me/m:1`,
      digest: digestOf(manifest),
      size_bytes: 3000 + 2 + manifest.length,
      uploaded_bytes: 3000 + 2 + manifest.length,
      reused_bytes: 0,
    });
    expect(registry.count("HEAD")).toBe(2);
  });
});

async function fileWith(bytes: Uint8Array) {
  const directory = await tempDir();
  const path = join(directory.path, "file");
  await writeFile(path, bytes);
  return { path, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

describe("fileSource", () => {
  test("gives the bytes of a span, in bounded pieces", async () => {
    const bytes = noise(1_000_000);
    await using file = await fileWith(bytes);
    const source = fileSource(file.path, bytes.length);

    const pieces: Uint8Array[] = [];
    for await (const piece of source.open(1234, 900_000)) pieces.push(piece);

    expect(source.size).toBe(1_000_000);
    expect(Buffer.compare(Buffer.concat(pieces), bytes.subarray(1234, 900_000))).toBe(0);
    expect(Math.max(...pieces.map(({ length }) => length))).toBe(256 * 1024);
  });

  test("reads nothing ahead and closes the file when it is left", async () => {
    await using file = await fileWith(noise(1_000_000));
    const before = await openFiles(file.path);
    const reader = fileSource(file.path, 1_000_000).open(0, 1_000_000).getReader();
    const untouched = await openFiles(file.path);
    await reader.read();
    const reading = await openFiles(file.path);

    await reader.cancel();

    expect([before, untouched, reading]).toEqual([0, 0, 1]);
    expect(await openFiles(file.path)).toBe(0);
  });

  test("closes the file at the end of the span", async () => {
    await using file = await fileWith(noise(1000));

    for await (const _ of fileSource(file.path, 1000).open(0, 500));

    expect(await openFiles(file.path)).toBe(0);
  });

  test("fails if the file has become shorter", async () => {
    await using file = await fileWith(noise(1000));

    const failure = await failureOf(
      new Response(fileSource(file.path, 2000).open(0, 2000)).bytes(),
    );

    expect(failure.code).toBe("conflict");
    expect(await openFiles(file.path)).toBe(0);
  });

  test("fails if the file is gone", async () => {
    const stream = fileSource("/nonexistent/file", 10).open(0, 10);

    const failure = await failureOf(new Response(stream).bytes());

    expect(failure.code).toBe("not_found");
  });
});

/** How often this process has it open; 0 where the system does not tell. */
async function openFiles(path: string): Promise<number> {
  const handles = await readdir("/proc/self/fd");
  const targets = await Promise.all(
    handles.map((handle) => readlink(`/proc/self/fd/${handle}`).catch(() => "")),
  );
  return targets.filter((target) => target === path).length;
}
