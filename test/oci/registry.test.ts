import { describe, expect, test } from "bun:test";
import type { BlobSource } from "../../src/http/blob-source.ts";
import { createHttp } from "../../src/http/http.ts";
import { isTransient } from "../../src/http/retry.ts";
import { digestOf, parseDigest } from "../../src/oci/digest.ts";
import {
  DOCKER_MANIFEST,
  DOCKER_MANIFEST_LIST,
  OCI_INDEX,
  OCI_MANIFEST,
} from "../../src/oci/media-types.ts";
import { parseRegistryHost } from "../../src/oci/reference.ts";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import { freePort } from "../helpers/free-port.ts";
import { failureOf, rejectionOf } from "../http/failure-of.ts";
import { ann, client, credentialsOf, noSignal as signal } from "./registry-client.ts";

const WEIGHTS = new Uint8Array(100_000).map((_, at) => at % 251);
const UNKNOWN = digestOf(Buffer.from("unknown"));

async function withModel(options: Parameters<typeof startFakeRegistry>[0] = {}) {
  const fake = await startFakeRegistry(options);
  const model = await fake.addModel("me/m:1", WEIGHTS);
  return {
    fake,
    name: { registry: fake.host, repository: "me/m" },
    manifest: parseDigest(model.manifest.digest),
    weights: { digest: parseDigest(model.weights.digest), size: model.weights.size },
    [Symbol.asyncDispose]: () => fake.stop(),
  };
}

function said(fake: FakeRegistry): string[] {
  return fake.requests.map(
    ({ method, path, status }) => `${method} ${path.split("/").at(-2)} ${status}`,
  );
}

describe("resolve", () => {
  test("one HEAD says what a tag means", async () => {
    await using it = await withModel();

    const found = await client().repository(it.name).resolve("1", { signal });

    const { bytes } = it.fake.manifests.get(`me/m@${it.manifest}`) ?? { bytes: new Uint8Array() };
    expect(found).toEqual({ mediaType: OCI_MANIFEST, digest: it.manifest, size: bytes.length });
    expect(said(it.fake)).toEqual(["HEAD manifests 200"]);
    for (const type of [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST]) {
      expect(it.fake.requests[0]?.headers["accept"]).toContain(type);
    }
  });

  test.each([
    ["no digest", { "docker-content-digest": undefined }],
    ["a digest that is none", { "docker-content-digest": "sha256:xyz" }],
    ["a length of nothing", { "content-length": "0" }],
    ["no type", { "content-type": undefined }],
    ["a vague type", { "content-type": "text/plain; charset=utf-8" }],
  ])("where the answer has %s the manifest is fetched", async (_what, set) => {
    await using it = await withModel();
    it.fake.fault({ kind: "headers", method: "HEAD", set });

    const found = await client().repository(it.name).resolve("1", { signal });

    expect(found).toMatchObject({ mediaType: OCI_MANIFEST, digest: it.manifest });
    expect(said(it.fake)).toEqual(["HEAD manifests 200", "GET manifests 200"]);
  });

  test("where HEAD is not allowed the manifest is fetched", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "status", method: "HEAD", status: 405 });

    const found = await client().repository(it.name).resolve("1", { signal });

    expect(found.digest).toBe(it.manifest);
  });

  test("another digest than the one asked for is not believed", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "headers", set: { "docker-content-digest": UNKNOWN } });

    const error = await failureOf(client().repository(it.name).resolve(it.manifest, { signal }));

    expect(error.code).toBe("digest_mismatch");
  });

  test("what is not there is not there, in one request", async () => {
    await using it = await withModel();

    const error = await failureOf(client().repository(it.name).resolve("2", { signal }));

    expect(error.code).toBe("not_found");
    expect(error.message).toBe(
      `cannot read \`${it.fake.host}/me/m:2\`: the registry does not have it`,
    );
    expect(it.fake.requests).toHaveLength(1);
  });

  test("a refusal is repeated with its words", async () => {
    await using it = await withModel();
    it.fake.fault({
      kind: "status",
      status: 403,
      body: '{"errors":[{"code":"DENIED","message":"pay first"}]}',
    });

    const error = await failureOf(client().repository(it.name).resolve("1", { signal }));

    expect(error.code).toBe("forbidden");
    expect(error.message).toContain("pay first");
    expect(error.details?.["codes"]).toEqual(["DENIED"]);
  });
});

describe("fetchManifest", () => {
  test("the bytes are those of the registry, and verified", async () => {
    await using it = await withModel();

    const { descriptor, bytes } = await client().repository(it.name).fetchManifest("1", { signal });

    expect(digestOf(bytes)).toBe(it.manifest);
    expect(descriptor).toEqual({
      mediaType: OCI_MANIFEST,
      digest: it.manifest,
      size: bytes.length,
    });
  });

  test("an index is fetched as it is", async () => {
    await using it = await withModel();
    it.fake.addManifest("me/m:index", { manifests: [] }, OCI_INDEX);

    const { descriptor } = await client().repository(it.name).fetchManifest("index", { signal });

    expect(descriptor.mediaType).toBe(OCI_INDEX);
  });

  test("what arrives damaged once is asked for again", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "flip", path: "/manifests/", at: 10, times: 1 });

    const { descriptor } = await client().repository(it.name).fetchManifest("1", { signal });

    expect(descriptor.digest).toBe(it.manifest);
    expect(said(it.fake)).toEqual(["GET manifests 200", "GET manifests 200"]);
  });

  test.each([["1"], ["by digest"]])("what arrives damaged twice is refused: %s", async (ref) => {
    await using it = await withModel();
    it.fake.fault({ kind: "flip", path: "/manifests/", at: 10 });
    const repository = client().repository(it.name);

    const error = await failureOf(
      repository.fetchManifest(ref === "1" ? ref : it.manifest, { signal }),
    );

    expect(error.code).toBe("digest_mismatch");
    expect(error.details?.["expected"]).toBe(it.manifest);
    expect(said(it.fake)).toHaveLength(2);
  });

  test("a cut connection is tried again", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "cut", path: "/manifests/", after: 5, times: 2 });

    const { descriptor } = await client().repository(it.name).fetchManifest("1", { signal });

    expect(descriptor.digest).toBe(it.manifest);
    expect(said(it.fake)).toHaveLength(3);
  });

  test("a manifest of absurd size is not read", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "body", path: "/manifests/", body: new Uint8Array(4 * 1024 * 1024 + 1) });

    const error = await failureOf(client().repository(it.name).fetchManifest("1", { signal }));

    expect(error.code).toBe("request_too_large");
    expect(error.message).toEndWith("its manifest is larger than 4194304 bytes");
    expect(said(it.fake)).toHaveLength(1);
  });

  test("a document that the registry calls something else is refused", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "headers", set: { "content-type": OCI_INDEX } });

    const error = await failureOf(client().repository(it.name).fetchManifest("1", { signal }));

    expect(error.code).toBe("invalid_model_file");
  });
});

describe("fetchBlob", () => {
  test("a small blob, verified", async () => {
    await using it = await withModel();

    const bytes = await client().repository(it.name).fetchBlob(it.weights, { signal });

    expect(Buffer.from(bytes).equals(WEIGHTS)).toBe(true);
  });

  test("a blob over the limit is not asked for", async () => {
    await using it = await withModel();

    const error = await failureOf(
      client().repository(it.name).fetchBlob(it.weights, { signal, maxBytes: 99_999 }),
    );

    expect(error.code).toBe("request_too_large");
    expect(it.fake.requests).toHaveLength(0);
  });

  test("a blob that is larger than announced is not read to its end", async () => {
    await using it = await withModel();
    const small = { digest: it.weights.digest, size: 10 };

    const error = await failureOf(
      client().repository(it.name).fetchBlob(small, { signal, maxBytes: 1000 }),
    );

    expect(error.code).toBe("request_too_large");
  });

  test("damaged once: again; damaged always: refused", async () => {
    await using it = await withModel();
    const repository = client().repository(it.name);
    it.fake.fault({ kind: "flip", at: 10, times: 1 });

    await repository.fetchBlob(it.weights, { signal });
    it.fake.fault({ kind: "flip", at: 10 });
    const error = await failureOf(repository.fetchBlob(it.weights, { signal }));

    expect(error.code).toBe("digest_mismatch");
    expect(error.message).toContain(`${it.fake.host}/me/m@${it.weights.digest}`);
    expect(said(it.fake)).toHaveLength(4);
  });
});

type Setup = Awaited<ReturnType<typeof withModel>>;

function sourceOf(it: Setup): BlobSource {
  const [source] = client().repository(it.name).blobSources(it.weights.digest);
  if (source === undefined) throw new Error("there is no source");
  return source;
}

describe("blobSources", () => {
  test("a range, in one exchange", async () => {
    await using it = await withModel();

    const answer = await sourceOf(it).open({ start: 10, end: 20 }, { signal });

    expect(answer).toMatchObject({ start: 10, isRanged: true, totalBytes: 100_000 });
    expect(await new Response(answer?.body).bytes()).toEqual(WEIGHTS.slice(10, 20));
    expect(it.fake.requests).toHaveLength(1);
  });

  test.each([
    [{ kind: "status", status: 503 } as const, "registry_unavailable", true],
    [
      { kind: "status", status: 429, headers: { "retry-after": "9" } } as const,
      "too_many_requests",
      true,
    ],
    [{ kind: "status", status: 404 } as const, "not_found", false],
    [{ kind: "status", status: 416 } as const, "registry_unavailable", false],
    [{ kind: "wrong_range", shift: 3 } as const, "registry_unavailable", true],
  ])("fault %p is %s, passing %p, and not tried again here", async (fault, code, isPassing) => {
    await using it = await withModel();
    it.fake.fault(fault);

    const error = await failureOf(sourceOf(it).open({ start: 10, end: 20 }, { signal }));

    expect<string>(error.code).toBe(code);
    expect(isTransient(error)).toBe(isPassing);
    expect(it.fake.requests).toHaveLength(1);
  });

  test("storage elsewhere gets the range and not the credential", async () => {
    await using it = await withModel({
      auth: { scheme: "basic", username: "ann", password: "pässword:1" },
    });
    await using storage = await startFakeRegistry({ blobs: it.fake.blobs });
    it.fake.fault({ kind: "redirect", path: "/blobs/", to: `http://localhost:${storage.port}` });
    const registry = client({ credentials: credentialsOf({ [it.fake.host]: ann() }) });
    const repository = registry.repository(it.name);
    await repository.resolve("1", { signal });

    const answer = await repository
      .blobSources(it.weights.digest)[0]
      ?.open({ start: 1, end: 3 }, { signal });

    expect(await new Response(answer?.body).bytes()).toEqual(WEIGHTS.slice(1, 3));
    expect(it.fake.requests.at(-1)?.headers["authorization"]).toStartWith("Basic ");
    expect(storage.requests[0]?.headers["authorization"]).toBeUndefined();
    expect(storage.requests[0]?.headers["range"]).toBe("bytes=1-2");
  });

  test("storage that denies access has an outdated signature: that passes", async () => {
    await using it = await withModel();
    await using storage = await startFakeRegistry({ blobs: it.fake.blobs });
    it.fake.fault({ kind: "redirect", path: "/blobs/", to: storage.url });
    storage.fault({ kind: "status", status: 403, times: 1 });
    const blob = sourceOf(it);

    const error = await failureOf(blob.open({ start: 1, end: 3 }, { signal }));
    const answer = await blob.open({ start: 1, end: 3 }, { signal });

    expect(error.message).toEndWith(`its storage \`127.0.0.1:${storage.port}\` denies access`);
    expect(isTransient(error)).toBe(true);
    expect(answer?.start).toBe(1);
  });
});

describe("hasBlob", () => {
  test("yes, and no", async () => {
    await using it = await withModel();
    const repository = client().repository(it.name);

    expect(await repository.hasBlob(it.weights.digest, { signal })).toBe(true);
    expect(await repository.hasBlob(UNKNOWN, { signal })).toBe(false);
  });
});

async function listed(it: Setup): Promise<string[]> {
  return Array.fromAsync(client().repository(it.name).tags({ signal }));
}

describe("tags", () => {
  test("all pages, in the registry's order", async () => {
    await using it = await withModel({ pageSize: 2 });
    for (const tag of ["2", "3", "4", "5"]) await it.fake.addModel(`me/m:${tag}`, WEIGHTS);

    expect(await listed(it)).toEqual(["1", "2", "3", "4", "5"]);
    expect(it.fake.count("GET", "/tags/list")).toBe(3);
  });

  test.each([
    ['{"tags":null}', []],
    ['{"name":"me/m"}', []],
    [`{"tags":["a","-b",7,"${"x".repeat(200)}","\\u001b[2J","c"]}`, ["a", "c"]],
  ])("%s", async (body, expected) => {
    await using it = await withModel();
    it.fake.fault({ kind: "body", path: "/tags/", body });

    expect(await listed(it)).toEqual(expected);
  });

  test("a page that is cut off is asked for again", async () => {
    await using it = await withModel();
    const set = { "content-length": "1000" };
    it.fake.fault({ kind: "headers", path: "/tags/", set, times: 1 });
    it.fake.fault({ kind: "cut", path: "/tags/", after: 5, times: 1 });

    expect(await listed(it)).toEqual(["1"]);
  });

  test.each([
    ["no list", '{"tags":{}}', undefined, /not a list of tags$/],
    ["no JSON", "<html>", undefined, /not a list of tags$/],
    ["a circle", '{"tags":["a"]}', '</v2/me/m/tags/list?last=a>; rel="next"', /turns in a circle$/],
    [
      "another host",
      '{"tags":["a"]}',
      '<http://evil.example/>; rel="next"',
      /goes on at another host$/,
    ],
    [
      "too many",
      `{"tags":[${Array(100_001).fill('"a"').join(",")}]}`,
      undefined,
      /more than 100000 tags$/,
    ],
  ])("a list that is of no use is refused: %s", async (...row) => {
    const [, body, link, message] = row;
    await using it = await withModel();
    it.fake.fault({ kind: "body", path: "/tags/", body });
    it.fake.fault({ kind: "headers", path: "/tags/", set: { link } });

    const error = await failureOf(listed(it));

    expect(error.code).toBe("registry_unavailable");
    expect(error.message).toMatch(message);
  });
});

describe("delete", () => {
  test("a manifest and a blob", async () => {
    await using it = await withModel();
    const repository = client().repository(it.name);

    await repository.deleteManifest("1", { signal });
    await repository.deleteBlob(it.weights.digest, { signal });

    expect(said(it.fake)).toEqual(["DELETE manifests 202", "DELETE blobs 202"]);
    expect(it.fake.tags.size).toBe(0);
  });

  test("a registry that does not allow it says so", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "status", method: "DELETE", status: 405 });

    const error = await failureOf(client().repository(it.name).deleteManifest("1", { signal }));

    expect(error.code).toBe("not_supported");
  });
});

describe("failures that pass", () => {
  test("a burst of 503 is survived", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "status", status: 503, times: 4 });
    const registry = client();

    const found = await registry.repository(it.name).resolve("1", { signal });

    expect(found.digest).toBe(it.manifest);
    expect(registry.waits).toHaveLength(4);
  });

  test("Retry-After is waited for", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "status", status: 429, headers: { "retry-after": "7" }, times: 2 });
    const registry = client();

    const found = await registry.repository(it.name).resolve("1", { signal });

    expect(found.digest).toBe(it.manifest);
    expect(registry.waits.every((ms) => ms >= 7000)).toBe(true);
  });

  test("a wait that is too long is not begun", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "status", status: 429, headers: { "retry-after": "3600" } });
    const registry = client();

    const error = await failureOf(registry.repository(it.name).fetchManifest("1", { signal }));

    expect(error.code).toBe("too_many_requests");
    expect(error.details).toMatchObject({ status: 429, retry_after_ms: 3_600_000 });
    expect(registry.waits).toEqual([]);
  });

  test("a host that was never reached is given up sooner", async () => {
    const registry = client();
    const name = { registry: `127.0.0.1:${await freePort()}`, repository: "me/m" };

    const error = await failureOf(registry.repository(name).resolve("1", { signal }));

    expect(error.code).toBe("registry_unavailable");
    expect(registry.waits).toHaveLength(2);
  });

  test("an abort ends it", async () => {
    await using it = await withModel();
    const controller = new AbortController();
    it.fake.fault({ kind: "status", status: 503 });
    const registry = client({ wait: async () => controller.abort(new Error("enough")) });

    const error = await rejectionOf(
      registry.repository(it.name).resolve("1", { signal: controller.signal }),
    );

    expect(error).toHaveProperty("message", "enough");
  });

  test("offline nothing is asked, and nothing is tried again", async () => {
    await using it = await withModel();
    const http = createHttp({ offline: true, caBundle: "", isInsecure: () => false });
    const registry = client({ http });

    const error = await failureOf(registry.repository(it.name).resolve("1", { signal }));

    expect(error.code).toBe("offline");
    expect(it.fake.connections()).toBe(0);
    expect(registry.waits).toEqual([]);
  });
});

async function withMirror(options: Parameters<typeof startFakeRegistry>[0] = {}) {
  const it = await withModel();
  const mirror = await startFakeRegistry(options);
  const registry = client({
    mirrors: new Map([[it.fake.host, [mirror.url]]]),
    credentials: credentialsOf({ [it.fake.host]: ann() }),
  });
  return {
    ...it,
    mirror,
    repository: registry.repository(it.name),
    async [Symbol.asyncDispose]() {
      await mirror.stop();
      await it.fake.stop();
    },
  };
}

describe("mirrors", () => {
  test("a mirror is asked first, and told whose repository is meant", async () => {
    await using it = await withMirror();
    await it.mirror.addModel("me/m:1", WEIGHTS);

    const found = await it.repository.resolve("1", { signal });
    const { descriptor } = await it.repository.fetchManifest("1", { signal });

    expect([found.digest, descriptor.digest]).toEqual([it.manifest, it.manifest]);
    expect(it.mirror.requests[0]?.query.get("ns")).toBe(it.fake.host);
    expect(it.fake.requests).toHaveLength(0);
  });

  test("it is the first source of blobs", async () => {
    await using it = await withMirror();

    const hosts = it.repository.blobSources(it.weights.digest).map(({ host }) => host);

    expect(hosts).toEqual([it.mirror.host, it.fake.host]);
  });

  test.each([
    [{ kind: "status", status: 500 } as const],
    [{ kind: "status", status: 404 } as const],
    [{ kind: "body", body: '{"layers":[]}' } as const],
    [{ kind: "cut", after: 3 } as const],
  ])("where it fails the registry is asked: %p", async (fault) => {
    await using it = await withMirror();
    await it.mirror.addModel("me/m:1", WEIGHTS);
    it.mirror.fault(fault);

    const { descriptor } = await it.repository.fetchManifest("1", { signal });

    expect(descriptor.digest).toBe(it.manifest);
    expect(it.mirror.requests).toHaveLength(1);
  });

  test("a mirror that is not there is waited for once", async () => {
    await using it = await withModel();
    const asked: string[] = [];
    const { http } = client();
    const registry = client({
      mirrors: new Map([[it.fake.host, [`http://127.0.0.1:${await freePort()}`]]]),
      http: {
        send: (url, request) => {
          asked.push(new URL(url).host);
          return http.send(url, request);
        },
      },
    });
    const repository = registry.repository(it.name);

    await repository.resolve("1", { signal });
    await repository.fetchManifest("1", { signal });

    expect(asked.filter((host) => host !== it.fake.host)).toHaveLength(1);
    expect(repository.blobSources(it.weights.digest).map(({ host }) => host)).toEqual([
      it.fake.host,
    ]);
  });

  test("the registry's credential never goes to a mirror", async () => {
    await using it = await withMirror({ auth: { scheme: "basic", username: "x", password: "x" } });

    await it.repository.resolve("1", { signal });

    expect(it.mirror.requests.map(({ headers }) => headers["authorization"])).toEqual([
      undefined,
      undefined,
    ]);
  });

  test("an abort is not taken for a failure of the mirror", async () => {
    await using it = await withMirror();
    it.mirror.fault({ kind: "wait", until: new Promise(() => {}) });
    const controller = new AbortController();
    const resolving = it.repository.resolve("1", { signal: controller.signal });

    controller.abort(new Error("enough"));

    expect(await rejectionOf(resolving)).toHaveProperty("message", "enough");
    expect(it.fake.requests).toHaveLength(0);
  });

  test("a path of the mirror is kept, and a /v2 at its end is not doubled", async () => {
    await using it = await withModel();
    const registry = client({ mirrors: new Map([[it.fake.host, [`${it.fake.url}/cache/v2/`]]]) });

    await registry.repository(it.name).resolve("1", { signal });

    expect(it.fake.requests[0]?.path).toBe("/cache/v2/me/m/manifests/1");
  });
});

describe("warnings", () => {
  test("each is passed on once", async () => {
    await using it = await withModel();
    it.fake.fault({ kind: "headers", set: { warning: '299 - "moving house"' } });
    const heard: string[] = [];
    const repository = client({ onWarning: (text) => heard.push(text) }).repository(it.name);

    await repository.resolve("1", { signal });
    await repository.fetchManifest("1", { signal });

    expect(heard).toEqual(["moving house"]);
  });
});

test("Docker Hub is reached by its own name", async () => {
  const seen: string[] = [];
  const http = {
    async send(url: string): Promise<Response> {
      seen.push(url);
      return new Response(null, { status: 404 });
    },
  };
  const registry = client({ http });

  await failureOf(
    registry
      .repository({ registry: parseRegistryHost("index.docker.io"), repository: "ai/m" })
      .resolve("1", { signal }),
  );

  expect(seen).toEqual(["https://registry-1.docker.io/v2/ai/m/manifests/1"]);
});
