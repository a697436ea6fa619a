import { describe, expect, test } from "bun:test";
import type { CopyRequest } from "../../src/api/models.ts";
import type { AppError } from "../../src/errors.ts";
import { copyModel } from "../../src/models/copy.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { type FakeRegistry, type PushedBlob, startFakeRegistry } from "../fakes/registry.ts";
import { noise } from "../oci/upload-helpers.ts";
import { failureOf } from "../store/failure-of.ts";
import { registryClient } from "./remote-registry.ts";

const NEVER = new AbortController().signal;
const WEIGHTS = noise(300_000);
/** Of the config that the fake registry makes. */
const CONFIG_BYTES = 190;

async function copy(request: CopyRequest, signal = NEVER) {
  return copyModel(registryClient(), request, { signal });
}

/** What a registry holds of a repository, by digest. */
async function contents(registry: FakeRegistry, digests: readonly string[]) {
  return Promise.all(
    digests.map(async (digest) => Buffer.from((await registry.blobs.get(digest)?.bytes()) ?? [])),
  );
}

async function addIndex(registry: FakeRegistry): Promise<{
  readonly index: PushedBlob;
  readonly models: readonly PushedBlob[];
}> {
  const arm = await registry.addModel("me/m:arm", noise(20_000, 2));
  const amd = await registry.addModel("me/m:amd", noise(30_000, 3));
  const models = [arm.manifest, amd.manifest];
  const index = registry.addManifest(
    "me/m:all",
    {
      manifests: [
        {
          mediaType: OCI_MANIFEST,
          ...arm.manifest,
          platform: { os: "linux", architecture: "arm64" },
        },
        {
          mediaType: OCI_MANIFEST,
          ...amd.manifest,
          platform: { os: "linux", architecture: "amd64" },
        },
      ],
    },
    OCI_INDEX,
  );
  return { index, models };
}

describe("copyModel", () => {
  test("gives the target the source's bytes, the manifest last", async () => {
    await using source = await startFakeRegistry();
    await using target = await startFakeRegistry();
    const model = await source.addModel("me/m:1", WEIGHTS);

    const result = await copy({
      source: `${source.host}/me/m:1`,
      target: `${target.host}/you/copy:2`,
    });

    expect(result.digest).toBe(model.manifest.digest);
    expect(result.reference).toBe(`${target.host}/you/copy:2`);
    expect(result.uploaded_bytes).toBe(result.size_bytes);
    expect(target.tags.get("you/copy:2")).toBe(model.manifest.digest);
    const digests = [...source.blobs.keys()];
    expect(await contents(target, digests)).toEqual(await contents(source, digests));
    expect(target.requests.at(-1)?.path).toBe("/v2/you/copy/manifests/2");
    // Once, and nothing that the target has.
    expect(source.blobBytesSent()).toBe(300_000 + CONFIG_BYTES);
  });

  test("reads nothing of what the target has", async () => {
    await using source = await startFakeRegistry();
    await using target = await startFakeRegistry();
    await source.addModel("me/m:1", WEIGHTS);
    await target.addBlob(WEIGHTS);

    const result = await copy({ source: `${source.host}/me/m:1`, target: `${target.host}/me/m:1` });

    expect(result.reused_bytes).toBe(300_000);
    expect(source.blobBytesSent()).toBe(CONFIG_BYTES);
  });

  test("mounts within one registry", async () => {
    await using registry = await startFakeRegistry();
    const outside = await startFakeRegistry();
    await outside.addModel("me/m:1", WEIGHTS);
    await copy({ source: `${outside.host}/me/m:1`, target: `${registry.host}/me/m:1` });
    await outside.stop();
    registry.requests.length = 0;

    const result = await copy({
      source: `${registry.host}/me/m:1`,
      target: `${registry.host}/you/m:1`,
    });

    expect(result.reused_bytes).toBe(300_000 + CONFIG_BYTES);
    expect(registry.blobBytesSent()).toBe(0);
    expect(registry.count("PUT", "/blobs/")).toBe(0);
  });

  test("copies an index with all it lists, before the index", async () => {
    await using source = await startFakeRegistry();
    await using target = await startFakeRegistry();
    const { index, models } = await addIndex(source);

    const result = await copy({
      source: `${source.host}/me/m:all`,
      target: `${target.host}/me/m:all`,
    });

    expect(result.digest).toBe(index.digest);
    expect(target.manifests.get(`me/m@${index.digest}`)).toEqual(
      source.manifests.get(`me/m@${index.digest}`) as never,
    );
    const pushed = target.requests
      .filter(({ method, path }) => method === "PUT" && path.includes("/manifests/"))
      .map(({ path }) => path.slice("/v2/me/m/manifests/".length));
    expect(pushed).toEqual([...models.map(({ digest }) => digest), "all"]);
    expect([...target.tags.keys()]).toEqual(["me/m:all"]);
    expect(target.blobs.size).toBe(source.blobs.size);
  });

  test("copies the one manifest of a platform", async () => {
    await using source = await startFakeRegistry();
    await using target = await startFakeRegistry();
    const { models } = await addIndex(source);

    const result = await copy({
      source: `${source.host}/me/m:all`,
      target: `${target.host}/me/m:1`,
      platform: "linux/arm64",
    });

    expect(result.digest).toBe(models[0]?.digest ?? "");
    expect(target.manifests.size).toBe(1);
    expect(target.blobs.size).toBe(2);
  });

  test("goes on where the source broke off", async () => {
    await using source = await startFakeRegistry();
    await using target = await startFakeRegistry();
    const size = 8 * 1024 * 1024;
    const model = await source.addModel("me/m:1", noise(size));
    source.fault({ kind: "cut", path: model.weights.digest, after: size - 100_000, times: 1 });

    const result = await copy({ source: `${source.host}/me/m:1`, target: `${target.host}/me/m:1` });

    expect(result.digest).toBe(model.manifest.digest);
    const starts = source.requests
      .filter(({ method, path }) => method === "GET" && path.includes(model.weights.digest))
      .map(({ headers }) => Number(/^bytes=(\d+)-/.exec(headers["range"] ?? "")?.[1]));
    expect(starts).toHaveLength(2);
    // What was on its way when the connection broke is all that is asked for again.
    expect(starts[1]).toBeGreaterThan(size / 2);
    expect(target.count("PUT", "/blobs/")).toBe(2);
  });

  test("of damaged bytes publishes nothing and says whose they are", async () => {
    await using source = await startFakeRegistry();
    await using target = await startFakeRegistry();
    const model = await source.addModel("me/m:1", WEIGHTS);
    source.fault({ kind: "flip", path: model.weights.digest, at: 1234 });

    const failure = await failureOf(
      copy({ source: `${source.host}/me/m:1`, target: `${target.host}/me/m:1` }),
    );

    expect(failure.code).toBe("digest_mismatch");
    expect((failure as AppError).hint).toContain(source.host);
    expect(target.manifests.size).toBe(0);
    expect(target.blobs.has(model.weights.digest)).toBe(false);
    expect(target.openUploads()).toBe(0);
  });

  test("that is cancelled leaves neither manifest nor session", async () => {
    await using source = await startFakeRegistry();
    await using target = await startFakeRegistry();
    await source.addModel("me/m:1", WEIGHTS);
    const controller = new AbortController();
    source.fault({ kind: "stall", method: "GET", path: "/blobs/", after: 50_000 });
    const options = {
      signal: controller.signal,
      onProgress: (event: { readonly type: string; readonly done_bytes?: number | null }) => {
        if ((event.done_bytes ?? 0) > 1000) controller.abort();
      },
    };

    const failure = await failureOf(
      copyModel(
        registryClient(),
        { source: `${source.host}/me/m:1`, target: `${target.host}/me/m:1` },
        options,
      ),
    );

    expect(failure.name).toBe("AbortError");
    expect(target.manifests.size).toBe(0);
    expect(target.openUploads()).toBe(0);
  });

  test("to a digest wants the source's", async () => {
    await using source = await startFakeRegistry();
    await using target = await startFakeRegistry();
    const model = await source.addModel("me/m:1", noise(100));

    const other = `sha256:${"0".repeat(64)}`;
    const request = { source: `${source.host}/me/m:1`, target: `${target.host}/me/m@${other}` };
    const failure = await failureOf(copy(request));
    const result = await copy({
      ...request,
      target: `${target.host}/me/m@${model.manifest.digest}`,
    });

    expect(failure.code).toBe("invalid_reference");
    expect(result.digest).toBe(model.manifest.digest);
    expect(target.tags.size).toBe(0);
  });

  test.each([
    ["hf.co/me/m", "127.0.0.1:1/me/m"],
    ["127.0.0.1:1/me/m", "ollama.com/me/m"],
  ])("from `%s` to `%s` is not supported", async (source, target) => {
    const failure = await failureOf(copy({ source, target }));

    expect(failure.code).toBe("not_supported");
    expect((failure as AppError).hint).toContain("pull it first");
  });

  test("of what is not there says so", async () => {
    await using source = await startFakeRegistry();

    const failure = await failureOf(
      copy({ source: `${source.host}/me/none:1`, target: `${source.host}/me/m:1` }),
    );

    expect(failure.code).toBe("not_found");
  });

  test("of lists in lists ends", async () => {
    await using source = await startFakeRegistry();
    let inner: PushedBlob = (await source.addModel("me/m:1", noise(10))).manifest;
    let mediaType = OCI_MANIFEST;
    for (let depth = 0; depth < 6; depth += 1) {
      inner = source.addManifest("me/m:deep", { manifests: [{ mediaType, ...inner }] }, OCI_INDEX);
      mediaType = OCI_INDEX;
    }

    const failure = await failureOf(
      copy({ source: `${source.host}/me/m:deep`, target: `${source.host}/me/copy:1` }),
    );

    expect(failure.code).toBe("unsupported_model");
  });
});
