import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { Ollama, type ProgressResponse } from "ollama";
import { digestOf } from "../../src/oci/digest.ts";
import {
  type OllamaRegistry,
  PEBBLE_SYSTEM,
  pebbleModel,
  startOllamaRegistry,
} from "../fakes/ollama-registry.ts";
import {
  type DockerRegistry,
  dockerRegistry,
  startDockerRegistry,
} from "../helpers/docker-registry.ts";
import { eventually } from "../helpers/eventually.ts";
import { PEBBLE, QUESTION } from "../helpers/pebble.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const WEIGHTS = await readFile(PEBBLE);

let library: OllamaRegistry;
let home: TugHome;
let client: Ollama;

beforeAll(async () => {
  library = await startOllamaRegistry();
  const env = { TUG_REGISTRY_MIRRORS: `registry.ollama.ai=${library.url}` };
  home = await tugHome({ engine: true, env });
  const { exitCode, stderr } = await home.tug(["start-runner"]);
  if (exitCode !== 0) throw new Error(`the runner does not start:\n${stderr}`);
  client = new Ollama({ host: home.url });
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
  await library[Symbol.asyncDispose]();
});

async function statuses(lines: AsyncIterable<ProgressResponse>): Promise<ProgressResponse[]> {
  const seen: ProgressResponse[] = [];
  for await (const line of lines) seen.push(line);
  return seen;
}

async function names(): Promise<string[]> {
  return (await client.list()).models.map(({ name }) => name);
}

async function ask(model: string): Promise<string> {
  const messages = [{ role: "user", content: QUESTION }];
  return (await client.chat({ model, messages, options: { temperature: 0 } })).message.content;
}

describe("a model of Ollama's library", () => {
  test("is pulled by its bare name, listed, shown, run, copied and deleted by it", async () => {
    library.publish("library/tiny:latest", await pebbleModel());

    const pulled = await statuses(await client.pull({ model: "tiny", stream: true }));

    const digest = digestOf(WEIGHTS);
    expect(pulled[0]).toMatchObject({ status: "pulling manifest" });
    expect(pulled).toContainEqual({
      status: `pulling ${digest.slice("sha256:".length, "sha256:".length + 12)}`,
      digest,
      total: WEIGHTS.length,
      completed: WEIGHTS.length,
    });
    expect(pulled.slice(-3).map(({ status }) => status)).toEqual([
      "verifying sha256 digest",
      "writing manifest",
      "success",
    ]);
    expect(await names()).toContain("tiny:latest");
    const shown = await client.show({ model: "tiny" });
    expect(shown).toMatchObject({ system: PEBBLE_SYSTEM, capabilities: ["completion", "tools"] });
    expect(shown.parameters).toContain("num_ctx                        2048");
    expect(shown.license).toContain("Apache License");

    expect(await ask("tiny")).toContain("Paris");
    const [running] = (await client.ps()).models;
    expect(running).toMatchObject({ name: "tiny:latest", size_vram: 0 });
    expect(running?.size).toBeGreaterThan(0);
    expect(Date.parse(String(running?.expires_at))).toBeGreaterThan(Date.now());

    await client.copy({ source: "tiny", destination: "spare" });
    expect(await names()).toContain("spare:latest");
    await client.delete({ model: "spare" });
    await client.delete({ model: "tiny" });
    expect(await names()).not.toContain("tiny:latest");
    expect((await client.ps()).models).toEqual([]);
  });

  test("a pull that is left ends in the runner, and goes on at the next", async () => {
    // Larger than what fits into the buffers between the registry and here.
    const weights = new Uint8Array(64 * 1024 * 1024);
    weights.set(WEIGHTS);
    library.publish("library/large:latest", { layers: [["model", weights]] });

    const stream = await client.pull({ model: "large", stream: true });
    for await (const { status } of stream) if (status.startsWith("pulling ")) break;
    stream.abort();

    await eventually(async () => {
      const pulls = (await (await fetch(`${home.url}/models/pulls`)).json()) as { state: string }[];
      return pulls.every(({ state }) => state !== "running");
    });
    expect(await client.pull({ model: "large" })).toMatchObject({ status: "success" });
    await client.delete({ model: "large" });
  });
});

describe("a model that is made", () => {
  test("of another one answers with its own settings", async () => {
    const made = await client.create({
      model: "mario",
      from: "pebble",
      system: "You are Mario.",
      parameters: { temperature: 0, num_predict: 3 },
    });

    expect(made).toMatchObject({ status: "success" });
    expect(await client.show({ model: "mario" })).toMatchObject({ system: "You are Mario." });
    const answer = await client.chat({
      model: "mario",
      messages: [{ role: "user", content: QUESTION }],
    });
    expect(answer.done_reason).toBe("length");
    await client.delete({ model: "mario" });
  });

  test("of an uploaded file answers", async () => {
    const digest = digestOf(WEIGHTS);
    const url = `${home.url}/api/blobs/${digest}`;
    // Without a length, as `ollama create` sends it.
    const body = new Blob([WEIGHTS]).stream();
    const status = (await fetch(url, { method: "POST", body })).status;
    expect([200, 201]).toContain(status);
    expect((await fetch(url, { method: "HEAD" })).status).toBe(200);

    const request = { model: "uploaded", files: { "weights.gguf": digest }, stream: true } as const;
    const seen = await statuses(await client.create(request));

    expect(seen.at(-1)).toEqual({ status: "success" } as ProgressResponse);
    expect(await ask("uploaded")).toContain("Paris");
    await client.delete({ model: "uploaded" });
  });
});

const withRegistry = dockerRegistry === null ? test.skip : test;

describe("a registry", () => {
  let registry: DockerRegistry | undefined;
  beforeAll(async () => {
    if (dockerRegistry !== null) registry = await startDockerRegistry();
  });
  afterAll(async () => {
    await registry?.[Symbol.asyncDispose]();
  });

  withRegistry("takes a model and gives it back (needs docker-registry)", async () => {
    const name = `${registry?.host}/me/tiny:v1`;
    await client.create({ model: name, from: "pebble", system: "Pushed." });

    const pushed = await statuses(await client.push({ model: name, insecure: true, stream: true }));
    await client.delete({ model: name });
    expect(await names()).not.toContain(name);
    const pulled = await client.pull({ model: name, insecure: true });

    expect(pushed[0]?.status).toBe("retrieving manifest");
    expect(pushed.some(({ status }) => status.startsWith("pushing "))).toBe(true);
    expect(pushed.at(-1)?.status).toBe("success");
    expect(pulled).toMatchObject({ status: "success" });
    expect(await client.show({ model: name })).toMatchObject({ system: "Pushed." });
    await client.delete({ model: name });
  });

  withRegistry("has no model of another name (needs docker-registry)", async () => {
    const model = `${registry?.host}/me/nothing`;

    const failed = client.pull({ model, insecure: true });

    expect(await failed.catch((error: { status_code: number }) => error.status_code)).toBe(404);
    const stream = await client.pull({ model, insecure: true, stream: true });
    expect(await statuses(stream).catch((error: Error) => error.message)).toContain("nothing");
  });
});

test("the version and the root are what clients look for", async () => {
  expect((await client.version()).version).toMatch(/^\d+\.\d+\.\d+$/);
  expect((await fetch(home.url, { method: "HEAD" })).status).toBe(200);
});
