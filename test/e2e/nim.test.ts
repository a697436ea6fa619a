/** Container images as models, with a real podman and a registry of this machine in the place of NVIDIA's. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI from "openai";
import type { WorkerStatus } from "../../src/api/engines.ts";
import type { ExplainResult } from "../../src/api/settings.ts";
import type { Model } from "../../src/api/models.ts";
import {
  type DockerRegistry,
  dockerRegistry,
  htpasswd,
  startDockerRegistry,
} from "../helpers/docker-registry.ts";
import { eventually } from "../helpers/eventually.ts";
import { buildNimImages, openPodman, type Podman, podmanProblem } from "../helpers/nim-image.ts";
import { killAll, processesNaming, runnersOf } from "../helpers/processes.ts";
import { describeIf, isLinux, testIf } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

/** Containers start and end within seconds. */
const SOON_MS = 20_000;
const opened = dockerRegistry === null ? undefined : await openPodman();
const PROBLEM = dockerRegistry === null ? "no docker-registry" : podmanProblem(opened);
const BEHAVIOURS = ["well", "exits", "mute"] as const;

testIf(isLinux, "containers need Linux")(
  "no container engine is asked anything where no image is concerned, but by `tug engines`",
  async () => {
    await using home = await tugHome({ engine: true });
    const programs = join(home.path, "programs");
    const asked = join(home.path, "asked");
    await mkdir(programs);
    for (const name of ["docker", "podman"]) {
      await writeFile(join(programs, name), `#!/bin/sh\necho ${name} >> "${asked}"\nexit 1\n`);
      await chmod(join(programs, name), 0o755);
    }
    const PATH = `${programs}:${process.env["PATH"] ?? ""}`;
    const tug = (...words: string[]) => home.tug(words, { env: { PATH } });

    for (const words of [["run", "pebble", "hi"], ["list"], ["ps"], ["explain", "pebble"]]) {
      expect(await tug(...words)).toMatchObject({ exitCode: 0 });
    }
    expect(await readFile(asked, "utf8").catch(() => "")).toBe("");
    const engines = await tug("engines");

    expect(engines.stdout).toContain("nim");
    expect(await readFile(asked, "utf8")).toBe("docker\npodman\n");
  },
  // The first test that needs an engine may have to install it.
  240_000,
);

describeIf(PROBLEM === undefined, PROBLEM ?? "")("nim", () => {
  let podman: Podman;
  let registry: DockerRegistry;
  let home: TugHome;

  beforeAll(async () => {
    if (opened === undefined) throw new Error("there is a podman where tests are not skipped");
    podman = opened;
    registry = await startDockerRegistry();
    const images = BEHAVIOURS.map((behaviour) => ({ name: image(behaviour), behaviour }));
    await buildNimImages(podman, images);
    for (const { name } of images) await push(name);
    await podman.run("tag", image("well"), image("twin"));
    await push(image("twin"));
    await podman.run("rmi", "--all", "--force");
    home = await nimHome();
  }, 240_000);
  afterAll(async () => {
    await home?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
    await podman?.[Symbol.asyncDispose]();
  }, 120_000);

  function image(name: string, host = registry.host): string {
    return `${host}/nim/meta/${name}:latest`;
  }

  async function push(name: string, ...flags: string[]): Promise<void> {
    const { exitCode, stderr } = await podman.run("push", "--tls-verify=false", ...flags, name);
    if (exitCode !== 0) throw new Error(stderr);
  }

  function nimHome(env: Readonly<Record<string, string>> = {}): Promise<TugHome> {
    const prefixes = { TUG_NIM_PREFIXES: `${registry.host}/nim/` };
    return tugHome({ env: { ...podman.env, ...prefixes, NGC_API_KEY: "key-1", ...env } });
  }

  async function ok(args: readonly string[], where = home): Promise<string> {
    const { exitCode, stdout, stderr } = await where.tug(args);
    if (exitCode !== 0) throw new Error(`\`tug ${args.join(" ")}\`:\n${stderr}`);
    return stdout;
  }

  async function workers(): Promise<WorkerStatus[]> {
    return JSON.parse(await ok(["ps", "--json"])) as WorkerStatus[];
  }

  /** Names of those of a home, whatever state they are in. */
  async function containers(where = home): Promise<readonly string[]> {
    const label = `label=tug.run=${join(where.path, "run")}`;
    const { stdout } = await podman.run("ps", "-a", "--filter", label, "--format", "{{.Names}}");
    return stdout.split("\n").filter((line) => line !== "");
  }

  async function untilNoContainers(where = home): Promise<void> {
    await eventually(async () => (await containers(where)).length === 0, SOON_MS);
  }

  async function unloadAll(): Promise<void> {
    await ok(["unload", "--all", "--wait"]);
    expect(await containers()).toEqual([]);
  }

  async function answersEnded(): Promise<number> {
    return (await ok(["logs"])).split("an answer has ended").length - 1;
  }

  function openai(): OpenAI {
    return new OpenAI({ baseURL: `${home.url}/v1`, apiKey: "any", maxRetries: 0 });
  }

  const asking = (name: string, content: string) => ({
    model: image(name),
    messages: [{ role: "user" as const, content }],
  });

  test("the first run pulls the image, starts it and answers; the key goes with it", async () => {
    const run = await home.tug(["run", image("well"), "hello"]);

    expect(run).toMatchObject({ exitCode: 0 });
    expect(run.stdout).toContain("turn 1: hello, limit none, profile none, key key-1");
    expect(run.stderr).toContain("is not here yet: pulling it");
    expect(await containers()).toHaveLength(1);
  });

  test("ps and explain say what runs, and that the container confines it", async () => {
    const [worker] = await workers();
    const explained = await ok(["explain", "--json", image("well")]);
    const { sandbox, shares_network, reported, command } = JSON.parse(explained) as ExplainResult;

    expect(worker).toMatchObject({
      backend_name: "nim",
      state: "ready",
      sandbox: "container",
      shares_network: false,
      context_size: 2048,
    });
    expect(worker?.memory_actual?.["ram"]).toBeGreaterThan(10_000_000);
    expect({ sandbox, shares_network }).toEqual({ sandbox: "container", shares_network: false });
    expect(reported).toMatchObject({ served_model: "meta/tiny" });
    expect(command?.join(" ")).toContain("--env=NGC_API_KEY ");
    expect(explained).not.toContain("key-1");
  });

  test("list, inspect and engines know it, logs show what it prints", async () => {
    const models = JSON.parse(await ok(["list", "--json"])) as Model[];
    const inspected = JSON.parse(await ok(["inspect", image("well")])) as Model;

    expect(models).toMatchObject([{ tags: [image("well")], config: { format: "nim" } }]);
    expect(inspected.size_bytes).toBeGreaterThan(50_000_000);
    expect(await ok(["engines"])).toMatch(/nim .*podman-\d/);
    expect(await ok(["logs"])).toContain("serving meta/tiny as user");
  });

  test("an answer streams under the name that was asked for, and a client that leaves ends it", async () => {
    const stream = await openai().chat.completions.create({
      ...asking("well", "hi"),
      stream: true,
    });
    const chunks = await Array.fromAsync(stream);

    expect(new Set(chunks.map(({ model }) => model))).toEqual(new Set([image("well")]));
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toContain("hi,");

    const before = await answersEnded();
    const endless = await openai().chat.completions.create({
      ...asking("well", "for ever"),
      stream: true,
    });
    for await (const _ of endless) break;
    await eventually(async () => (await answersEnded()) > before, SOON_MS);
  });

  test("its own errors reach the client; a chat remembers", async () => {
    const turns = await openai().chat.completions.create({
      model: image("well"),
      messages: [
        { role: "user", content: "one" },
        { role: "assistant", content: "two" },
        { role: "user", content: "three" },
      ],
    });
    const ranking = fetch(`${home.url}/v1/rerank`, {
      method: "POST",
      body: JSON.stringify({ model: image("well"), query: "q", documents: ["d"] }),
    });

    expect(turns).toMatchObject({ model: image("well") });
    expect(turns.choices[0]?.message.content).toContain("turn 3: three");
    expect((await ranking).status).toBe(422);
  });

  test("two run at once, each on a port of its own", async () => {
    await ok(["pull", image("twin")]);
    const answers = await Promise.all(
      ["well", "twin"].map((name) => openai().chat.completions.create(asking(name, name))),
    );

    expect(answers.map(({ model }) => model)).toEqual([image("well"), image("twin")]);
    expect(await containers()).toHaveLength(2);
    expect(await workers()).toHaveLength(2);
    await unloadAll();
  });

  test("settings become its variables; others than NIM's are refused", async () => {
    await ok(["configure", image("twin"), "--context-size", "1024", "--", "NIM_MODEL_PROFILE=abc"]);
    const refused = await home.tug(["configure", image("twin"), "--", "--privileged"]);

    const run = await ok(["run", image("twin"), "hi"]);

    expect(run).toContain("limit 1024, profile abc");
    expect(refused.exitCode).not.toBe(0);
    expect(refused.stderr).toContain("it takes no flags");
    await unloadAll();
  });

  test("embeddings are those of a worker for them", async () => {
    const { data } = await openai().embeddings.create({
      model: image("well"),
      input: "text",
      encoding_format: "float",
    });

    expect(data[0]?.embedding).toEqual([1, 2, 3]);
    await unloadAll();
  });

  test("when it has been idle long enough the container is gone", async () => {
    await ok(["run", "--keep-alive", "300ms", image("well"), "hi"]);

    await untilNoContainers();

    await eventually(async () => (await workers()).length === 0, SOON_MS);
  });

  test("its client is killed: the container goes with it, and the next request gets another", async () => {
    await ok(["run", image("well"), "hi"]);
    const [before] = await containers();
    const clients = (await processesNaming(home.path)).filter(
      ({ argv }) => argv[0]?.endsWith("/podman") && argv[1] === "run",
    );

    expect(clients).toHaveLength(1);
    await killAll(clients);
    await untilNoContainers();

    expect(await ok(["run", image("well"), "again"])).toContain("again");
    expect(await containers()).not.toContain(before);
    await unloadAll();
  });

  test("the runner is killed: the container is removed without it", async () => {
    await ok(["run", image("well"), "hi"]);

    await killAll(await runnersOf(home.path));
    await untilNoContainers();

    expect(await ok(["run", image("well"), "again"])).toContain("again");
    await unloadAll();
  });

  test("the runner is killed with all that guards: the next one removes the container, and no other", async () => {
    await using other = await nimHome();
    await ok(["run", image("well"), "hi"], other);
    await ok(["run", image("well"), "hi"]);
    const [name = ""] = await containers();
    const guards = (await processesNaming(name)).filter(({ argv }) =>
      argv[2]?.startsWith("cd /\n"),
    );

    expect(guards).toHaveLength(1);
    await killAll(guards);
    await killAll(await runnersOf(home.path));
    expect(await containers()).toHaveLength(1);
    await ok(["start-runner"]);
    await untilNoContainers();

    expect(await containers(other)).toHaveLength(1);
    await ok(["stop-runner"], other);
    expect(await containers(other)).toEqual([]);
  });

  test("who gives up a load leaves nothing behind", async () => {
    await ok(["pull", image("mute")]);
    const gone = new AbortController();
    const asked = openai().chat.completions.create(asking("mute", "hi"), { signal: gone.signal });
    await eventually(async () => (await containers()).length === 1, SOON_MS);

    gone.abort();
    await asked.catch(() => undefined);
    await ok(["unload", "--all", "--force"]);

    await untilNoContainers();
  });

  test("one that ends at once, and one that is never ready, say why", async () => {
    // A silent load is given up after five times as long.
    await using hasty = await nimHome({ TUG_SILENCE_TIMEOUT: "400ms" });

    const exits = await home.tug(["run", image("exits"), "hi"]);
    const mute = await hasty.tug(["run", image("mute"), "hi"]);

    expect(exits.stderr).toContain("the image has no profile for this machine's GPUs");
    expect(mute.stderr).toContain("nim made no progress for 2 s");
    await untilNoContainers(hasty);
    await untilNoContainers();
  });

  test("an image that was removed behind Tug's back is pulled again when asked for", async () => {
    await ok(["pull", image("exits")]);
    await podman.run("rmi", "--force", image("exits"));

    const run = await home.tug(["run", image("exits"), "hi"]);
    const pulled = await home.tug(["pull", image("exits")]);

    expect(run.stderr).toContain("its image is not here any more");
    expect(run.stderr).toContain("Get it again with `tug pull`");
    expect(pulled.exitCode).toBe(0);
  });

  test("names that are no image's, and references that are not there, are errors in one sentence", async () => {
    const absent = await home.tug(["run", image("absent"), "hi"]);
    const elsewhere = await home.tug(["pull", `${registry.host}/other/meta/well`]);

    expect(absent).toMatchObject({ exitCode: 1 });
    expect(absent.stderr).toContain(`cannot pull the image \`${image("absent")}\``);
    expect(absent.stderr).toContain("manifest unknown");
    expect(elsewhere.exitCode).not.toBe(0);
    expect(await ok(["list"])).not.toContain("other/meta");
  });

  test("without a container engine there is a reason and a way", async () => {
    const PATH = join(home.path, "empty");

    const pulled = await home.tug(["pull", image("absent")], { env: { PATH } });
    const engines = await home.tug(["engines", "--json"], { env: { PATH } });

    expect(pulled.stderr).toContain("docker is not on PATH; podman is not on PATH");
    expect(pulled.stderr).toContain("Install podman");
    expect(engines.stdout).toContain("podman is not on PATH");
  });

  test("a record that names an image from anywhere else is not run", async () => {
    const file = join(home.path, "image");
    await writeFile(file, `docker.io/library/evil@sha256:${"0".repeat(64)}\n`);
    await ok(["package", "--file", file, "--format-name", "nim", "me/evil"]);

    const run = await home.tug(["run", "me/evil", "hi"]);

    expect(run.exitCode).toBe(1);
    expect(run.stderr).toContain("it is the container image `docker.io/library/evil@sha256:");
    expect(run.stderr).toContain("nim_prefixes");
  });

  test("it cannot be pushed; removing it removes the image that Tug pulled, when no other name is left", async () => {
    const { exitCode, stderr } = await home.tug(["push", image("well")]);
    await ok(["tag", image("well"), "me/named"]);

    const first = await ok(["rm", image("well")]);
    const named = await ok(["run", "me/named", "hi"]);
    await unloadAll();
    const last = await ok(["rm", "me/named"]);
    await ok(["rm", image("twin")]);

    expect(exitCode).toBe(1);
    expect(stderr).toContain("it is a container image, of which Tug has only the name");
    expect(first).not.toContain("Deleted");
    expect(named).toContain("hi");
    expect(last).toContain("Deleted: sha256:");
    const { stdout } = await podman.run("images", "--format", "{{.Repository}}");
    expect(stdout).not.toMatch(/well|twin/);
  });

  describeIf(htpasswd !== null, "no htpasswd")("a registry with accounts", () => {
    test("gets what `tug login` keeps; without it there is a hint", async () => {
      const user = { name: "me", password: "pass-word" };
      await using closed = await startDockerRegistry({ user });
      await using other = await nimHome({ TUG_NIM_PREFIXES: `${closed.host}/nim` });
      await ok(["pull", image("exits")]);
      await podman.run("tag", image("exits"), image("closed", closed.host));
      await push(image("closed", closed.host), `--creds=${user.name}:${user.password}`);
      await podman.run("rmi", image("closed", closed.host));

      const refused = await other.tug(["pull", image("closed", closed.host)]);
      const login = ["login", closed.host, "-u", user.name, "--password-stdin"];
      const logged = await other.tug(login, { stdin: user.password });
      const pulled = await other.tug(["pull", image("closed", closed.host)]);

      expect(refused.exitCode).toBe(1);
      expect(refused.stderr).toContain(`Run \`tug login ${closed.host}\``);
      expect([logged.stderr, logged.exitCode]).toEqual([logged.stderr, 0]);
      expect([pulled.stderr, pulled.exitCode]).toEqual([pulled.stderr, 0]);
    });
  });
});
