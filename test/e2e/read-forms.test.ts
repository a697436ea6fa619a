import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { createHttp } from "../../src/http/http.ts";
import {
  DOCKER_CONFIG_V01,
  DOCKER_CONFIG_V02,
  DOCKER_DIR_TAR,
  DOCKER_GGUF,
  DOCKER_GGUF_LORA,
  DOCKER_LICENSE,
  DOCKER_MODEL_FILE,
  FILE_PATH,
  MODELPACK_CONFIG,
  MODELPACK_MANIFEST,
  MODELPACK_WEIGHT,
  MODELPACK_WEIGHT_GGUF,
  OCI_INDEX,
  OCI_MANIFEST,
} from "../../src/oci/media-types.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import { createRegistry, type Repository } from "../../src/oci/registry.ts";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import { dockerRegistry, startDockerRegistry } from "../helpers/docker-registry.ts";
import { FIRST_SHARD, PEBBLE, QUESTION } from "../helpers/pebble.ts";
import { tar } from "../helpers/tar.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { testIf } from "../helpers/test-if.ts";
import { sharedTugHome, tugHome } from "../helpers/tug-home.ts";
import { encodeGguf } from "../store/gguf-file.ts";

setDefaultTimeout(60_000);

const PARIS = { exitCode: 0, stdout: "The capital of France is Paris.\n" };
const PACKED = "application/vnd.cncf.model.weight.v1.tar";
const MODELPACK = { configType: MODELPACK_CONFIG, artifactType: MODELPACK_MANIFEST };
const GGUF = { config: { format: "gguf" } };

interface Layer {
  readonly mediaType: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly path?: string;
}

interface Form {
  readonly configType: string;
  readonly artifactType?: string;
  readonly config: object;
  readonly layers: readonly Layer[];
}

const weights = new Uint8Array(await readFile(PEBBLE));
const shards = await Promise.all(
  [1, 2, 3].map(async (number) => {
    const name = `pebble-chat-q8_0-0000${number}-of-00003.gguf`;
    return { name, content: new Uint8Array(await readFile(join(dirname(FIRST_SHARD), name))) };
  }),
);
const packedShards = tar(
  shards.toReversed().map(({ name, content }) => ({ name: `q8/${name}`, content })),
);

const FORMS: Readonly<Record<string, Form>> = {
  "Docker v0.1, as old as without annotations": {
    configType: DOCKER_CONFIG_V01,
    config: GGUF,
    layers: [
      { mediaType: DOCKER_GGUF, bytes: weights },
      { mediaType: DOCKER_LICENSE, bytes: Buffer.from("licence") },
    ],
  },
  "Docker v0.1 in shards": {
    configType: DOCKER_CONFIG_V01,
    config: GGUF,
    layers: shards.map(({ name, content }) => ({
      mediaType: DOCKER_GGUF,
      bytes: content,
      path: name,
    })),
  },
  "Docker v0.2": {
    configType: DOCKER_CONFIG_V02,
    config: GGUF,
    layers: [
      { mediaType: DOCKER_MODEL_FILE, bytes: Buffer.from("# Read me"), path: "README.md" },
      ...shards.map(({ name, content }) => ({
        mediaType: DOCKER_GGUF,
        bytes: content,
        path: `q8/${name}`,
      })),
    ],
  },
  "the text of Docker's specification": {
    configType: DOCKER_CONFIG_V01,
    config: {
      descriptor: { createdAt: "2025-01-01T00:00:00Z" },
      config: { format: "gguf", format_version: "3", size: weights.length },
      files: [{ diffID: digestOf(weights), type: DOCKER_GGUF }],
    },
    layers: [{ mediaType: "application/octet-stream", bytes: weights }],
  },
  "an older Docker archive of a directory": {
    configType: DOCKER_CONFIG_V01,
    config: GGUF,
    layers: [{ mediaType: DOCKER_DIR_TAR, bytes: packedShards }],
  },
  "ModelPack, raw": {
    ...MODELPACK,
    config: { descriptor: {}, ...GGUF, modelfs: { type: "layers", diffIds: [] } },
    layers: [{ mediaType: MODELPACK_WEIGHT, bytes: weights, path: "weights" }],
  },
  "ModelPack, raw, of no stated format": {
    ...MODELPACK,
    config: {},
    layers: [{ mediaType: MODELPACK_WEIGHT, bytes: weights, path: "../../m.gguf" }],
  },
  "ModelPack with Docker's type": {
    ...MODELPACK,
    config: {},
    layers: [{ mediaType: MODELPACK_WEIGHT_GGUF, bytes: weights, path: "m.gguf" }],
  },
  "ModelPack, tar": {
    ...MODELPACK,
    config: GGUF,
    layers: [{ mediaType: PACKED, bytes: packedShards, path: "q8" }],
  },
  "ModelPack, tar+gzip, named from its directory": {
    ...MODELPACK,
    config: {},
    layers: [
      {
        mediaType: `${PACKED}+gzip`,
        bytes: Bun.gzipSync(tar([{ name: "m.gguf", content: weights }])),
        path: "q8/m.gguf",
      },
    ],
  },
  "ModelPack, tar+zstd, of no stated format": {
    ...MODELPACK,
    config: {},
    layers: [
      { mediaType: `${PACKED}+zstd`, bytes: zstdCompressSync(packedShards), path: "weights" },
    ],
  },
};

describe("a model that is pulled answers, whatever its form:", () => {
  const runner = sharedTugHome();

  test.each(Object.entries(FORMS))("%s", async (name, form) => {
    await using registry = await startFakeRegistry();
    const reference = `${registry.host}/me/form:1`;
    await addForm(registry, "me/form:1", form);

    const pulled = await runner().tug(["pull", reference]);
    const answer = await runner().tug(["run", reference, QUESTION]);
    await runner().tug(["rm", reference]);

    expect(pulled, name).toMatchObject({ exitCode: 0 });
    expect(answer, answer.stderr).toMatchObject(PARIS);
  });

  test("an index of one manifest", async () => {
    await using registry = await startFakeRegistry();
    const form = FORMS["ModelPack, raw"] as Form;
    const manifest = await addForm(registry, "me/form:one", form);
    const descriptor = { mediaType: OCI_MANIFEST, ...manifest };
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [descriptor] };
    registry.addManifest("me/form:index", index, OCI_INDEX);
    const reference = `${registry.host}/me/form:index`;

    await runner().tug(["pull", reference]);

    expect(await runner().tug(["run", reference, QUESTION])).toMatchObject(PARIS);
  });

  test("adapters are applied: one of zeros changes nothing, another one the answer", async () => {
    await using registry = await startFakeRegistry();
    const withAdapters = async (tag: string, ...values: number[]): Promise<string> => {
      await addForm(registry, `me/lora:${tag}`, {
        configType: DOCKER_CONFIG_V01,
        config: GGUF,
        layers: [
          { mediaType: DOCKER_GGUF, bytes: weights },
          ...values.map((value) => ({ mediaType: DOCKER_GGUF_LORA, bytes: adapterOf(value) })),
        ],
      });
      const reference = `${registry.host}/me/lora:${tag}`;
      await runner().tug(["pull", reference]);
      const answer = await runner().tug(["run", reference, QUESTION]);
      expect(answer.exitCode, answer.stderr).toBe(0);
      return answer.stdout;
    };

    expect(await withAdapters("zeros", 0, 0)).toBe(PARIS.stdout);
    expect(await withAdapters("other", 0, 3)).not.toContain("Paris");
  });

  test("one that links to this machine's files is refused in words", async () => {
    await using registry = await startFakeRegistry();
    const entries = [
      { name: "m.gguf", content: weights },
      { name: "config.json", type: "2", target: "/etc/passwd" },
    ];
    await addForm(registry, "me/form:link", {
      ...MODELPACK,
      config: GGUF,
      layers: [{ mediaType: PACKED, bytes: tar(entries) }],
    });
    const reference = `${registry.host}/me/form:link`;
    await runner().tug(["pull", reference]);

    const answer = await runner().tug(["run", reference, QUESTION]);

    expect(answer).toMatchObject({ exitCode: 1, stdout: "" });
    expect(answer.stderr).toContain("an archive in it has `config.json`, which is no file");
  });
});

describe("an engine out of an image", () => {
  testIf(dockerRegistry !== null && process.platform === "linux", "there is no docker-registry")(
    "is installed from a registry, passes its test and answers",
    async () => {
      await using registry = await startDockerRegistry();
      await using maker = await tugHome({ engine: true });
      const image = `${registry.host}/me/engine:1`;
      await pushEngine(registry.host, maker.path);
      await using home = await tugHome({ env: { TUG_ENGINE_IMAGE: image } });

      const installed = await home.tug(["install-runner", "--json"]);
      const answer = await home.tug(["run", "pebble", QUESTION]);

      expect(installed, installed.stderr).toMatchObject({ exitCode: 0 });
      expect(JSON.parse(installed.stdout)).toMatchObject({ source: "oci", variant: "host" });
      expect(answer, answer.stderr).toMatchObject(PARIS);
    },
  );
});

async function addForm(
  registry: FakeRegistry,
  name: string,
  { configType, artifactType, config, layers }: Form,
): Promise<{ digest: string; size: number }> {
  const written = [];
  for (const { mediaType, bytes, path } of layers) {
    const blob = await registry.addBlob(bytes);
    const annotations = path === undefined ? {} : { annotations: { [FILE_PATH]: path } };
    written.push({ mediaType, ...blob, ...annotations });
  }
  const configBlob = await registry.addBlob(Buffer.from(JSON.stringify(config)));
  return registry.addManifest(name, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    ...(artifactType === undefined ? {} : { artifactType }),
    config: { mediaType: configType, ...configBlob },
    layers: written,
  });
}

/** A LoRA of rank 4 for one matrix of Pebble, all of whose numbers are `value`. */
function adapterOf(value: number): Uint8Array<ArrayBuffer> {
  const tensors = [
    { name: "blk.0.attn_output.weight.lora_a", shape: [192, 4], dtype: 0, offset: 0 },
    { name: "blk.0.attn_output.weight.lora_b", shape: [4, 192], dtype: 0, offset: 3072 },
  ];
  const header = encodeGguf({
    values: {
      "general.architecture": { string: "llama" },
      "general.type": { string: "adapter" },
      "adapter.type": { string: "lora" },
      "adapter.lora.alpha": { float32: 4 },
      // Makes the files of two adapters with the same numbers two blobs.
      "general.name": { string: `adapter ${value} ${(adapters += 1)}` },
    },
    tensors,
  });
  const numbers = new Float32Array(2 * 192 * 4).map((_, index) => value * Math.sin(index));
  return Buffer.concat([header, new Uint8Array(numbers.buffer)]);
}

let adapters = 0;

/** The engine of the tests as an image: in a directory of its own, with a script that starts it as it was installed. */
async function pushEngine(host: string, home: string): Promise<void> {
  await using directory = await tempDir();
  const root = join(home, "backends", "llama.cpp");
  const [version = ""] = (await Array.fromAsync(new Bun.Glob("*/install.json").scan(root))).map(
    (path) => dirname(path),
  );
  const { command } = (await Bun.file(join(root, version, "install.json")).json()) as {
    command: readonly string[];
  };
  const words = command.map((word) => `"${word.replace("{directory}", "$D/engine")}"`).join(" ");
  const script = join(directory.path, "app", "llama-server");
  await Bun.write(
    script,
    `#!/bin/sh\nD=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)\nexec ${words} "$@"\n`,
  );
  await chmod(script, 0o755);
  const pack = Bun.spawn(
    [
      "tar",
      // The copy of the engine links to the original.
      "-chz",
      "-C",
      directory.path,
      "app",
      "-C",
      root,
      `--transform=s,^${version},app/engine,`,
      version,
    ],
    { stdout: "pipe" },
  );
  const layer = new Uint8Array(await pack.stdout.bytes());
  const registry = createRegistry({
    http: createHttp({ offline: false, caBundle: "", isInsecure: () => true }),
    credentials: { find: () => Promise.resolve(undefined) } as never,
    mirrors: new Map(),
    isInsecure: () => true,
  });
  const repository = registry.repository({ registry: host, repository: "me/engine" });
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: {
      mediaType: "application/vnd.oci.image.config.v1+json",
      ...(await upload(repository, Buffer.from("{}"))),
    },
    layers: [
      {
        mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
        ...(await upload(repository, layer)),
      },
    ],
  };
  const bytes = encodeCanonical(manifest);
  const signal = AbortSignal.timeout(30_000);
  await repository.pushManifest({ bytes, mediaType: OCI_MANIFEST }, "1", { signal });
}

async function upload(
  repository: Repository,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<{ digest: string; size: number }> {
  const blob = { digest: digestOf(bytes), size: bytes.length };
  const source = {
    size: bytes.length,
    open: (start: number, end: number) => new Blob([bytes.subarray(start, end)]).stream(),
  };
  await repository.upload(blob, source, { signal: AbortSignal.timeout(30_000) });
  return blob;
}
