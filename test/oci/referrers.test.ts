import { describe, expect, test } from "bun:test";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { fallbackTag, referrers } from "../../src/oci/referrers.ts";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import { failureOf } from "../store/failure-of.ts";
import { plainExchange } from "./plain-exchange.ts";
import { blobOf, noise } from "./upload-helpers.ts";

const NEVER = new AbortController().signal;
const { digest: SUBJECT } = blobOf(noise(20));
const SIGNATURE = entry(1, "application/vnd.example.signature");
const REPORT = entry(2, "application/vnd.example.report");

function entry(seed: number, artifactType: string) {
  return { mediaType: OCI_MANIFEST, ...blobOf(noise(10, seed)), artifactType };
}

/** Answers the question with this body. */
function answerWith(registry: FakeRegistry, body: unknown, headers: Record<string, string> = {}) {
  registry.fault({
    kind: "status",
    status: 200,
    path: "/referrers/",
    headers: { "content-type": OCI_INDEX, ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
}

async function ask(registry: FakeRegistry, artifactType?: string) {
  const options = artifactType === undefined ? {} : { artifactType };
  return referrers(plainExchange(registry.url), SUBJECT, { signal: NEVER, ...options });
}

describe("referrers", () => {
  test("are what the registry lists, of the type that was asked for", async () => {
    await using registry = await startFakeRegistry();
    const members = { config: SIGNATURE, layers: [], subject: { ...SIGNATURE, digest: SUBJECT } };
    registry.addManifest("me/model:", { ...members, artifactType: "a/1" });
    registry.addManifest("me/model:", { ...members, artifactType: "a/2" });

    expect(await ask(registry)).toHaveLength(2);
    expect((await ask(registry, "a/2")).map(({ artifactType }) => artifactType)).toEqual(["a/2"]);
    expect(registry.requests.at(-1)?.query.get("artifactType")).toBe("a/2");
    expect(registry.requests).toHaveLength(2);
  });

  test("are filtered here where the registry does not", async () => {
    await using registry = await startFakeRegistry();
    answerWith(registry, { schemaVersion: 2, manifests: [SIGNATURE, REPORT] });

    expect(await ask(registry, REPORT.artifactType)).toEqual([REPORT]);
  });

  test("are not filtered again where the registry did", async () => {
    await using registry = await startFakeRegistry();
    const { artifactType: _, ...untyped } = SIGNATURE;
    answerWith(registry, { manifests: [untyped] }, { "oci-filters-applied": "artifactType" });

    expect(await ask(registry, SIGNATURE.artifactType)).toEqual([untyped]);
  });

  test.each([404, 405, 400, 501])("come from the subject's tag after a %d", async (status) => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status, path: "/referrers/" });
    const list = { manifests: [SIGNATURE, REPORT] };
    registry.addManifest(`me/model:${fallbackTag(SUBJECT)}`, list, OCI_INDEX);

    expect(await ask(registry)).toEqual([SIGNATURE, REPORT]);
    expect(await ask(registry, SIGNATURE.artifactType)).toEqual([SIGNATURE]);
  });

  test("come from the tag where the registry answers with a page of its own", async () => {
    await using registry = await startFakeRegistry();
    answerWith(registry, "<html>hello</html>", { "content-type": "text/html" });

    expect(await ask(registry)).toEqual([]);
    expect(registry.requests.at(-1)?.path).toEndWith(`/manifests/${fallbackTag(SUBJECT)}`);
  });

  test("are none where there is neither", async () => {
    await using registry = await startFakeRegistry({ lacksReferrers: true });

    expect(await ask(registry)).toEqual([]);
  });

  test("come in pages", async () => {
    await using registry = await startFakeRegistry();
    const next = `</v2/me/model/referrers/${SUBJECT}?page=2>; rel="next"`;
    registry.fault({
      kind: "status",
      status: 200,
      path: "/referrers/",
      times: 1,
      headers: { link: next },
      body: JSON.stringify({ manifests: [SIGNATURE] }),
    });
    answerWith(registry, { manifests: [REPORT] });

    expect(await ask(registry)).toEqual([SIGNATURE, REPORT]);
    expect(registry.requests.at(-1)?.query.get("page")).toBe("2");
  });

  test.each(["http://evil.example/next", "//127.0.0.2/next", "file:///etc/passwd"])(
    "that go on at %s are given up, and nobody is asked there",
    async (address) => {
      await using registry = await startFakeRegistry();
      answerWith(registry, { manifests: [] }, { link: `<${address}>; rel="next"` });

      const failure = await failureOf(ask(registry));

      expect(failure.message).toEndWith("it goes on at another host");
      expect(registry.requests).toHaveLength(1);
    },
  );

  test("whose registry calls itself otherwise than it is asked for come from where it is", async () => {
    await using registry = await startFakeRegistry();
    const { hostname, pathname } = new URL(`${registry.url}/v2/me/model/referrers/${SUBJECT}`);
    registry.fault({
      kind: "status",
      status: 200,
      path: "/referrers/",
      times: 1,
      headers: { link: `<https://${hostname}${pathname}?page=2>; rel="next"` },
      body: JSON.stringify({ manifests: [SIGNATURE] }),
    });
    answerWith(registry, { manifests: [REPORT] });

    expect(await ask(registry)).toEqual([SIGNATURE, REPORT]);
  });

  test("that go in a circle are given up", async () => {
    await using registry = await startFakeRegistry();
    const link = `</v2/me/model/referrers/${SUBJECT}>; rel="next"`;
    answerWith(registry, { manifests: [] }, { link });

    const failure = await failureOf(ask(registry));

    expect(failure.code).toBe("registry_unavailable");
    expect(failure.message).toContain("no end");
    expect(registry.requests.length).toBeLessThan(100);
  });

  test("that are too many are given up", async () => {
    await using registry = await startFakeRegistry();
    answerWith(registry, { manifests: Array.from({ length: 16_385 }, () => 0) });

    const failure = await failureOf(ask(registry));

    expect(failure.message).toContain("too many");
  });

  test.each([
    ["a number", [7]],
    ["without a digest", [{ mediaType: OCI_MANIFEST, size: 1 }]],
    ["of a negative size", [{ ...SIGNATURE, size: -1 }]],
  ])("with an entry that is %s are no list", async (_name, manifests) => {
    await using registry = await startFakeRegistry();
    answerWith(registry, { manifests });

    const failure = await failureOf(ask(registry));

    expect(failure.code).toBe("registry_unavailable");
    expect(failure.message).toContain("entry 0");
  });

  test("whose second page is no index are no list", async () => {
    await using registry = await startFakeRegistry();
    const link = `</v2/me/model/referrers/${SUBJECT}?page=2>; rel=next`;
    registry.fault({
      kind: "status",
      status: 200,
      path: "/referrers/",
      times: 1,
      headers: { link },
      body: JSON.stringify({ manifests: [SIGNATURE] }),
    });
    answerWith(registry, "[]");

    const failure = await failureOf(ask(registry));

    expect(failure.message).toContain("no index");
  });

  test("may not be read by everybody", async () => {
    await using registry = await startFakeRegistry();
    registry.fault({ kind: "status", status: 403, path: "/referrers/" });

    const failure = await failureOf(ask(registry));

    expect(failure.code).toBe("forbidden");
  });
});
