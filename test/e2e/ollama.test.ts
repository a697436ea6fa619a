import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { ModelDetails } from "../../src/api/models.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { type OllamaRegistry, startOllamaRegistry } from "../fakes/ollama-registry.ts";
import { PEBBLE, QUESTION } from "../helpers/pebble.ts";
import { sharedTugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const WEIGHTS = await Bun.file(PEBBLE).bytes();

describe("the Ollama library", () => {
  const home = sharedTugHome();

  test("a model is pulled by its name, with its settings, and answers", async () => {
    await using registry = await startOllamaRegistry();
    const env = environment(registry);

    const pulled = await home().tug(["pull", "ollama.com/library/pebble"], { env });
    const { stdout } = await home().tug(["inspect", "ollama.com/library/pebble"]);
    const answer = await home().tug(["run", "ollama.com/library/pebble", QUESTION]);

    expect(pulled).toMatchObject({ exitCode: 0 });
    expect(pulled.stdout).toMatch(/^registry\.ollama\.ai\/library\/pebble(?::latest)?@sha256:/);
    const { config, layers } = JSON.parse(stdout) as ModelDetails;
    expect(config.context_size).toBe(2048);
    expect(layers.some(({ media_type: type }) => type.includes("license"))).toBe(true);
    // Its own settings: temperature 0.
    expect(answer).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Paris") });
  });

  test("a tag of the same weights fetches none of them, and no credential reaches the other host", async () => {
    await using registry = await startOllamaRegistry();
    const env = environment(registry);
    await home().tug(["pull", "ollama.com/library/pebble"], { env });
    const before = weightRequests(registry);

    const pulled = await home().tug(["pull", "ollama.com/library/pebble:q8_0"], { env });

    expect(pulled).toMatchObject({ exitCode: 0 });
    expect(weightRequests(registry)).toBe(before);
    expect(registry.requests.filter(({ authorization }) => authorization !== null)).toEqual([]);
  });
});

function environment({ url }: OllamaRegistry): Record<string, string> {
  return { TUG_REGISTRY_MIRRORS: `registry.ollama.ai=${url}` };
}

function weightRequests({ requests }: OllamaRegistry): number {
  const digest = digestOf(WEIGHTS);
  return requests.filter(({ path, method }) => method === "GET" && path.includes(digest)).length;
}
