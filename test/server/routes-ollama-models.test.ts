import { describe, expect, test } from "bun:test";
import { stat } from "node:fs/promises";
import type { Ollama } from "ollama";
import { AppError } from "../../src/errors.ts";
import type { WorkerSnapshot } from "../../src/runtime/snapshot.ts";
import { OLLAMA_API_VERSION } from "../../src/server/routes/ollama/models.ts";
import { shownName } from "../../src/server/routes/ollama/names.ts";
import { encode } from "../../src/server/routes/ollama/progress.ts";
import { eventually } from "../helpers/eventually.ts";
import { IDLE_WORKER } from "./fake-deps.ts";
import { fakeDistribution, type PULLED } from "./fake-distribution.ts";
import { bench, refusal, statuses } from "./ollama-bench.ts";

describe("looking for a server", () => {
  test.each(["/", "/api/version", "/api/tags"])("HEAD %s is answered", async (path) => {
    await using it = await bench();

    const response = await it.send("HEAD", path);

    expect(response.status).toBe(200);
    expect(await response.text()).toBe("");
  });

  test("the version is one that clients compare", async () => {
    await using it = await bench();

    expect(await it.client.version()).toEqual({ version: OLLAMA_API_VERSION });
    expect(OLLAMA_API_VERSION).toMatch(/^\d+\.\d+\.\d+$/);
  });
});

describe("list", () => {
  test("an empty store is an empty list", async () => {
    await using it = await bench();

    expect(await it.client.list()).toEqual({ models: [] });
  });

  test("every name is an entry with the size, digest and time of its model", async () => {
    await using it = await bench();
    const id = await it.package("small");
    await it.store.tag((await it.store.resolve("small")).digest, {
      registry: "docker.io",
      repository: "me/other",
      tag: "v2",
    });

    const { models } = await it.client.list();

    const { sizeBytes } = await it.store.resolve("small");
    expect(models.map(({ name }) => name).toSorted()).toEqual(["me/other:v2", "small:latest"]);
    const [first] = models;
    expect(first).toMatchObject({
      model: first?.name,
      size: sizeBytes,
      digest: id.slice("sha256:".length),
      details: {
        parent_model: "",
        format: "gguf",
        family: "llama",
        families: ["llama"],
        quantization_level: "Q8_0",
      },
    });
    const { mtime } = await stat(it.store.blobPath((await it.store.resolve(id)).digest));
    expect(String(first?.modified_at)).toBe(mtime.toISOString());
  });

  test("every name that is listed can be asked for", async () => {
    await using it = await bench();
    for (const name of ["one", "me/two:v1", "localhost:5000/three", "ollama.com/library/four"])
      await it.package(name);

    const { models } = await it.client.list();

    for (const { name, digest } of models) {
      const { modified_at: modified } = await it.client.show({ model: name });
      expect(digest).toBeTruthy();
      expect(Date.parse(String(modified))).toBeGreaterThan(0);
    }
    expect(models.map(({ name }) => name).toSorted()).toEqual([
      "four:latest",
      "localhost:5000/three:latest",
      "me/two:v1",
      "one:latest",
    ]);
  });

  test.each([
    ["registry.ollama.ai/library/m:latest", [], "m:latest"],
    [
      "registry.ollama.ai/library/m:latest",
      ["docker.io/ai/m:latest"],
      "registry.ollama.ai/library/m:latest",
    ],
    ["registry.ollama.ai/me/m:1", ["docker.io/ai/m:1"], "me/m:1"],
    ["registry.ollama.ai/me/m:1", ["docker.io/me/m:1"], "registry.ollama.ai/me/m:1"],
    ["docker.io/ai/m:latest", [], "m:latest"],
    ["docker.io/me/m:q4", [], "me/m:q4"],
    ["huggingface.co/a/b:latest", [], "huggingface.co/a/b:latest"],
    ["localhost:5000/m:latest", [], "localhost:5000/m:latest"],
  ])("%s beside %j is called %s", (tag, others, shown) => {
    expect(shownName(tag, new Set([tag, ...others]))).toBe(shown);
  });
});

function workersOf([id = ""]: readonly string[]): WorkerSnapshot[] {
  const demand = { "cuda:0": 30, ram: 12 };
  return [{ ...IDLE_WORKER, modelId: id, modelName: "small", demand }];
}

describe("ps", () => {
  test("nothing runs", async () => {
    await using it = await bench();

    expect(await it.client.ps()).toEqual({ models: [] });
  });

  test("what runs has its size, its time and its context", async () => {
    await using it = await bench({ workers: workersOf });
    const id = await it.package("small");

    const { models } = await it.client.ps();

    expect(models as readonly object[]).toEqual([
      {
        name: "small:latest",
        model: "small:latest",
        size: 42,
        size_vram: 30,
        digest: id.slice("sha256:".length),
        expires_at: "2026-01-02T03:09:05.000Z",
        context_length: 4096,
        details: expect.objectContaining({ family: "llama" }),
      },
    ]);
  });

  test.each([
    [{ pinned: true }, 9999],
    [{ keepAliveMs: -1, expiresAt: null }, 9999],
    [{ expiresAt: null }, new Date().getUTCFullYear()],
  ])("a worker with %j leaves in the year %d", async (part, year) => {
    const workers = (): WorkerSnapshot[] => [{ ...IDLE_WORKER, ...part }];
    await using it = await bench({ workers });

    const [model] = (await it.client.ps()).models;

    expect(model?.name).toBe("me/gone");
    expect([year, year + 1]).toContain(new Date(String(model?.expires_at)).getUTCFullYear());
  });
});

describe("show", () => {
  test("a model is shown with its header, its template and what it can do", async () => {
    await using it = await bench();
    await it.package("small", { context_size: 2048 });

    const shown = await it.client.show({ model: "small" });

    const info = shown.model_info as unknown as Record<string, unknown>;
    expect(info).toMatchObject({
      "general.architecture": "llama",
      "llama.context_length": expect.any(Number),
      "general.parameter_count": expect.any(Number),
      "tokenizer.ggml.tokens": null,
    });
    expect(shown.capabilities).toEqual(["completion", "tools"]);
    expect(shown.template).toContain("add_generation_prompt");
    expect(shown.parameters).toBe("num_ctx                        2048");
    expect(shown.modelfile).toContain("FROM small\nTEMPLATE");
    expect(shown.modelfile).toContain("PARAMETER num_ctx 2048");
    expect(shown.details.quantization_level).toBe("Q8_0");
    expect("projector_info" in shown).toBe(false);
  });

  test("verbose has the arrays", async () => {
    await using it = await bench();
    await it.package("small");

    const response = await it.send("POST", "/api/show", { name: "small", verbose: true });

    const { model_info: info } = (await response.json()) as {
      model_info: Record<string, unknown>;
    };
    expect((info["tokenizer.ggml.tokens"] as unknown[]).length).toBe(
      Number(info["llama.vocab_size"]),
    );
  });

  test("no path of this machine is told", async () => {
    await using it = await bench();
    await it.package("small");

    const response = await it.send("POST", "/api/show", { model: "small" });

    expect(await response.text()).not.toContain(it.store.root);
  });

  test("a damaged model is said to be damaged", async () => {
    await using it = await bench();
    const id = await it.package("small");
    const { manifest } = await it.store.resolve(id);
    const path = it.store.blobPath(manifest.config.digest);
    await Bun.$`rm -f ${path}`.quiet();

    const response = await it.send("POST", "/api/show", { model: "small" });

    expect(response.status).toBe(404);
    expect(await response.text()).toContain("tug verify");
  });
});

describe("copy and delete", () => {
  test("a copy is another name of the same model", async () => {
    await using it = await bench();
    const id = await it.package("small");

    await it.client.copy({ source: "small", destination: "me/backup:v1" });

    expect((await it.store.resolve("me/backup:v1")).digest as string).toBe(id);
  });

  test("a name goes, and the model with its last one", async () => {
    await using it = await bench();
    await it.package("small");
    await it.client.copy({ source: "small", destination: "spare" });

    expect(await it.client.delete({ model: "small" })).toEqual({ status: "success" });
    expect((await it.client.list()).models.map(({ name }) => name)).toEqual(["spare:latest"]);
    await it.client.delete({ model: "spare" });

    expect(await it.store.list()).toEqual([]);
  });

  test("a model that runs is drained first", async () => {
    await using it = await bench();
    const id = await it.package("small");
    it.used.add(id);

    await it.client.delete({ model: "small:latest" });

    expect(it.drains).toEqual([id]);
    expect(await it.store.list()).toEqual([]);
  });

  test("a model of the library goes by its short name, another of that name stays", async () => {
    await using it = await bench();
    await it.package("ollama.com/library/m");
    await it.package("hf.co/them/m", { context_size: 64 });

    await it.client.delete({ model: "m" });

    const { models } = await it.client.list();
    expect(models.map(({ name }) => name)).toEqual(["huggingface.co/them/m:latest"]);
    expect(await refusal(it.client.delete({ model: "m" }))).toMatchObject({ status: 404 });
  });
});

describe("pull", () => {
  test("a stream says what it pulls and ends in success", async () => {
    await using it = await bench();

    const seen = await statuses(await it.client.pull({ model: "smollm2", stream: true }));

    const digest = `sha256:${"b".repeat(64)}`;
    expect(seen as readonly object[]).toEqual([
      { status: "pulling manifest" },
      { status: "pulling bbbbbbbbbbbb", digest, total: 10, completed: 5 },
      { status: "verifying sha256 digest" },
      { status: "writing manifest" },
      { status: "success" },
    ]);
  });

  test("without a stream there is one answer", async () => {
    await using it = await bench();

    expect(await it.client.pull({ model: "smollm2" })).toMatchObject({ status: "success" });
  });

  test.each([
    ["smollm2", "registry.ollama.ai/library/smollm2"],
    ["me/model:q4", "registry.ollama.ai/me/model:q4"],
    ["ai/smollm2", "ai/smollm2"],
    ["docker.io/me/model", "docker.io/me/model"],
    ["hf.co/them/model:Q4_K_M", "hf.co/them/model:Q4_K_M"],
    ["localhost:5000/m", "localhost:5000/m"],
    ["pebble", "pebble"],
    ["here", "here"],
  ])("%s comes from %s", async (model, from) => {
    await using it = await bench();
    await it.package("here");

    await it.client.pull({ model });

    expect(it.distribution.calls).toEqual([["pull", { from }]]);
  });

  test("insecure is passed on", async () => {
    await using it = await bench();

    await it.client.pull({ model: "localhost:5000/m", insecure: true });

    expect(it.distribution.calls).toEqual([["pull", { from: "localhost:5000/m", insecure: true }]]);
  });

  test("a failure is the last line of a stream, and the status without one", async () => {
    const distribution = fakeDistribution({
      pull: () => Promise.reject(new AppError("not_found", "cannot pull `x`: nobody has it")),
    });
    await using it = await bench({ distribution });

    const streamed = it.client.pull({ model: "x", stream: true }).then(statuses);
    expect((await refusal(streamed)).error).toBe("cannot pull `x`: nobody has it");
    expect(await refusal(it.client.pull({ model: "x" }))).toEqual({
      status: 404,
      error: "cannot pull `x`: nobody has it",
    });
  });

  test("a client that leaves ends its pull", async () => {
    let isAborted = false;
    const distribution = fakeDistribution({
      pull: (_, { signal: left }) => {
        const { promise, reject } = Promise.withResolvers<typeof PULLED>();
        left.addEventListener("abort", () => {
          isAborted = true;
          reject(new AppError("cancelled", "cancelled"));
        });
        return promise;
      },
    });
    await using it = await bench({ distribution });

    const stream = await it.client.pull({ model: "x", stream: true });
    for await (const { status } of stream) {
      expect(status).toBe("pulling manifest");
      break;
    }
    stream.abort();

    await eventually(() => isAborted);
  });

  test("warnings are statuses, files without a digest have their names", () => {
    const options = { stream: true, verb: "pulling", ending: [] };
    const progress = { type: "progress", phase: "x", done_bytes: 0, total_bytes: null } as const;

    expect(encode({ type: "warning", message: "odd" }, options)).toBe(
      '{"status":"warning: odd"}\n',
    );
    expect(encode({ ...progress, id: "m.gguf" }, options)).toBe(
      '{"status":"pulling m.gguf","digest":"m.gguf"}\n',
    );
  });
});

describe("push", () => {
  test("a model is pushed by the name it has", async () => {
    await using it = await bench();
    await it.package("localhost:5000/me/m:v1");

    const stream = await it.client.push({ model: "localhost:5000/me/m:v1", stream: true });
    const seen = await statuses(stream);

    expect(seen.map(({ status }) => status)).toEqual([
      "retrieving manifest",
      "pushing manifest",
      "success",
    ]);
    expect(it.distribution.calls).toEqual([["push", { name: "localhost:5000/me/m:v1" }]]);
  });
});

describe("what is not there, and what is no request", () => {
  test.each<[string, (client: Ollama, model: string) => Promise<unknown>]>([
    ["show", (client, model) => client.show({ model })],
    ["delete", (client, model) => client.delete({ model })],
    ["copy", (client, source) => client.copy({ source, destination: "y" })],
    ["push", (client, model) => client.push({ model })],
  ])("%s of an unknown model is 404 in Ollama's words", async (_, call) => {
    await using it = await bench();

    expect(await refusal(call(it.client, "nothing"))).toEqual({
      status: 404,
      error: expect.stringContaining("model 'nothing' not found"),
    });
  });

  test.each<[string, (client: Ollama, model: string) => Promise<unknown>]>([
    ["show", (client, model) => client.show({ model })],
    ["delete", (client, model) => client.delete({ model })],
    ["copy", (client, destination) => client.copy({ source: "small", destination })],
    ["push", (client, model) => client.push({ model })],
    ["pull", (client, model) => client.pull({ model })],
  ])("%s refuses names that are none", async (_, call) => {
    await using it = await bench();
    await it.package("small");

    for (const name of ["../../etc/passwd", "a b", "x".repeat(9000), "a//b", "small:%00"]) {
      const { status, error } = await refusal(call(it.client, name));
      expect([name.slice(0, 20), status]).toEqual([name.slice(0, 20), 400]);
      expect(error.length).toBeLessThan(600);
    }
    expect(it.distribution.calls).toEqual([]);
  });

  test.each([
    ["POST", "/api/show"],
    ["POST", "/api/pull"],
    ["POST", "/api/push"],
    ["POST", "/api/copy"],
    ["POST", "/api/create"],
    ["DELETE", "/api/delete"],
  ])("%s %s refuses what it cannot read", async (method, path) => {
    await using it = await bench();

    for (const body of [undefined, 1, [], {}, { model: 5, source: 5 }, { model: "" }]) {
      const response = await it.send(method, path, body);
      expect(response.status).toBe(400);
      expect(await response.json()).toEqual({ error: expect.any(String) });
    }
  });

  test("another method gets 405 in Ollama's words", async () => {
    await using it = await bench();

    const response = await it.send("GET", "/api/show");

    expect(response.status).toBe(405);
    expect(await response.json()).toEqual({ error: expect.any(String) });
  });
});
