import { expect, setDefaultTimeout, test } from "bun:test";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { EstimateResult } from "../../src/api/settings.ts";
import { startCounter } from "../helpers/counting-proxy.ts";
import { dockerRegistry, startDockerRegistry } from "../helpers/docker-registry.ts";
import { writeRandomModel } from "../helpers/random-model.ts";
import { describeIf } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const MIB = 1024 * 1024;
/** The header's first read is of 2 MB; the rest is manifests. */
const MOST_BYTES = 3 * MIB;
const SHAPE = { layers: 8, embedding: 1024, heads: 8, kvHeads: 2, feedForward: 2048 } as const;

describeIf(dockerRegistry !== null, "there is no docker-registry here")("estimate", () => {
  test("a model in a registry is estimated from its header, and as it is once it is here", async () => {
    await using registry = await startDockerRegistry();
    await using counter = startCounter(registry.url);
    await using home = await tugHome({ engine: true });
    const path = join(home.path, "model.gguf");
    await writeRandomModel(path, { ...SHAPE, context: 8192, vocabulary: 4096 });
    const pushed = `${registry.host}/me/big:1`;
    const name = `${counter.host}/me/big:1`;
    expect(await home.tug(["package", "--gguf", path, "--push", pushed])).toMatchObject({
      exitCode: 0,
    });

    const away = await estimate(home, name);
    const sent = counter.bytes();
    const { stdout: listed } = await home.tug(["list", "--json"]);
    const tight = await home.tug(["estimate", name], { env: { TUG_MEMORY_BUDGET: "64MiB" } });
    await home.tug(["pull", name]);
    const here = await estimate(home, name);

    expect((await stat(path)).size).toBeGreaterThan(20 * MOST_BYTES);
    expect(sent).toBeLessThan(MOST_BYTES);
    expect(listed).not.toContain("me/big");
    expect(away).toMatchObject({ is_local: false, trained_context: 8192, fits: true });
    expect(here).toMatchObject({ is_local: true });
    expect(away.model_id).toBe(here.model_id);
    for (const fact of ["parts", "estimate", "context_size", "largest_context"] as const)
      expect(away[fact]).toEqual(here[fact]);
    expect(tight.exitCode).toBe(1);
    expect(tight.stdout).toContain("(not pulled)");
    expect(tight.stdout).toContain("It does not fit.");
  });

  test("a model that is nowhere, and a registry that is not there, are a sentence each", async () => {
    await using registry = await startDockerRegistry();
    await using home = await tugHome();

    const unknown = await home.tug(["estimate", `${registry.host}/no/body:1`]);
    const silent = await home.tug(["estimate", "localhost:1/no/body:1"]);
    const offline = await home.tug(["--offline", "estimate", `${registry.host}/no/body:1`]);

    for (const { exitCode, stderr } of [unknown, silent, offline]) {
      expect(exitCode).toBe(1);
      expect(stderr).toMatch(/^error: .*\n(?:hint: .*\n)?$/);
    }
    expect(unknown.stderr).toContain("no/body");
  });
});

async function estimate(home: TugHome, name: string): Promise<EstimateResult> {
  const { stdout } = await home.tug(["estimate", name, "--json"]);
  return JSON.parse(stdout) as EstimateResult;
}
