import { describe, expect, test } from "bun:test";
import { type FakeRegistry, type FakeRegistryOptions, startFakeRegistry } from "./registry.ts";
import { startThrottle } from "./throttle.ts";

const BYTES = Uint8Array.from({ length: 600_000 }, (_, index) => index % 251);

describe("fake registry", () => {
  test("serves ranges and says what it sent", async () => {
    await using it = await started();
    const response = await get(it, { range: "bytes=100-199" });
    expect(response.status).toBe(206);
    expect(response.headers.get("content-range")).toBe("bytes 100-199/600000");
    expect(await response.bytes()).toEqual(BYTES.subarray(100, 200));
    expect((await get(it, { range: "bytes=600000-" })).status).toBe(416);
    expect(it.registry.blobBytesSent()).toBe(100);
  });

  test("takes an upload that was cut off, and goes on where it was", async () => {
    await using it = await started({ minChunkBytes: 1000 });
    const { registry, digest } = it;
    const begun = await call(it, "POST", "/v2/me/other/blobs/uploads/");
    const location = begun.headers.get("location") ?? "";
    expect(begun.headers.get("oci-chunk-min-length")).toBe("1000");
    registry.fault({ kind: "cut_upload", after: 250_000, times: 1 });
    expect(call(it, "PATCH", location, BYTES)).rejects.toThrow();
    const where = await call(it, "GET", location);
    expect(where.headers.get("range")).toBe("0-249999");
    // What a client that did not look for the newest location would do.
    expect((await call(it, "PATCH", location, BYTES.slice(250_000))).status).toBe(416);
    const newest = where.headers.get("location") ?? "";
    const finished = await call(it, "PUT", `${newest}&digest=${digest}`, BYTES.slice(250_000));
    expect([finished.status, registry.openUploads()]).toEqual([201, 0]);
  });

  test("mounts what the other repository has", async () => {
    await using it = await started();
    const mount = `/v2/me/other/blobs/uploads/?mount=${it.digest}&from=me/m`;
    expect((await call(it, "POST", mount)).status).toBe(201);
    const absent = `sha256:${"0".repeat(64)}`;
    expect((await call(it, "POST", mount.replace(it.digest, absent))).status).toBe(202);
  });

  test("gives tokens for what they are good for, until they expire", async () => {
    await using it = await started({ auth: { scheme: "bearer", allowsAnonymousPull: true } });
    const refused = await get(it);
    expect(refused.headers.get("www-authenticate")).toContain('scope="repository:me/m:pull"');
    const token = await call(it, "GET", "/token?service=fake&scope=repository:me/m:pull,push");
    const authorization = `Bearer ${((await token.json()) as { token: string }).token}`;
    expect((await get(it, { authorization })).status).toBe(200);
    const push = await fetch(`${it.registry.url}/v2/me/m/blobs/uploads/`, {
      method: "POST",
      headers: { authorization },
    });
    expect(push.status).toBe(401);
    it.registry.expireTokens();
    expect((await get(it, { authorization })).status).toBe(401);
  });

  test("lists tags page by page, and the referrers of a manifest", async () => {
    await using it = await started({ pageSize: 1 });
    const { registry, manifest } = it;
    registry.addManifest("me/m:signature", { artifactType: "x/y", layers: [], subject: manifest });
    const first = await call(it, "GET", "/v2/me/m/tags/list");
    expect(await first.json()).toEqual({ name: "me/m", tags: ["1"] });
    const next = /<(.*)>; rel="next"/.exec(first.headers.get("link") ?? "")?.[1] ?? "";
    expect(await (await call(it, "GET", next)).json()).toEqual({
      name: "me/m",
      tags: ["signature"],
    });
    const referrers = await call(it, "GET", `/v2/me/m/referrers/${manifest.digest}`);
    expect(((await referrers.json()) as { manifests: unknown[] }).manifests).toHaveLength(1);
  });
});

describe("faults", () => {
  test("flip changes one byte of the answers that hold it", async () => {
    await using it = await started();
    const flip = it.registry.fault({ kind: "flip", at: 150, times: 1 });
    await (await get(it, { range: "bytes=0-99" })).bytes();
    expect(flip.hits).toBe(0);
    const wrong = await (await get(it, { range: "bytes=100-199" })).bytes();
    expect(wrong.findIndex((byte, index) => byte !== BYTES[100 + index])).toBe(50);
    expect(await (await get(it)).bytes()).toEqual(BYTES);
  });

  test("cut sends so many bytes and no more", async () => {
    await using it = await started();
    it.registry.fault({ kind: "cut", after: 300_000, path: "/blobs/", times: 1 });
    const response = await get(it);
    expect(response.bytes()).rejects.toThrow();
    expect(it.registry.blobBytesSent()).toBe(300_000);
  });

  test("stall keeps the connection until the client leaves", async () => {
    await using it = await started();
    it.registry.fault({ kind: "stall", after: 10, path: "/blobs/" });
    const response = await get(it);
    const reader = response.body?.getReader();
    expect((await reader?.read())?.value).toHaveLength(10);
    await reader?.cancel();
    expect(it.registry.blobBytesSent()).toBe(10);
  });

  test("ranges can be ignored, or be others than asked for", async () => {
    await using it = await started();
    it.registry.fault({ kind: "no_range", times: 1 });
    expect((await get(it, { range: "bytes=5-9" })).status).toBe(200);
    it.registry.fault({ kind: "wrong_range", shift: 3, times: 1 });
    const wrong = await get(it, { range: "bytes=5-9" });
    expect(wrong.headers.get("content-range")).toBe("bytes 8-9/600000");
  });

  test("statuses, headers and redirects come so often, after so many", async () => {
    await using it = await started();
    const { registry } = it;
    const headers = { "retry-after": "1" };
    registry.fault({ kind: "status", status: 429, headers, skip: 1, times: 1 });
    registry.fault({
      kind: "headers",
      set: { "docker-content-digest": undefined },
      skip: 2,
      times: 1,
    });
    registry.fault({ kind: "redirect", to: "http://127.0.0.1:1", skip: 3, times: 1 });
    const answers = [];
    for (let index = 0; index < 5; index += 1)
      answers.push(await fetch(blobUrl(it), { redirect: "manual" }));
    expect(answers.map(({ status }) => status)).toEqual([200, 429, 200, 307, 200]);
    expect(answers.map((one) => one.headers.has("docker-content-digest"))).toEqual([
      true,
      false,
      false,
      false,
      true,
    ]);
  });
});

test("throttle holds back the beginning of answers and counts what it carries", async () => {
  await using it = await started();
  await using line = await startThrottle({ targetPort: it.registry.port, latencyMs: 50 });
  const startedAt = performance.now();
  const url = blobUrl(it).replace(String(it.registry.port), String(line.port));
  expect(await (await fetch(url)).bytes()).toEqual(BYTES);
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(50);
  expect(line.bytesDown()).toBeGreaterThan(BYTES.length);
  expect(line.connections()).toBe(1);
});

interface Started extends AsyncDisposable {
  readonly registry: FakeRegistry;
  readonly digest: string;
  readonly manifest: { readonly digest: string; readonly size: number };
}

async function started(options: FakeRegistryOptions = {}): Promise<Started> {
  const registry = await startFakeRegistry(options);
  const { weights, manifest } = await registry.addModel("me/m:1", BYTES);
  const { digest } = weights;
  return { registry, digest, manifest, [Symbol.asyncDispose]: () => registry.stop() };
}

function blobUrl({ registry, digest }: Started): string {
  return `${registry.url}/v2/me/m/blobs/${digest}`;
}

function get(it: Started, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(blobUrl(it), { headers });
}

function call(
  { registry }: Started,
  ...[method, path, body]: [method: string, path: string, body?: Uint8Array<ArrayBuffer>]
): Promise<Response> {
  return fetch(new URL(path, registry.url), { method, body: body ?? null });
}
