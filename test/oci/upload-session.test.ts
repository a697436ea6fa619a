import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { Exchange } from "../../src/oci/exchange.ts";
import type { UploadSource } from "../../src/oci/registry.ts";
import { upload, type UploadTuning } from "../../src/oci/upload.ts";
import { UploadSession } from "../../src/oci/upload-session.ts";
import { startFakeRegistry } from "../fakes/registry.ts";
import { failureOf } from "../store/failure-of.ts";
import { plainExchange } from "./plain-exchange.ts";
import { blobOf, memorySource, noise } from "./upload-helpers.ts";

const PART = 16 * 1024;
const NEVER = new AbortController().signal;
const TUNING: UploadTuning = { partBytes: PART, wait: () => Promise.resolve() };
const SMALL = noise(1000);
const LARGE = noise(PART * 2 + 77);

async function send(exchange: Exchange, bytes: Uint8Array, source?: UploadSource) {
  return upload(exchange, blobOf(bytes), {
    ...TUNING,
    signal: NEVER,
    source: source ?? memorySource(bytes),
  });
}

/** An answer as fetch makes it: `url` cannot be given to the constructor. */
function answer(url: string, headers: Record<string, string>, status = 202): Response {
  const response = new Response(null, { status, headers });
  Object.defineProperty(response, "url", { value: url });
  return response;
}

/** Where the next exchange of a session goes that was opened with this answer. */
async function targetAfter(url: string, location: string): Promise<string> {
  const targets: string[] = [];
  const exchange: Exchange = {
    registry: "registry.example.com",
    repository: "me/model",
    send: (target) => {
      targets.push(target);
      return Promise.resolve(new Response(null, { status: 201 }));
    },
  };
  const options = { digest: digestOf(SMALL), signal: NEVER, commitMs: 1000 };
  const session = new UploadSession(exchange, answer(url, { location }), options);
  await session.finish();
  return targets[0] ?? "";
}

const POST_URL = "https://registry.example.com/v2/me/model/blobs/uploads/";
const DIGEST = `digest=${encodeURIComponent(digestOf(SMALL))}`;

describe("the location of an upload", () => {
  test.each([
    ["/v2/me/model/blobs/uploads/1", "https://registry.example.com/v2/me/model/blobs/uploads/1?"],
    ["1?state=a", "https://registry.example.com/v2/me/model/blobs/uploads/1?state=a&"],
    ["//cdn.example.com/x", "https://cdn.example.com/x?"],
    ["https://cdn.example.com/x?sig=a%2Fb+c==", "https://cdn.example.com/x?sig=a%2Fb+c==&"],
    ["https://u:p@cdn.example.com/x#part", "https://cdn.example.com/x?"],
    // A proxy that speaks TLS for a registry which does not know of it.
    ["http://registry.example.com/v2/x", "https://registry.example.com/v2/x?"],
  ])("`%s` is followed with its query as it is", async (location, expected) => {
    expect(await targetAfter(POST_URL, location)).toBe(`${expected}${DIGEST}`);
  });

  test("keeps the port of the registry when the scheme is put right", async () => {
    const target = await targetAfter("https://r.example.com:5000/v2/", "http://r.example.com/v2/x");

    expect(target).toStartWith("https://r.example.com:5000/v2/x?");
  });

  test("may be unencrypted where the registry is", async () => {
    const target = await targetAfter("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5001/x");

    expect(target).toStartWith("http://127.0.0.1:5001/x?");
  });

  test.each([
    ["", "does not say where"],
    ["file:///etc/passwd", "does not say where"],
    ["http://elsewhere.example.com/x", "unencrypted"],
  ])("`%s` is refused", async (location, reason) => {
    const failure = await failureOf(targetAfter(POST_URL, location));

    expect(failure.code).toBe("registry_unavailable");
    expect(failure.message).toContain(reason);
    expect((failure as AppError).details?.["permanent"]).toBe(true);
  });

  test("is needed: without one there is nothing to retry", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "headers", method: "POST", set: { location: undefined } });

    const failure = await failureOf(send(plainExchange(registry.url), SMALL));

    expect(failure.message).toContain("does not say where to upload to");
    expect(registry.count("POST")).toBe(1);
  });

  test("may be absolute", async () => {
    const url = { value: "" };
    await using registry = await startFakeRegistry({ location: (path) => `${url.value}${path}` });
    url.value = registry.url;

    const outcome = await send(plainExchange(registry.url), LARGE);

    expect(outcome).toBe("uploaded");
    expect(registry.count("PATCH")).toBe(3);
  });
});

describe("what is uploaded", () => {
  test.each([
    ["in one exchange", SMALL],
    ["in parts", LARGE],
  ])("%s is never published under another digest than its own", async (_name, bytes) => {
    await using registry = await startFakeRegistry();
    const damaged = bytes.slice();
    damaged[10] = 1 ^ (damaged[10] ?? 0);
    const source = memorySource(damaged);

    const failure = await failureOf(send(plainExchange(registry.url), bytes, source));

    expect(failure.code).toBe("digest_mismatch");
    expect(failure.message).toContain(digestOf(damaged));
    expect((failure as AppError).hint).toContain("tug verify");
    expect(registry.blobs.size).toBe(0);
    expect(registry.openUploads()).toBe(0);
    // Parts are never closed; of a single exchange the last piece is held back.
    expect(registry.requests.some(({ query }) => query.has("digest"))).toBe(bytes === SMALL);
    expect(registry.count("POST")).toBe(1);
  });

  test("is sent once more where the registry says that other bytes arrived", async () => {
    await using registry = await startFakeRegistry();
    const body = JSON.stringify({ errors: [{ code: "DIGEST_INVALID", message: "no" }] });
    registry.fault({ kind: "status", status: 400, method: "PUT", times: 1, body });

    const outcome = await send(plainExchange(registry.url), LARGE);

    expect(outcome).toBe("uploaded");
    expect(registry.count("POST")).toBe(2);
  });

  test("is a digest mismatch if the registry says so twice", async () => {
    await using registry = await startFakeRegistry();
    const body = JSON.stringify({ errors: [{ code: "DIGEST_INVALID", message: "no" }] });
    registry.fault({ kind: "status", status: 400, method: "PUT", body });

    const failure = await failureOf(send(plainExchange(registry.url), SMALL));

    expect(failure.code).toBe("digest_mismatch");
    expect(registry.count("PUT")).toBe(2);
    expect(registry.openUploads()).toBe(0);
  });

  test("is checked against the digest that the registry answers with", async () => {
    await using registry = await startFakeRegistry();
    const set = { "docker-content-digest": digestOf(LARGE) };
    registry.fault({ kind: "headers", method: "PUT", set });

    const failure = await failureOf(send(plainExchange(registry.url), SMALL));

    expect(failure.code).toBe("digest_mismatch");
    expect(failure.message).toContain("stored");
  });

  test.each([undefined, "sha512:abc", "nonsense"])(
    "does not mind `%s` as that digest",
    async (value) => {
      await using registry = await startFakeRegistry();
      const set = { "docker-content-digest": value };
      registry.fault({ kind: "headers", method: "PUT", set });

      const outcome = await send(plainExchange(registry.url), SMALL);

      expect(outcome).toBe("uploaded");
    },
  );

  test.each([
    ['{"errors":[{"code":"SIZE_EXCEEDED","message":"too\\u001b[31m large"}]}', "SIZE_EXCEEDED too"],
    ["<html>no</html>", "it refused the upload"],
    ["[1]", "it refused the upload"],
  ])("a refusal is told in the registry's words: %s", async (body, words) => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 400, method: "PUT", body });

    const failure = await failureOf(send(plainExchange(registry.url), SMALL));

    expect(failure.code).toBe("registry_unavailable");
    expect(failure.message).toContain(words);
    // oxlint-disable-next-line no-control-regex -- these must not reach a terminal
    expect(failure.message).not.toMatch(/[\u0000-\u001f]/);
    expect(registry.count("PUT")).toBe(1);
  });
});

describe("a source", () => {
  function failing(at: number, error: Error): UploadSource {
    const source = memorySource(LARGE, 1000);
    return {
      size: LARGE.length,
      open: (start, end) => {
        let position = start;
        return source.open(start, end).pipeThrough(
          new TransformStream({
            transform(chunk: Uint8Array, controller) {
              position += chunk.length;
              if (position > at) throw error;
              controller.enqueue(chunk);
            },
          }),
        );
      },
    };
  }

  test("that fails ends the upload with its own error", async () => {
    await using registry = await startFakeRegistry();
    const error = new AppError("conflict", "cannot read it: it has changed");

    const failure = await failureOf(
      send(plainExchange(registry.url), LARGE, failing(PART + 3000, error)),
    );

    expect(failure).toBe(error);
    expect(registry.openUploads()).toBe(0);
    expect(registry.count("PATCH")).toBe(2);
  });

  test("that may come back is asked again, where the registry is", async () => {
    await using registry = await startFakeRegistry();
    const error = new AppError("registry_unavailable", "cannot read it: it broke off");
    const good = memorySource(LARGE);
    const bad = failing(PART + 3000, error);
    let opened = 0;
    const source: UploadSource = {
      size: LARGE.length,
      open: (start, end) => {
        opened += 1;
        return (opened === 2 ? bad : good).open(start, end);
      },
    };

    const outcome = await send(plainExchange(registry.url), LARGE, source);

    expect(outcome).toBe("uploaded");
    expect(good.spans.length).toBeGreaterThan(1);
  });

  test.each([
    ["shorter", LARGE.slice(0, -5)],
    ["longer", noise(LARGE.length + 5)],
  ])("that is %s than the blob is no source of it", async (name, bytes) => {
    await using registry = await startFakeRegistry();
    const source: UploadSource = {
      size: LARGE.length,
      open: (start, end) =>
        memorySource(bytes, name === "longer" ? PART * 4 : 4096).open(
          start,
          name === "longer" ? end + 5 : Math.min(end, bytes.length),
        ),
    };

    const failure = await failureOf(send(plainExchange(registry.url), LARGE, source));

    expect(failure.code).toBe("conflict");
    expect(registry.blobs.size).toBe(0);
    expect(registry.openUploads()).toBe(0);
  });

  test("may give empty pieces", async () => {
    await using registry = await startFakeRegistry();
    let isEmpty = false;
    const source: UploadSource = {
      size: SMALL.length,
      open: () => {
        let at = 0;
        return new ReadableStream<Uint8Array>({
          pull(controller) {
            isEmpty = !isEmpty;
            const piece = isEmpty ? new Uint8Array() : SMALL.slice(at, at + 400);
            at += piece.length;
            controller.enqueue(piece);
            if (at === SMALL.length) controller.close();
          },
        });
      },
    };

    const outcome = await send(plainExchange(registry.url), SMALL, source);

    expect(outcome).toBe("uploaded");
  });

  test("is read by the span that is sent, and left when the registry has enough", async () => {
    await using registry = await startFakeRegistry({ lacksPatch: true });
    const source = memorySource(LARGE);

    await send(plainExchange(registry.url), LARGE, source);

    expect(source.spans).toEqual([
      [0, PART],
      [0, LARGE.length],
    ]);
    expect(source.openStreams()).toBe(0);
  });
});
