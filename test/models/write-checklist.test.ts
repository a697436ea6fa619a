/** What a model must be for Docker Model Runner and for ModelPack tools to read it: one test a point. */
import { describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { PackageRequest } from "../../src/api/models.ts";
import { encodeModel, type LayerFile, type ModelParts } from "../../src/models/artifact.ts";
import type { ModelFacts } from "../../src/models/model-facts.ts";
import { digestOf, hexOf, parseDigest } from "../../src/oci/digest.ts";
import { safePath } from "../../src/store/safe-path.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { writeSparseGguf } from "../store/gguf-file.ts";
import {
  bench,
  type Bench,
  type Document,
  documents,
  EMPTY_DDUF,
  safetensorsFiles,
} from "./package-bench.ts";

const KINDS = ["gguf", "shards", "directory", "dduf"] as const;
type Kind = (typeof KINDS)[number];

interface Written {
  readonly kind: Kind;
  readonly store: Bench["store"];
  readonly manifest: Document;
  readonly config: Document;
}

/** Packages one model of each kind, with everything that can go along. */
async function writeAll(it: Bench, format: "docker" | "cncf"): Promise<Written[]> {
  const mmproj = join(it.path, "vision.gguf");
  await writeSparseGguf(mmproj, { values: { "general.architecture": { string: "clip" } } });
  const extras = {
    licenses: [await it.file("EXTRA-LICENSE", "text"), await it.file("copies/NOTICE", "text")],
    chat_template: await it.file("chat.txt", "{{ messages }}"),
    mmproj,
  };
  const sources: Readonly<Record<Kind, Partial<PackageRequest>>> = {
    gguf: { gguf: PEBBLE },
    shards: { gguf: FIRST_SHARD },
    directory: {
      safetensors_dir: await it.directory("m", {
        ...safetensorsFiles(),
        "sub/LICENSE": "a licence",
        "sub/notes.md": "notes",
      }),
    },
    dduf: { dduf: await it.file("pipe.dduf", EMPTY_DDUF) },
  };
  const written: Written[] = [];
  for (const kind of KINDS) {
    await it.package({ ...sources[kind], ...extras, format, model: `me/${kind}:v1` });
    const model = await it.store.resolve(`me/${kind}:v1`);
    written.push({ kind, store: it.store, ...(await documents(it.store, model)) });
  }
  return written;
}

/** Each kind of model in one format. */
function eachDocker(name: string, check: (written: Written) => Promise<void> | void): void {
  each(name, "docker", check);
}

function eachModelPack(name: string, check: (written: Written) => Promise<void> | void): void {
  each(name, "cncf", check);
}

function each(
  name: string,
  format: "docker" | "cncf",
  check: (written: Written) => Promise<void> | void,
): void {
  test(`checklist: ${name}`, async () => {
    await using it = await bench();
    for (const written of await writeAll(it, format)) await check(written);
  });
}

const annotation = (layer: Document, key: string): string => layer["annotations"][key];
const typesOf = ({ manifest }: Written): string[] =>
  manifest["layers"].map(({ mediaType }: Document) => mediaType);

const NO_FACTS: ModelFacts = {
  format: "safetensors",
  architecture: null,
  name: null,
  license: null,
  quantization: null,
  parameters: null,
  size: null,
  header: null,
};

const file = (role: LayerFile["role"], path: string): LayerFile => ({
  role,
  path,
  digest: digestOf(new TextEncoder().encode(path)),
  size: 1,
});

const manyFiles = (count: number): ModelParts => ({
  format: "docker",
  layout: "directory",
  facts: NO_FACTS,
  files: Array.from({ length: count }, (_, index) =>
    index === 0 ? file("weights", "m.safetensors") : file("file", `file-${index}`),
  ),
  created: "1970-01-01T00:00:00Z",
});

describe("writing for Docker Model Runner", () => {
  eachDocker("an OCI image manifest of schema version 2", ({ manifest }) => {
    expect(manifest["schemaVersion"]).toBe(2);
    expect(manifest["mediaType"]).toBe("application/vnd.oci.image.manifest.v1+json");
    expect(Object.keys(manifest)).toEqual([
      "schemaVersion",
      "mediaType",
      "config",
      "layers",
      "annotations",
    ]);
  });

  eachDocker("config v0.1 for GGUF and DDUF, v0.2 for directories", ({ kind, manifest }) => {
    const version = kind === "directory" ? "v0.2" : "v0.1";
    const type = `application/vnd.docker.ai.model.config.${version}+json`;
    expect(manifest["config"].mediaType).toBe(type);
  });

  eachDocker("layers are not compressed: a blob is the file", async ({ kind, store, manifest }) => {
    const files: Readonly<Record<Kind, string | Uint8Array>> = {
      gguf: PEBBLE,
      shards: FIRST_SHARD,
      directory: new TextEncoder().encode("a licence"),
      dduf: EMPTY_DDUF,
    };
    const content = files[kind];
    const expected = typeof content === "string" ? await readFile(content) : Buffer.from(content);
    const blob = await readFile(store.blobPath(parseDigest(manifest["layers"][0].digest)));
    expect(blob.equals(expected)).toBe(true);
    expect(typesOf({ manifest } as Written).join(" ")).not.toMatch(/gzip|zstd|tar/);
  });

  eachDocker("diff ids are the layers' digests, in their order", ({ manifest, config }) => {
    expect(config["rootfs"]).toEqual({
      type: "rootfs",
      diff_ids: manifest["layers"].map(({ digest }: Document) => digest),
    });
  });

  eachDocker("each layer has the three annotations", ({ manifest }) => {
    for (const layer of manifest["layers"]) {
      const path = annotation(layer, "org.cncf.model.filepath");
      const metadata = JSON.parse(annotation(layer, "org.cncf.model.file.metadata+json"));
      expect(metadata).toEqual({
        name: path.split("/").at(-1),
        mode: 420,
        uid: 0,
        gid: 0,
        size: layer.size,
        mtime: "1970-01-01T00:00:00Z",
        typeflag: 0,
      });
      expect(annotation(layer, "org.cncf.model.file.mediatype.untested")).toBe("false");
    }
  });

  eachDocker("layers have Docker's types", (written) => {
    const short = typesOf(written).map((type) => type.replace("application/vnd.docker.ai.", ""));
    const extras = ["license", "chat.template.jinja", "mmproj"];
    const expected: Readonly<Record<Kind, readonly string[]>> = {
      gguf: ["gguf.v3", ...extras],
      shards: ["gguf.v3", "gguf.v3", "gguf.v3", ...extras],
      directory: [
        "license",
        "model.file",
        "model.file",
        "safetensors",
        "safetensors",
        "model.file",
        "model.file",
        "model.file",
        ...extras,
      ],
      dduf: ["dduf", ...extras],
    };
    expect(short).toEqual(expected[written.kind] as string[]);
  });

  eachDocker("file paths are relative, clean, and each is there once", ({ kind, manifest }) => {
    const paths: string[] = manifest["layers"].map((layer: Document) =>
      annotation(layer, "org.cncf.model.filepath"),
    );
    for (const path of paths) expect(safePath(path)).toBe(path);
    expect(new Set(paths.map((path) => path.toLowerCase())).size).toBe(paths.length);
    if (kind !== "directory") expect(paths.join("")).not.toContain("/");
  });

  eachDocker("the tag is on the manifest itself, not on an index", async ({ kind, store }) => {
    const index = JSON.parse(await readFile(join(store.root, "index.json"), "utf8"));
    const name = `docker.io/me/${kind}:v1`;
    const [entry] = index.manifests.filter(
      ({ annotations }: Document) => annotations["org.opencontainers.image.ref.name"] === name,
    );
    expect(entry.mediaType).toBe("application/vnd.oci.image.manifest.v1+json");
  });

  test("checklist: a manifest has at most 4 MiB", () => {
    expect(encodeModel(manyFiles(1000)).manifest.size).toBeLessThan(4 * 1024 * 1024);
    expect(() => encodeModel(manyFiles(12_000))).toThrow("registries take 4194304");
  });

  eachDocker("no digest is there twice", ({ manifest }) => {
    const digests: string[] = manifest["layers"].map(({ digest }: Document) => digest);
    expect(new Set(digests).size).toBe(digests.length);
  });

  eachDocker("at most one template and one projector", (written) => {
    const types = typesOf(written);
    expect(types.filter((type) => type.endsWith("chat.template.jinja"))).toHaveLength(1);
    expect(types.filter((type) => type.endsWith("mmproj"))).toHaveLength(1);
  });

  eachDocker("each layer has a title, the manifest what images say", ({ kind, manifest }) => {
    for (const layer of manifest["layers"]) {
      expect(annotation(layer, "org.opencontainers.image.title")).toBe(
        annotation(layer, "org.cncf.model.filepath"),
      );
    }
    const title = {
      gguf: "Pebble Chat",
      shards: "Pebble Chat",
      dduf: "pipe",
      directory: undefined,
    };
    const { annotations } = manifest;
    expect(annotations["org.opencontainers.image.created"]).toBe("1970-01-01T00:00:00Z");
    expect(annotations["org.opencontainers.image.title"]).toBe(title[kind] as string);
  });

  eachDocker("the config names its format and says what it knows", ({ kind, config }) => {
    const formats = { gguf: "gguf", shards: "gguf", directory: "safetensors", dduf: "dduf" };
    expect(Object.keys(config)).toEqual(["config", "descriptor", "rootfs"]);
    expect(config["config"].format).toBe(formats[kind]);
    expect(config["descriptor"]).toEqual({ created: "1970-01-01T00:00:00Z" });
    const maps = { gguf: "gguf", shards: "gguf", directory: "safetensors", dduf: "diffusers" };
    for (const value of Object.values(config["config"][maps[kind]]))
      expect(value).toBeTypeOf("string");
  });
});

describe("writing ModelPack", () => {
  eachModelPack("the manifest has the artifact type, the config its media type", ({ manifest }) => {
    expect(manifest["artifactType"]).toBe("application/vnd.cncf.model.manifest.v1+json");
    expect(manifest["config"].mediaType).toBe("application/vnd.cncf.model.config.v1+json");
    expect(Object.keys(manifest)).toEqual([
      "schemaVersion",
      "mediaType",
      "artifactType",
      "config",
      "layers",
      "annotations",
    ]);
  });

  eachModelPack("every layer is raw", (written) => {
    for (const type of typesOf(written))
      expect(type).toMatch(/^application\/vnd\.cncf\.model\.(weight|weight\.config|doc)\.v1\.raw$/);
  });

  eachModelPack("the config names its format", ({ kind, config }) => {
    const formats = { gguf: "gguf", shards: "gguf", directory: "safetensors", dduf: "dduf" };
    expect(config["config"].format).toBe(formats[kind]);
  });

  eachModelPack("diff ids are the layers' digests", ({ manifest, config }) => {
    expect(config["modelfs"]).toEqual({
      type: "layers",
      diffIds: manifest["layers"].map(({ digest }: Document) => digest),
    });
  });

  eachModelPack("every layer has a file path", ({ manifest }) => {
    for (const layer of manifest["layers"]) {
      const path = annotation(layer, "org.cncf.model.filepath");
      expect(safePath(path)).toBe(path);
    }
  });

  eachModelPack("licences and Markdown are documents", ({ manifest }) => {
    for (const layer of manifest["layers"]) {
      const path = annotation(layer, "org.cncf.model.filepath");
      const isDocument = /license|notice|\.md$/i.test(path);
      expect([path, layer.mediaType.includes(".doc.")]).toEqual([path, isDocument]);
    }
  });

  eachModelPack("templates and projectors are told by their names", ({ manifest }) => {
    const paths: string[] = manifest["layers"].map((layer: Document) =>
      annotation(layer, "org.cncf.model.filepath"),
    );
    expect(paths.filter((path) => path.endsWith(".jinja"))).toEqual(["chat.txt.jinja"]);
    expect(paths.filter((path) => path.includes("mmproj"))).toEqual(["mmproj-vision.gguf"]);
  });

  eachModelPack("nothing that only Docker's format knows", ({ config }) => {
    expect(Object.keys(config)).toEqual(["descriptor", "modelfs", "config"]);
    for (const member of ["gguf", "safetensors", "diffusers", "context_size", "size"])
      expect(config["config"]).not.toHaveProperty(member);
  });
});

describe("writing either", () => {
  test.each(["docker", "cncf"] as const)(
    "checklist: the same inputs give the same %s documents",
    async (format) => {
      await using one = await bench();
      await using two = await bench();
      const ids = async (it: Bench): Promise<string[]> => {
        await writeAll(it, format);
        return (await it.store.list()).map(({ digest }) => hexOf(digest));
      };

      expect(await ids(two)).toEqual(await ids(one));
    },
  );

  test("checklist: defaults, an adapter and a draft model have their places", () => {
    const { manifest } = encodeModel({
      format: "docker",
      layout: "gguf",
      facts: { ...NO_FACTS, format: "gguf" },
      files: [file("weights", "m"), file("adapter", "a.gguf"), file("draft", "d.gguf")],
      created: "1970-01-01T00:00:00Z",
      defaults: { system: "Be brief.", parameters: { temperature: 0 } },
    });

    const { layers, annotations } = JSON.parse(new TextDecoder().decode(manifest.bytes));
    expect(layers.map(({ mediaType }: Document) => mediaType)).toEqual([
      "application/vnd.docker.ai.gguf.v3",
      "application/vnd.docker.ai.gguf.v3.lora",
      "application/vnd.docker.ai.model.file",
    ]);
    expect(Object.values(annotations)).toContain(
      '{"system":"Be brief.","parameters":{"temperature":0}}',
    );
  });
});
