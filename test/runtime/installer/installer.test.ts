import { describe, expect, test } from "bun:test";
import { isWindows, testIf } from "../../helpers/test-if.ts";
import { cp, mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { llamacpp } from "../../../backends/llamacpp/index.ts";
import { Installer } from "../../../src/runtime/installer/installer.ts";
import type { InstallerDeps } from "../../../src/runtime/installer/installer.ts";
import { lockPath } from "../../../src/runtime/installer/layout.ts";
import { acquireLock } from "../../../src/lock.ts";
import type { InstallProgress } from "../../../src/runtime/installer/source.ts";
import { loopbackRemotes } from "./remotes.ts";
import { failureOf } from "./failure-of.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { engineArchive } from "./archives.ts";
import { fakeGithub } from "./fake-github.ts";
import type { FakeAsset, FakeGithub } from "./fake-github.ts";

const RELEASE = llamacpp.recipe.github?.version ?? "";
const ENGINE = "llama.cpp";

function assetOf(release: string, content = engineArchive()): FakeAsset {
  return { name: `llama-${release}-bin-ubuntu-x64.tar.gz`, content };
}

interface Bench extends AsyncDisposable {
  readonly root: string;
  readonly deps: InstallerDeps;
  readonly installer: Installer;
  readonly github: FakeGithub;
  readonly events: InstallProgress[];
  readonly options: { signal: AbortSignal; onProgress: (event: InstallProgress) => void };
  home(): Promise<string[]>;
}

/** An installer whose only reachable source is a small GitHub, with a test that every engine passes. */
async function bench(
  overrides: Partial<InstallerDeps> = {},
  assets: readonly FakeAsset[] = [assetOf(RELEASE)],
  release = RELEASE,
): Promise<Bench> {
  const directory = await tempDir();
  const github = fakeGithub(release, assets);
  const deps: InstallerDeps = {
    directory: join(directory.path, "backends"),
    cacheDirectory: join(directory.path, "cache"),
    backends: [llamacpp],
    machine: { platform: "linux", arch: "x64" },
    env: { PATH: "", TUG_GPU: "none" },
    offline: false,
    remotes: loopbackRemotes(),
    smokeModel: () => Promise.resolve(""),
    verifyEngine: () => Promise.resolve(),
    githubApi: github.url,
    ...overrides,
  };
  const events: InstallProgress[] = [];
  return {
    root: directory.path,
    deps,
    installer: new Installer(deps),
    github,
    events,
    options: {
      signal: AbortSignal.timeout(20_000),
      onProgress: (event) => void events.push(event),
    },
    home: async () => (await readdir(join(deps.directory, ENGINE))).toSorted(),
    [Symbol.asyncDispose]: async () => {
      github[Symbol.dispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

const refuseDamaged: InstallerDeps["verifyEngine"] = async ({ command }) => {
  if ((await Bun.file(command[0] ?? "").text()) === "damaged") throw new Error("broken");
};

const github = { backend: ENGINE, gpu: "none", source: "github" } as const;

describe("Installer.ensure", () => {
  test("installer: an engine is downloaded, unpacked, tested and recorded, once", async () => {
    await using it = await bench();

    const installation = await it.installer.ensure(ENGINE, it.options);
    const again = await it.installer.ensure(ENGINE, it.options);

    const directory = join(it.deps.directory, ENGINE, `${RELEASE}-cpu`);
    expect(installation).toMatchObject({
      backend: ENGINE,
      version: RELEASE,
      variant: "cpu",
      source: "github",
      directory,
      command: [join(directory, "llama-b1", "llama-server")],
    });
    expect(again).toEqual(installation);
    expect(it.github.requests).toHaveLength(2);
    expect([...new Set(it.events.map(({ phase }) => phase))]).toEqual([
      "resolving",
      "downloading",
      "unpacking",
      "testing",
    ]);
    const last = it.events.findLast(({ phase }) => phase === "downloading");
    expect(last?.done_bytes).toBe(last?.total_bytes ?? -1);
    expect(await it.installer.list()).toMatchObject([{ active: true, version: RELEASE }]);
    expect(await it.home()).toEqual(["active.json", `${RELEASE}-cpu`, "lock"]);
  });

  test("installer: asking what is installed creates nothing", async () => {
    await using it = await bench();

    expect(await it.installer.active(ENGINE)).toBeUndefined();
    expect(await it.installer.list()).toEqual([]);
    expect(await readdir(it.root)).toEqual([]);
  });

  test("installer: callers at once share one download and all hear of it", async () => {
    await using it = await bench();
    const heard = [0, 0, 0];
    const calls = heard.map((_, index) =>
      it.installer.ensure(ENGINE, {
        signal: it.options.signal,
        onProgress: () => (heard[index] = (heard[index] ?? 0) + 1),
      }),
    );

    const installations = await Promise.all(calls);

    expect(new Set(installations.map(({ directory }) => directory)).size).toBe(1);
    expect(it.github.requests).toHaveLength(2);
    expect(Math.min(...heard)).toBeGreaterThan(2);
  });

  test("installer: a caller that leaves does not stop the others; the last one does", async () => {
    await using it = await bench();
    const gate = Promise.withResolvers<void>();
    it.github.gate = gate.promise;
    const [first, second] = [new AbortController(), new AbortController()];
    const started = Promise.withResolvers<void>();
    const onProgress = ({ phase }: InstallProgress): void => {
      if (phase === "resolving") started.resolve();
    };
    const one = it.installer.ensure(ENGINE, { signal: first.signal, onProgress });
    const two = it.installer.ensure(ENGINE, { signal: second.signal, onProgress });
    await started.promise;

    first.abort();
    expect(await failureOf(one)).toMatchObject({ name: "AbortError" });
    gate.resolve();
    expect(await two).toMatchObject({ version: RELEASE });

    await it.installer.uninstall({ backend: ENGINE });
    it.github.gate = new Promise(() => {});
    const three = it.installer.ensure(ENGINE, { ...it.options, signal: second.signal });
    second.abort();
    expect(await failureOf(three)).toMatchObject({ name: "AbortError" });
    it.github.gate = Promise.resolve();
    expect(await it.installer.ensure(ENGINE, it.options)).toMatchObject({ version: RELEASE });
  });

  test("installer: two processes at once make one installation", async () => {
    await using it = await bench();
    const gate = Promise.withResolvers<void>();
    it.github.gate = gate.promise;
    const script = join(import.meta.dir, "../../fakes/install-once.ts");
    const argv = [process.execPath, script, it.deps.directory, it.deps.cacheDirectory];
    const start = (): Bun.Subprocess<"ignore", "pipe", "pipe"> =>
      Bun.spawn([...argv, it.github.url], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });

    const children = [start(), start()];
    // The one that lost the race says so; only then may the winner go on.
    await Promise.any(children.map((child) => untilLine(child.stderr, "waiting")));
    gate.resolve();
    const outputs = await Promise.all(children.map((child) => child.stdout.json()));

    expect(outputs[0].installation).toEqual(outputs[1].installation);
    expect(outputs.map(({ phases }) => phases[0])).toEqual(
      expect.arrayContaining(["resolving", "waiting"]),
    );
    expect(it.github.requests).toHaveLength(2);
  });

  test("installer: a moved home keeps its engines", async () => {
    await using it = await bench();
    await it.installer.ensure(ENGINE, it.options);
    const directory = join(it.root, "mövéd home");
    await rename(it.deps.directory, directory);

    const moved = new Installer({ ...it.deps, directory, offline: true });

    const active = await moved.active(ENGINE);
    expect(active?.command[0]).toBe(join(active?.directory ?? "", "llama-b1", "llama-server"));
    expect(active?.directory).toStartWith(directory);
    expect(await moved.list()).toMatchObject([
      { active: true, directory: active?.directory ?? "" },
    ]);
  });

  test("installer: an engine whose files are gone counts as not installed", async () => {
    await using it = await bench();
    const { directory } = await it.installer.ensure(ENGINE, it.options);
    await rm(directory, { recursive: true });

    expect(await it.installer.active(ENGINE)).toBeUndefined();
    expect(await it.installer.ensure(ENGINE, it.options)).toMatchObject({ directory });
  });

  test("installer: an unknown backend is named with the known ones", async () => {
    await using it = await bench();

    expect(await failureOf(it.installer.ensure("vllm", it.options))).toMatchObject({
      code: "backend_not_found",
      hint: "Choose one of: llama.cpp.",
    });
  });
});

describe("Installer.install", () => {
  const broken = "b2";
  const both = [assetOf(RELEASE), assetOf(broken)];

  test("installer: a new version that fails its test leaves the old one active", async () => {
    const verifyEngine: InstallerDeps["verifyEngine"] = async ({ version }) => {
      if (version === broken) throw new Error("it gave an empty answer");
    };
    await using it = await bench({ verifyEngine }, both);
    const good = await it.installer.ensure(ENGINE, it.options);
    using other = fakeGithub(broken, both);
    const next = new Installer({ ...it.deps, githubApi: other.url });

    expect(await failureOf(next.install({ ...github, version: broken }, it.options))).toMatchObject(
      {
        code: "install_failed",
        message: `cannot install llama.cpp: from github: version b2 failed its test: it gave an empty answer`,
      },
    );

    expect(await next.active(ENGINE)).toEqual(good);
    expect(await it.home()).toEqual(["active.json", `${RELEASE}-cpu`, "lock"]);
  });

  test("installer: versions stand side by side, and the one before is used when the active one is lost", async () => {
    await using it = await bench({}, both);
    const old = await it.installer.ensure(ENGINE, it.options);
    using other = fakeGithub("b2", both);
    const next = new Installer({ ...it.deps, githubApi: other.url });

    const young = await next.install({ ...github, version: "b2" }, it.options);
    expect(await next.active(ENGINE)).toEqual(young);
    expect((await next.list()).map(({ active }) => active)).toEqual([true, false]);

    await rm(young.directory, { recursive: true });
    expect(await next.active(ENGINE)).toEqual(old);
  });

  test("installer: installing the same version again downloads nothing if it still works", async () => {
    await using it = await bench();
    const first = await it.installer.ensure(ENGINE, it.options);
    const before = it.github.requests.length;

    const second = await it.installer.install(github, it.options);

    expect(second).toEqual(first);
    expect(it.github.requests.slice(before)).toEqual([expect.stringContaining("/releases/")]);
  });

  test("installer: installing the same version again mends one that is broken", async () => {
    await using it = await bench({ verifyEngine: refuseDamaged });
    const { command } = await it.installer.ensure(ENGINE, it.options);
    await writeFile(command[0] ?? "", "damaged");

    await it.installer.install(github, it.options);

    expect(await Bun.file(command[0] ?? "").text()).toBe("#!/bin/sh\nexit 0\n");
    expect(await it.home()).toEqual(["active.json", `${RELEASE}-cpu`, "lock"]);
  });

  test("installer: what a killed install left is removed, and what it had set aside comes back", async () => {
    await using it = await bench();
    const { directory } = await it.installer.ensure(ENGINE, it.options);
    const home = join(it.deps.directory, ENGINE);
    await mkdir(join(home, ".staging-abc", "half"), { recursive: true });
    await writeFile(join(home, "active.json.4711.tmp"), "{");
    await rename(directory, join(home, `.retired-${RELEASE}-cpu`));

    await it.installer.use(ENGINE, RELEASE);

    expect(await it.home()).toEqual(["active.json", `${RELEASE}-cpu`, "lock"]);
    expect(await it.installer.active(ENGINE)).toMatchObject({ directory });
  });

  test("installer: every source that failed is listed with its reason", async () => {
    await using it = await bench({ machine: { platform: "darwin", arch: "x64" } });

    expect(
      await failureOf(it.installer.install({ backend: ENGINE, gpu: "auto" }, it.options)),
    ).toMatchObject({
      code: "install_failed",
      message: `cannot install llama.cpp: no source can serve it
  path: no \`llama-server\` is on PATH
  github: release \`${RELEASE}\` has no \`llama-${RELEASE}-bin-macos-x64.tar.gz\`
  oci: cannot reach \`registry-1.docker.io\`
  apt: it serves Debian and its family only`,
      hint: expect.stringContaining("TUG_LLAMA_SERVER"),
    });
  });

  test("installer: a GPU build that does not work gives way to the processor build", async () => {
    const assets = [
      { ...assetOf(RELEASE), name: `llama-${RELEASE}-bin-ubuntu-vulkan-x64.tar.gz` },
      assetOf(RELEASE),
    ];
    const tried: string[] = [];
    const verifyEngine: InstallerDeps["verifyEngine"] = async ({ variant }) => {
      tried.push(variant);
      if (variant !== "cpu") throw new Error("no device");
    };
    await using it = await bench({ verifyEngine, env: { PATH: "", TUG_GPU: "cuda" } }, assets);

    const installation = await it.installer.ensure(ENGINE, it.options);

    expect(installation.variant).toBe("cpu");
    expect(tried).toEqual(["vulkan", "cpu"]);
  });

  test("installer: a GPU that was asked for is not replaced by another", async () => {
    await using it = await bench({ env: { PATH: "", TUG_GPU: "cuda" } });

    expect(
      await failureOf(it.installer.install({ ...github, gpu: "cuda" }, it.options)),
    ).toHaveProperty(
      "message",
      expect.stringContaining("from github: it has no cuda build for linux x64"),
    );
  });

  test("installer: offline, a version cannot be had", async () => {
    await using it = await bench({ offline: true });

    expect(
      await failureOf(
        it.installer.install({ backend: ENGINE, gpu: "none", version: "b2" }, it.options),
      ),
    ).toHaveProperty("message", "cannot install from the network: offline mode is on");
  });

  test("installer: an unknown source is a usage error", async () => {
    await using it = await bench();

    expect(
      await failureOf(it.installer.install({ ...github, source: "floppy" }, it.options)),
    ).toMatchObject({ code: "usage", hint: "Choose one of: path, github, oci, apt." });
  });

  test("installer: offline, no network source is tried", async () => {
    await using it = await bench({ offline: true });

    expect(await failureOf(it.installer.ensure(ENGINE, it.options))).toHaveProperty(
      "message",
      expect.stringContaining("cannot install llama.cpp: from path: no `llama-server` is on PATH"),
    );
    expect(await failureOf(it.installer.install(github, it.options))).toHaveProperty(
      "message",
      expect.stringContaining("cannot install from `github`: offline mode is on"),
    );
    expect(it.github.requests).toEqual([]);
  });
});

describe("the github source", () => {
  test("github: a host that cannot be reached fails in seconds and says so", async () => {
    await using it = await bench({ githubApi: "http://127.0.0.1:1" });
    const start = performance.now();

    expect(await failureOf(it.installer.install(github, it.options))).toHaveProperty(
      "message",
      expect.stringMatching(/from github: cannot reach `127\.0\.0\.1:1`/),
    );
    expect(performance.now() - start).toBeLessThan(3_000);
  });

  test("github: a host that accepts but never answers is given up after seconds", async () => {
    using mute = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
    await using it = await bench({ githubApi: `http://127.0.0.1:${mute.port}` });
    const start = performance.now();

    expect(await failureOf(it.installer.install(github, it.options))).toHaveProperty(
      "message",
      expect.stringMatching(/did not answer within 5 s/),
    );
    expect(performance.now() - start).toBeLessThan(8_000);
  }, 10_000);

  test.each([
    [403, /refuses more requests for now \(403\)/],
    [429, /refuses more requests for now \(429\)/],
    [500, /answered with status 500/],
    [404, /it has no release `b\d+`/],
  ])("github: status %d has its own reason", async (status, message) => {
    await using it = await bench();
    it.github.status = status;

    expect(await failureOf(it.installer.install(github, it.options))).toHaveProperty(
      "message",
      expect.stringMatching(message),
    );
    expect(it.github.requests).toHaveLength(1);
  });

  test("github: a release without the asset is an error that names it", async () => {
    await using it = await bench({}, []);

    expect(await failureOf(it.installer.install(github, it.options))).toHaveProperty(
      "message",
      expect.stringContaining(`release \`${RELEASE}\` has no \`llama-${RELEASE}-bin-ubuntu-x64`),
    );
  });

  test("github: an asset that is listed but missing is an error at once", async () => {
    await using it = await bench();
    it.github.assetStatuses.push(404);

    expect(await failureOf(it.installer.install(github, it.options))).toHaveProperty(
      "message",
      expect.stringMatching(/cannot fetch `.*\/llama-.*gz`: there is no such file/),
    );
    expect(it.github.requests).toHaveLength(2);
  });

  test("github: a download that fails for the moment is tried again, three times at most", async () => {
    await using it = await bench();
    it.github.assetStatuses.push(503, 429, 503);

    expect(await failureOf(it.installer.install(github, it.options))).toHaveProperty(
      "message",
      expect.stringMatching(/answered with status 503/),
    );
    expect(it.github.requests).toHaveLength(4);

    it.github.assetStatuses.push(500);
    expect(await it.installer.install(github, it.options)).toMatchObject({ version: RELEASE });
  });

  test.each([
    ["no digest", { digest: null }, /has no digest to verify it by/],
    ["another digest", { digest: `sha256:${"0".repeat(64)}` }, /its content is not what/],
    ["a smaller size", { size: 100 }, /it is longer than announced/],
    ["an absurd size", { size: 1e15 }, /has an impossible size/],
  ])("github: an asset with %s is refused and leaves nothing", async (_name, lie, message) => {
    await using it = await bench({}, [{ ...assetOf(RELEASE), ...lie }]);

    expect(await failureOf(it.installer.install(github, it.options))).toHaveProperty(
      "message",
      expect.stringMatching(message),
    );

    expect(await it.installer.list()).toEqual([]);
    expect(await it.home()).toEqual(["lock"]);
  });

  test("github: a cut connection goes on where it stopped", async () => {
    await using it = await bench();
    const { length } = assetOf(RELEASE).content;
    it.github.cuts.push(100, 50);

    expect(await it.installer.install(github, it.options)).toMatchObject({ version: RELEASE });

    expect(it.github.requests.slice(1)).toEqual([
      expect.stringMatching(/\[bytes=0-\]$/),
      expect.stringMatching(/\[bytes=100-\]$/),
      expect.stringMatching(/\[bytes=150-\]$/),
    ]);
    expect(length).toBeGreaterThan(150);
  });

  test("github: a server that ignores Range sends the whole file again", async () => {
    await using it = await bench();
    it.github.ignoreRange = true;
    it.github.cuts.push(100);

    expect(await it.installer.install(github, it.options)).toMatchObject({ version: RELEASE });
  });

  test("github: an abandoned download is resumed by the next install", async () => {
    await using it = await bench();
    const controller = new AbortController();
    it.github.cuts.push(100);
    const { gate } = it.github;
    const first = it.installer.install(github, { ...it.options, signal: controller.signal });
    const part = join(it.deps.cacheDirectory, "downloads", `${digestOf(assetOf(RELEASE))}.part`);
    await untilSize(part, 100);
    controller.abort();
    expect(await failureOf(first)).toMatchObject({ name: "AbortError" });
    await gate;
    it.github.requests.length = 0;

    await it.installer.install(github, it.options);

    expect(it.github.requests[1]).toEndWith("[bytes=100-]");
  });

  test("github: a part that was damaged on disk is fetched again whole", async () => {
    await using it = await bench();
    const downloads = join(it.deps.cacheDirectory, "downloads");
    await mkdir(downloads, { recursive: true });
    await writeFile(join(downloads, `${digestOf(assetOf(RELEASE))}.part`), "rubbish");

    expect(await it.installer.install(github, it.options)).toMatchObject({ version: RELEASE });
    expect(it.github.requests.slice(1)).toEqual([
      expect.stringMatching(/\[bytes=7-\]$/),
      expect.stringMatching(/\[bytes=0-\]$/),
    ]);
  });

  test("github: an archive without the program is refused", async () => {
    const content = Bun.gzipSync(new Uint8Array(1024));
    await using it = await bench({}, [assetOf(RELEASE, content)]);

    expect(await failureOf(it.installer.install(github, it.options))).toHaveProperty(
      "message",
      expect.stringMatching(/does not hold `llama-server`/),
    );
  });
});

describe("the path source", () => {
  const engine = join(import.meta.dir, "../../fakes/smoke-engine.ts");

  test("path: the variable wins over what is installed, as a file or its directory", async () => {
    await using it = await bench();
    await it.installer.ensure(ENGINE, it.options);
    await cp(engine, join(it.root, "llama-server"));
    const with_ = (value: string): Installer =>
      new Installer({ ...it.deps, env: { PATH: "", TUG_LLAMA_SERVER: value } });

    for (const value of [it.root, join(it.root, "llama-server")]) {
      const installer = with_(value);
      expect(await installer.active(ENGINE)).toMatchObject({
        source: "path",
        command: [join(it.root, "llama-server")],
      });
      expect((await installer.list()).map(({ source, active }) => [source, active])).toEqual([
        ["path", true],
        ["github", false],
      ]);
    }
  });

  test("path: a variable that names nothing is an error, not a silent download", async () => {
    await using it = await bench({ env: { PATH: "", LLAMA_SERVER_PATH: "/nonexistent" } });

    expect(await failureOf(it.installer.ensure(ENGINE, it.options))).toMatchObject({
      code: "install_failed",
      hint: "Set LLAMA_SERVER_PATH to the file or its directory, or unset it.",
    });
    expect(it.github.requests).toEqual([]);
  });

  testIf(!isWindows, "Windows works otherwise")(
    "path: a program on PATH is used in place and never removed",
    async () => {
      await using it = await bench();
      const program = join(it.root, "llama-server");
      await writeFile(program, "#!/bin/sh\necho 'version: 4242 (abc)' >&2\n", { mode: 0o755 });
      const installer = new Installer({ ...it.deps, env: { PATH: it.root }, offline: true });

      const installation = await installer.ensure(ENGINE, it.options);
      expect(installation).toMatchObject({ version: "4242", variant: "host", command: [program] });
      expect(await installer.active(ENGINE)).toEqual(installation);
      expect(await installer.list()).toMatchObject([{ active: true, sizeBytes: 0 }]);

      expect(await installer.uninstall({ backend: ENGINE })).toEqual([installation]);
      expect(await installer.active(ENGINE)).toBeUndefined();
      expect(await readFile(program, "utf8")).toContain("4242");
    },
  );
});

describe("Installer.uninstall", () => {
  test("installer: while another process is installing, uninstalling says so", async () => {
    await using it = await bench();
    await mkdir(join(it.deps.directory, ENGINE), { recursive: true });
    using _lock = await acquireLock(lockPath(it.deps.directory, ENGINE), {
      signal: it.options.signal,
      onWait: () => {},
    });

    expect(await failureOf(it.installer.uninstall({ backend: ENGINE }))).toMatchObject({
      code: "conflict",
      message: "cannot uninstall llama.cpp: another process is installing it",
    });
  }, 15_000);

  test("installer: one version or all are removed, and the rest is used", async () => {
    const both = [assetOf(RELEASE), assetOf("b2")];
    await using it = await bench({}, both);
    const old = await it.installer.ensure(ENGINE, it.options);
    using other = fakeGithub("b2", both);
    const next = new Installer({ ...it.deps, githubApi: other.url });
    const young = await next.install({ ...github, version: "b2" }, it.options);

    expect(await next.uninstall({ backend: ENGINE, version: "b2" })).toEqual([young]);
    expect(await next.active(ENGINE)).toEqual(old);

    expect(await next.uninstall({ backend: ENGINE })).toEqual([old]);
    expect(await next.active(ENGINE)).toBeUndefined();
    expect(await it.home()).toEqual(["lock"]);
  });
});

function digestOf(asset: FakeAsset): string {
  return new Bun.CryptoHasher("sha256").update(asset.content).digest("hex");
}

async function untilSize(path: string, bytes: number): Promise<void> {
  const { eventually } = await import("../../helpers/eventually.ts");
  await eventually(() => Bun.file(path).size >= bytes);
}

async function untilLine(stream: ReadableStream<Uint8Array>, line: string): Promise<void> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes(line)) return;
  }
  throw new Error(`ended without \`${line}\`: ${text}`);
}
