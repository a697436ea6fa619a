import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { testIf } from "../helpers/test-if.ts";
import { createHash } from "node:crypto";
import { copyFile, mkdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { DiskUsage, Model, ModelDetails } from "../../src/api/models.ts";
import { runnersOf } from "../helpers/processes.ts";
import { FIRST_SHARD, PEBBLE, QUESTION } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { type TugHome, sharedTugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const SKOPEO = Bun.which("skopeo");

describe("a model of one's own answers", () => {
  const home = sharedTugHome();

  test("packaged from one file", async () => {
    const packaged = await home().tug(["package", "--gguf", PEBBLE, "me/whole"]);
    const answer = await home().tug(["run", "me/whole", QUESTION, "--temperature", "0"]);

    expect(packaged).toMatchObject({ exitCode: 0 });
    expect(answer).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Paris") });
  });

  test("packaged from three shards, with all three in it", async () => {
    const packaged = await home().tug(["package", "--gguf", FIRST_SHARD, "me/shards"]);
    const { stdout } = await home().tug(["inspect", "me/shards"]);
    const answer = await home().tug(["run", "me/shards", QUESTION, "--temperature", "0"]);

    expect(packaged).toMatchObject({ exitCode: 0 });
    const weights = (JSON.parse(stdout) as ModelDetails).layers.filter(({ media_type: type }) =>
      type.includes("gguf"),
    );
    expect(weights).toHaveLength(3);
    expect(answer).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Paris") });
  });

  test("straight from a file, whatever its name, and nothing is stored", async () => {
    await using directory = await tempDir();
    const folder = join(directory.path, "ein Ordner");
    await mkdir(folder);
    await copyFile(PEBBLE, join(folder, "größe 模型.gguf"));

    const answer = await home().tug(["run", "./größe 模型.gguf", QUESTION, "--temperature", "0"], {
      cwd: folder,
    });
    const listed = await home().tug(["list", "--json"]);

    expect(answer).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Paris") });
    expect(listed.stdout).not.toContain("größe");
  });
});

describe("the store", () => {
  test("commands that only touch models start no runner", async () => {
    await using home = await tugHome();

    const outcomes = [
      await home.tug(["package", "--gguf", PEBBLE, "me/pebble"]),
      await home.tug(["list"]),
      await home.tug(["inspect", "me/pebble"]),
      await home.tug(["tag", "me/pebble", "me/other:v1"]),
      await home.tug(["rm", "me/other:v1"]),
      await home.tug(["df"]),
    ];
    const status = await home.tug(["status", "--json"]);

    expect(outcomes.map(({ exitCode, stderr }) => [exitCode, stderr.includes("error")])).toEqual(
      outcomes.map(() => [0, false]),
    );
    expect(status.exitCode).toBe(1);
    expect(JSON.parse(status.stdout)).toMatchObject({ running: false, endpoint: null });
    expect(await runnersOf(home.path)).toEqual([]);
  });

  test("the same file packages to the same digest, from anywhere and at any time", async () => {
    await using home = await tugHome();
    await using other = await tugHome();
    await using directory = await tempDir();
    const copy = join(directory.path, "pebble.gguf");
    await copyFile(PEBBLE, copy);
    await utimes(copy, new Date(0), new Date("2001-02-03T04:05:06Z"));

    const ids = [
      await packagedId(home, PEBBLE),
      await packagedId(home, PEBBLE),
      await packagedId(home, copy),
      await packagedId(other, copy),
    ];

    expect(new Set(ids).size).toBe(1);
    expect(ids[0]).toMatch(/^sha256:[0-9a-f]{64}$/);
  });

  test("a name can be given, moved and removed, and the bytes go with the last one", async () => {
    await using home = await tugHome();
    await home.tug(["package", "--gguf", PEBBLE, "me/pebble"]);
    await home.tug(["tag", "me/pebble", "me/again:v2"]);
    const both = await storedModels(home);

    await home.tug(["rm", "me/pebble"]);
    const one = await storedModels(home);
    await home.tug(["rm", "me/again:v2"]);
    const usage = JSON.parse((await home.tug(["df", "--json"])).stdout) as DiskUsage;

    expect(both.map(({ tags }) => tags.toSorted())).toEqual([
      ["docker.io/me/again:v2", "docker.io/me/pebble:latest"],
    ]);
    expect(one.map(({ tags }) => tags)).toEqual([["docker.io/me/again:v2"]]);
    expect(await storedModels(home)).toEqual([]);
    expect(usage.models).toEqual([]);
    // What stays is the layout's own: two small files of JSON.
    expect(usage.models_disk_usage).toBeLessThan(1000);
  });

  test("a bit that flipped on the disk is found", async () => {
    await using home = await tugHome();
    await home.tug(["package", "--gguf", PEBBLE, "me/pebble"]);
    const clean = await home.tug(["verify"]);
    const [weights] = (
      JSON.parse((await home.tug(["inspect", "me/pebble"])).stdout) as ModelDetails
    ).layers;
    const blob = join(home.path, "models", "blobs", weights?.digest.replace(":", "/") ?? "");
    const bytes = await Bun.file(blob).bytes();
    bytes[1_000_000] = (bytes[1_000_000] ?? 0) ^ 1;
    await Bun.file(blob).delete();
    await writeFile(blob, bytes);

    const damaged = await home.tug(["verify"]);

    expect(clean.exitCode).toBe(0);
    expect(damaged.exitCode).toBe(1);
    expect(damaged.stdout + damaged.stderr).toContain("wrong digest");
  });

  testIf(SKOPEO !== null, "there is no skopeo here")(
    `skopeo reads it as an OCI image layout${SKOPEO === null ? " (skipped: skopeo is not installed)" : ""}`,
    async () => {
      await using home = await tugHome();
      const id = await packagedId(home, PEBBLE);

      const layout = `oci:${join(home.path, "models")}:docker.io/me/pebble:latest`;
      const child = Bun.spawn(["skopeo", "inspect", "--raw", layout], { stderr: "inherit" });
      const raw = await child.stdout.bytes();

      expect(await child.exited).toBe(0);
      expect(`sha256:${createHash("sha256").update(raw).digest("hex")}`).toBe(id);
    },
  );
});

async function packagedId(home: TugHome, file: string): Promise<string> {
  const { stdout } = await home.tug(["package", "--gguf", file, "me/pebble", "--json"]);
  return (JSON.parse(stdout) as { id: string }).id;
}

async function storedModels(home: TugHome): Promise<Model[]> {
  return JSON.parse((await home.tug(["list", "--json"])).stdout) as Model[];
}
