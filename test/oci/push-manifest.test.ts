import { describe, expect, test } from "bun:test";
import type { AppError } from "../../src/errors.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { Exchange } from "../../src/oci/exchange.ts";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { pushManifest } from "../../src/oci/push-manifest.ts";
import { fallbackTag, referrers } from "../../src/oci/referrers.ts";
import {
  type FakeRegistry,
  type FakeRegistryOptions,
  startFakeRegistry,
} from "../fakes/registry.ts";
import { failureOf } from "../store/failure-of.ts";
import { plainExchange } from "./plain-exchange.ts";
import { blobOf, noise } from "./upload-helpers.ts";

const NEVER = new AbortController().signal;
const SUBJECT = { mediaType: OCI_MANIFEST, ...blobOf(noise(20)) };
const CONFIG = { mediaType: "application/vnd.example.config", ...blobOf(noise(10)) };

function manifestOf(members: object = {}): Uint8Array {
  const base = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: CONFIG, layers: [] };
  return encodeCanonical({ ...base, ...members });
}

/** A registry that has the config of these manifests. */
async function start(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const registry = await startFakeRegistry(options);
  await registry.addBlob(noise(10));
  return registry;
}

async function push(exchange: Exchange, bytes: Uint8Array, ref = "1") {
  return pushManifest(exchange, { bytes, mediaType: OCI_MANIFEST }, { ref, signal: NEVER });
}

describe("pushManifest", () => {
  test("puts the bytes as they are, under their media type", async () => {
    await using registry = await start();
    const bytes = new TextEncoder().encode(`{ "schemaVersion": 2,\n "layers": [] }\n`);

    const digest = await push(plainExchange(registry.url), bytes);

    expect(digest).toBe(digestOf(bytes));
    expect(registry.tags.get("me/model:1")).toBe(digest);
    expect(registry.manifests.get(`me/model@${digest}`)?.bytes).toEqual(new Uint8Array(bytes));
    expect(registry.requests[0]?.headers["content-type"]).toBe(OCI_MANIFEST);
    expect(registry.requests).toHaveLength(1);
  });

  test("takes the digest as the reference", async () => {
    await using registry = await start();
    const bytes = manifestOf();

    await push(plainExchange(registry.url), bytes, digestOf(bytes));

    expect(registry.tags.size).toBe(0);
    expect(registry.manifests.size).toBe(1);
  });

  test("refuses another digest as the reference before it asks anybody", async () => {
    await using registry = await start();

    const failure = await failureOf(
      push(plainExchange(registry.url), manifestOf(), SUBJECT.digest),
    );

    expect(failure.code).toBe("digest_mismatch");
    expect(registry.requests).toHaveLength(0);
  });

  test("refuses more than registries take", async () => {
    await using registry = await start();
    const bytes = new Uint8Array(4 * 1024 * 1024 + 1);

    const failure = await failureOf(push(plainExchange(registry.url), bytes));

    expect(failure.code).toBe("request_too_large");
    expect(registry.requests).toHaveLength(0);
  });

  test("fails if the registry stored something else", async () => {
    await using registry = await start();
    const set = { "docker-content-digest": SUBJECT.digest };
    registry.fault({ kind: "headers", method: "PUT", set });

    const failure = await failureOf(push(plainExchange(registry.url), manifestOf()));

    expect(failure.code).toBe("digest_mismatch");
    expect(failure.message).toContain("stored");
  });

  test("does not miss a digest that the registry does not send", async () => {
    await using registry = await start();
    const set = { "docker-content-digest": undefined };
    registry.fault({ kind: "headers", method: "PUT", set });

    const digest = await push(plainExchange(registry.url), manifestOf());

    expect(digest).toBe(digestOf(manifestOf()));
  });

  test.each([
    ["that is no descriptor", { subject: { digest: "sha256:1" } }],
    ["with annotations that are none", { subject: SUBJECT, annotations: { a: 1 } }],
  ])("a subject %s is refused before anything is published", async (_name, members) => {
    await using registry = await start();

    const failure = await failureOf(push(plainExchange(registry.url), manifestOf(members)));

    expect(failure.code).toBe("invalid_model_file");
    expect(registry.requests).toHaveLength(0);
  });
});

describe("pushManifest of a referrer", () => {
  const SIGNATURE = manifestOf({
    artifactType: "application/vnd.example.signature",
    subject: SUBJECT,
    annotations: { by: "me" },
  });

  test("leaves the list to a registry that keeps one", async () => {
    await using registry = await start();
    const exchange = plainExchange(registry.url);

    await push(exchange, SIGNATURE, digestOf(SIGNATURE));

    expect(registry.requests).toHaveLength(1);
    expect(registry.tags.size).toBe(0);
    const found = await referrers(exchange, SUBJECT.digest, { signal: NEVER });
    expect(found.map(({ digest }) => digest)).toEqual([digestOf(SIGNATURE)]);
  });

  test("keeps the list under the subject's tag where the registry does not", async () => {
    await using registry = await start({ lacksReferrers: true });
    const exchange = plainExchange(registry.url);
    const second = manifestOf({ subject: SUBJECT });

    await push(exchange, SIGNATURE, digestOf(SIGNATURE));
    await push(exchange, second, digestOf(second));
    await push(exchange, second, digestOf(second));

    const tag = fallbackTag(SUBJECT.digest);
    expect(tag).toMatch(/^sha256-[0-9a-f]{64}$/);
    const list = registry.manifests.get(`me/model@${registry.tags.get(`me/model:${tag}`)}`);
    expect(list?.mediaType).toBe(OCI_INDEX);
    expect(JSON.parse(Buffer.from(list?.bytes ?? []).toString())).toEqual({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [
        {
          mediaType: OCI_MANIFEST,
          digest: digestOf(SIGNATURE),
          size: SIGNATURE.length,
          artifactType: "application/vnd.example.signature",
          annotations: { by: "me" },
        },
        {
          mediaType: OCI_MANIFEST,
          digest: digestOf(second),
          size: second.length,
          // A manifest that has no type of its own has its config's.
          artifactType: CONFIG.mediaType,
        },
      ],
    });
    expect(await referrers(exchange, SUBJECT.digest, { signal: NEVER })).toHaveLength(2);
  });

  test("does not overwrite what somebody else listed meanwhile", async () => {
    await using registry = await start({ lacksReferrers: true });
    const other = { mediaType: OCI_MANIFEST, ...blobOf(noise(30)) };
    const index = { manifests: [other], annotations: { kept: "yes" } };
    registry.addManifest(`me/model:${fallbackTag(SUBJECT.digest)}`, index, OCI_INDEX);
    registry.fault({ kind: "headers", method: "GET", set: { etag: '"first"' } });
    const lost = registry.fault({
      kind: "status",
      status: 412,
      method: "PUT",
      path: "/manifests/sha256-",
      times: 1,
    });

    await push(plainExchange(registry.url), SIGNATURE, digestOf(SIGNATURE));

    expect(lost.hits).toBe(1);
    expect(registry.count("GET")).toBe(2);
    expect(registry.requests.at(-1)?.headers["if-match"]).toBe('"first"');
    const digest = registry.tags.get(`me/model:${fallbackTag(SUBJECT.digest)}`);
    const list = registry.manifests.get(`me/model@${digest}`)?.bytes ?? new Uint8Array();
    expect(JSON.parse(Buffer.from(list).toString())).toMatchObject({
      annotations: { kept: "yes" },
      manifests: [other, { digest: digestOf(SIGNATURE) }],
    });
  });

  test("gives up when others never stop changing the list", async () => {
    await using registry = await start({ lacksReferrers: true });
    registry.addManifest(`me/model:${fallbackTag(SUBJECT.digest)}`, { manifests: [] }, OCI_INDEX);
    registry.fault({ kind: "headers", method: "GET", set: { etag: '"first"' } });
    registry.fault({ kind: "status", status: 412, method: "PUT", path: "/manifests/sha256-" });

    const failure = await failureOf(
      push(plainExchange(registry.url), SIGNATURE, digestOf(SIGNATURE)),
    );

    expect(failure.code).toBe("conflict");
    expect(registry.count("GET")).toBe(4);
  });

  test("does not replace something else that has the tag", async () => {
    await using registry = await start({ lacksReferrers: true });
    registry.addManifest(`me/model:${fallbackTag(SUBJECT.digest)}`, { layers: [] });

    const failure = await failureOf(
      push(plainExchange(registry.url), SIGNATURE, digestOf(SIGNATURE)),
    );

    expect(failure.code).toBe("conflict");
    expect((failure as AppError).hint).toContain("Remove that tag");
  });
});
