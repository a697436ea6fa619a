import { describe, expect } from "bun:test";
import { chmod, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { llamacpp } from "../../../backends/llamacpp/index.ts";
import { mlx } from "../../../backends/mlx/index.ts";
import { AppError } from "../../../src/errors.ts";
import { Installer, type InstallerDeps } from "../../../src/runtime/installer/installer.ts";
import type { EngineRequest } from "../../../src/runtime/installer/installer.ts";
import type { InstallProgress } from "../../../src/runtime/installer/source.ts";
import { certificateVariables } from "../../../src/runtime/installer/uv.ts";
import { eventually } from "../../helpers/eventually.ts";
import { processesNaming } from "../../helpers/processes.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { isLinux, isWindows, testIf } from "../../helpers/test-if.ts";
import { failureOf } from "./failure-of.ts";
import { loopbackRemotes } from "./remotes.ts";

const PYTHON = findPython();
const python = testIf(PYTHON !== "" && !isWindows, "there is no python3, or no shell");
const pythonOnLinux = testIf(PYTHON !== "" && isLinux, "no python3, or no /proc");

const VERSION = mlx.recipe.pypi?.version ?? "";

/** Of the program itself: on PATH may be a script that looks for it. */
function findPython(): string {
  const found = Bun.which("python3");
  if (found === null) return "";
  return Bun.spawnSync([found, "-c", "import sys; print(sys.executable)"]).stdout.toString().trim();
}

/** What stands for uv: it writes its arguments down, makes an environment of a link, and fails as it is told. */
const UV = `#!/bin/sh
[ "$1" = --version ] && echo "uv 0.9.1 (stand-in)" && exit
here=$(/usr/bin/dirname "$0")
echo "$*" >>"$here/arguments"
/usr/bin/env | /usr/bin/grep -E "^(UV_|VIRTUAL_ENV|PYTHONPATH)" >"$here/variables"
for last; do :; done
case "$1 $2 $UV_MODE" in
"python find no-python"*) echo "error: No interpreter found for Python $last" >&2; exit 2;;
"python find"*) echo "${PYTHON}";;
"python install"*) echo "error: Failed to fetch" >&2; exit 2;;
"venv "*) /bin/mkdir -p "$last/bin"; /bin/ln -s "${PYTHON}" "$last/bin/python";;
"pip install "*)
  /bin/mkdir -p "$UV_CACHE_DIR"; echo wheel >"$UV_CACHE_DIR/wheel"
  echo "Downloading mlx (2.0MiB)" >&2
  echo "Downloading numpy (1.5MiB)" >&2
  echo " Downloaded mlx" >&2
  case "$UV_MODE" in
  full) printf 'error: Failed to install: numpy\\n  Caused by: failed to write\\n  Caused by: No space left on device (os error 28)\\n' >&2; exit 2;;
  hash) printf 'error: Failed to download numpy\\n  cause: Hash mismatch for numpy\\n\\n         Expected:\\n           sha256:00\\n\\n         Computed:\\n           sha256:11\\n' >&2; exit 1;;
  tree) printf '  × No solution found when resolving dependencies:\\n  ├─▶ Because of this\\n  ╰─▶ numpy has no wheel for this platform\\n' >&2; exit 1;;
  silent) exit 9;;
  panics) echo "thread 'main' panicked" >&2; exit 101;;
  hang) echo hanging >>"$here/arguments"; /bin/sleep 5;;
  esac
  echo " Downloaded numpy" >&2
  echo "Prepared 2 packages in 1ms" >&2;;
esac
`;

interface Bench extends AsyncDisposable {
  readonly root: string;
  readonly bin: string;
  readonly cache: string;
  readonly events: InstallProgress[];
  readonly tested: string[];
  install(request?: Partial<EngineRequest>, signal?: AbortSignal): ReturnType<Installer["install"]>;
  installer(overrides?: Partial<InstallerDeps>): Installer;
  /** What uv was called with, in order. */
  calls(): Promise<string[]>;
  names(): Promise<string[]>;
}

async function bench(variables: Readonly<Record<string, string>> = {}): Promise<Bench> {
  const directory = await tempDir();
  const root = join(directory.path, "backends");
  const cache = join(directory.path, "cache");
  const bin = join(directory.path, "bin");
  await mkdir(bin);
  await writeFile(join(bin, "uv"), UV);
  await chmod(join(bin, "uv"), 0o755);
  const events: InstallProgress[] = [];
  const tested: string[] = [];
  const installer = (overrides: Partial<InstallerDeps> = {}): Installer =>
    new Installer({
      directory: root,
      cacheDirectory: cache,
      backends: [mlx],
      machine: { platform: "linux", arch: "x64" },
      env: { PATH: bin, ...variables },
      offline: false,
      remotes: loopbackRemotes(),
      smokeModel: () => Promise.resolve(""),
      verifyEngine: ({ command }) => Promise.resolve(void tested.push(command.join(" "))),
      ...overrides,
    });
  const usual = installer();
  return {
    root,
    bin,
    cache,
    events,
    tested,
    installer,
    install: (request, signal = AbortSignal.timeout(20_000)) =>
      usual.install(
        { backend: "mlx", gpu: "none", ...request },
        { signal, onProgress: (event) => void events.push(event) },
      ),
    calls: async () => (await readFile(join(bin, "arguments"), "utf8")).trim().split("\n"),
    names: async () => (await readdir(join(root, "mlx"))).toSorted(),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

/** An environment with the package, or what looks like one. */
async function environmentWith(directory: string, name = "mlx_lm"): Promise<string> {
  const made = Bun.spawnSync([PYTHON, "-m", "venv", "--without-pip", directory]);
  expect(made.exitCode).toBe(0);
  const [packages = ""] = await Array.fromAsync(
    new Bun.Glob("lib/python*/site-packages").scan({ cwd: directory, onlyFiles: false }),
  );
  const at = join(directory, packages);
  await mkdir(join(at, name));
  await writeFile(join(at, name, "__init__.py"), "raise SystemExit('it was imported')");
  await mkdir(join(at, "mlx_lm-0.31.0.dist-info"));
  await writeFile(
    join(at, "mlx_lm-0.31.0.dist-info", "METADATA"),
    "Metadata-Version: 2.1\nName: mlx-lm\nVersion: 0.31.0\n",
  );
  return join(directory, "bin", "python");
}

async function messageOf(promise: Promise<unknown>): Promise<string> {
  return ((await failureOf(promise)) as Error).message;
}

describe("an environment of its own", () => {
  python(
    "pypi: it is made of locked packages, tried, and recorded with what it needs",
    async () => {
      await using it = await bench();

      const installation = await it.install();

      const directory = join(it.root, "mlx", `${VERSION}-cpu`);
      expect(installation).toMatchObject({
        version: VERSION,
        variant: "cpu",
        source: "pypi",
        directory,
        command: [join(directory, "environment/bin/python"), join(directory, "launch.py")],
      });
      expect(installation.needs).toContain(dirname(dirname(PYTHON)));
      expect(await readFile(join(directory, "launch.py"), "utf8")).toBe(
        mlx.recipe.pypi?.launcher ?? "",
      );
      expect(await it.names()).toEqual([`${VERSION}-cpu`, "active.json", "lock"]);
      expect(it.tested).toHaveLength(1);
      expect(await it.installer().active("mlx")).toEqual(installation);
    },
  );

  python(
    "pypi: what starts it is this version's, also where it was installed by another",
    async () => {
      await using it = await bench();
      const { directory } = await it.install();
      const launcher = join(directory, "launch.py");
      await writeFile(launcher, "the one of an older version");

      await it.installer().ensure("mlx", {
        signal: AbortSignal.timeout(20_000),
        onProgress: () => undefined,
      });

      expect(await readFile(launcher, "utf8")).toBe(mlx.recipe.pypi?.launcher ?? "");
    },
  );

  python("pypi: uv is told to install nothing but what has the locked hashes", async () => {
    await using it = await bench({ VIRTUAL_ENV: "/mine", PYTHONPATH: "/mine", UV_PYTHON: "2" });

    await it.install();

    const [find, venv, install] = await it.calls();
    expect(find).toBe("python find --no-project --system >=3.11,<3.15 --no-python-downloads");
    expect(venv).toStartWith(`venv --no-project --relocatable --python ${PYTHON} ${it.root}/mlx/`);
    expect(install).toMatch(
      /^pip install --python \S+\/environment\/bin\/python --require-hashes --no-deps --only-binary :all: --compile-bytecode -r \S+\/requirements\.txt$/,
    );
    const variables = (await readFile(join(it.bin, "variables"), "utf8")).trim().split("\n");
    expect(variables.toSorted()).toEqual(
      [
        `UV_CACHE_DIR=${it.cache}/uv-cache/mlx`,
        "UV_HTTP_TIMEOUT=60",
        "UV_NO_CONFIG=1",
        "UV_NO_PROGRESS=1",
        `UV_PYTHON_INSTALL_DIR=${it.root}/.python`,
        ...Object.entries(certificateVariables()).map(([name, value]) => `${name}=${value}`),
      ].toSorted(),
    );
  });

  python("pypi: progress counts what uv names, and the cache goes at the end", async () => {
    await using it = await bench();

    await it.install();

    const downloads = it.events.filter(({ phase }) => phase === "downloading");
    const mib = 1024 * 1024;
    expect(downloads.map(({ done_bytes: done, total_bytes: total }) => [done, total])).toEqual([
      [0, 2 * mib],
      [0, 3.5 * mib],
      [2 * mib, 3.5 * mib],
      [3.5 * mib, 3.5 * mib],
    ]);
    expect([...new Set(it.events.map(({ phase }) => phase))]).toEqual([
      "resolving",
      "downloading",
      "unpacking",
      "testing",
    ]);
    expect(await readdir(join(it.cache, "uv-cache"))).toEqual([]);
  });

  python("pypi: asked for again it is tried again, not made again", async () => {
    await using it = await bench();
    await it.install();

    await it.install();

    expect((await it.calls()).filter((call) => call.startsWith("pip"))).toHaveLength(1);
    expect(it.tested).toHaveLength(2);
  });

  for (const [mode, reason] of [
    ["hash", "Failed to download numpy: Hash mismatch for numpy"],
    ["tree", "No solution found when resolving dependencies: numpy has no wheel for this platform"],
    ["silent", "exit code 9"],
    ["panics", "thread 'main' panicked"],
  ] as const) {
    python(`pypi: uv's reason is told, and downloads are kept (${mode})`, async () => {
      await using it = await bench({ UV_MODE: mode });

      const failure = await failureOf(it.install());

      expect(failure).toMatchObject({ code: "install_failed" });
      expect((failure as Error).message).toEndWith(`failed: ${reason}`);
      expect(await it.names()).toEqual(["lock"]);
      expect(await readdir(join(it.cache, "uv-cache", "mlx"))).toEqual(["wheel"]);
    });
  }

  python("pypi: a full disk is said to be one", async () => {
    await using it = await bench({ UV_MODE: "full" });

    const failure = await failureOf(it.install());

    expect(failure).toMatchObject({
      code: "insufficient_storage",
      message: "cannot install mlx: the disk is full",
    });
    expect(await it.names()).toEqual(["lock"]);
  });

  python("pypi: without a Python one is fetched; where that fails it says what to do", async () => {
    await using it = await bench({ UV_MODE: "no-python" });

    const message = await messageOf(it.install());

    expect(message).toBe(
      "cannot install mlx: from pypi: there is no Python >=3.11,<3.15 on PATH, and none could be fetched: install one with your system's packages",
    );
    expect((await it.calls()).map((call) => call.split(" ").slice(0, 2).join(" "))).toEqual([
      "python find",
      "python install",
    ]);
  });

  python("pypi: a version that is not locked is refused, with the one that is", async () => {
    await using it = await bench();

    const message = await messageOf(it.install({ version: "9.9" }));

    expect(message).toStartWith(`cannot install mlx: from pypi: it locks version ${VERSION}: `);
    expect(await readdir(it.cache).catch(() => [])).toEqual([]);
  });

  python("pypi: nobody is asked offline", async () => {
    await using it = await bench();
    const installer = it.installer({ offline: true });
    const options = { signal: AbortSignal.timeout(20_000), onProgress: () => undefined };

    const failure = await failureOf(installer.install({ backend: "mlx", gpu: "none" }, options));

    expect(failure).toBeInstanceOf(AppError);
    expect(await readdir(it.bin)).toEqual(["uv"]);
  });

  pythonOnLinux(
    "pypi: an abort ends uv, whatever its children do, and leaves nothing but downloads",
    async () => {
      await using it = await bench({ UV_MODE: "hang" });
      const controller = new AbortController();

      const installing = it.install({}, controller.signal);
      installing.catch(() => undefined);
      await eventually(async () => (await it.calls()).includes("hanging"));
      controller.abort(new Error("enough"));

      expect(await messageOf(installing)).toBe("enough");
      expect(await it.names()).toEqual(["lock"]);
      expect(await processesNaming(it.bin)).toEqual([]);
    },
  );

  python("pypi: what a killed install left is no obstacle, and goes", async () => {
    await using it = await bench();
    await mkdir(join(it.root, "mlx", ".staging-abc", "environment"), { recursive: true });
    await mkdir(join(it.root, "mlx", `${VERSION}-cpu`), { recursive: true });

    await it.install();

    expect(await it.names()).toEqual([`${VERSION}-cpu`, "active.json", "lock"]);
  });

  python("pypi: one whose Python has gone is made anew", async () => {
    await using it = await bench();
    const { command } = await it.install();
    await Bun.file(command[0] ?? "").unlink();

    expect(await it.installer().active("mlx")).toBeUndefined();
    const again = await it.install();

    expect(again.command).toEqual(command);
    expect((await it.calls()).filter((call) => call.startsWith("pip"))).toHaveLength(2);
  });

  python("pypi: two engines at once have caches of their own", async () => {
    await using it = await bench();
    const other = { ...mlx, name: "other" };
    const installer = it.installer({ backends: [mlx, other] });
    const options = { signal: AbortSignal.timeout(20_000), onProgress: () => undefined };

    await mkdir(join(it.cache, "uv-cache", "other"), { recursive: true });
    await installer.install({ backend: "mlx", gpu: "none" }, options);

    expect(await readdir(join(it.cache, "uv-cache"))).toEqual(["other"]);
    await installer.install({ backend: "other", gpu: "none" }, options);
    expect(await readdir(join(it.cache, "uv-cache"))).toEqual([]);
  });
});

describe("an environment of the user's own", () => {
  python("pypi: it is used where it is, by its Python or its directory", async () => {
    await using it = await bench();
    const own = await environmentWith(join(it.bin, "mine"));

    const byPython = await it.install({ python: own });
    const byDirectory = await it.install({ python: dirname(dirname(own)) });

    const directory = join(it.root, "mlx", "0.31.0-host");
    expect(byPython).toMatchObject({
      version: "0.31.0",
      variant: "host",
      command: [own, join(directory, "launch.py")],
    });
    expect(byPython.needs).toContain(join(it.bin, "mine"));
    expect(byDirectory.command).toEqual(byPython.command);
    expect((await readdir(it.bin)).toSorted()).toEqual(["mine", "uv"]);
  });

  python("pypi: another one of the same version takes its place", async () => {
    await using it = await bench();
    const first = await environmentWith(join(it.bin, "first"));
    const second = await environmentWith(join(it.bin, "second"));
    await it.install({ python: first });

    const { command } = await it.install({ python: second });

    expect(command[0]).toBe(second);
    expect((await it.installer().active("mlx"))?.command[0]).toBe(second);
  });

  python("pypi: a variable may name it", async () => {
    await using place = await tempDir();
    const own = await environmentWith(join(place.path, "mine"));
    await using it = await bench({ TUG_MLX_PYTHON: own });

    expect((await it.install()).command[0]).toBe(own);
    expect(await messageOf(it.install({ version: "1.0" }))).toContain(
      `\`${own}\` has version 0.31.0, not 1.0`,
    );
  });

  python("pypi: a Python that nobody would look at is refused", async () => {
    await using it = await bench();
    const installer = it.installer({ backends: [mlx, llamacpp] });
    const options = { signal: AbortSignal.timeout(10_000), onProgress: () => undefined };
    const refusal = (backend: string, source?: string) =>
      failureOf(installer.install({ backend, gpu: "none", source, python: "/p" }, options));

    expect(await refusal("mlx", "apt")).toMatchObject({
      code: "usage",
      message: "cannot install mlx from `apt` with a Python: only pypi takes one",
    });
    for (const source of [undefined, "apt"]) {
      expect(await refusal("llama.cpp", source)).toMatchObject({
        code: "usage",
        message: "cannot install llama.cpp with a Python: it does not run in one",
      });
    }
  });

  python("pypi: of one that cannot serve is said how to name another", async () => {
    await using it = await bench();
    await using named = await bench({ TUG_MLX_PYTHON: "/nonexistent" });
    const hint = "Name the `python` of an environment that has `mlx-lm`. ";

    expect(await failureOf(it.install({ python: "/nonexistent" }))).toMatchObject({
      hint: `${hint}Leave out \`--python\` to have Tug make one.`,
    });
    expect(await failureOf(named.install())).toMatchObject({
      hint: `${hint}Unset TUG_MLX_PYTHON to have Tug make one.`,
    });
  });

  python("pypi: one that cannot serve is refused in a clause", async () => {
    await using it = await bench();
    const lacks = await environmentWith(join(it.bin, "lacks"), "something_else");
    const text = join(it.bin, "text");
    await writeFile(text, "no program");
    const loop = join(it.bin, "loop");
    await symlink(loop, loop);
    const old = join(it.bin, "python2");
    await writeFile(old, '#!/bin/sh\n[ "$1" = -V ] && echo "Python 2.7.18" >&2 && exit\nexit 2\n');
    await chmod(old, 0o755);
    const chatty = join(it.bin, "chatty");
    await writeFile(chatty, '#!/bin/sh\necho "[1]"\n');
    await chmod(chatty, 0o755);

    const reasons = await Promise.all(
      [lacks, text, loop, old, chatty, "/bin/echo", it.root, "/nonexistent/python"].map(
        async (path) => {
          // Each waits for the lock of the one before.
          const message = await messageOf(it.install({ python: path }));
          return message.replace("cannot install mlx: from pypi: ", "");
        },
      ),
    );

    expect(reasons).toEqual([
      `\`${lacks}\` failed: \`mlx-lm\` is not installed there`,
      `\`${text}\` cannot be started (EACCES)`,
      `there is no Python at \`${loop}\``,
      `\`${old}\` is Python 2.7.18, which is too old`,
      `\`${chatty}\` is no Python`,
      "`/bin/echo` is no Python",
      `there is no Python at \`${it.root}\``,
      "there is no Python at `/nonexistent/python`",
    ]);
    expect(await it.names()).toEqual(["lock"]);
  });
});
