import { describe, expect, test } from "bun:test";
import { testIf } from "../helpers/test-if.ts";
import {
  copyFile,
  cp,
  mkdir,
  readFile,
  rename,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import type { PackageRequest } from "../../src/api/models.ts";
import type { Progress, Warning } from "../../src/api/progress.ts";
import { AppError } from "../../src/errors.ts";
import { inspectModel } from "../../src/models/inspect.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { failureOf } from "../store/failure-of.ts";
import { writeSparseGguf } from "../store/gguf-file.ts";
import { bench, type Bench } from "./package-bench.ts";

const FIXTURES = join(FIRST_SHARD, "..");
/** Changes only if what is written into artifacts changes, and then everybody's packages get new digests. */
const PEBBLE_DIGEST = "sha256:eaabd86dc3983c9aca84a2a987a1f6e6a79049accbe5d4341f18c434b1be635b";

async function failure(packaging: Promise<unknown>): Promise<AppError> {
  const thrown = await packaging.catch((error: unknown) => error);
  if (thrown instanceof AppError) return thrown;
  throw new Error(`no AppError but ${String(thrown)}`);
}

interface Refusal {
  readonly code: AppError["code"];
  readonly message: RegExp;
  readonly arrange: (it: Bench) => Promise<Partial<PackageRequest>>;
}

const usage = (
  message: RegExp,
  arrange: (it: Bench) => Promise<Partial<PackageRequest>>,
): Refusal => ({ code: "usage", message, arrange });

const unreadable = (
  message: RegExp,
  arrange: (it: Bench) => Promise<Partial<PackageRequest>>,
): Refusal => ({ code: "invalid_model_file", message, arrange });

const REFUSALS: Readonly<Record<string, Refusal>> = {
  "a missing file": {
    code: "not_found",
    message: /`no\.gguf`/,
    arrange: async (it) => ({ gguf: join(it.path, "no.gguf") }),
  },
  "a file that is no GGUF": unreadable(/not a GGUF/, async (it) => ({
    gguf: await it.file("m.gguf"),
  })),
  "a truncated file": unreadable(/truncated/, async (it) => {
    const gguf = join(it.path, "m.gguf");
    await writeFile(gguf, await readFile(PEBBLE));
    await truncate(gguf, 2_000_000);
    return { gguf };
  }),
  "a directory without weights": unreadable(/directory/, async (it) => ({ gguf: it.path })),
  "a set with a missing shard": unreadable(
    /`pebble-chat-q8_0-00002-of-00003\.gguf`/,
    async (it) => {
      await cp(FIXTURES, join(it.path, "set"), { recursive: true });
      const shard = join(it.path, "set", "pebble-chat-q8_0-00002-of-00003.gguf");
      await rename(shard, join(it.path, "elsewhere"));
      return { gguf: join(it.path, "set", "pebble-chat-q8_0-00001-of-00003.gguf") };
    },
  ),
  "a projector as the model": {
    code: "unsupported_model",
    message: /projector/,
    arrange: async (it) => {
      const gguf = join(it.path, "mmproj.gguf");
      await writeSparseGguf(gguf, { values: { "general.architecture": { string: "clip" } } });
      return { gguf };
    },
  },
  "a relative path": usage(/not absolute/, async () => ({ gguf: "pebble.gguf" })),
  "a missing licence": {
    code: "not_found",
    message: /`LICENSE`/,
    arrange: async (it) => ({ licenses: [join(it.path, "LICENSE")] }),
  },
  "a directory as a licence": usage(/directory/, async (it) => ({ licenses: [it.path] })),
  "an empty licence": usage(/empty/, async (it) => ({
    licenses: [await it.file("LICENSE", "")],
  })),
  "a binary template": usage(/not UTF-8/, async () => ({ chat_template: PEBBLE })),
  "two licences of one name": usage(/called `license`/, async (it) => {
    await mkdir(join(it.path, "other"));
    return { licenses: [await it.file("LICENSE"), await it.file("other/license")] };
  }),
  "a projector that is no GGUF": unreadable(/not a GGUF/, async (it) => ({
    mmproj: await it.file("mmproj.gguf"),
  })),
  "an impossible time": usage(/creation time/, async () => ({ created: "yesterday" })),
  "a context size of 0": usage(/context size/, async () => ({ context_size: 0 })),
  "a context size of half a token": usage(/context size/, async () => ({ context_size: 0.5 })),
  "a context size over an int32": usage(/context size/, async () => ({ context_size: 2 ** 31 })),
  "a context size in a ModelPack": usage(/ModelPack/, async () => ({
    context_size: 1,
    format: "cncf",
  })),
  "a name that is none": {
    code: "invalid_reference",
    message: /name/,
    arrange: async () => ({ model: "UPPER//x" }),
  },
  "a name with a digest": {
    code: "invalid_reference",
    message: /digest/,
    arrange: async () => ({ model: `me/m@sha256:${"0".repeat(64)}` }),
  },
};

describe("packageModel", () => {
  test("package: a file becomes a model of Docker's format", async () => {
    await using it = await bench();

    const id = await it.package();

    const details = await inspectModel(it.store, "me/model:v1");
    expect(details).toMatchObject({
      id,
      tags: ["docker.io/me/model:v1"],
      created: 0,
      media_type: "application/vnd.docker.ai.model.config.v0.1+json",
      artifact_type: null,
      annotations: {
        "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
        "org.opencontainers.image.licenses": "apache-2.0",
        "org.opencontainers.image.title": "Pebble Chat",
      },
      layers: [
        { media_type: "application/vnd.docker.ai.gguf.v3", size: 3_000_768, path: "pebble.gguf" },
      ],
      config: {
        format: "gguf",
        quantization: "Q8_0",
        parameters: "2.76M",
        architecture: "llama",
        size: "2.80MiB",
        context_size: 2048,
      },
    });
  });

  test("package: the manifest and the config are as Docker Model Runner writes them", async () => {
    await using it = await bench();

    await it.package({ context_size: 1024, created: "2026-01-02T03:04:05Z" });

    const { manifest, manifestDescriptor } = await it.store.resolve("me/model:v1");
    const raw = JSON.parse(await readFile(it.store.blobPath(manifestDescriptor.digest), "utf8"));
    const config = JSON.parse(await readFile(it.store.blobPath(manifest.config.digest), "utf8"));
    const [{ digest, annotations }] = raw.layers;
    expect(Object.keys(raw)).toEqual([
      "schemaVersion",
      "mediaType",
      "config",
      "layers",
      "annotations",
    ]);
    expect(JSON.parse(annotations["org.cncf.model.file.metadata+json"])).toEqual({
      name: "pebble.gguf",
      mode: 420,
      uid: 0,
      gid: 0,
      size: 3_000_768,
      mtime: "2026-01-02T03:04:05Z",
      typeflag: 0,
    });
    expect(annotations["org.cncf.model.file.mediatype.untested"]).toBe("false");
    expect(annotations["org.cncf.model.filepath"]).toBe("pebble.gguf");
    expect(config.config.context_size).toBe(1024);
    expect(config.descriptor).toEqual({ created: "2026-01-02T03:04:05Z" });
    expect(config.rootfs).toEqual({ type: "rootfs", diff_ids: [digest] });
  });

  test("package: the digest is the same wherever and whenever the files are packaged", async () => {
    await using it = await bench();
    await using other = await bench();
    const copy = join(other.path, "pebble.gguf");
    await copyFile(PEBBLE, copy);
    await utimes(copy, 1, 1_700_000_000);

    const first = await it.package();
    const second = await other.package({ gguf: copy, model: "registry.example:5000/a/b" });

    expect(first).toBe(PEBBLE_DIGEST);
    expect(second).toBe(first);
  });

  test("package: a name is the same name however its system spells it", async () => {
    await using it = await bench();
    const [composed, decomposed] = ["l\u00E9.gguf", "l\u0065\u0301.gguf"];
    const bytes = await readFile(PEBBLE);

    const first = await it.package({ gguf: await it.file(`a/${composed}`, bytes) });
    const second = await it.package({ gguf: await it.file(`b/${decomposed}`, bytes) });

    expect(second).toBe(first);
  });

  test("package: a time that is asked for is part of the digest", async () => {
    await using it = await bench();

    const plain = await it.package();
    const dated = await it.package({ created: "2026-01-02T03:04:05Z" });
    const fromEnvironment = await it.package({}, { sourceDateEpoch: "1767323045" });

    expect(dated).not.toBe(plain);
    expect(fromEnvironment).toBe(dated);
  });

  test("package: shards are layers in order, under their own names, whichever was given", async () => {
    await using it = await bench();
    const second = FIRST_SHARD.replace("00001-of", "00002-of");

    const id = await it.package({ gguf: second });

    const { layers, config } = await inspectModel(it.store, id);
    expect(layers.map(({ path }) => path)).toEqual(
      [1, 2, 3].map((index) => `pebble-chat-q8_0-0000${index}-of-00003.gguf`),
    );
    expect(config).toMatchObject({ parameters: "2.76M", quantization: "Q8_0" });
    expect(await it.package({ gguf: FIRST_SHARD })).toBe(id);
  });

  test("package: licences, a template and a projector follow the weights", async () => {
    await using it = await bench();
    const mmproj = join(it.path, "vision.gguf");
    await writeSparseGguf(mmproj, { values: { "general.architecture": { string: "clip" } } });
    const licenses = [await it.file("NOTICE – 注意.txt", "a notice"), await it.file("LICENSE")];
    const template = await it.file("chat.txt", "{{ messages }}");

    const id = await it.package({ licenses, chat_template: template, mmproj });

    const { layers } = await inspectModel(it.store, id);
    expect(layers.map(({ media_type: type, path }) => [type, path])).toEqual([
      ["application/vnd.docker.ai.gguf.v3", "pebble.gguf"],
      ["application/vnd.docker.ai.license", "LICENSE"],
      ["application/vnd.docker.ai.license", "NOTICE – 注意.txt"],
      ["application/vnd.docker.ai.chat.template.jinja", "chat.txt"],
      ["application/vnd.docker.ai.mmproj", "vision.gguf"],
    ]);
  });

  test("package: the order of the licences does not count, and one text is one layer", async () => {
    await using it = await bench();
    const one = await it.file("COPYING", "one");
    const other = await it.file("LICENSE", "other");
    const copy = await it.file("LICENSE.copy", "other");

    const id = await it.package({ licenses: [one, other] });
    const again = await it.package({ licenses: [copy, other, one] });

    expect(again).toBe(id);
  });

  test.each(["a:b.gguf", "con.gguf", "line\nbreak.gguf"])(
    "package: a file called %j is refused, because not every system can have it",
    async (name) => {
      await using it = await bench();
      const gguf = join(it.path, name);
      await copyFile(PEBBLE, gguf);

      expect(await failureOf(it.package({ gguf }))).toMatchObject({ code: "usage" });
    },
  );

  test("package: the bundle of a packaged model has all its parts", async () => {
    await using it = await bench();
    const mmproj = join(it.path, "vision.gguf");
    await writeSparseGguf(mmproj, { values: { "general.architecture": { string: "clip" } } });
    const template = await it.file("chat.txt", "{{ messages }}");

    for (const format of ["docker", "cncf"] as const) {
      await it.package({ format, chat_template: template, mmproj });
      await using bundle = await it.store.openBundle(await it.store.resolve("me/model:v1"), {});
      expect(await readFile(bundle.model)).toEqual(await readFile(PEBBLE));
      expect(await readFile(bundle.mmproj ?? "")).toEqual(await readFile(mmproj));
      expect(await readFile(bundle.chatTemplate ?? "", "utf8")).toBe("{{ messages }}");
    }
  });

  test("package: a ModelPack has its types, and names that tell what its files are", async () => {
    await using it = await bench();
    const mmproj = join(it.path, "vision.gguf");
    await writeSparseGguf(mmproj, { values: { "general.architecture": { string: "clip" } } });
    const licenses = [await it.file("LICENSE")];
    const template = await it.file("chat.txt", "{{ messages }}");

    const id = await it.package({ format: "cncf", licenses, chat_template: template, mmproj });

    const details = await inspectModel(it.store, id);
    expect(details.media_type).toBe("application/vnd.cncf.model.config.v1+json");
    expect(details.artifact_type).toBe("application/vnd.cncf.model.manifest.v1+json");
    expect(details.layers.map(({ media_type: type, path }) => [type, path])).toEqual([
      ["application/vnd.cncf.model.weight.v1.raw", "pebble.gguf"],
      ["application/vnd.cncf.model.doc.v1.raw", "LICENSE"],
      ["application/vnd.cncf.model.weight.config.v1.raw", "chat.txt.jinja"],
      ["application/vnd.cncf.model.weight.v1.raw", "mmproj-vision.gguf"],
    ]);
    expect(details.config).toMatchObject({
      format: "gguf",
      parameters: "2.76M",
      quantization: "Q8_0",
      architecture: "llama",
    });
  });

  test("package: the same name again moves the tag, and the same model again changes nothing", async () => {
    await using it = await bench();
    const first = await it.package();
    const before = await it.contents();

    const again = await it.package();
    expect(again).toBe(first);
    expect(await it.contents()).toEqual(before);

    const other = await it.package({ context_size: 512 });
    const models = await it.store.list();
    expect(models.map(({ digest, tags }) => [digest as string, tags])).toEqual([
      [other, ["docker.io/me/model:v1"]],
      [first, []],
    ]);
  });

  test("package: a linked file is shared with the store, not copied", async () => {
    await using it = await bench();
    const gguf = join(it.path, "m.gguf");
    await copyFile(PEBBLE, gguf);

    const id = await it.package({ gguf, link: true });

    const { layers } = await inspectModel(it.store, id);
    const blob = await stat(it.store.blobPath(layers[0]?.digest as never));
    expect(blob.ino).toBe((await stat(gguf)).ino);
  });

  test("package: progress names each file and ends at its size", async () => {
    await using it = await bench();
    const events: (Progress | Warning)[] = [];

    await it.package({ gguf: FIRST_SHARD }, { onProgress: (event) => events.push(event) });

    const last = new Map(events.map((event) => ["id" in event ? event.id : "", event]));
    expect([...last.values()]).toEqual(
      [1_320_608, 840_672, 839_840].map((bytes, index) => ({
        type: "progress",
        id: `pebble-chat-q8_0-0000${index + 1}-of-00003.gguf`,
        phase: "copying",
        done_bytes: bytes,
        total_bytes: bytes,
      })),
    );
  });

  test("package: a projector that does not look like one is packaged with a warning", async () => {
    await using it = await bench();
    const mmproj = join(it.path, "other.gguf");
    await copyFile(PEBBLE, mmproj);
    const warnings: string[] = [];

    await it.package(
      { mmproj },
      { onProgress: (event) => event.type === "warning" && warnings.push(event.message) },
    );

    expect(warnings).toEqual([
      "`other.gguf` does not look like a projector: its architecture is not `clip`",
    ]);
  });

  test("package: names with spaces and links to files are fine", async () => {
    await using it = await bench();
    const gguf = join(it.path, "mein modell 模型.gguf");
    await symlink(PEBBLE, gguf);

    const { layers } = await inspectModel(it.store, await it.package({ gguf }));

    expect(layers[0]?.path).toBe("mein modell 模型.gguf");
  });

  test.each(Object.entries(REFUSALS))(
    "package: %s is refused and the store is not touched",
    async (_, { code, message, arrange }) => {
      await using it = await bench();
      const request = await arrange(it);

      const error = await failure(it.package(request));

      expect(error.code).toBe(code);
      expect(error.message).toMatch(message);
      expect(await stat(it.store.root).catch(() => "none")).toBe("none");
    },
  );

  test("package: SOURCE_DATE_EPOCH must be a number", async () => {
    await using it = await bench();

    expect((await failure(it.package({}, { sourceDateEpoch: "soon" }))).code).toBe("usage");
  });

  test("package: an abort leaves the store as it was", async () => {
    await using it = await bench();
    await it.package();
    const before = await it.contents();
    const gguf = join(it.path, "other.gguf");
    await writeSparseGguf(
      gguf,
      { values: {}, tensors: [{ name: "a", shape: [1024 ** 2, 16], dtype: 0, offset: 0 }] },
      70_000_000,
    );
    const aborting = new AbortController();

    const thrown = await it
      .package({ gguf }, { signal: aborting.signal, onProgress: () => aborting.abort() })
      .catch((error: unknown) => error);

    expect((thrown as Error).name).toBe("AbortError");
    expect(await it.contents()).toEqual(before);
    expect((await it.store.resolve("me/model:v1")).digest).toBe(PEBBLE_DIGEST as never);
  });

  test("package: a file that changes meanwhile is refused, and what was stored of it goes away", async () => {
    await using it = await bench();
    await it.package();
    const before = await it.contents();
    const gguf = join(it.path, "m.gguf");
    await writeSparseGguf(
      gguf,
      { values: {}, tensors: [{ name: "a", shape: [1024 ** 2], dtype: 0, offset: 0 }] },
      5_000_000,
    );
    const license = await it.file("LICENSE");
    const touched: Promise<void>[] = [];

    const error = await failure(
      it.package(
        { gguf, licenses: [license] },
        { onProgress: () => touched.push(utimes(license, 1, 1)) },
      ),
    );

    await Promise.all(touched);
    expect(error.code).toBe("conflict");
    expect(error.message).toContain("changed");
    expect(await it.contents()).toEqual(before);
  });

  test("package: two at once of one model make one model", async () => {
    await using it = await bench();

    const ids = await Promise.all([it.package(), it.package({ model: "me/other" }), it.package()]);

    expect(new Set(ids)).toEqual(new Set([PEBBLE_DIGEST]));
    expect((await it.store.list()).map(({ tags }) => tags)).toEqual([
      ["docker.io/me/model:v1", "docker.io/me/other:latest"],
    ]);
  });
});

testIf(Bun.which("skopeo") !== null, "there is no skopeo here")(
  "package: skopeo reads what was packaged",
  async () => {
    await using it = await bench();
    const id = await it.package();

    const image = `oci:${it.store.root}:docker.io/me/model:v1`;
    const { stdout, exitCode } = Bun.spawnSync(["skopeo", "inspect", "--raw", image]);

    expect(exitCode).toBe(0);
    expect(`sha256:${new Bun.CryptoHasher("sha256").update(stdout).digest("hex")}`).toBe(id);
  },
);
