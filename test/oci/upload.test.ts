import { describe, expect, test } from "bun:test";
import type { AppError } from "../../src/errors.ts";
import type { Exchange } from "../../src/oci/exchange.ts";
import { hasBlob, upload, type UploadTuning } from "../../src/oci/upload.ts";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import { eventually } from "../helpers/eventually.ts";
import { failureOf } from "../store/failure-of.ts";
import { plainExchange } from "./plain-exchange.ts";
import { blobOf, memorySource, noise } from "./upload-helpers.ts";

const PART = 64 * 1024;
const NEVER = new AbortController().signal;
const TUNING: UploadTuning = { partBytes: PART, wait: () => Promise.resolve() };

interface Options extends UploadTuning {
  readonly exchange?: Exchange;
  readonly mountFrom?: readonly string[];
  readonly signal?: AbortSignal;
  readonly onBytes?: (done: number) => void;
}

async function send(registry: FakeRegistry, bytes: Uint8Array, options: Options = {}) {
  const { exchange = plainExchange(registry.url), signal = NEVER, ...rest } = options;
  const source = memorySource(bytes);
  return upload(exchange, blobOf(bytes), { ...TUNING, ...rest, signal, source });
}

async function stored(registry: FakeRegistry, bytes: Uint8Array): Promise<boolean> {
  const kept = await registry.blobs.get(blobOf(bytes).digest)?.bytes();
  return kept !== undefined && Buffer.compare(kept, bytes) === 0;
}

/** `METHOD status`, in order. */
function log(registry: FakeRegistry): string[] {
  return registry.requests.map(({ method, status }) => `${method} ${status}`);
}

/** What a request comes to that nobody ever answers. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(new Error("aborted")));
  });
}

function bytesReceived(registry: FakeRegistry): number {
  return registry.requests.reduce((sum, request) => sum + request.bytesReceived, 0);
}

describe("upload of a small blob", () => {
  test("asks whether it is there, opens a session and sends all in one PUT", async () => {
    await using registry = await startFakeRegistry();
    const bytes = noise(10_000);
    const seen: number[] = [];

    const outcome = await send(registry, bytes, { onBytes: (done) => seen.push(done) });

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(log(registry)).toEqual(["HEAD 404", "POST 202", "PUT 201"]);
    const put = registry.requests[2];
    expect(put?.headers["content-length"]).toBe("10000");
    expect(put?.headers["content-type"]).toBe("application/octet-stream");
    expect(put?.headers["transfer-encoding"]).toBeUndefined();
    expect(put?.query.get("digest")).toBe(blobOf(bytes).digest);
    expect(put?.query.get("state")).toBe("at-0");
    expect(seen).toEqual([4096, 8192, 10_000, 10_000]);
  });

  test("costs one request if the registry has it", async () => {
    await using registry = await startFakeRegistry();
    const bytes = noise(10_000);
    await registry.addBlob(bytes);

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("present");
    expect(log(registry)).toEqual(["HEAD 200"]);
  });

  test("of no bytes works", async () => {
    await using registry = await startFakeRegistry();
    const bytes = new Uint8Array();

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(registry.requests.at(-1)?.headers["content-length"]).toBe("0");
  });

  test("of no bytes under another digest is refused", async () => {
    await using registry = await startFakeRegistry();
    const { digest } = blobOf(noise(3));
    const source = memorySource(new Uint8Array());

    const failure = await failureOf(
      upload(plainExchange(registry.url), { digest, size: 0 }, { signal: NEVER, source }),
    );

    expect(failure.code).toBe("digest_mismatch");
    expect(registry.requests).toHaveLength(0);
  });

  test("goes through where the registry cannot say what it has", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 405, method: "HEAD" });
    const bytes = noise(10_000);

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
  });

  test("that is cut off begins again with a new session and leaves none behind", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "cut_upload", method: "PUT", after: 5000, times: 1 });
    const bytes = noise(20_000);

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(registry.count("POST")).toBe(2);
    expect(registry.openUploads()).toBe(0);
  });

  test("whose answer was lost is found to be there", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 503, method: "PUT", times: 1 });
    const bytes = noise(20_000);
    const { digest } = blobOf(bytes);
    let heads = 0;
    const exchange = plainExchange(registry.url);
    const late: Exchange = {
      ...exchange,
      send: async (target, request) => {
        if (request.method === "HEAD") heads += 1;
        // It arrives between the two questions.
        if (heads === 2) await registry.addBlob(bytes);
        return exchange.send(target, request);
      },
    };

    const outcome = await send(registry, bytes, { exchange: late });

    expect(outcome).toBe("uploaded");
    expect(registry.count("PUT")).toBe(1);
    expect(await hasBlob(exchange, digest, { signal: NEVER })).toBe(true);
  });

  test("that the registry goes on failing ends with its error and no session", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 503, method: "PUT" });

    const failure = await failureOf(send(registry, noise(1000)));

    expect(failure.code).toBe("registry_unavailable");
    expect(registry.count("PUT")).toBe(5);
    expect(registry.openUploads()).toBe(0);
  });

  test("that is forbidden is not tried again", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 403, method: "POST" });

    const failure = await failureOf(send(registry, noise(1000)));

    expect(failure.code).toBe("forbidden");
    expect(log(registry)).toEqual(["HEAD 404", "POST 403"]);
  });
});

describe("a mount", () => {
  test("spares the upload", async () => {
    await using registry = await startFakeRegistry();
    const bytes = noise(10_000);
    await send(registry, bytes, { exchange: plainExchange(registry.url, "me/other") });
    registry.requests.length = 0;

    const outcome = await send(registry, bytes, { mountFrom: ["me/other"] });

    expect(outcome).toBe("mounted");
    expect(log(registry)).toEqual(["HEAD 404", "POST 201"]);
    expect(registry.requests[1]?.query.get("from")).toBe("me/other");
    expect(registry.requests[1]?.query.get("mount")).toBe(blobOf(bytes).digest);
  });

  test("tells the exchange which repository must be readable", async () => {
    await using registry = await startFakeRegistry();
    const exchange = plainExchange(registry.url);

    await send(registry, noise(100), { exchange, mountFrom: ["me/other"] });

    expect(exchange.sent[1]?.alsoPull).toBe("me/other");
  });

  test("that the registry does not do goes on as an upload, in the session it opened", async () => {
    await using registry = await startFakeRegistry({ lacksMounts: true });
    const bytes = noise(10_000);

    const outcome = await send(registry, bytes, { mountFrom: ["me/a"] });

    expect(outcome).toBe("uploaded");
    expect(log(registry)).toEqual(["HEAD 404", "POST 202", "PUT 201"]);
  });

  test("from several repositories is tried three times at most and leaves no session", async () => {
    await using registry = await startFakeRegistry({ lacksMounts: true });

    const outcome = await send(registry, noise(100), { mountFrom: ["a/1", "a/2", "a/3", "a/4"] });

    expect(outcome).toBe("uploaded");
    expect(registry.count("POST")).toBe(3);
    expect(registry.openUploads()).toBe(0);
  });

  test("finds the blob in the second repository and gives up the session of the first", async () => {
    await using registry = await startFakeRegistry();
    const bytes = noise(10_000);
    await send(registry, bytes, { exchange: plainExchange(registry.url, "me/second") });

    const outcome = await send(registry, bytes, { mountFrom: ["me/first", "me/second"] });

    expect(outcome).toBe("mounted");
    expect(registry.openUploads()).toBe(0);
  });

  test.each([401, 403, 404, 400, 405])("that is answered with %d is left out", async (status) => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status, method: "POST", times: status === 401 ? 2 : 1 });

    const outcome = await send(registry, noise(100), { mountFrom: ["me/other"] });

    expect(outcome).toBe("uploaded");
  });
});

describe("what an upload leaves behind", () => {
  test("is no error of its own where the registry will not have it given up", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 500, method: "DELETE" });
    registry.fault({ kind: "status", status: 403, method: "PUT" });

    const failure = await failureOf(send(registry, noise(1000)));

    expect(failure.code).toBe("forbidden");
    expect(registry.count("DELETE")).toBe(1);
  });

  test("is nothing where a second mount fails", async () => {
    await using registry = await startFakeRegistry({ lacksMounts: true });
    registry.fault({ kind: "status", status: 507, method: "POST", skip: 1 });

    const failure = await failureOf(send(registry, noise(1000), { mountFrom: ["a/1", "a/2"] }));

    expect(failure.code).toBe("registry_unavailable");
    expect(registry.openUploads()).toBe(0);
  });
});

describe("a session that is asked for", () => {
  test.each([
    ["plainly", []],
    ["by a mount", ["me/other"]],
  ])("%s is given up when its answer comes after the end", async (_name, mountFrom) => {
    await using registry = await startFakeRegistry();
    const held = Promise.withResolvers<void>();
    registry.fault({ kind: "wait", method: "POST", until: held.promise });
    const controller = new AbortController();

    const sending = failureOf(
      send(registry, noise(1000), { signal: controller.signal, mountFrom }),
    );
    await eventually(() => registry.count("POST") === 1);
    controller.abort();
    held.resolve();
    const failure = await sending;

    expect(failure.name).toBe("AbortError");
    expect(registry.count("DELETE")).toBe(1);
    expect(registry.openUploads()).toBe(0);
  });
});

describe("upload of a large blob", () => {
  const bytes = noise(PART * 3 + 1234);

  test("goes in parts, each by the location of the answer before", async () => {
    await using registry = await startFakeRegistry();

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(log(registry)).toEqual([
      "HEAD 404",
      "POST 202",
      ...Array.from({ length: 4 }, () => "PATCH 202"),
      "PUT 201",
    ]);
    const patches = registry.requests.filter(({ method }) => method === "PATCH");
    expect(patches.map(({ headers }) => headers["content-range"])).toEqual([
      `0-${PART - 1}`,
      `${PART}-${2 * PART - 1}`,
      `${2 * PART}-${3 * PART - 1}`,
      `${3 * PART}-${3 * PART + 1233}`,
    ]);
    expect(patches.map(({ headers }) => headers["content-length"])).toEqual(
      [PART, PART, PART, 1234].map(String),
    );
    expect(patches.every(({ headers }) => headers["transfer-encoding"] === undefined)).toBe(true);
    expect(bytesReceived(registry)).toBe(bytes.length);
  });

  test("uses larger parts where the registry wants them", async () => {
    await using registry = await startFakeRegistry({ minChunkBytes: 2 * PART });

    await send(registry, bytes);

    expect(registry.count("PATCH")).toBe(2);
    expect(await stored(registry, bytes)).toBe(true);
  });

  test.each(["0", "-5", "many", "1e99"])(
    "takes a smallest part of `%s` for none",
    async (minimum) => {
      await using registry = await startFakeRegistry();
      registry.fault({ kind: "headers", method: "POST", set: { "oci-chunk-min-length": minimum } });

      await send(registry, bytes);

      expect(registry.count("PATCH")).toBe(4);
    },
  );

  test("goes on where it was cut off: what arrived is not sent again", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "cut_upload", method: "PATCH", skip: 1, times: 1, after: 40_000 });
    const seen: number[] = [];

    const outcome = await send(registry, bytes, { onBytes: (done) => seen.push(done) });

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(registry.count("GET", "/uploads/")).toBe(1);
    const patches = registry.requests.filter(({ method }) => method === "PATCH");
    expect(patches[2]?.headers["content-range"]).toStartWith(`${PART + 40_000}-`);
    // What was in the socket when it was cut is all that is sent twice.
    const completed = patches.filter(({ status }) => status === 202);
    const resent = completed.reduce((sum, request) => sum + request.bytesReceived, 0);
    expect(resent).toBe(bytes.length - 40_000);
    expect(seen.at(-1)).toBe(bytes.length);
  });

  test("begins again when the session is gone, and no more than is bearable", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 404, method: "PATCH", skip: 2, times: 1 });

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(registry.count("POST")).toBe(2);
  });

  test("fails when the registry loses every session", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 404, method: "PATCH" });
    registry.fault({ kind: "status", status: 404, method: "PUT" });

    const failure = await failureOf(send(registry, bytes));

    expect(failure.code).toBe("registry_unavailable");
    expect(failure.message).toContain("lost the upload 5 times");
    expect(registry.count("POST")).toBe(5);
  });

  test("goes in one PUT where the registry refuses large parts, as GHCR does", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 416, method: "PATCH" });
    registry.fault({ kind: "status", status: 404, method: "GET", path: "/uploads/" });

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(registry.count("PATCH")).toBe(2);
    expect(registry.requests.at(-1)?.bytesReceived).toBe(bytes.length);
  });

  test.each([PART / 4, PART])(
    "goes in one PUT where the registry goes on saying that it has %d bytes, as ECR does",
    async (kept) => {
      await using registry = await startFakeRegistry();
      registry.fault({ kind: "headers", method: "PATCH", set: { range: `0-${kept - 1}` } });
      registry.fault({ kind: "status", status: 404, method: "GET", path: "/uploads/" });

      const outcome = await send(registry, bytes);

      expect(outcome).toBe("uploaded");
      expect(await stored(registry, bytes)).toBe(true);
    },
  );

  test.each([400, 405, 501])("goes in one PUT where PATCH is answered with %d", async (status) => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status, method: "PATCH" });

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(registry.count("PATCH")).toBe(1);
    expect(registry.openUploads()).toBe(0);
  });

  test("goes in one PUT where the registry takes no chunks", async () => {
    await using registry = await startFakeRegistry({ lacksPatch: true });

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(registry.requests.at(-1)?.bytesReceived).toBe(bytes.length);
  });

  test.each([
    ["in parts", bytes],
    ["in one exchange", noise(PART - 1)],
  ])("%s goes in smaller parts where a proxy takes no large ones", async (_name, content) => {
    await using registry = await startFakeRegistry();
    const limit = PART / 32;
    const tooLarge = { kind: "status", status: 413 } as const;
    registry.fault({ ...tooLarge, method: "PUT", times: content === bytes ? 0 : 1 });
    registry.fault({ ...tooLarge, method: "PATCH", times: content === bytes ? 2 : 1 });

    const outcome = await send(registry, content);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, content)).toBe(true);
    const sizes = registry.requests
      .filter(({ method, status }) => method === "PATCH" && status === 202)
      .map(({ bytesReceived: received }) => received);
    expect(Math.max(...sizes)).toBeLessThan(limit);
    expect(registry.openUploads()).toBe(0);
  });

  test("fails where a proxy takes hardly anything, and says whose limit that is", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 413, method: "PATCH" });

    const failure = await failureOf(send(registry, bytes));

    expect(failure.code).toBe("registry_unavailable");
    expect((failure as AppError).hint).toContain("client_max_body_size");
    expect(registry.count("PATCH")).toBe(3);
    expect(registry.openUploads()).toBe(0);
  });

  test("asks where it is after a 416", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 416, method: "PATCH", skip: 1, times: 1 });

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
  });

  test("copes with a registry that is wrong about what it has", async () => {
    await using registry = await startFakeRegistry();
    // The second part is cut, and the answer to the question says that only half of the first is there.
    registry.fault({ kind: "cut_upload", method: "PATCH", skip: 1, times: 1, after: 0 });
    registry.fault({
      kind: "headers",
      method: "GET",
      set: { range: `0-${PART / 2 - 1}` },
    });

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
  });

  test.each([
    ["none", undefined],
    ["of another unit", "items 0-5"],
    ["beyond what was sent", "0-999999999"],
    ["without sense", "0-99999999999999999999"],
  ])("begins again where the answer has a Range %s", async (_name, range) => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "cut_upload", method: "PATCH", skip: 1, times: 1, after: 100 });
    registry.fault({ kind: "headers", method: "GET", set: { range } });

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(registry.count("POST")).toBe(2);
  });

  test("ends where a registry never keeps what it is sent", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "headers", method: "PATCH", set: { range: "0-0" } });

    const outcome = await send(registry, bytes);

    // The whole at once is the last way.
    expect(outcome).toBe("uploaded");
    expect(registry.count("PATCH")).toBeLessThan(20);
  });

  test("that fails for good says so and leaves no session", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 503, method: "PATCH" });

    const failure = await failureOf(send(registry, bytes));

    expect(failure.code).toBe("registry_unavailable");
    expect(registry.count("PATCH")).toBe(5);
    expect(registry.openUploads()).toBe(0);
  });

  test("waits as long as a 429 asks", async () => {
    await using registry = await startFakeRegistry();
    const headers = { "retry-after": "7" };
    registry.fault({ kind: "status", status: 429, headers, method: "PATCH", times: 1 });
    const waits: number[] = [];

    const outcome = await send(registry, bytes, {
      wait: (ms) => {
        waits.push(ms);
        return Promise.resolve();
      },
    });

    expect(outcome).toBe("uploaded");
    expect(waits).toEqual([7000]);
  });

  test("a 401 amid it costs one part, not the upload", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 401, method: "PATCH", skip: 2, times: 1 });

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(registry.count("POST")).toBe(1);
    expect(registry.count("PATCH")).toBe(5);
  });

  test("a closing PUT that fails is asked about, then repeated", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 502, method: "PUT", times: 1 });

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(log(registry).slice(-3)).toEqual(["PUT 502", "HEAD 404", "PUT 201"]);
    expect(bytesReceived(registry)).toBe(bytes.length);
  });

  test("cancelling it gives the session up", async () => {
    await using registry = await startFakeRegistry();
    const controller = new AbortController();
    const source = memorySource(bytes);
    const onBytes = (done: number): void => {
      if (done > PART + 10_000) controller.abort();
    };

    const failure = await failureOf(
      upload(plainExchange(registry.url), blobOf(bytes), {
        ...TUNING,
        signal: controller.signal,
        source,
        onBytes,
      }),
    );

    expect(failure.name).toBe("AbortError");
    expect(registry.openUploads()).toBe(0);
    expect(registry.count("DELETE")).toBe(1);
    expect(registry.blobs.size).toBe(0);
    await eventually(() => source.openStreams() === 0);
  });

  test("a connection that takes nothing any more is left, and the upload goes on", async () => {
    await using registry = await startFakeRegistry();
    const exchange = plainExchange(registry.url);
    let patches = 0;
    const stuck: Exchange = {
      ...exchange,
      send: async (target, request) => {
        if (request.method !== "PATCH") return exchange.send(target, request);
        patches += 1;
        if (patches !== 2) return exchange.send(target, request);
        const body = request.body?.() as ReadableStream<Uint8Array> | undefined;
        await body?.getReader().read();
        return aborted(request.signal);
      },
    };

    const outcome = await send(registry, bytes, { exchange: stuck, stallMs: 100 });

    expect(outcome).toBe("uploaded");
    expect(await stored(registry, bytes)).toBe(true);
    expect(patches).toBeGreaterThanOrEqual(5);
  });

  test("a connection that never takes anything ends it", async () => {
    await using registry = await startFakeRegistry();
    const exchange = plainExchange(registry.url);
    const stuck: Exchange = {
      ...exchange,
      send: (target, request) =>
        request.method === "PATCH" ? aborted(request.signal) : exchange.send(target, request),
    };

    const failure = await failureOf(send(registry, bytes, { exchange: stuck, stallMs: 1 }));

    expect(failure.code).toBe("registry_unavailable");
    expect(failure.message).toContain("took no byte");
    expect(registry.openUploads()).toBe(0);
  });
});
