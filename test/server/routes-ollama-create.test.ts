import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Ollama } from "ollama";
import { packageModel } from "../../src/models/package.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { readDefaults } from "../../src/oci/model-defaults.ts";
import type { Store } from "../../src/store/store.ts";
import { eventually } from "../helpers/eventually.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { fakeDistribution, PULLED } from "./fake-distribution.ts";
import {
  bench,
  NOBODY,
  signal,
  statuses,
  upload,
  WEIGHTS,
  WEIGHTS_DIGEST,
} from "./ollama-bench.ts";

/** Files that are being written. */
async function partsOf({ root }: Store): Promise<string[]> {
  const names = await readdir(join(root, "ingest")).catch(() => []);
  return names.filter((name) => name.endsWith(".part"));
}

describe("blobs", () => {
  test("a blob is kept once it is verified", async () => {
    await using it = await bench();
    const path = `/api/blobs/${WEIGHTS_DIGEST}`;

    expect((await it.send("HEAD", path)).status).toBe(404);
    expect(await upload(it, WEIGHTS)).toBe(201);
    expect((await it.send("HEAD", path)).status).toBe(200);
    expect(await upload(it, WEIGHTS)).toBe(200);
  });

  test("it outlives the removal of other models, and prune takes it", async () => {
    await using it = await bench();
    const bytes = new TextEncoder().encode("a file of a model that is to come");
    await it.package("small");
    await upload(it, bytes);

    await it.client.delete({ model: "small" });
    expect(await it.store.hasBlob(digestOf(bytes))).toBe(true);

    await it.store.prune({ all: true, dryRun: false });
    expect(await it.store.hasBlob(digestOf(bytes))).toBe(false);
  });

  test("other bytes than the digest's are refused and go", async () => {
    await using it = await bench();
    const bytes = new TextEncoder().encode("others");

    const response = await fetch(`${it.url}/api/blobs/${WEIGHTS_DIGEST}`, {
      method: "POST",
      body: bytes,
    });

    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: expect.stringContaining("what came is") });
    expect(await it.store.hasBlob(WEIGHTS_DIGEST)).toBe(false);
    expect(await it.store.hasBlob(digestOf(bytes))).toBe(false);
  });

  test.each(["sha256:1234", "md5:abc", "..%2F..%2Fetc%2Fpasswd", "x".repeat(5000)])(
    "the digest %s is refused",
    async (digest) => {
      await using it = await bench();

      const head = await it.send("HEAD", `/api/blobs/${digest}`);
      const post = await it.send("POST", `/api/blobs/${digest}`, {});

      expect([head.status, post.status]).toEqual([400, 400]);
    },
  );

  test("more than a few at once have to wait", async () => {
    await using it = await bench();
    const leaving = new AbortController();
    const uploading = Array.from({ length: 8 }, (_, index) =>
      fetch(`${it.url}/api/blobs/${digestOf(new Uint8Array([index]))}`, {
        method: "POST",
        body: new ReadableStream({
          start: (controller) => controller.enqueue(new Uint8Array(70_000)),
        }),
        signal: leaving.signal,
      }).catch(() => undefined),
    );
    const parts = async (): Promise<number> => (await partsOf(it.store)).length;
    await eventually(async () => (await parts()) === 8);

    expect(await upload(it, WEIGHTS)).toBe(429);

    leaving.abort();
    await Promise.all(uploading);
    await eventually(async () => (await upload(it, WEIGHTS)) === 201);
    await eventually(async () => (await parts()) === 0);
  });

  test("an upload that breaks off leaves nothing", async () => {
    await using it = await bench();
    const half = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new Uint8Array(70_000)),
    });
    const leaving = new AbortController();
    const uploading = fetch(`${it.url}/api/blobs/${WEIGHTS_DIGEST}`, {
      method: "POST",
      body: half,
      signal: leaving.signal,
    });
    await eventually(async () => (await partsOf(it.store)).length === 1);

    leaving.abort();
    await uploading.catch(() => undefined);

    await eventually(async () => (await partsOf(it.store)).length === 0);
    expect(await it.store.hasBlob(WEIGHTS_DIGEST)).toBe(false);
  });
});

describe("create", () => {
  test("a model of another one has its weights, and texts and settings of its own", async () => {
    await using it = await bench();
    await it.package("small");

    const stream = await it.client.create({
      model: "mario",
      from: "small",
      system: "You are Mario.",
      parameters: { temperature: 0.5, num_ctx: 512, stop: ["a", "b"], num_predict: 7 },
      messages: [{ role: "user", content: "hi" }],
      license: ["MIT", "Apache"],
      stream: true,
    });
    const seen = (await statuses(stream)).map(({ status }) => status);

    expect(seen.at(0)).toBe("reading model metadata");
    expect(seen).toContain(`using existing layer ${WEIGHTS_DIGEST}`);
    expect(seen.slice(-2)).toEqual(["writing manifest", "success"]);
    const made = await it.store.resolve("mario");
    expect(readDefaults(made.manifest)).toEqual({
      system: "You are Mario.",
      parameters: { temperature: 0.5, stop: ["a", "b"], max_tokens: 7 },
      messages: [{ role: "user", content: "hi" }],
    });
    const shown = await it.client.show({ model: "mario" });
    expect(shown.system).toBe("You are Mario.");
    expect(shown.license).toBe("MIT\nApache");
    expect(shown.parameters.split("\n").map((line) => line.replace(/ +/, " "))).toEqual([
      "num_ctx 512",
      "num_predict 7",
      'stop "a"',
      'stop "b"',
      "temperature 0.5",
    ]);
    expect(shown.messages).toEqual([{ role: "user", content: "hi" }]);
    expect(shown.capabilities).toEqual(["completion", "tools"]);
  });

  test("what is said wins, what is not said stays", async () => {
    await using it = await bench();
    await it.package("small");
    const base = { system: "first", parameters: { temperature: 1, top_k: 5 } };
    await it.client.create({ model: "one", from: "small", ...base });

    await it.client.create({ model: "two", from: "one", parameters: { temperature: 0 } });

    expect(readDefaults((await it.store.resolve("two")).manifest)).toEqual({
      system: "first",
      parameters: { temperature: 0, top_k: 5 },
    });
  });

  test("a model of nothing but another one is that model", async () => {
    await using it = await bench();
    const id = await it.package("small");

    expect(await it.client.create({ model: "same", from: "small" })).toMatchObject({
      status: "success",
    });

    expect((await it.store.resolve("same")).digest as string).toBe(id);
  });

  test("a model of an uploaded file", async () => {
    await using it = await bench();
    await upload(it, WEIGHTS);
    const files = { "model.gguf": WEIGHTS_DIGEST };

    const stream = await it.client.create({
      model: "fresh",
      files,
      system: "Hello.",
      license: "MIT",
      stream: true,
    } as Parameters<Ollama["create"]>[0] & { stream: true });
    await statuses(stream);

    const shown = await it.client.show({ model: "fresh" });
    expect(shown).toMatchObject({ system: "Hello.", license: "MIT" });
    expect(shown.details).toMatchObject({ format: "gguf", family: "llama" });
    const [weights] = (await it.store.resolve("fresh")).manifest.layers;
    expect(weights?.digest).toBe(WEIGHTS_DIGEST);
  });

  test("a file without an ending is known by its first bytes", async () => {
    await using it = await bench();
    await upload(it, WEIGHTS);

    const body = { model: "fresh", files: { weights: WEIGHTS_DIGEST }, stream: false };
    const response = await it.send("POST", "/api/create", body);

    expect(await response.json()).toEqual({ status: "success" });
    expect((await it.client.show({ model: "fresh" })).details.family).toBe("llama");
  });

  test("a template in Jinja replaces the model's own", async () => {
    await using it = await bench();
    await it.package("small");
    const template = "{% for message in messages %}{{ message.content }}{% endfor %}";

    await it.client.create({ model: "plain", from: "small", template });

    const shown = await it.client.show({ model: "plain" });
    expect(shown.template).toBe(template);
    expect(shown.capabilities).toEqual(["completion"]);
  });

  test.each(["{{ end_token }}", "{{ messages[0].content }}", "{# .System #}{{ x }}", "Plain."])(
    "%s is no template of Ollama's",
    async (template) => {
      await using it = await bench();
      await it.package("small");

      await it.client.create({ model: "x", from: "small", template });

      expect((await it.client.show({ model: "x" })).template).toBe(template);
    },
  );

  test("what its own modelfile says makes the same again", async () => {
    await using it = await bench();
    await it.package("small");
    await it.client.create({ model: "one", from: "small", system: 'Say "hi".' });

    const { modelfile } = await it.client.show({ model: "one" });

    expect(modelfile).toContain('SYSTEM """Say "hi"."""');
  });

  test("a base that is not here is pulled", async () => {
    let store: Store | undefined;
    const distribution = fakeDistribution({
      pull: async () => {
        if (store === undefined) throw new Error("no store yet");
        const { id } = await packageModel(
          store,
          { model: "ollama.com/library/far", gguf: PEBBLE },
          { signal },
        );
        return { ...PULLED, id };
      },
    });
    await using it = await bench({ distribution });
    ({ store } = it);

    await it.client.create({ model: "near", from: "far", system: "x" });

    expect(it.distribution.calls).toEqual([["pull", { from: "registry.ollama.ai/library/far" }]]);
    expect(readDefaults((await it.store.resolve("near")).manifest)).toEqual({ system: "x" });
  });

  test("parameters that mean nothing here are named in a warning", async () => {
    await using it = await bench();
    await it.package("small");
    const parameters = { numa: true, temperature: 0 };

    const request = { model: "x", from: "small", parameters, stream: true } as const;
    const seen = await statuses(await it.client.create(request));

    expect(seen[0]?.status).toContain("numa");
  });

  test.each<[string, Record<string, unknown>, number]>([
    ["nothing to make it of", { model: "x" }, 400],
    ["two things", { model: "x", from: "small", files: { "a.gguf": WEIGHTS_DIGEST } }, 400],
    ["no name", { from: "small" }, 400],
    ["a digest as a name", { model: `x@${NOBODY}`, from: "small" }, 400],
    ["quantizing", { model: "x", from: "small", quantize: "q4_K_M" }, 501],
    ["a Go template", { model: "x", from: "small", template: "{{ .System }} {{ .Prompt }}" }, 400],
    ["a wrong parameter", { model: "x", from: "small", parameters: { temperature: "hot" } }, 400],
    ["a wrong system", { model: "x", from: "small", system: 5 }, 400],
    ["a wrong role", { model: "x", from: "small", messages: [{ role: "tool", content: "" }] }, 400],
    ["no digest", { model: "x", files: { "a.gguf": "abc" } }, 400],
    ["a blob that is not here", { model: "x", files: { "a.gguf": NOBODY } }, 404],
    ["a path that leaves", { model: "x", files: { "../../a.gguf": WEIGHTS_DIGEST } }, 400],
    ["an absolute path", { model: "x", files: { "/etc/a.gguf": WEIGHTS_DIGEST } }, 400],
    ["a pickle", { model: "x", files: { "a.bin": WEIGHTS_DIGEST } }, 422],
    ["a model as an adapter", { model: "x", from: "small", adapters: { a: WEIGHTS_DIGEST } }, 422],
    ["no weights", { model: "x", files: { "notes.md": WEIGHTS_DIGEST } }, 422],
    ["a name that leaves", { model: "../../etc/passwd", from: "small" }, 400],
    ["a huge name", { model: "x".repeat(100_000), from: "small" }, 400],
  ])("%s is refused", async (_, body, status) => {
    await using it = await bench();
    await it.package("small");
    if (body["files"] !== undefined && "notes.md" in (body["files"] as object)) {
      const notes = new TextEncoder().encode("# Notes");
      await upload(it, notes);
      body["files"] = { "notes.md": digestOf(notes) };
    }

    const response = await it.send("POST", "/api/create", { ...body, stream: false });

    expect(response.status).toBe(status);
    expect(await response.json()).toEqual({ error: expect.any(String) });
    expect(await it.store.list()).toHaveLength(1);
  });
});
