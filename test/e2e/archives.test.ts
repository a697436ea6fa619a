import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Model } from "../../src/api/models.ts";
import { tugBinary } from "../helpers/binary.ts";
import { FIRST_SHARD, PEBBLE, QUESTION } from "../helpers/pebble.ts";
import { cleanEnvironment } from "../helpers/run-cli.ts";
import { runSkopeo, skopeo } from "../helpers/skopeo.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { testIf } from "../helpers/test-if.ts";
import { sharedTugHome, type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const withSkopeo = testIf(skopeo !== null, "there is no skopeo here");

describe("an archive", () => {
  const runner = sharedTugHome();

  test("takes several models to another machine, each blob once, and they answer there", async () => {
    await using maker = await modelsHome();
    await using directory = await tempDir();
    const file = join(directory.path, "models.tar");

    const exported = await maker.tug(["export", "me/whole", "me/again", "me/shards", "-o", file]);
    const imported = await runner().tug(["import", file]);
    const answer = await runner().tug(["run", "me/shards", QUESTION, "--temperature", "0"]);

    expect(exported.exitCode).toBe(0);
    expect(imported.exitCode).toBe(0);
    expect(await idsByTag(runner())).toMatchObject(await idsByTag(maker));
    expect(answer).toMatchObject({ exitCode: 0, stdout: "The capital of France is Paris.\n" });
    // `me/whole` and `me/again` are one model; the shards hold the same bytes once more.
    expect((await stat(file)).size).toBeLessThan(2.2 * Bun.file(PEBBLE).size);
  });

  test("goes through a pipe", async () => {
    await using maker = await modelsHome();
    await using taker = await tugHome();
    const tug = await tugBinary();
    const script = `TUG_HOME="$1" "$0" export me/whole | TUG_HOME="$2" "$0" import -`;

    const child = Bun.spawn(["sh", "-c", script, tug, maker.path, taker.path], {
      env: { ...cleanEnvironment(), HOME: maker.env["HOME"] ?? "" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);

    expect([await child.exited, stderr.includes("error")]).toEqual([0, false]);
    expect(stdout).toContain("me/whole");
    expect((await taker.tug(["verify"])).exitCode).toBe(0);
  });

  test("leaves out what the other side has", async () => {
    await using maker = await modelsHome();
    await using taker = await tugHome();
    await using directory = await tempDir();
    const file = (name: string): string => join(directory.path, name);
    await maker.tug(["export", "me/whole", "-o", file("first.tar")]);
    await taker.tug(["import", file("first.tar")]);
    await writeFile(file("LICENSE"), "Do what you want.\n");
    await maker.tug(["package", "--gguf", PEBBLE, "--license", file("LICENSE"), "me/licensed"]);

    const missing = ["--missing-from", file("first.tar"), "-o", file("second.tar")];
    const exported = await maker.tug(["export", "me/licensed", ...missing]);
    const imported = await taker.tug(["import", file("second.tar")]);

    expect([exported.exitCode, imported.exitCode]).toEqual([0, 0]);
    expect((await stat(file("second.tar"))).size).toBeLessThan(100_000);
    expect((await taker.tug(["verify"])).exitCode).toBe(0);
    expect(await idsByTag(taker)).toEqual(await idsByTag(maker, "me/shards", "me/again"));
  });

  test("that leaves out what the other side has not is refused, naming it", async () => {
    await using maker = await modelsHome();
    await using taker = await tugHome();
    await using directory = await tempDir();
    const file = (name: string): string => join(directory.path, name);
    await maker.tug(["export", "me/whole", "-o", file("first.tar")]);
    await maker.tug([
      "export",
      "me/whole",
      "--missing-from",
      file("first.tar"),
      "-o",
      file("rest.tar"),
    ]);

    const imported = await taker.tug(["import", file("rest.tar")]);

    expect(imported.exitCode).toBe(1);
    expect(imported.stderr).toContain("sha256:");
    expect(await idsByTag(taker)).toEqual({});
  });

  test("that was cut off is refused, and nothing of it stays", async () => {
    await using maker = await modelsHome();
    await using taker = await tugHome();
    await using directory = await tempDir();
    const file = join(directory.path, "cut.tar");
    await maker.tug(["export", "me/whole", "-o", file]);
    const bytes = await readFile(file);
    await writeFile(file, bytes.subarray(0, bytes.length / 2));

    const imported = await taker.tug(["import", file]);
    await taker.tug(["prune"]);

    expect(imported.exitCode).toBe(1);
    expect(imported.stderr).toContain("error: ");
    expect(await idsByTag(taker)).toEqual({});
    expect(await readdir(join(taker.path, "models", "ingest"))).toEqual([]);
  });

  test("with a flipped bit is refused", async () => {
    await using maker = await modelsHome();
    await using taker = await tugHome();
    await using directory = await tempDir();
    const file = join(directory.path, "flipped.tar");
    await maker.tug(["export", "me/whole", "-o", file]);
    const bytes = await readFile(file);
    bytes[1_500_000] = (bytes[1_500_000] ?? 0) ^ 1;
    await writeFile(file, bytes);

    const imported = await taker.tug(["import", file]);

    expect(imported.exitCode).toBe(1);
    expect(await idsByTag(taker)).toEqual({});
  });

  test("that fails leaves no file behind", async () => {
    await using maker = await modelsHome();
    await using directory = await tempDir();

    const result = await maker.tug(["export", "me/absent", "-o", join(directory.path, "x.tar")]);

    expect(result.exitCode).toBe(1);
    expect(await readdir(directory.path)).toEqual([]);
  });

  test("compressed with gzip is read", async () => {
    await using maker = await modelsHome();
    await using taker = await tugHome();
    await using directory = await tempDir();
    const file = join(directory.path, "models.tar.gz");
    await maker.tug(["export", "me/whole", "-o", file]);
    await writeFile(file, Bun.gzipSync(await readFile(file)));

    const imported = await taker.tug(["import", file]);

    expect(imported.exitCode).toBe(0);
    expect(await idsByTag(taker)).toEqual(await idsByTag(maker, "me/shards", "me/again"));
  });

  test("of one model has the manifest that Docker Model Runner looks for", async () => {
    await using maker = await modelsHome();
    await using directory = await tempDir();
    const file = join(directory.path, "one.tar");
    await maker.tug(["export", "me/whole", "-o", file]);

    const files = await new Bun.Archive(await readFile(file)).files();

    const bytes = (await files.get("manifest.json")?.bytes()) ?? new Uint8Array();
    const digest = `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
    expect(digest).toBe((await idsByTag(maker))["docker.io/me/whole:latest"] ?? "");
  });

  withSkopeo("is read by skopeo, and what skopeo writes is read", async () => {
    await using maker = await modelsHome();
    await using taker = await tugHome();
    await using directory = await tempDir();
    const file = (name: string): string => join(directory.path, name);
    await maker.tug(["export", "me/whole", "-o", file("tug.tar")]);
    const id = (await idsByTag(maker))["docker.io/me/whole:latest"] ?? "";

    // Without a name in the archive, for there is only one.
    const from = `oci-archive:${file("tug.tar")}`;
    await runSkopeo("copy", from, `oci-archive:${file("skopeo.tar")}:docker.io/me/copied:1`);
    const imported = await taker.tug(["import", file("skopeo.tar")]);

    expect(imported.exitCode).toBe(0);
    expect(await idsByTag(taker)).toEqual({ "docker.io/me/copied:1": id });
  });
});

/** Has `me/whole`, the same as `me/again`, and `me/shards`. */
async function modelsHome(): Promise<TugHome> {
  const home = await tugHome();
  await home.tug(["package", "--gguf", PEBBLE, "me/whole"]);
  await home.tug(["tag", "me/whole", "me/again"]);
  await home.tug(["package", "--gguf", FIRST_SHARD, "me/shards"]);
  return home;
}

/** @param without names that do not count */
async function idsByTag(home: TugHome, ...without: string[]): Promise<Record<string, string>> {
  const models = JSON.parse((await home.tug(["list", "--json"])).stdout) as Model[];
  const all = models.flatMap(({ id, tags }) => tags.map((tag) => [tag, id] as const));
  const left = new Set(without.map((name) => `docker.io/${name}:latest`));
  return Object.fromEntries(all.filter(([tag]) => !left.has(tag)));
}
