/** Registries that misbehave: what the command does about it, counted in requests and bytes. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Model } from "../../src/api/models.ts";
import type { ErrorObject } from "../../src/errors.ts";
import {
  type FakeRegistry,
  type FakeRegistryOptions,
  startFakeRegistry,
} from "../fakes/registry.ts";
import { eventually } from "../helpers/eventually.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";
import { writeSparseGguf } from "../store/gguf-file.ts";

setDefaultTimeout(60_000);

const MIB = 1024 * 1024;
/** Large enough for ranges, small enough to be random. */
const SIZE = 24 * MIB;
const WEIGHTS = new Uint8Array(SIZE);
for (let offset = 0; offset < SIZE; offset += 65_536)
  crypto.getRandomValues(WEIGHTS.subarray(offset, offset + 65_536));
const CONFIG_LIMIT = 10_000;
/** What was on its way when a connection broke is lost: what sockets and readers hold at most. */
const LOST_LIMIT = 4 * MIB;

describe("bytes that are wrong", () => {
  test("once: what was wrong is fetched again, and no more", async () => {
    await using it = await started();
    const flip = it.registry.fault({ kind: "flip", at: SIZE / 2, path: it.weights, times: 1 });

    const result = await pull(it);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(flip.hits).toBe(1);
    expect(it.registry.blobBytesSent()).toBeGreaterThan(SIZE);
    // One blob of this size is at most two of the ranges that repair fetches.
    expect(it.registry.blobBytesSent()).toBeLessThanOrEqual(2 * SIZE + CONFIG_LIMIT);
    expect((await it.home.tug(["verify"])).exitCode).toBe(0);
  });

  test("always: it is refused after few attempts, and nothing is stored", async () => {
    await using it = await started();
    it.registry.fault({ kind: "flip", at: SIZE / 2, path: it.weights });

    const error = errorOf(await pull(it, "--json"));

    expect(error).toMatchObject({ code: "digest_mismatch" });
    expect(error.hint).toBeString();
    expect(it.registry.blobBytesSent()).toBeLessThanOrEqual(5 * SIZE);
    expect(await models(it.home)).toEqual([]);
    expect(existsSync(blobFile(it.home, it.weights))).toBe(false);
  });

  test("of the config: it is refused and nothing is stored", async () => {
    await using it = await started();
    it.registry.fault({ kind: "flip", at: 3, path: it.config });

    const error = errorOf(await pull(it, "--json"));

    expect(error).toMatchObject({ code: "digest_mismatch" });
    expect(existsSync(blobFile(it.home, it.config))).toBe(false);
    expect(await models(it.home)).toEqual([]);
  });

  test("of the manifest: it is refused before any blob is asked for", async () => {
    await using it = await started();
    it.registry.fault({ kind: "body", body: "{}", method: "GET", path: "/manifests/" });

    const error = errorOf(await pull(it, "--json"));

    expect(error).toMatchObject({ code: "digest_mismatch" });
    expect(it.registry.count("GET", "/blobs/")).toBe(0);
  });
});

describe("ranges", () => {
  test("unknown to the server: one stream brings everything, once", async () => {
    await using it = await started();
    it.registry.fault({ kind: "no_range", path: "/blobs/" });

    const result = await pull(it);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(it.registry.blobBytesSent()).toBeLessThanOrEqual(SIZE + LOST_LIMIT);
  });

  test("unknown to the server, and cut off: it begins again, and succeeds", async () => {
    await using it = await started();
    it.registry.fault({ kind: "no_range", path: "/blobs/" });
    it.registry.fault({ kind: "cut", after: SIZE / 2, path: it.weights, times: 1 });

    const result = await pull(it);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(it.registry.blobBytesSent()).toBeLessThanOrEqual(1.5 * SIZE + LOST_LIMIT);
  });

  test("others than asked for: once is repaired, always is refused, and no byte of it is stored", async () => {
    await using once = await started();
    await using always = await started();
    // The first request is for the beginning: to be shifted is to be wrong even there.
    once.registry.fault({ kind: "wrong_range", shift: 1000, path: once.weights, times: 1 });
    always.registry.fault({ kind: "wrong_range", shift: 1000, path: always.weights });

    const repaired = await pull(once);
    const error = errorOf(await pull(always, "--json"));

    expect(repaired).toMatchObject({ exitCode: 0 });
    expect(once.registry.blobBytesSent()).toBeLessThanOrEqual(2 * SIZE + CONFIG_LIMIT);
    expect(error.code).toMatch(/^(?:registry_unavailable|digest_mismatch)$/);
    expect(always.registry.count("GET", always.weights)).toBeLessThanOrEqual(40);
    expect(await models(always.home)).toEqual([]);
  });
});

describe("connections", () => {
  test("cut at a byte: it goes on from there", async () => {
    await using it = await started();
    const cut = it.registry.fault({ kind: "cut", after: 5 * MIB, path: it.weights, times: 2 });

    const result = await pull(it);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(cut.hits).toBe(2);
    expect(it.registry.blobBytesSent()).toBeLessThanOrEqual(SIZE + LOST_LIMIT);
  });

  test("killed amid a pull: the next one goes on from there", async () => {
    await using it = await started();
    const stall = it.registry.fault({ kind: "stall", after: 4 * MIB, path: it.weights });
    const first = it.home.tug(["pull", it.name], { timeoutMs: 3_000 });
    await eventually(() => it.registry.blobBytesSent() >= 4 * MIB);
    expect((await first).exitCode).not.toBe(0);
    const before = it.registry.blobBytesSent();
    it.registry.clearFaults();

    const second = await pull(it);

    expect(stall.hits).toBeGreaterThan(0);
    expect(second).toMatchObject({ exitCode: 0 });
    expect(it.registry.blobBytesSent() - before).toBeLessThanOrEqual(SIZE - 4 * MIB + LOST_LIMIT);
  });

  test("one of many that stalls: the others take its share", async () => {
    await using it = await started();
    // Slow enough for several connections; only the first one hangs.
    it.registry.fault({ kind: "stall", after: MIB, path: it.weights, times: 1, skip: 1 });
    it.registry.fault({ kind: "slow", bytesPerSecond: 4 * MIB, path: it.weights });

    const result = await it.home.tug(["pull", it.name], { timeoutMs: 25_000 });

    expect(result).toMatchObject({ exitCode: 0 });
    expect(it.registry.blobBytesSent()).toBeLessThanOrEqual(SIZE + 2 * LOST_LIMIT);
  });

  test("a rate limit is kept", async () => {
    await using it = await started();
    const startedAt = performance.now();

    const result = await pull(it, "--limit-rate", "12MiB");

    expect(result).toMatchObject({ exitCode: 0 });
    // Two seconds' worth; what a bucket holds at first may come at once.
    expect(performance.now() - startedAt).toBeGreaterThan(1_000);
  });
});

describe("answers that pass", () => {
  test("503 in a burst: it is asked again", async () => {
    await using it = await started();
    const burst = it.registry.fault({ kind: "status", status: 503, path: "/manifests/", times: 2 });

    const result = await pull(it);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(burst.hits).toBe(2);
  });

  test("503 for ever: it gives up after few attempts and says so", async () => {
    await using it = await started();
    const burst = it.registry.fault({ kind: "status", status: 503 });

    const error = errorOf(await pull(it, "--json"));

    expect(error).toMatchObject({ code: "registry_unavailable" });
    expect(error.message).toContain("503");
    expect(burst.hits).toBeLessThanOrEqual(12);
  });

  test("429: no sooner than Retry-After says", async () => {
    await using it = await started();
    const limited = { kind: "status", status: 429, headers: { "retry-after": "2" } } as const;
    it.registry.fault({ ...limited, path: it.weights, times: 1 });
    const startedAt = performance.now();

    const result = await pull(it);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(2_000);
  });

  test("401 amid a pull, because the token expired: a new one is fetched", async () => {
    await using it = await started({ auth: { scheme: "bearer", allowsAnonymousPull: true } });
    const expiry = it.registry.fault({ kind: "expire", path: it.weights, times: 1 });

    const result = await pull(it);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(expiry.hits).toBe(1);
    expect(it.registry.count("GET", "/token")).toBe(2);
  });

  test("a Warning is said once, on stderr", async () => {
    await using it = await started();
    const warning = '299 - "this registry closes in May"';
    it.registry.fault({ kind: "headers", set: { warning } });

    const result = await pull(it);

    expect(result.exitCode).toBe(0);
    expect(result.stderr.split("this registry closes in May")).toHaveLength(2);
    expect(result.stdout).not.toContain("May");
  });
});

describe("other hosts", () => {
  test("a redirect to another host brings the blob, and takes no credential there", async () => {
    const auth = { scheme: "basic", username: "me", password: "secret" } as const;
    await using it = await started({ auth });
    await using cdn = await startFakeRegistry({ blobs: it.registry.blobs });
    it.registry.fault({ kind: "redirect", to: cdn.url, path: "/blobs/", method: "GET" });
    await it.home.tug(["login", it.registry.host, "-u", "me", "--password-stdin"], {
      stdin: "secret",
    });

    const result = await pull(it);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(cdn.blobBytesSent()).toBeGreaterThanOrEqual(SIZE);
    expect(cdn.requests.filter(({ headers }) => "authorization" in headers)).toEqual([]);
  });

  test("redirects without end are given up", async () => {
    await using it = await started();
    const loop = it.registry.fault({
      kind: "redirect",
      to: ({ path }) => path,
      path: "/manifests/",
    });

    const error = errorOf(await pull(it, "--json"));

    expect(error.code).toBe("registry_unavailable");
    expect(loop.hits).toBeLessThanOrEqual(60);
  });

  test.each([
    ["relative", (path: string) => path, false],
    ["absolute", (path: string, { url }: FakeRegistry) => `${url}${path}`, false],
    [
      "on another host",
      (path: string, _: FakeRegistry, foreign: string) => `${foreign}${path}`,
      true,
    ],
  ])("an upload whose location is %s", async (_, place, isForeign) => {
    const auth = { scheme: "basic", username: "me", password: "secret" } as const;
    const registries: FakeRegistry[] = [];
    await using it = await started({
      auth,
      location: (path) => place(path, registries[0] as FakeRegistry, registries[1]?.url ?? ""),
    });
    // It takes every upload that it is sent, as a bucket does behind a signed URL.
    await using bucket = await startFakeRegistry();
    registries.push(it.registry, bucket);
    bucket.fault({ kind: "status", status: 201, path: "/uploads/" });
    await it.home.tug(["login", it.registry.host, "-u", "me", "--password-stdin"], {
      stdin: "secret",
    });

    const result = await it.home.tug(["package", "--gguf", PEBBLE, "--push", `${it.name}0`]);

    // The bucket has the blobs, the registry does not learn of it and refuses the manifest.
    expect(result.exitCode).toBe(isForeign ? 1 : 0);
    expect(bucket.requests.length > 0).toBe(isForeign);
    expect(bucket.requests.filter(({ headers }) => "authorization" in headers)).toEqual([]);
  });
});

describe("manifests", () => {
  test("without Docker-Content-Digest are hashed", async () => {
    await using it = await started();
    it.registry.fault({ kind: "headers", set: { "docker-content-digest": undefined } });

    expect(await pull(it)).toMatchObject({ exitCode: 0, stdout: `${it.name}@${it.manifest}\n` });
  });

  test("behind a registry that knows no HEAD are fetched", async () => {
    await using it = await started();
    it.registry.fault({ kind: "status", status: 405, method: "HEAD" });

    expect(await pull(it)).toMatchObject({ exitCode: 0, stdout: `${it.name}@${it.manifest}\n` });
  });

  test("with another Docker-Content-Digest than their own are refused", async () => {
    await using it = await started();
    const set = { "docker-content-digest": `sha256:${"0".repeat(64)}` };
    it.registry.fault({ kind: "headers", set, path: "/manifests/1" });

    const result = await pull(it);

    expect(result.exitCode).toBe(1);
    expect(await models(it.home)).toEqual([]);
  });

  test("that are huge are not read", async () => {
    await using it = await started();
    const name = `${it.registry.host}/me/huge:1`;
    it.registry.addManifest("me/huge:1", new Uint8Array(64 * MIB).fill(32));

    const result = await it.home.tug(["pull", name]);

    expect(result.exitCode).toBe(1);
    expect(it.registry.requests.reduce((sum, one) => sum + one.bytesSent, 0)).toBeLessThan(
      16 * MIB,
    );
  });

  test("of an index without this platform: what there is, is listed", async () => {
    await using it = await started();
    const entry = { mediaType: "application/vnd.oci.image.manifest.v1+json", digest: it.manifest };
    const platforms = ["plan9/mips", "solaris/sparc64"];
    it.registry.addManifest(
      "me/index:1",
      {
        manifests: platforms.map((platform) => {
          const [os, architecture] = platform.split("/");
          return { ...entry, size: 700, platform: { os, architecture } };
        }),
      },
      "application/vnd.oci.image.index.v1+json",
    );

    const result = await it.home.tug(["pull", `${it.registry.host}/me/index:1`]);

    expect(result.exitCode).toBe(1);
    for (const platform of platforms) expect(result.stderr).toContain(platform);
    expect(it.registry.count("GET", "/blobs/")).toBe(0);
  });

  test("of a container image: it says that it is no model, and fetches none of its layers", async () => {
    await using it = await started();
    const config = await it.registry.addBlob(new TextEncoder().encode('{"os":"linux"}'));
    const layer = await it.registry.addBlob(WEIGHTS.slice(0, MIB));
    it.registry.addManifest("library/alpine:1", {
      config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
      layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", ...layer }],
    });

    const error = errorOf(
      await it.home.tug(["pull", `${it.registry.host}/library/alpine:1`, "--json"]),
    );

    expect(error).toMatchObject({ code: "unsupported_model" });
    expect(error.message).toContain("image");
    expect(it.registry.count("GET", layer.digest)).toBe(0);
  });
});

describe("uploads", () => {
  test("cut off are made again, and no session stays open", async () => {
    await using it = await started();
    const cut = it.registry.fault({ kind: "cut_upload", after: MIB, path: "/uploads/1", times: 1 });

    const result = await it.home.tug(["package", "--gguf", PEBBLE, "--push", `${it.name}0`]);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(cut.hits).toBe(1);
    expect(bytesReceived(it)).toBeLessThanOrEqual(2 * Bun.file(PEBBLE).size + LOST_LIMIT);
    expect(it.registry.openUploads()).toBe(0);
  });

  test("of much, cut amid a chunk, go on from where the registry is", async () => {
    await using it = await started();
    const file = join(it.home.path, "large.gguf");
    await writeLargeGguf(file);
    const cut = it.registry.fault({
      kind: "cut_upload",
      after: 20 * MIB,
      method: "PATCH",
      times: 1,
    });

    const result = await it.home.tug(["package", "--gguf", file, "--push", `${it.name}0`]);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(cut.hits).toBe(1);
    expect(bytesReceived(it)).toBeLessThanOrEqual(Bun.file(file).size + LOST_LIMIT);
    expect(it.registry.openUploads()).toBe(0);
  });

  test("whose session is lost begin again", async () => {
    await using it = await started();
    const { registry } = it;
    const lost = registry.fault({ kind: "status", status: 404, path: /\/uploads\/1$/, times: 1 });

    const result = await it.home.tug(["package", "--gguf", PEBBLE, "--push", `${it.name}0`]);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(lost.hits).toBe(1);
  });

  test("to a registry that takes no chunks are made in one piece", async () => {
    await using it = await started({ lacksPatch: true });

    const result = await it.home.tug(["package", "--gguf", PEBBLE, "--push", `${it.name}0`]);

    expect(result).toMatchObject({ exitCode: 0 });
    expect(it.registry.count("PUT", "/uploads/")).toBeGreaterThanOrEqual(2);
  });

  test("come before the manifest, which is last", async () => {
    await using it = await started();

    await it.home.tug(["package", "--gguf", PEBBLE, "--push", `${it.name}0`]);

    const last = it.registry.requests.at(-1);
    expect([last?.method, last?.path]).toEqual(["PUT", "/v2/me/m/manifests/10"]);
  });
});

describe("two processes at once", () => {
  test("share a layer: it crosses the network once", async () => {
    await using it = await started();
    const config = await it.registry.addBlob(
      new TextEncoder().encode('{"config":{"format":"gguf"}}'),
    );
    it.registry.addManifest("me/variant:1", {
      config: { mediaType: "application/vnd.docker.ai.model.config.v0.1+json", ...config },
      layers: [{ mediaType: "application/vnd.docker.ai.gguf.v3", digest: it.weights, size: SIZE }],
    });
    it.registry.fault({ kind: "slow", bytesPerSecond: 8 * MIB, path: it.weights });

    const results = await Promise.all([
      pull(it),
      it.home.tug(["pull", `${it.registry.host}/me/variant:1`]),
    ]);

    expect(results.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(it.registry.blobBytesSent()).toBeLessThanOrEqual(SIZE + LOST_LIMIT);
    expect(await models(it.home)).toHaveLength(2);
  });
});

describe("a pull that has nothing to do", () => {
  test("asks for the manifest only", async () => {
    await using it = await started();
    await pull(it);
    it.registry.requests.length = 0;

    const again = await pull(it);

    expect(again).toMatchObject({ exitCode: 0, stdout: `${it.name}@${it.manifest}\n` });
    expect(it.registry.requests.length).toBeLessThanOrEqual(2);
    expect(it.registry.count("GET", "/blobs/")).toBe(0);
  });
});

interface Started extends AsyncDisposable {
  readonly registry: FakeRegistry;
  readonly home: TugHome;
  /** A model of one large layer, tagged `1`. */
  readonly name: string;
  /** Digests. */
  readonly weights: string;
  readonly config: string;
  readonly manifest: string;
}

async function started(options: FakeRegistryOptions = {}): Promise<Started> {
  const registry = await startFakeRegistry(options);
  const home = await tugHome();
  const { manifest, weights } = await registry.addModel("me/m:1", WEIGHTS);
  const [config = ""] = [...registry.blobs.keys()].filter((digest) => digest !== weights.digest);
  return {
    registry,
    home,
    name: `${registry.host}/me/m:1`,
    weights: weights.digest,
    config,
    manifest: manifest.digest,
    async [Symbol.asyncDispose]() {
      await home[Symbol.asyncDispose]();
      await registry.stop();
    },
  };
}

function bytesReceived({ registry }: Started): number {
  return registry.requests.reduce((sum, one) => sum + one.bytesReceived, 0);
}

/** Larger than what is uploaded in one piece. */
async function writeLargeGguf(path: string): Promise<void> {
  const size = 96 * MIB;
  const tensors = [{ name: "t", shape: [(size - MIB) / 4], dtype: 0, offset: 0 }];
  const values = { "general.architecture": { string: "llama" } };
  await writeSparseGguf(path, { values, tensors }, size);
}

function pull({ home, name }: Started, ...flags: readonly string[]): ReturnType<TugHome["tug"]> {
  return home.tug(["pull", name, ...flags]);
}

/** The last event of a command that failed under `--json`. */
function errorOf({ exitCode, stdout }: { exitCode: number; stdout: string }): ErrorObject {
  expect(exitCode).toBe(1);
  const last = stdout.trim().split("\n").at(-1) ?? "{}";
  return (JSON.parse(last) as { error: ErrorObject }).error;
}

async function models(home: TugHome): Promise<Model[]> {
  return JSON.parse((await home.tug(["list", "--json"])).stdout) as Model[];
}

function blobFile(home: TugHome, digest: string): string {
  return join(home.path, "models", "blobs", digest.replace(":", "/"));
}
