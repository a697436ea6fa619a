import { describe, expect, test } from "bun:test";
import { chmod, mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { nimArgs, readNimFlags } from "../../../backends/nim/args.ts";
import { explainNimExit } from "../../../backends/nim/explain.ts";
import { nim } from "../../../backends/nim/index.ts";
import { findNimProcess, nimReport } from "../../../backends/nim/report.ts";
import type { ArgsInput, StartedRun } from "../../../src/runtime/backend.ts";
import { spawnEngine } from "../../../src/runtime/process.ts";
import { eventually } from "../../helpers/eventually.ts";
import { isLinux, testIf } from "../../helpers/test-if.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { rejection } from "../../server/fake-deps.ts";

const INPUT: ArgsInput = {
  bundle: { directory: "/m", format: "nim", model: "/m/image", weightBytes: 100 },
  mode: "completion",
  settings: { runtimeFlags: [] },
  alias: "nvcr.io/nim/meta/tiny:latest",
  socket: "/home/u/run/w3/e.sock",
  port: 4321,
  cores: 2,
  platform: "linux",
};

describe("nimArgs", () => {
  test("publishes a port of loopback, labels the container and names the file of the image last", () => {
    const { args, env } = nimArgs(INPUT);

    expect(args).toEqual([
      "--label=tug.run=/home/u/run",
      "--publish=127.0.0.1:4321:8000",
      "--shm-size=16g",
      "--env=NGC_API_KEY",
      expect.stringMatching(/^tug-[0-9a-f]{8}-w3-4321$/),
      "/m/image",
    ]);
    expect(env).toEqual({});
  });

  test("shows names in place of what only a worker has", () => {
    const { args } = nimArgs({ ...INPUT, socket: "SOCKET", port: undefined });

    expect(args).toContain("--label=tug.run=RUN");
    expect(args).toContain("--publish=127.0.0.1:PORT:8000");
    expect(args.at(-2)).toMatch(/^tug-[0-9a-f]{8}-WORKER-PORT$/);
  });

  test("has a context only where one was asked for, and the variables that were set", () => {
    const settings = { contextTokens: 2048, runtimeFlags: ["NIM_LOG_LEVEL=DEBUG"] };
    const { args } = nimArgs({ ...INPUT, settings });
    const { args: others } = nimArgs({ ...INPUT, settings: { ...settings, contextTokens: -1 } });

    expect(args).toContain("--env=NIM_LOG_LEVEL=DEBUG");
    expect(args).toContain("--env=NIM_MAX_MODEL_LEN=2048");
    expect(others.join(" ")).not.toContain("NIM_MAX_MODEL_LEN");
  });

  test.each([{ adapters: ["/x"] }, { draft: { model: "/d" } }, { reasoningBudget: 0 }])(
    "refuses %p",
    (settings) => {
      const input = { ...INPUT, settings: { runtimeFlags: [], ...settings } };

      expect(() => nimArgs(input)).toThrow("it has nothing for it");
    },
  );
});

describe("readNimFlags", () => {
  test("takes variables of NIM from its owner", () => {
    const flags = ["NIM_MODEL_PROFILE=a b", "NIM_X="];

    expect(readNimFlags(flags, { allowPaths: true })).toMatchObject({ flags });
    expect(() => readNimFlags(flags, { allowPaths: false })).toThrow("only its owner may");
    expect(readNimFlags([], { allowPaths: false })).toMatchObject({ flags: [] });
  });

  test.each([
    "--privileged",
    "-v=/:/host",
    "PATH=/x",
    "NIM_X",
    "nim_x=1",
    "NIM_X=a\nb",
    `NIM_X=${"a".repeat(1001)}`,
    "NIM_MAX_MODEL_LEN=1",
    "NIM_SERVER_PORT=1",
  ])("refuses %p", (flag) => {
    expect(() => readNimFlags([flag], { allowPaths: true })).toThrow("cannot start nim with");
  });
});

function ended(exitCode: number | null, stderrTail: string, more = {}) {
  return explainNimExit({ exitCode, signal: null, stderrTail, ...more });
}

describe("explainNimExit", () => {
  test.each([
    ["Error: nvcr.io/nim/x@sha256:1: image not known", "its image is not here any more"],
    [
      "Error: unresolvable CDI devices nvidia.com/gpu=all",
      "podman does not know this machine's GPUs",
    ],
    ['could not select device driver "" with capabilities: [[gpu]]', "docker does not know"],
    ["Authentication Error: check NGC_API_KEY", "NVIDIA's NGC refused"],
    ["torch.OutOfMemoryError: CUDA out of memory", "too little free memory"],
    ["Bind for 127.0.0.1:1 failed: port is already allocated", "its port was taken"],
  ])("knows %p", (line, reason) => {
    expect(ended(1, `noise\n${line}\n`).reason).toContain(reason);
  });

  test("else says how it ended, with the last line that complains", () => {
    const lack = ended(137, "", { wasMemoryShort: true });

    expect(ended(3, "ok\nValueError: odd\n").reason).toBe(
      "the container ended with exit code 3: ValueError: odd",
    );
    expect(ended(125, "Error: crun: no\n").reason).toBe(
      "the container could not be started: crun: no",
    );
    expect(ended(137, "").reason).toBe("its container was killed");
    expect(ended(null, "", { signal: "SIGKILL" }).reason).toBe(
      "the container was ended by SIGKILL",
    );
    expect(lack).toMatchObject({ isOutOfMemory: true });
  });
});

describe("nimReport", () => {
  test.each([
    [
      { data: [{ id: "a/b", max_model_len: 8 }, { id: "lora" }] },
      { served_model: "a/b", context_size: 8 },
    ],
    [{ data: [{ id: "x".repeat(300), max_model_len: -1 }] }, {}],
    [{ data: [] }, {}],
    [{ data: [null] }, {}],
    [{}, {}],
  ])("reads %p", async (answer, report) => {
    expect(await nimReport(() => Promise.resolve(answer))).toEqual(report);
  });
});

describe("the recipe", () => {
  test("says which variant it is without running anything", async () => {
    await using directory = await tempDir();
    const program = join(directory.path, "podman");
    await writeFile(program, `#!/bin/sh\necho . > "${directory.path}/asked"\n`);
    await chmod(program, 0o755);

    expect(await nim.recipe.configVariant?.({ PATH: "/nowhere" })).toBe("cpu");
    expect(await nim.recipe.configVariant?.({ PATH: directory.path })).toMatch(/^(?:cpu|cuda)$/);
    expect(await Bun.file(join(directory.path, "asked")).exists()).toBe(false);
  });

  test.each(["weights", "/a:ro,b"])("refuses to keep weights in %p", async (cache) => {
    await using directory = await tempDir();
    const program = join(directory.path, "podman");
    await writeFile(program, "#!/bin/sh\necho 5.0.0\n");
    await chmod(program, 0o755);
    const env = { PATH: directory.path, TUG_HOME: directory.path, LOCAL_NIM_CACHE: cache };

    const error = String(await rejection(nim.recipe.config?.(env) ?? Promise.resolve()));
    expect(error).toContain(`weights of nim in \`${cache}\``);
  });
});

async function found(pid: string): Promise<number | undefined> {
  await using directory = await tempDir();
  const program = join(directory.path, "docker");
  await writeFile(program, `#!/bin/sh\necho ${pid}\n`);
  await chmod(program, 0o755);
  const command = ["/bin/sh", "launch.sh", program];
  const installation = { command } as unknown as StartedRun["installation"];
  const run = { installation, socket: "/run/w1/e.sock", port: 1 };
  return await findNimProcess(run, new AbortController().signal);
}

describe("findNimProcess", () => {
  testIf(isLinux, "containers need Linux")(
    "is nobody where the number is of another machine: here it is no container's",
    async () => {
      expect(await found(String(process.pid))).toBeUndefined();
      expect(await found("4194399")).toBeUndefined();
      expect(await found("0")).toBeUndefined();
    },
  );
});

/** Containers are directories; the server of one is a process of its own group, as a container engine has it. */
const ENGINE = `#!/bin/sh
here=$(dirname "$0")
case "$1" in
run)
  echo "$@" > "$here/argv"
  while [ "$1" != --name ]; do shift; done
  mkdir "$here/container-$2"
  echo "up and running"
  while [ -e "$here/container-$2" ]; do sleep 0.05; done
  exit 3 ;;
stop) rmdir "$here/container-$4" ;;
kill) ;;
rm) rmdir "$here/container-$3" 2>/dev/null || exit 1 ;;
container) [ -e "$here/container-$3" ] ;;
esac
`;

/** The shell and the script, as the installation has them. */
async function installed(home: string): Promise<readonly string[]> {
  const program = join(home, "podman");
  await writeFile(program, "#!/bin/sh\necho 5.0.0\n");
  await chmod(program, 0o755);
  const env = { PATH: home, TUG_HOME: home };
  const installation = await nim.recipe.config?.(env);
  if (installation === undefined) throw new Error("nim is not configured");
  const [, script = ""] = installation.command;
  expect({ version: installation.version, isThere: await Bun.file(script).exists() }).toEqual({
    version: "podman-5.0.0",
    isThere: false,
  });
  await nim.recipe.prepare?.(installation);
  return installation.command.slice(0, 2);
}

async function launch() {
  const directory = await tempDir();
  const path = (name: string): string => join(directory.path, name);
  await writeFile(path("docker"), ENGINE);
  await chmod(path("docker"), 0o755);
  await writeFile(path("image"), "nvcr.io/nim/meta/tiny@sha256:1\n");
  await mkdir(path("w1"));
  const command = await installed(directory.path);
  let output = "";
  const child = spawnEngine({
    command: [
      ...command,
      path("docker"),
      `cache=${path("cache")}`,
      "run",
      "--rm",
      "it",
      path("image"),
    ],
    env: {},
    directory: path("w1"),
    graceMs: 8000,
    onOutput: async (chunk) => {
      output += new TextDecoder().decode(chunk);
    },
  });
  const isThere = async (name: string): Promise<boolean> =>
    stat(path(name)).then(
      () => true,
      () => false,
    );
  await eventually(() => Promise.resolve(output.includes("up and running")));
  return { ...directory, path, child, isThere };
}

describe("launch.sh", () => {
  testIf(isLinux, "containers need Linux")(
    "runs the image with its cache, and leaves when asked to",
    async () => {
      await using it = await launch();

      const argv = await readFile(it.path("argv"), "utf8");
      await it.child.terminate();

      expect(argv).toBe(
        `run --rm -v ${it.path("cache")}:/opt/nim/.cache --name it nvcr.io/nim/meta/tiny@sha256:1\n`,
      );
      expect(await it.isThere("cache")).toBe(true);
      expect(await it.isThere("container-it")).toBe(false);
      expect(await readFile(it.path("w1/container"), "utf8")).toBe(`${it.path("docker")}\nit\n`);
    },
  );

  testIf(isLinux, "containers need Linux")(
    "removes the container when all of its group is killed",
    async () => {
      await using it = await launch();

      it.child.kill();
      await it.child.exited;

      await eventually(async () => !(await it.isThere("container-it")), 10_000);
    },
  );

  testIf(isLinux, "containers need Linux")("gives the container's exit code", async () => {
    await using it = await launch();
    await Bun.spawn(["rmdir", it.path("container-it")]).exited;

    expect(await it.child.exited).toMatchObject({ exitCode: 3 });
  });
});
