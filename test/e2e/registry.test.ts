import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Model, ModelDetails, PullJob } from "../../src/api/models.ts";
import { certificates, openssl } from "../helpers/certificates.ts";
import {
  type DockerRegistry,
  type DockerRegistryOptions,
  dockerRegistry,
  htpasswd,
  startDockerRegistry,
} from "../helpers/docker-registry.ts";
import { eventually } from "../helpers/eventually.ts";
import { FIRST_SHARD, PEBBLE, QUESTION } from "../helpers/pebble.ts";
import { runnersOf } from "../helpers/processes.ts";
import { runSkopeo, skopeo } from "../helpers/skopeo.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { describeIf, testIf } from "../helpers/test-if.ts";
import { sharedTugHome, type TugHome, tugHome } from "../helpers/tug-home.ts";
import { writeSparseGguf } from "../store/gguf-file.ts";

setDefaultTimeout(60_000);

const PARIS = { exitCode: 0, stdout: "The capital of France is Paris.\n" };
const NO_TLS = ["--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"];

const withRegistry = describeIf(dockerRegistry !== null, "there is no docker-registry here");

withRegistry("a registry", () => {
  const runner = sharedTugHome();

  testIf(skopeo !== null, "there is no skopeo here")(
    "packaged without a runner, copied by skopeo to a layout and back, pulled and run",
    async () => {
      await using registry = await startDockerRegistry();
      await using maker = await tugHome();
      await using layout = await tempDir();
      const name = `${registry.host}/me/m:1`;

      const digest = await pushFile(maker, PEBBLE, name);
      const raw = await runSkopeo("inspect", "--raw", "--tls-verify=false", `docker://${name}`);
      const oci = `oci:${layout.path}:m`;
      await runSkopeo("copy", ...NO_TLS, `docker://${name}`, oci);
      await runSkopeo("copy", ...NO_TLS, oci, `docker://${registry.host}/me/copied:1`);
      const pulled = await runner().tug(["pull", `${registry.host}/me/copied:1`]);
      const answer = await ask(runner(), `${registry.host}/me/copied:1`);

      expect(`sha256:${new Bun.CryptoHasher("sha256").update(raw).digest("hex")}`).toBe(digest);
      expect(JSON.parse(raw.toString())).toMatchObject({
        schemaVersion: 2,
        config: { mediaType: "application/vnd.docker.ai.model.config.v0.1+json" },
        layers: [{ mediaType: "application/vnd.docker.ai.gguf.v3" }],
      });
      expect(pulled).toMatchObject({
        exitCode: 0,
        stdout: `${registry.host}/me/copied:1@${digest}\n`,
      });
      expect(answer).toMatchObject(PARIS);
      expect(await runnersOf(maker.path)).toEqual([]);
      // Without `--keep` nothing enters the store.
      expect(await models(maker)).toEqual([]);
    },
  );

  test("shards stay shards", async () => {
    await using registry = await startDockerRegistry();
    await using maker = await tugHome();
    const name = `${registry.host}/me/shards:1`;

    const digest = await pushFile(maker, FIRST_SHARD, name);
    await runner().tug(["pull", name]);
    const details = await inspect(runner(), name);
    const answer = await ask(runner(), name);

    expect(details.id).toBe(digest);
    expect(details.layers.map(({ media_type: type }) => type)).toEqual(
      Array.from({ length: 3 }, () => "application/vnd.docker.ai.gguf.v3"),
    );
    expect(answer).toMatchObject(PARIS);
  });

  test("ModelPack, a projector, a licence and a template come back as they were, and it runs", async () => {
    await using registry = await startDockerRegistry();
    await using maker = await tugHome();
    await using directory = await tempDir();
    const file = (name: string): string => join(directory.path, name);
    await writeFile(file("LICENSE"), "Do what you want.\n");
    await writeFile(file("chat.jinja"), "{{ messages[0].content }}");
    await writeSparseGguf(file("mmproj.gguf"), {
      values: { "general.architecture": { string: "clip" } },
    });
    const extras = ["--license", file("LICENSE"), "--chat-template", file("chat.jinja")];
    const name = (tag: string): string => `${registry.host}/me/m:${tag}`;

    await pushFile(maker, PEBBLE, name("pack"), "--format", "cncf", "--license", file("LICENSE"));
    await pushFile(maker, PEBBLE, name("full"), ...extras, "--mmproj", file("mmproj.gguf"));
    for (const tag of ["pack", "full"]) await runner().tug(["pull", name(tag)]);
    const pack = await inspect(runner(), name("pack"));
    const full = await inspect(runner(), name("full"));

    expect(pack.layers.map(({ media_type: type }) => type)).toEqual([
      "application/vnd.cncf.model.weight.v1.raw",
      "application/vnd.cncf.model.doc.v1.raw",
    ]);
    expect(new Set(full.layers.map(({ media_type: type }) => type.split(".").at(-1)))).toEqual(
      new Set(["jinja", "license", "mmproj", "v3"]),
    );
    expect(await ask(runner(), name("pack"))).toMatchObject(PARIS);
  });

  test("a directory of safetensors goes there and comes back, file by file", async () => {
    await using registry = await startDockerRegistry();
    await using maker = await tugHome();
    await using taker = await tugHome();
    await using directory = await tempDir();
    await writeSafetensors(directory.path);
    const name = `${registry.host}/me/tensors:1`;

    const pushed = await maker.tug([
      "package",
      "--safetensors-dir",
      directory.path,
      "--push",
      name,
    ]);
    const pulled = await taker.tug(["pull", name]);
    const details = await inspect(taker, name);
    const verified = await taker.tug(["verify"]);

    expect(pushed).toMatchObject({ exitCode: 0 });
    expect(pulled).toMatchObject({ exitCode: 0, stdout: pushed.stdout });
    expect(details.config.format).toBe("safetensors");
    expect(new Set(details.layers.map(({ path }) => path))).toEqual(
      new Set(["config.json", "model.safetensors", "sub/notes.txt"]),
    );
    expect(verified.exitCode).toBe(0);
  });

  test("what is there already is not sent again, and what is here already is not fetched", async () => {
    await using registry = await startDockerRegistry();
    await using maker = await tugHome();
    await maker.tug(["package", "--gguf", PEBBLE, "me/m"]);
    const target = `${registry.host}/me/m:1`;

    const first = await maker.tug(["push", "me/m", target, "--json"]);
    const again = await maker.tug(["push", "me/m", target, "--json"]);
    const elsewhere = await maker.tug(["push", "me/m", `${registry.host}/me/other:1`, "--json"]);
    const there = await maker.tug(["pull", target, "--json"]);

    expect(resultOf(first.stdout)["uploaded_bytes"]).toBeGreaterThan(Bun.file(PEBBLE).size);
    // The manifest may be: it is what moves a tag.
    expect(resultOf(again.stdout)["uploaded_bytes"]).toBeLessThan(2_000);
    expect(elsewhere.exitCode).toBe(0);
    expect(resultOf(there.stdout)).toMatchObject({ fetched_bytes: 0 });
    expect(await registry.storedBlobs()).toBeLessThan(Bun.file(PEBBLE).size + 20_000);
  });

  test("copies from registry to registry without the disk", async () => {
    await using from = await startDockerRegistry();
    await using to = await startDockerRegistry();
    await using maker = await tugHome();
    const digest = await pushFile(maker, PEBBLE, `${from.host}/me/m:1`);

    const copied = await maker.tug(["copy", `${from.host}/me/m:1`, `${to.host}/you/n:2`]);
    const pulled = await maker.tug(["pull", `${to.host}/you/n:2`]);

    expect(copied).toMatchObject({ exitCode: 0 });
    expect(pulled.stdout).toBe(`${to.host}/you/n:2@${digest}\n`);
  });

  test("the runner pulls on its own with `--detach`, and lists it", async () => {
    await using registry = await startDockerRegistry();
    await using home = await tugHome();
    const name = `${registry.host}/me/m:1`;
    await pushFile(home, PEBBLE, name);

    const detached = await home.tug(["pull", name, "--detach"]);
    const job = await eventually(async () => {
      const { stdout } = await home.tug(["pulls", "--json"]);
      return (JSON.parse(stdout) as PullJob[]).find(({ state }) => state !== "running");
    });

    expect(detached).toMatchObject({ exitCode: 0 });
    expect(job).toMatchObject({ id: detached.stdout.trim(), model: name, state: "done" });
    expect((await models(home)).flatMap(({ tags }) => tags)).toEqual([name]);
  });

  test("a model that is not there is named, with the registry's words", async () => {
    await using registry = await startDockerRegistry();
    await using home = await tugHome();

    const result = await home.tug(["pull", `${registry.host}/me/absent:1`]);

    expect(result).toMatchObject({ exitCode: 1, stdout: "" });
    expect(result.stderr).toContain("me/absent");
  });
});

const USER = { name: "me", password: "s3cret with spaces" };

describeIf(dockerRegistry !== null && htpasswd !== null, "there is no docker-registry or htpasswd")(
  "a registry with a password",
  () => {
    test("is refused without, let in after `login`, and refused again after `logout`", async () => {
      await using registry = await startDockerRegistry({ user: USER });
      await using home = await tugHome();
      const name = `${registry.host}/me/m:1`;
      const push = ["package", "--gguf", PEBBLE, "--push", name];
      const login = ["login", registry.host, "-u", USER.name, "--password-stdin"];

      const anonymous = await home.tug(push);
      const wrong = await home.tug(login, { stdin: "wrong\n" });
      const right = await home.tug(login, { stdin: `${USER.password}\n` });
      const pushed = await home.tug(push);
      const pulled = await home.tug(["pull", name]);
      await home.tug(["logout", registry.host]);
      const after = await home.tug(["pull", name.replace("me/m", "me/other")]);

      expect([anonymous, wrong, after].map(({ exitCode }) => exitCode)).toEqual([1, 1, 1]);
      expect(anonymous.stderr).toContain(`tug login ${registry.host}`);
      expect([right, pushed, pulled].map(({ exitCode }) => exitCode)).toEqual([0, 0, 0]);
      for (const { stdout, stderr } of [anonymous, wrong, right, pushed, pulled, after])
        expect(stdout + stderr).not.toContain(USER.password);
    });

    test("what `login` keeps is readable by its owner only", async () => {
      await using registry = await startDockerRegistry({ user: USER });
      await using home = await tugHome();
      const login = ["login", registry.host, "-u", USER.name, "--password-stdin"];
      await home.tug(login, { stdin: USER.password });

      const encoded = Buffer.from(`${USER.name}:${USER.password}`).toString("base64");
      const keeping = await filesWith(home.path, encoded);

      expect(keeping).toHaveLength(1);
      for (const file of keeping) expect((await stat(file)).mode & 0o777).toBe(0o600);
    });

    test("opens with Docker's own credentials in DOCKER_CONFIG", async () => {
      await using registry = await startDockerRegistry({ user: USER });
      await using home = await tugHome();
      await using docker = await tempDir();
      const auth = Buffer.from(`${USER.name}:${USER.password}`).toString("base64");
      const auths = { [registry.host]: { auth } };
      await writeFile(join(docker.path, "config.json"), JSON.stringify({ auths }));
      const env = { DOCKER_CONFIG: docker.path };
      const name = `${registry.host}/me/m:1`;

      const pushed = await home.tug(["package", "--gguf", PEBBLE, "--push", name], { env });
      const pulled = await home.tug(["pull", name], { env });

      expect([pushed.exitCode, pulled.exitCode]).toEqual([0, 0]);
      expect(pulled.stdout).toBe(pushed.stdout);
    });
  },
);

describeIf(dockerRegistry !== null && openssl !== null, "there is no docker-registry or openssl")(
  "a registry with a certificate of a private authority",
  () => {
    test("is refused, and the hint says how to trust it", async () => {
      await using it = await started({ tls: true });

      const result = await it.home.tug(["package", "--gguf", PEBBLE, "--push", it.name]);

      expect(result).toMatchObject({ exitCode: 1, stdout: "" });
      expect(result.stderr).toContain("certificate");
      expect(result.stderr).toContain("TUG_CA_BUNDLE");
    });

    test("is trusted with `--ca-bundle`, before the command's name and behind it", async () => {
      await using it = await started({ tls: true });
      const { home, name } = it;
      const { caFile } = await certificates();
      const flag = ["--ca-bundle", caFile];

      const pushed = await home.tug([...flag, "package", "--gguf", PEBBLE, "--push", name]);
      const pulled = await home.tug(["pull", name, ...flag]);

      expect([pushed.exitCode, pulled.exitCode]).toEqual([0, 0]);
      expect(pulled.stdout).toBe(pushed.stdout);
    });

    test("is trusted through TUG_CA_BUNDLE, and only by it", async () => {
      await using it = await started({ tls: true });
      const { home, name } = it;
      const { caFile } = await certificates();
      const env = { TUG_CA_BUNDLE: caFile };

      const pushed = await home.tug(["package", "--gguf", PEBBLE, "--push", name], { env });
      const without = await home.tug(["pull", name]);
      const pulled = await home.tug(["pull", name], { env });

      expect([pushed, without, pulled].map(({ exitCode }) => exitCode)).toEqual([0, 1, 0]);
      expect(pulled.stdout).toBe(pushed.stdout);
    });

    test("is spoken to with `--insecure`", async () => {
      await using it = await started({ tls: true });
      const { home, name } = it;

      const pushed = await home.tug(["package", "--gguf", PEBBLE, "--push", name, "--insecure"]);
      const pulled = await home.tug(["pull", name, "--insecure"]);
      const listed = await home.tug(["pull", name], {
        env: { TUG_INSECURE_REGISTRIES: it.registry.host },
      });

      expect([pushed, pulled, listed].map(({ exitCode }) => exitCode)).toEqual([0, 0, 0]);
    });
  },
);

/** @returns the digest that was printed */
async function pushFile(
  home: TugHome,
  ...[file, name, ...flags]: [file: string, name: string, ...flags: string[]]
): Promise<string> {
  const result = await home.tug(["package", "--gguf", file, "--push", name, ...flags]);
  expect(result).toMatchObject({ exitCode: 0 });
  const [reference, digest = ""] = result.stdout.trim().split("@");
  expect(reference).toBe(name);
  expect(digest).toMatch(/^sha256:[0-9a-f]{64}$/);
  return digest;
}

function ask(home: TugHome, name: string): ReturnType<TugHome["tug"]> {
  return home.tug(["run", name, QUESTION, "--temperature", "0"]);
}

async function models(home: TugHome): Promise<Model[]> {
  return JSON.parse((await home.tug(["list", "--json"])).stdout) as Model[];
}

async function inspect(home: TugHome, name: string): Promise<ModelDetails> {
  return JSON.parse((await home.tug(["inspect", name])).stdout) as ModelDetails;
}

/** What a command printed under `--json`: one document, or events of which the last has it. */
function resultOf(stdout: string): Record<string, unknown> {
  if (!stdout.startsWith('{"type"')) return JSON.parse(stdout) as Record<string, unknown>;
  const last = stdout.trim().split("\n").at(-1) ?? "{}";
  return (JSON.parse(last) as { result: Record<string, unknown> }).result;
}

async function writeSafetensors(directory: string): Promise<void> {
  const header = JSON.stringify({ w: { dtype: "F32", shape: [2, 2], data_offsets: [0, 16] } });
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  await mkdir(join(directory, "sub"));
  await writeFile(
    join(directory, "model.safetensors"),
    Buffer.concat([length, Buffer.from(header), Buffer.alloc(16, 7)]),
  );
  await writeFile(join(directory, "config.json"), '{"model_type":"llama"}');
  await writeFile(join(directory, "sub", "notes.txt"), "notes\n");
}

async function filesWith(directory: string, text: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const found: string[] = [];
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && (await Bun.file(path).text()).includes(text)) found.push(path);
  }
  return found;
}

interface Started extends AsyncDisposable {
  readonly registry: DockerRegistry;
  readonly home: TugHome;
  readonly name: string;
}

async function started(options: DockerRegistryOptions): Promise<Started> {
  const registry = await startDockerRegistry(options);
  const home = await tugHome();
  return {
    registry,
    home,
    name: `${registry.host}/me/m:1`,
    async [Symbol.asyncDispose]() {
      await home[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}
