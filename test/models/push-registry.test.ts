import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { copyModel } from "../../src/models/copy.ts";
import { pushModel } from "../../src/models/push.ts";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import { OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { upload } from "../../src/oci/upload.ts";
import { Store, type StoredModel } from "../../src/store/store.ts";
import {
  dockerRegistry,
  type DockerRegistry,
  startDockerRegistry,
} from "../helpers/docker-registry.ts";
import { runSkopeo, skopeo } from "../helpers/skopeo.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { describeIf, testIf } from "../helpers/test-if.ts";
import { plainExchange } from "../oci/plain-exchange.ts";
import { blobOf, memorySource, noise } from "../oci/upload-helpers.ts";
import { commitSample } from "../store/sample-model.ts";
import { registryClient } from "./remote-registry.ts";

const NEVER = new AbortController().signal;

describeIf(dockerRegistry !== null, "docker-registry is not installed")(
  "against docker-registry",
  () => {
    let registry: DockerRegistry;
    let directory: Awaited<ReturnType<typeof tempDir>>;
    let store: Store;
    let model: StoredModel;

    beforeAll(async () => {
      registry = await startDockerRegistry();
      directory = await tempDir();
      store = Store.open(join(directory.path, "models"));
      model = await commitSample(store, {
        name: `${registry.host}/me/m:1`,
        weights: "w".repeat(100_000),
      });
      await pushModel(store, registryClient(), { name: model.digest, signal: NEVER });
    });

    afterAll(async () => {
      await registry[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    });

    const withSkopeo = testIf(skopeo !== null, "skopeo is not installed");

    withSkopeo("what is pushed is what skopeo reads", async () => {
      const source = `docker://${registry.host}/me/m:1`;

      const raw = await runSkopeo("inspect", "--raw", "--tls-verify=false", source);

      expect(raw).toEqual(Buffer.from(await store.readBlob(model.manifestDescriptor)));
    });

    test("pushing it again sends the manifest alone", async () => {
      const result = await pushModel(store, registryClient(), {
        name: model.digest,
        signal: NEVER,
      });

      expect(result.uploaded_bytes).toBe(model.manifestDescriptor.size);
    });

    test("under another name it is mounted", async () => {
      const result = await pushModel(store, registryClient(), {
        name: model.digest,
        to: `${registry.host}/me/other:1`,
        signal: NEVER,
      });

      expect(result.uploaded_bytes).toBe(model.manifestDescriptor.size);
    });

    test("a copy in another registry has the same digest", async () => {
      await using target = await startDockerRegistry();
      const events: string[] = [];

      const result = await copyModel(
        registryClient(),
        { source: `${registry.host}/me/m:1`, target: `${target.host}/you/copy:2` },
        {
          signal: NEVER,
          onProgress: (event) => {
            if (event.type === "progress") events.push(event.phase);
          },
        },
      );

      const { registry: client } = registryClient();
      const copied = client.repository(parseReference(`${target.host}/you/copy`));
      const { digest } = await copied.resolve("2", { signal: NEVER });
      expect(digest).toBe(model.digest);
      expect(result.digest).toBe(model.digest);
      expect(events.filter((phase) => phase === "copied")).toHaveLength(2);
    });

    test("a blob goes in parts", async () => {
      const bytes = noise(3_500_000);
      const exchange = plainExchange(registry.url, "me/parts");
      const source = memorySource(bytes, 256 * 1024);

      const outcome = await upload(exchange, blobOf(bytes), {
        signal: NEVER,
        source,
        partBytes: 1024 * 1024,
      });

      const methods = exchange.sent.map(({ method }) => method);
      expect(outcome).toBe("uploaded");
      expect(methods).toEqual(["HEAD", "POST", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"]);
      const response = await fetch(`${registry.url}/v2/me/parts/blobs/${blobOf(bytes).digest}`);
      expect(blobOf(await response.bytes())).toEqual(blobOf(bytes));
    });

    test("an empty blob is a blob", async () => {
      const exchange = plainExchange(registry.url, "me/parts");
      const bytes = new Uint8Array();
      const source = memorySource(bytes);

      const outcome = await upload(exchange, blobOf(bytes), { signal: NEVER, source });

      expect(outcome).toBe("uploaded");
    });

    test("what refers to a model is found by the tag that is kept for it", async () => {
      const { registry: client } = registryClient();
      const repository = client.repository(parseReference(`${registry.host}/me/m:1`));
      const { config, layers } = model.manifest;
      const { digest, size } = model.manifestDescriptor;
      const subject = { mediaType: OCI_MANIFEST, digest, size };
      const artifactType = "application/vnd.example.report";
      const bytes = encodeCanonical({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        artifactType,
        config,
        layers,
        subject,
      });

      const report = await repository.pushManifest(
        { bytes, mediaType: OCI_MANIFEST },
        blobOf(bytes).digest,
        { signal: NEVER },
      );

      const found = await repository.referrers(digest, { signal: NEVER, artifactType });
      expect(found.map((entry) => entry.digest)).toEqual([report]);
      const none = await repository.referrers(digest, { signal: NEVER, artifactType: "other" });
      expect(none).toEqual([]);
    });
  },
);
