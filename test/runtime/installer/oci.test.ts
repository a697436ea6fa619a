import { describe, expect, test } from "bun:test";
import { lstat, readFile, readdir, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";

import { llamacpp } from "../../../backends/llamacpp/index.ts";
import { Installer } from "../../../src/runtime/installer/installer.ts";
import type { InstallerDeps } from "../../../src/runtime/installer/installer.ts";
import type { InstallProgress } from "../../../src/runtime/installer/source.ts";
import { startFakeRegistry, type FakeRegistry } from "../../fakes/registry.ts";
import { tar } from "../../helpers/tar.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { addImage, gzip, LAYER, type Layer, layerOf, REPOSITORY, TREE } from "./fake-image.ts";
import { failureOf } from "./failure-of.ts";
import { loopbackRemotes } from "./remotes.ts";

const ENGINE = "#!/bin/sh\nexit 0\n";
const oci = { backend: "llama.cpp", gpu: "none", source: "oci" } as const;

/** Three layers in three packings; the engine in the first two, and some of it taken away by the third. */
const DOCKER_IMAGE: readonly Layer[] = [
  gzip([
    { name: "etc/passwd", content: "root" },
    { name: `${TREE}/bin/com.docker.llama-server`, content: "an older one" },
    { name: `${TREE}/lib/libold.so`, content: "old" },
    { name: `${TREE}/lib/libllama.so.0`, content: "library".repeat(50_000), mode: 0o755 },
  ]),
  layerOf(
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    zstdCompressSync(
      tar([
        { name: `${TREE}/bin/com.docker.llama-server`, content: ENGINE, mode: 0o644 },
        { name: `${TREE}/bin/again`, type: "1", target: `${TREE}/bin/com.docker.llama-server` },
        { name: `${TREE}/lib/libllama.so`, type: "2", target: "libllama.so.0" },
        { name: `${TREE}/lib/out.so`, type: "2", target: "/etc/passwd" },
      ]),
    ),
  ),
  layerOf(LAYER, tar([{ name: `${TREE}/lib/.wh.libold.so` }])),
];

interface Bench extends AsyncDisposable {
  readonly root: string;
  readonly registry: FakeRegistry;
  readonly deps: InstallerDeps;
  readonly installer: Installer;
  readonly events: InstallProgress[];
  readonly options: { signal: AbortSignal; onProgress: (event: InstallProgress) => void };
}

/** An installer for which a small registry is Docker Hub. */
async function bench(overrides: Partial<InstallerDeps> = {}): Promise<Bench> {
  const directory = await tempDir();
  const registry = await startFakeRegistry();
  const events: InstallProgress[] = [];
  const deps: InstallerDeps = {
    directory: join(directory.path, "backends"),
    cacheDirectory: join(directory.path, "cache"),
    backends: [llamacpp],
    machine: { platform: "linux", arch: "x64" },
    env: { PATH: "", TUG_GPU: "none" },
    offline: false,
    remotes: loopbackRemotes({ "registry-1.docker.io": registry.url }),
    smokeModel: () => Promise.resolve(""),
    verifyEngine: () => Promise.resolve(),
    githubApi: "http://127.0.0.1:1",
    ...overrides,
  };
  return {
    root: directory.path,
    registry,
    deps,
    installer: new Installer(deps),
    events,
    options: {
      signal: new AbortController().signal,
      onProgress: (event) => void events.push(event),
    },
    async [Symbol.asyncDispose]() {
      await registry[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

describe("the oci source", () => {
  test("oci: only the engine's files come out of the image, as its layers leave them", async () => {
    await using it = await bench();
    const platforms = ["linux/arm64", "linux/amd64"];
    await addImage(it.registry, `${REPOSITORY}:latest-cpu`, { layers: DOCKER_IMAGE, platforms });

    const installation = await it.installer.install(oci, it.options);

    const { directory, command } = installation;
    expect(installation).toMatchObject({
      source: "oci",
      variant: "cpu",
      version: expect.stringMatching(/^latest-[0-9a-f]{12}$/),
    });
    expect(command).toEqual([join(directory, "bin/com.docker.llama-server")]);
    expect((await readdir(directory, { recursive: true })).toSorted()).toEqual([
      "bin",
      "bin/again",
      "bin/com.docker.llama-server",
      "install.json",
      "lib",
      "lib/libllama.so",
      "lib/libllama.so.0",
      "size.json",
    ]);
    expect(await readFile(command[0] ?? "", "utf8")).toBe(ENGINE);
    expect(await readFile(join(directory, "bin/again"), "utf8")).toBe(ENGINE);
    expect((await stat(command[0] ?? "")).mode & 0o777).toBe(0o755);
    expect(await readlink(join(directory, "lib/libllama.so"))).toBe("libllama.so.0");
    expect((await lstat(join(directory, "lib/libllama.so.0"))).size).toBe(350_000);
    expect([...new Set(it.events.map(({ phase }) => phase))]).toEqual([
      "resolving",
      "downloading",
      "unpacking",
      "testing",
    ]);
    expect(await readdir(join(it.deps.cacheDirectory, "downloads"))).toEqual([]);
    expect(await it.installer.active("llama.cpp")).toEqual(installation);
  });

  test("oci: it comes before apt and after github, and a version is a tag", async () => {
    await using it = await bench();
    await addImage(it.registry, `${REPOSITORY}:v1.2-cpu`, { layers: DOCKER_IMAGE });

    const installation = await it.installer.install(
      { backend: "llama.cpp", gpu: "none", version: "v1.2" },
      it.options,
    );

    expect(installation).toMatchObject({ source: "oci", version: "v1.2", variant: "cpu" });
  });

  test("oci: a variant that does not exist gives way to the next", async () => {
    await using it = await bench({ env: { PATH: "", TUG_GPU: "cuda" } });
    await addImage(it.registry, `${REPOSITORY}:latest-cpu`, { layers: DOCKER_IMAGE });

    const installation = await it.installer.install({ ...oci, gpu: "auto" }, it.options);

    expect(installation.variant).toBe("cpu");
    expect(
      it.registry.requests
        .filter(({ path }) => path.includes("/manifests/latest-"))
        .map(({ path }) => /latest-(\w+)/.exec(path)?.[1]),
    ).toEqual(expect.arrayContaining(["cuda", "vulkan", "cpu"]));
  });

  test("oci: an image of the user's own is what is installed, and nothing else is tried", async () => {
    await using it = await bench();
    const image = `${it.registry.host}/me/engine:mine`;
    await addImage(it.registry, "me/engine:mine", {
      layers: [
        gzip([
          { name: "app/llama-server", content: ENGINE, mode: 0o755 },
          { name: "app/libllama.so", content: "l" },
          { name: "usr/lib/libc.so.6", content: "c" },
        ]),
      ],
    });
    const withImage = (text: string): Installer =>
      new Installer({ ...it.deps, env: { PATH: "", TUG_ENGINE_IMAGE: text } });

    const installation = await withImage(image).ensure("llama.cpp", it.options);

    expect(installation).toMatchObject({ source: "oci", variant: "host" });
    expect(installation.version).toStartWith("mine-");
    expect((await readdir(installation.directory)).toSorted()).toEqual([
      "install.json",
      "libllama.so",
      "llama-server",
      "size.json",
    ]);
    const named = { backend: "llama.cpp", gpu: "auto", version: "mine" } as const;
    expect(
      await withImage(image.replace(":mine", ":other")).install(named, it.options),
    ).toMatchObject({ version: "mine", source: "oci" });
    const before = it.registry.requests.length;
    const path = { ...named, version: "../blobs/x" };
    expect(await failureOf(withImage(image).install(path, it.options))).toHaveProperty(
      "message",
      expect.stringContaining("is not a valid"),
    );
    expect(it.registry.requests.length).toBe(before);
    const missing = withImage(image.replace(":mine", ":missing"));
    const request = { backend: "llama.cpp", gpu: "auto" } as const;
    expect(await failureOf(missing.install(request, it.options))).toHaveProperty(
      "message",
      expect.stringMatching(/^cannot install llama.cpp: from oci: cannot read/),
    );
    expect(await failureOf(withImage("NOT AN IMAGE").install(request, it.options))).toMatchObject({
      code: "usage",
      message: expect.stringContaining("TUG_ENGINE_IMAGE"),
    });
  });

  test("oci: a download that is cut goes on where it stopped", async () => {
    await using it = await bench();
    const noise = new Uint8Array(4_000_000).map((_, index) => (index * index * 31) >> 7);
    const layers = [layerOf(LAYER, tar([{ name: "noise", content: noise }])), ...DOCKER_IMAGE];
    await addImage(it.registry, `${REPOSITORY}:latest-cpu`, { layers });
    const cut = it.registry.fault({ kind: "cut", path: "/blobs/", after: 3_000_000, times: 1 });

    await it.installer.install(oci, it.options);

    const starts = it.registry.requests.map(({ headers }) => headers["range"] ?? "");
    expect(cut.hits).toBe(1);
    expect(starts).toContainEqual(expect.stringMatching(/^bytes=[1-9]\d*-$/));
  });

  test("oci: a layer with other bytes than announced is refused, and nothing is installed", async () => {
    await using it = await bench();
    await addImage(it.registry, `${REPOSITORY}:latest-cpu`, { layers: DOCKER_IMAGE });
    for (const [digest, blob] of it.registry.blobs) {
      const bytes = new Uint8Array(await blob.arrayBuffer());
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
      it.registry.blobs.set(digest, new Blob([bytes]));
    }

    expect(await failureOf(it.installer.install(oci, it.options))).toHaveProperty(
      "message",
      expect.stringContaining("its content is not what was announced"),
    );
    expect(await it.installer.list()).toEqual([]);
    expect(await readdir(join(it.deps.cacheDirectory, "downloads"))).toEqual([]);
  });

  test.each([
    ["without the engine", [gzip([{ name: "etc/passwd", content: "x" }])], /does not hold/],
    ["that is no image", [layerOf("application/vnd.docker.ai.gguf.v3", tar([]))], /no container/],
    ["without layers", [], /no container image/],
    ["with a damaged layer", [layerOf(LAYER, Buffer.from("GGUF".repeat(500)))], /checksum/],
    [
      "with a layer cut",
      [layerOf(LAYER, tar([{ name: "a", content: "x" }]).subarray(0, 600))],
      /ends/,
    ],
    ["that climbs", [gzip([{ name: "../../etc/cron.d/x", content: "x" }])], /leads out of it/],
    ["with many layers", Array.from({ length: 128 }, () => gzip([{ name: "a" }])), /too large/],
  ] as const)("oci: an image %s is refused in words", async (_name, layers, message) => {
    await using it = await bench();
    await addImage(it.registry, `${REPOSITORY}:latest-cpu`, { layers });

    expect(await failureOf(it.installer.install(oci, it.options))).toMatchObject({
      code: "install_failed",
      message: expect.stringMatching(message),
    });
    expect(await it.installer.list()).toEqual([]);
  });

  test("oci: an image for other machines is refused with what there is", async () => {
    await using it = await bench();
    const platforms = ["linux/arm64", "windows/amd64"];
    await addImage(it.registry, `${REPOSITORY}:latest-cpu`, { layers: DOCKER_IMAGE, platforms });

    expect(await failureOf(it.installer.install(oci, it.options))).toHaveProperty(
      "message",
      expect.stringContaining("none is for `linux/amd64`; there is linux/arm64, windows/amd64"),
    );
  });

  test("oci: without a build for the machine it says so, and asks nobody", async () => {
    await using it = await bench({ machine: { platform: "linux", arch: "ppc64" } });

    expect(await failureOf(it.installer.install(oci, it.options))).toHaveProperty(
      "message",
      expect.stringContaining("it has no cpu build for linux ppc64"),
    );
    expect(it.registry.requests).toEqual([]);
  });

  test("oci: offline, it is not tried", async () => {
    await using it = await bench({ offline: true });

    expect(await failureOf(it.installer.install(oci, it.options))).toHaveProperty(
      "message",
      expect.stringContaining("offline mode is on"),
    );
    expect(it.registry.requests).toEqual([]);
  });
});
