import { describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { createHttp } from "../../src/http/http.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import { formatReference } from "../../src/oci/reference.ts";
import { type Registry, createRegistry } from "../../src/oci/registry.ts";
import {
  type OllamaOptions,
  ollamaRevision,
  parseOllamaName,
  planOllama,
} from "../../src/ollama/plan.ts";
import type { PlannedFile } from "../../src/transfer/plan.ts";
import {
  type OllamaModel,
  type OllamaRegistry,
  PEBBLE_SYSTEM,
  startOllamaRegistry,
} from "../fakes/ollama-registry.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { failureOf } from "../store/failure-of.ts";

const REVISION = "org.opencontainers.image.revision";
const SIGNAL = new AbortController().signal;
/** Weights that nobody reads. */
const WEIGHTS = ["model", "GGUF, or so"] as const;

/** The real client, which takes the fake for the registry that the names are of. */
function clientOf({ url }: OllamaRegistry): OllamaOptions {
  const registry: Registry = createRegistry({
    http: createHttp({ offline: false, caBundle: "", isInsecure: () => false }),
    credentials: {
      find: async () => undefined,
      save: async () => "nowhere",
      remove: async () => undefined,
    },
    mirrors: new Map(),
    isInsecure: () => false,
    wait: async () => undefined,
  });
  return {
    registry: {
      repository: ({ repository }) =>
        registry.repository({ registry: new URL(url).host, repository }),
    },
    signal: SIGNAL,
  };
}

function named(text: string) {
  const name = parseOllamaName(text);
  if (name === undefined) throw new Error(`${text} is no name`);
  return name;
}

/** Plans a model that is published for this. */
async function planOf(fake: OllamaRegistry, model: OllamaModel) {
  fake.publish("library/made-up:latest", model);
  return planOllama(named("ollama.com/made-up"), clientOf(fake));
}

async function bytesOf(file: PlannedFile | undefined): Promise<Uint8Array> {
  const opened = await file?.sources[0]?.open(
    { start: 0, end: file.size ?? 0 },
    { signal: SIGNAL },
  );
  return new Response(opened?.body).bytes();
}

describe("planOllama", () => {
  test("describes a model of the library", async () => {
    await using fake = await startOllamaRegistry();
    const weights = await readFile(PEBBLE);

    const plan = await planOllama(named("ollama.com/library/pebble:q8_0"), clientOf(fake));

    const { files, ...rest } = plan;
    expect(formatReference(plan.reference)).toBe("registry.ollama.ai/library/pebble:q8_0");
    expect(files.map(({ role, path, size }) => ({ role, path, size }))).toEqual([
      { role: "weights", path: "pebble.gguf", size: weights.length },
      { role: "license", path: "LICENSE", size: 41 },
    ]);
    expect(files[0]?.digest).toBe(digestOf(weights));
    expect(rest).toEqual({
      reference: plan.reference,
      layout: "gguf",
      created: "1970-01-01T00:00:00Z",
      annotations: {
        "org.opencontainers.image.source": "https://ollama.com/library/pebble",
        [REVISION]: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
      },
      contextTokens: 2048,
      defaults: {
        system: PEBBLE_SYSTEM,
        parameters: { temperature: 0, stop: ["<|im_end|>"], n_keep: 4 },
      },
      warnings: [],
    });
  });

  test("reads no weights; they can be had from its sources", async () => {
    await using fake = await startOllamaRegistry();

    const { files } = await planOllama(named("ollama.com/pebble"), clientOf(fake));

    expect(fake.requests.some(({ path }) => path.includes(String(files[0]?.digest)))).toBe(false);
    expect(digestOf(await bytesOf(files[0]))).toBe(files[0]?.digest as Digest);
    expect(fake.requests.filter(({ server }) => server === "cdn").at(-1)?.range).toMatch(
      /^bytes=0-/,
    );
  });

  test("tags of one manifest are one model", async () => {
    await using fake = await startOllamaRegistry();

    const [first, second] = await Promise.all(
      ["ollama.com/pebble", "ollama.com/pebble:q8_0"].map((text) =>
        planOllama(named(text), clientOf(fake)),
      ),
    );

    expect(second?.annotations).toEqual(first?.annotations ?? {});
    expect(second?.files.map(({ path, digest }) => [path, digest])).toEqual(
      first?.files.map(({ path, digest }) => [path, digest]) ?? [],
    );
  });

  test("keeps shards in the order of the manifest", async () => {
    await using fake = await startOllamaRegistry();
    const shards = await Promise.all(
      [1, 2, 3].map((number) => readFile(FIRST_SHARD.replace("00001-of", `0000${number}-of`))),
    );

    const { files } = await planOf(fake, { layers: shards.map((shard) => ["model", shard]) });

    expect(files.map(({ path, digest }) => [path, digest])).toEqual(
      shards.map((shard, index) => [`made-up-0000${index + 1}-of-00003.gguf`, digestOf(shard)]),
    );
  });

  test("a model without small texts has no defaults", async () => {
    await using fake = await startOllamaRegistry();

    const plan = await planOf(fake, { layers: [WEIGHTS, ["params", {}], ["system", ""]] });

    expect(plan.defaults).toBeUndefined();
    expect(plan.contextTokens).toBeUndefined();
  });

  test("keeps first turns, and says which parameters it leaves out", async () => {
    await using fake = await startOllamaRegistry();
    const messages = [{ role: "user", content: "Hi" }];

    const plan = await planOf(fake, {
      layers: [WEIGHTS, ["params", { num_gpu: 1, top_k: 3 }], ["messages", messages]],
    });

    expect(plan.defaults).toEqual({ parameters: { top_k: 3 }, messages });
    expect(plan.warnings).toEqual(["left out parameters that mean nothing here: `num_gpu`"]);
  });

  test("takes a projector, an adapter and a draft model along", async () => {
    await using fake = await startOllamaRegistry();

    const { files } = await planOf(fake, {
      config: { draft: { model_format: "gguf" } },
      layers: [["draft", "d"], ["adapter", "a"], ["projector", "p"], WEIGHTS],
    });

    expect(files.map(({ role, path }) => [role, path])).toEqual([
      ["weights", "made-up.gguf"],
      ["mmproj", "mmproj-made-up.gguf"],
      ["adapter", "made-up-adapter.gguf"],
      ["draft", "made-up-draft.gguf"],
    ]);
  });

  test("leaves out a draft model of another format", async () => {
    await using fake = await startOllamaRegistry();

    const { files, warnings } = await planOf(fake, {
      config: { draft: { model_format: "safetensors" } },
      layers: [WEIGHTS, ["draft", "d"]],
    });

    expect(files.map(({ role }) => role)).toEqual(["weights"]);
    expect(warnings).toEqual(["left out the draft model: its format is `safetensors`, not GGUF"]);
  });

  test.each<[string, OllamaModel, string]>([
    [
      "runs in the cloud",
      { config: { remote_host: "https://ollama.com:443\u001B[2J", remote_model: "x" }, layers: [] },
      "it runs on `https://ollama.com:443 [2J` and has no weights",
    ],
    ["runs somewhere", { config: { remote_model: "x" }, layers: [WEIGHTS] }, "on another machine"],
    [
      "is of safetensors",
      { config: { model_format: "safetensors" }, layers: [["tensor", "t"]] },
      "in the format `safetensors`, not GGUF",
    ],
    [
      "is of tensors",
      {
        layers: [
          ["tensor", "t"],
          ["json", {}],
        ],
      },
      "split into single tensors",
    ],
    ["is empty", { layers: [] }, "it has no weights"],
  ])("a model that %s is refused", async (_, model, reason) => {
    await using fake = await startOllamaRegistry();

    expect(await failureOf(planOf(fake, model))).toMatchObject({
      code: "unsupported_model",
      message: expect.stringContaining(reason),
    });
  });

  test.each<[string, OllamaModel, string]>([
    ["parameters that are no object", { layers: [WEIGHTS, ["params", "[1]"]] }, "parameters"],
    ["parameters that are no JSON", { layers: [WEIGHTS, ["params", "{"]] }, "not JSON"],
    ["messages that are none", { layers: [WEIGHTS, ["messages", "7"]] }, "messages"],
    [
      "a system prompt of bytes",
      { layers: [WEIGHTS, ["system", new Uint8Array([0xff])]] },
      "UTF-8",
    ],
  ])("%s are malformed", async (_, model, reason) => {
    await using fake = await startOllamaRegistry();

    expect(await failureOf(planOf(fake, model))).toMatchObject({
      code: "invalid_model_file",
      message: expect.stringContaining(reason),
    });
  });

  test("a system prompt larger than anybody writes is not read", async () => {
    await using fake = await startOllamaRegistry();
    const layers = [WEIGHTS, ["system", "x".repeat(300_000)]] as const;

    expect(await failureOf(planOf(fake, { layers }))).toMatchObject({ code: "request_too_large" });
    expect(fake.requests.filter(({ server }) => server === "cdn")).toHaveLength(1);
  });

  test("texts whose bytes are others than the manifest says are refused", async () => {
    await using fake = await startOllamaRegistry();
    const system = new TextEncoder().encode("You are kind.");
    fake.publish("library/made-up:latest", { layers: [WEIGHTS, ["system", system]] });
    fake.corrupt(digestOf(system), new TextEncoder().encode("You are evil."));

    const plan = planOllama(named("ollama.com/made-up"), clientOf(fake));

    expect(await failureOf(plan)).toMatchObject({ code: "digest_mismatch" });
  });

  test("what is not there is said in words, with the page that shows what is", async () => {
    await using fake = await startOllamaRegistry();

    const plan = planOllama(named("ollama.com/me/Nothing:7b"), clientOf(fake));

    expect(await failureOf(plan)).toMatchObject({
      code: "not_found",
      message:
        "cannot pull `ollama.com/me/Nothing:7b`: the Ollama library has no such model or tag",
      hint: "See https://ollama.com/me/Nothing/tags for what there is.",
    });
  });

  test.each([
    [401, "unauthorized"],
    [403, "forbidden"],
  ])("a refusal of %d has no advice to log in, which nobody can here", async (status, code) => {
    await using fake = await startOllamaRegistry();
    fake.failNext(...Array.from({ length: 8 }, () => status));

    const failure = await failureOf(planOllama(named("ollama.com/pebble"), clientOf(fake)));

    expect(failure).toMatchObject({
      code,
      message: expect.stringContaining("does not give it to everybody"),
      hint: expect.stringContaining("https://ollama.com/library/pebble/tags"),
    });
  });

  test("a registry that is busy is asked again", async () => {
    await using fake = await startOllamaRegistry();
    fake.failNext(503, 503);

    const { files } = await planOllama(named("ollama.com/pebble"), clientOf(fake));

    expect(files).toHaveLength(2);
  });

  test("an interruption ends it", async () => {
    await using fake = await startOllamaRegistry();
    const options = { ...clientOf(fake), signal: AbortSignal.abort() };

    expect((await failureOf(planOllama(named("ollama.com/pebble"), options))).name).toBe(
      "AbortError",
    );
  });
});

describe("ollamaRevision", () => {
  test("is what a plan says, and changes with the model", async () => {
    await using fake = await startOllamaRegistry();
    const options = clientOf(fake);
    const plan = await planOllama(named("ollama.com/pebble"), options);
    fake.publish("library/pebble:other", { layers: [WEIGHTS] });
    const before = fake.requests.length;

    const same = await ollamaRevision(named("ollama.com/pebble"), options);

    expect(fake.requests.length - before).toBe(1);
    expect(String(same)).toBe(plan.annotations[REVISION] ?? "");
    expect(await ollamaRevision(named("ollama.com/pebble:other"), options)).not.toBe(same);
  });
});
