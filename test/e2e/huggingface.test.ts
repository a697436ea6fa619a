import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { basename, dirname, join } from "node:path";
import { readdir } from "node:fs/promises";
import type { ModelDetails, SearchResult } from "../../src/api/models.ts";
import {
  type FakeHuggingFace,
  type FakeRepository,
  fakeHuggingFace,
  fakeRepository,
} from "../fakes/hugging-face.ts";
import { FIRST_SHARD, PEBBLE, QUESTION } from "../helpers/pebble.ts";
import { encodeGguf } from "../store/gguf-file.ts";
import { sharedTugHome, type TugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const TOKEN = "hf_the_token_of_a_test";

describe("Hugging Face", () => {
  const home = sharedTugHome();

  test("a model is pulled by its name and answers", async () => {
    using hub = fakeHuggingFace([await pebbleRepository("Org/Pebble-GGUF")]);

    const pulled = await home().tug(["pull", "hf.co/Org/Pebble-GGUF"], { env: environment(hub) });
    const answer = await ask(home(), "hf.co/Org/Pebble-GGUF");

    expect(pulled).toMatchObject({ exitCode: 0 });
    expect(pulled.stdout).toMatch(
      /^huggingface\.co\/org\/pebble-gguf(?::\S+)?@sha256:[0-9a-f]{64}\n$/,
    );
    expect(answer).toMatchObject({ exitCode: 0, stdout: "The capital of France is Paris.\n" });
  });

  test("pulled again it fetches no file, and twice it is the same model", async () => {
    using hub = fakeHuggingFace([await pebbleRepository("Org/Again-GGUF")]);
    const env = environment(hub);
    const first = await home().tug(["pull", "hf.co/Org/Again-GGUF"], { env });
    hub.requests.length = 0;

    const second = await home().tug(["pull", "hf.co/Org/Again-GGUF"], { env });
    const again = await home().tug(["rm", "hf.co/Org/Again-GGUF"]);
    const third = await home().tug(["pull", "hf.co/Org/Again-GGUF"], { env });

    expect(second).toMatchObject({ exitCode: 0, stdout: first.stdout });
    expect(again.exitCode).toBe(0);
    expect(third.stdout).toBe(first.stdout);
    const blobs = hub.requests.filter((request) => request.startsWith("cdn"));
    // The weights are shared with the test before: nothing had to be fetched.
    expect(blobs.length).toBeLessThanOrEqual(1);
  });

  test("a quantization is chosen by its name; one that is not there is refused with those there are", async () => {
    const bytes = await Bun.file(PEBBLE).bytes();
    using hub = fakeHuggingFace([
      fakeRepository("Org/Two-GGUF", { "two-Q8_0.gguf": bytes, "two-Q4_K_M.gguf": bytes.slice() }),
    ]);
    const env = environment(hub);

    const chosen = await home().tug(["pull", "hf.co/Org/Two-GGUF:Q8_0"], { env });
    const refused = await home().tug(["pull", "hf.co/Org/Two-GGUF:Q2_K"], { env });

    expect(chosen).toMatchObject({ exitCode: 0 });
    expect(chosen.stdout).toContain(":Q8_0@");
    expect(refused.exitCode).toBe(1);
    for (const name of ["Q8_0", "Q4_K_M"]) expect(refused.stderr).toContain(name);
  });

  test("an export to ONNX is pulled as one model, in the precision that was asked for", async () => {
    const files = {
      "config.json": JSON.stringify({ model_type: "llama", max_position_embeddings: 64 }),
      "tokenizer.json": "{}",
      "onnx/model.onnx": "whole",
      "onnx/model_q4.onnx": "four bits",
      "onnx/model_q4.onnx_data": "weights",
    };
    using hub = fakeHuggingFace([fakeRepository("onnx-org/tiny", files)]);
    const env = environment(hub);

    const pulled = await home().tug(["pull", "hf.co/onnx-org/tiny:q4"], { env });
    const { stdout } = await home().tug(["inspect", "hf.co/onnx-org/tiny:q4"]);
    const details = JSON.parse(stdout) as ModelDetails;

    expect(pulled).toMatchObject({ exitCode: 0 });
    expect(details.config).toMatchObject({ format: "onnx" });
    expect(details.layers.map(({ path }) => path)).toEqual([
      "onnx/model_q4.onnx",
      "onnx/model_q4.onnx_data",
      "config.json",
      "tokenizer.json",
    ]);
  });

  test("a checkpoint of pickles is pulled with a warning, and runs only where that is allowed", async () => {
    const files = { "config.json": '{"model_type":"llama"}', "pytorch_model.bin": "pickles" };
    using hub = fakeHuggingFace([fakeRepository("old-org/tiny", files)]);

    const pulled = await home().tug(["pull", "hf.co/old-org/tiny"], { env: environment(hub) });
    const refused = await ask(home(), "hf.co/old-org/tiny");

    expect(pulled).toMatchObject({ exitCode: 0 });
    expect(pulled.stderr).toContain("its weights are pickles");
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain("which can run code when they are opened");
    expect(refused.stderr).toContain("--allow-pickle");
  });

  test("shards come all, and answer", async () => {
    using hub = fakeHuggingFace([await shardRepository("Org/Shards-GGUF")]);

    const pulled = await home().tug(["pull", "hf.co/Org/Shards-GGUF"], { env: environment(hub) });
    const { stdout } = await home().tug(["inspect", "hf.co/Org/Shards-GGUF"]);
    const answer = await ask(home(), "hf.co/Org/Shards-GGUF");

    expect(pulled).toMatchObject({ exitCode: 0 });
    const { layers } = JSON.parse(stdout) as ModelDetails;
    expect(layers.filter(({ media_type: type }) => type.includes("gguf"))).toHaveLength(3);
    expect(answer).toMatchObject({ exitCode: 0, stdout: "The capital of France is Paris.\n" });
  });

  test("a pasted address is a name, too", async () => {
    using hub = fakeHuggingFace([await pebbleRepository("Org/Pasted-GGUF")]);
    const url = "https://huggingface.co/Org/Pasted-GGUF/blob/main/pebble-Q8_0.gguf?download=true";

    const pulled = await home().tug(["pull", url], { env: environment(hub) });

    expect(pulled).toMatchObject({ exitCode: 0 });
    expect(pulled.stdout).toStartWith("huggingface.co/org/pasted-gguf");
  });

  test("a gated repository says what to do; with an accepted token it opens, and the token stays with it", async () => {
    using hub = fakeHuggingFace([gatedRepository("Org/Gated-GGUF")]);
    hub.tokens.add(TOKEN);
    const env = environment(hub);
    const withToken = { ...env, HF_TOKEN: TOKEN };

    const anonymous = await home().tug(["pull", "hf.co/Org/Gated-GGUF"], { env });
    const stranger = await home().tug(["pull", "hf.co/Org/Gated-GGUF"], { env: withToken });
    hub.accepted.add(TOKEN);
    const friend = await home().tug(["pull", "hf.co/Org/Gated-GGUF"], { env: withToken });

    expect([anonymous, stranger, friend].map(({ exitCode }) => exitCode)).toEqual([1, 1, 0]);
    expect(anonymous.stderr).toContain("HF_TOKEN");
    expect(stranger.stderr).toContain("Org/Gated-GGUF");
    expect(hub.leaks).toEqual([]);
    for (const { stdout, stderr } of [anonymous, stranger, friend])
      expect(stdout + stderr).not.toContain(TOKEN);
  });

  test("429 is waited for, and a repository that is not there is named", async () => {
    using hub = fakeHuggingFace([await pebbleRepository("Org/Busy-GGUF")]);
    const env = environment(hub);
    const headers = { "retry-after": "1" };
    hub.next.push(() => new Response("slow down", { status: 429, headers }));
    const startedAt = performance.now();

    const busy = await home().tug(["pull", "hf.co/Org/Busy-GGUF"], { env });
    const waitedMs = performance.now() - startedAt;
    const absent = await home().tug(["pull", "hf.co/Org/Absent"], { env });

    expect(busy).toMatchObject({ exitCode: 0 });
    expect(waitedMs).toBeGreaterThanOrEqual(1_000);
    expect(absent).toMatchObject({ exitCode: 1, stdout: "" });
    expect(absent.stderr).toContain("Org/Absent");
  });

  test("is searched", async () => {
    using hub = fakeHuggingFace([
      { ...(await pebbleRepository("Org/Pebble-GGUF")), tags: ["gguf"], downloads: 12 },
    ]);

    const { exitCode, stdout } = await home().tug(
      ["search", "pebble", "--source", "huggingface", "--json"],
      { env: environment(hub) },
    );

    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout) as SearchResult[]).toMatchObject([
      { name: "hf.co/Org/Pebble-GGUF", source: "huggingface", downloads: 12 },
    ]);
  });
});

function environment({ endpoint }: FakeHuggingFace): Record<string, string> {
  return { HF_ENDPOINT: endpoint };
}

async function pebbleRepository(id: string): Promise<FakeRepository> {
  return fakeRepository(id, {
    "README.md": "# Pebble\n",
    "pebble-Q8_0.gguf": await Bun.file(PEBBLE).bytes(),
  });
}

/** Of a file that no other test fetches. */
function gatedRepository(id: string): FakeRepository {
  const bytes = encodeGguf({ values: { "general.architecture": { string: "llama" } } });
  return fakeRepository(id, { "gated-Q8_0.gguf": Uint8Array.from(bytes) }, { gated: "manual" });
}

async function shardRepository(id: string): Promise<FakeRepository> {
  const folder = dirname(FIRST_SHARD);
  const names = (await readdir(folder)).filter((name) => name.endsWith(".gguf"));
  const files: Record<string, Uint8Array<ArrayBuffer>> = {};
  for (const name of names)
    files[basename(name).replace("q8_0", "Q8_0")] = await Bun.file(join(folder, name)).bytes();
  return fakeRepository(id, files);
}

function ask(home: TugHome, name: string): ReturnType<TugHome["tug"]> {
  return home.tug(["run", name, QUESTION, "--temperature", "0"]);
}
