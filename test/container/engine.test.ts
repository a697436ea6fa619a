import { describe, expect, test } from "bun:test";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { complaintOf, runTool } from "../../src/container/command.ts";
import { findContainerEngine, hasContainerProgram } from "../../src/container/engine.ts";
import { inspectImage, pullImage, removeImage } from "../../src/container/images.ts";
import { AppError } from "../../src/errors.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const WORKING_DOCKER =
  'case "$1" in version) echo 28.1.0;; --version) echo "Docker version 28.1.0, build x";; esac';
const DEAD_DOCKER = 'echo "Cannot connect to the Docker daemon at unix:///x.sock." >&2; exit 1';
const PODMAN = "echo 5.2.3";

/** A PATH with these programs, and a shell for them. */
async function withPrograms(programs: Readonly<Record<string, string>>) {
  const directory = await tempDir();
  for (const [name, body] of Object.entries(programs)) {
    const path = join(directory.path, name);
    await writeFile(path, `#!/bin/sh\ncd ${directory.path}\n${body}\n`);
    await chmod(path, 0o755);
  }
  return {
    ...directory,
    env: { PATH: `${directory.path}:/usr/bin:/bin` },
    only: { PATH: directory.path },
    read: (name: string) => readFile(join(directory.path, name), "utf8"),
  };
}

function counting(body: string): string {
  return `echo . >> asked; ${body}`;
}

async function askTwice(env: Readonly<Record<string, string>>): Promise<readonly string[]> {
  const both = [findContainerEngine(env), findContainerEngine(env)];
  return (await Promise.allSettled(both)).map(({ status }) => status);
}

async function failure(promise: Promise<unknown>): Promise<AppError> {
  const thrown = await promise.catch((error: unknown) => error);
  if (!(thrown instanceof AppError)) throw new Error(`no AppError: ${String(thrown)}`);
  return thrown;
}

const signal = new AbortController().signal;

describe("findContainerEngine", () => {
  test("is docker if its daemon answers, else podman", async () => {
    await using both = await withPrograms({ docker: WORKING_DOCKER, podman: PODMAN });
    await using dead = await withPrograms({ docker: DEAD_DOCKER, podman: PODMAN });

    expect(await findContainerEngine(both.only)).toMatchObject({
      kind: "docker",
      version: "28.1.0",
    });
    expect(await findContainerEngine(dead.only)).toMatchObject({
      kind: "podman",
      version: "5.2.3",
    });
  });

  test("is the one that is named, or a reason", async () => {
    await using both = await withPrograms({ docker: DEAD_DOCKER, podman: PODMAN });
    const named = (kind: string) => ({ ...both.only, TUG_CONTAINER_ENGINE: kind });

    const error = await failure(findContainerEngine(named("docker")));

    expect(await findContainerEngine(named("podman"))).toMatchObject({ kind: "podman" });
    expect(error.message).toContain("the daemon of docker does not answer: Cannot connect");
    expect(error.hint).toContain("systemctl start docker");
  });

  test("knows podman under docker's name", async () => {
    await using shim = await withPrograms({
      docker: 'case "$1" in version) echo 4.9.3;; --version) echo "podman version 4.9.3";; esac',
    });

    expect(await findContainerEngine(shim.only)).toMatchObject({ kind: "podman" });
  });

  test("is asked once by all who ask at the same time, also where it does not work", async () => {
    await using well = await withPrograms({ podman: counting(PODMAN) });
    await using dead = await withPrograms({ docker: counting(DEAD_DOCKER) });

    expect(await askTwice(well.only)).toEqual(["fulfilled", "fulfilled"]);
    expect(await askTwice(dead.only)).toEqual(["rejected", "rejected"]);
    expect(await well.read("asked")).toBe(".\n");
    expect(await dead.read("asked")).toBe(".\n");
  });

  test("whether there is a program to ask is known without running it", async () => {
    await using dead = await withPrograms({ docker: "echo . > asked" });
    const named = { ...dead.only, TUG_CONTAINER_ENGINE: "podman" };

    expect(hasContainerProgram(dead.only)).toBe(true);
    expect(hasContainerProgram(named)).toBe(false);
    expect(hasContainerProgram({})).toBe(false);
    expect(await Bun.file(join(dead.path, "asked")).exists()).toBe(false);
  });

  test("finds nothing on an empty PATH, and nothing of use in what prints nonsense", async () => {
    await using odd = await withPrograms({ podman: "echo '<html>'" });

    const none = await failure(findContainerEngine({ PATH: "/nowhere" }));
    const nonsense = await failure(findContainerEngine(odd.only));

    expect(none.code).toBe("install_failed");
    expect(none.message).toBe(
      "cannot run containers: docker is not on PATH; podman is not on PATH",
    );
    expect(nonsense.message).toContain("podman does not work");
  });
});

describe("pullImage", () => {
  const registry = "nvcr.io";
  const options = { registry, signal, isInsecure: false, onLine: () => {} };
  const credential = { username: "$oauthtoken", password: "se-cret" };

  test("gives podman a file with the credential, and removes it", async () => {
    await using it = await withPrograms({
      podman:
        'echo "$@" > argv; for w; do case $w in --authfile=*) cp -p "${w#*=}" auth;; esac; done',
    });
    const engine = { kind: "podman" as const, program: join(it.path, "podman"), version: "5" };

    await pullImage(engine, "nvcr.io/nim/x:1", { ...options, env: it.env, credential });
    const argv = await it.read("argv");
    const file = /--authfile=(\S+)/.exec(argv)?.[1] ?? "";

    const { auths } = JSON.parse(await it.read("auth")) as {
      auths: Record<string, { auth: string }>;
    };
    expect(atob(auths[registry]?.auth ?? "")).toBe("$oauthtoken:se-cret");
    expect(argv).not.toContain("se-cret");
    expect(await Bun.file(file).exists()).toBe(false);
  });

  test("gives docker a directory of settings, and says where its daemon is", async () => {
    await using it = await withPrograms({
      docker:
        'case "$1" in context) echo unix:///ctx.sock;; *) echo "$@ $DOCKER_HOST" > argv; cp "$2/config.json" auth;; esac',
    });
    const engine = { kind: "docker" as const, program: join(it.path, "docker"), version: "28" };

    await pullImage(engine, "nvcr.io/nim/x:1", { ...options, env: it.env, credential });

    expect(await it.read("argv")).toMatch(
      /^--config \S+ pull nvcr.io\/nim\/x:1 unix:\/\/\/ctx.sock\n$/,
    );
    expect(await it.read("auth")).toContain(registry);
  });

  const FAILURES = [
    ["Error: unable to pull: unauthorized: authentication required", "unauthorized"],
    ["Error response from daemon: manifest unknown", "not_found"],
    ["Error: writing blob: no space left on device", "insufficient_storage"],
    ["Error: dial tcp: lookup nvcr.io: no such host", "registry_unavailable"],
    ["Error: something else", "install_failed"],
  ] as const;

  test.each(FAILURES)("says of %p that it is %p", async (line, code) => {
    await using it = await withPrograms({
      podman: `echo "Trying to pull"; echo "${line}" >&2; exit 125`,
    });
    const engine = { kind: "podman" as const, program: join(it.path, "podman"), version: "5" };

    const error = await failure(pullImage(engine, "nvcr.io/nim/x:1", { ...options, env: it.env }));

    expect(error.code).toBe(code);
    expect(error.message).not.toContain("Error");
    expect(error.hint?.includes("NGC_API_KEY") === true).toBe(code === "unauthorized");
  });

  test("tells each line, and ends when it is not wanted any more", async () => {
    await using it = await withPrograms({ podman: "echo one; echo two >&2; exec sleep 100" });
    const engine = { kind: "podman" as const, program: join(it.path, "podman"), version: "5" };
    const leaving = new AbortController();
    const lines = new Set<string>();
    const onLine = (line: string): void => {
      lines.add(line);
      if (lines.size === 2) leaving.abort(new Error("left"));
    };

    const pulled = pullImage(engine, "x/y:1", {
      ...options,
      env: it.env,
      signal: leaving.signal,
      onLine,
    });

    expect(await pulled.catch((error: unknown) => (error as Error).message)).toBe("left");
    expect(lines).toEqual(new Set(["one", "two"]));
  });
});

describe("images", () => {
  const FACTS = JSON.stringify([
    {
      Id: "abc",
      RepoDigests: ["r/x@sha256:1", 5],
      RepoTags: ["r/x:1", "r/other:1"],
      Size: 7,
      Created: "2026-01-02T03:04:05.6Z",
    },
  ]);

  test("are read leniently", async () => {
    await using it = await withPrograms({
      podman: `echo '${FACTS}'`,
      odd: "echo '[5]'",
      none: "exit 125",
    });
    const inspect = (name: string) =>
      inspectImage({ kind: "podman", program: join(it.path, name), version: "5" }, "x", {
        env: it.env,
        signal,
      });

    expect(await inspect("podman")).toEqual({
      id: "abc",
      digests: ["r/x@sha256:1"],
      tags: ["r/x:1", "r/other:1"],
      size: 7,
      created: "2026-01-02T03:04:05.600Z",
    });
    expect(await inspect("odd")).toBeUndefined();
    expect(await inspect("none")).toBeUndefined();
  });

  test("lose only the names of one repository, and are gone with the last", async () => {
    await using it = await withPrograms({
      podman: `case "$1" in rmi) echo "$2" >> removed;; *) [ -f removed ] && exit 1; echo '${FACTS}';; esac`,
    });
    const engine = { kind: "podman" as const, program: join(it.path, "podman"), version: "5" };

    const isGone = await removeImage(
      engine,
      { image: "r/x@sha256:1", repository: "r/x" },
      { env: it.env, signal },
    );

    expect(isGone).toBe(true);
    expect(await it.read("removed")).toBe("r/x:1\n");
  });
});

describe("runTool", () => {
  test("ends what does not end in time", async () => {
    const error = await failure(
      runTool(["/bin/sh", "-c", "exec sleep 100"], { signal, timeoutMs: 50 }),
    );

    expect(error.code).toBe("timed_out");
  });

  test("bounds lines and output, whatever is printed", async () => {
    const lines: string[] = [];
    const script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; printf 'a\\033[2Kb\\rc\\n'";

    const { stdout } = await runTool(["/bin/sh", "-c", script], {
      signal,
      timeoutMs: 20_000,
      onLine: (line) => lines.push(line),
    });

    expect(stdout).toHaveLength(1024 * 1024);
    expect(lines.map(({ length }) => length)).toEqual([500, 6, 1]);
  });

  test("does not wait for what its program left running", async () => {
    const { exitCode } = await runTool(["/bin/sh", "-c", "sleep 30 & exit 7"], {
      signal,
      timeoutMs: 20_000,
    });

    expect(exitCode).toBe(7);
  }, 10_000);

  test("is told of a program that is not there", async () => {
    const error = await failure(runTool(["/nowhere/x"], { signal, timeoutMs: 1000 }));

    expect(error.code).toBe("install_failed");
  });
});

test("complaintOf is the last line that complains, bounded", () => {
  expect(complaintOf("Trying\nError: Error response from daemon: it is so\nbye\n")).toBe(
    "it is so",
  );
  expect(complaintOf(`x\n${"y".repeat(500)}`)).toHaveLength(201);
  expect(complaintOf("")).toBe("");
});
