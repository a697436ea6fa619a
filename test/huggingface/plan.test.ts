import { readFileSync } from "node:fs";
import { describe, expect, test } from "bun:test";
import { createHttp } from "../../src/http/http.ts";
import { parseHuggingFaceName } from "../../src/huggingface/name.ts";
import { huggingFaceRevision, planHuggingFace } from "../../src/huggingface/plan.ts";
import type { HubOptions } from "../../src/huggingface/repository.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { formatReference } from "../../src/oci/reference.ts";
import type { PlannedFile, SourcePlan } from "../../src/transfer/plan.ts";
import {
  type FakeHuggingFace,
  type FakeRepository,
  fakeHuggingFace,
  fakeRepository,
  fixtureRepository,
} from "../fakes/hugging-face.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { failureOf } from "./failure-of.ts";

const GGUF = "hf.co/Example-Org/Tiny.Chat-7B-GGUF";
const TOKEN = "secret-token-without-the-usual-prefix";

function optionsFor(hub: FakeHuggingFace, more: Partial<HubOptions> = {}): HubOptions {
  return {
    http: createHttp({ offline: false, caBundle: "", isInsecure: () => false }),
    endpoint: hub.endpoint,
    token: undefined,
    signal: new AbortController().signal,
    attempts: 1,
    ...more,
  };
}

async function plan(
  hub: FakeHuggingFace,
  text: string,
  more: Partial<HubOptions> = {},
): Promise<SourcePlan> {
  const name = parseHuggingFaceName(text);
  if (name === undefined) throw new Error(`not understood: ${text}`);
  return planHuggingFace(name, optionsFor(hub, more));
}

async function bytesOf(file: PlannedFile | undefined, start = 0): Promise<Uint8Array> {
  const signal = new AbortController().signal;
  const range = { start, end: file?.size ?? Infinity };
  const opened = await file?.sources[0]?.open(range, { signal });
  return new Response(opened?.body).bytes();
}

function rows({ files }: SourcePlan): string[] {
  return files.map(({ role, path }) => `${role} ${path}`);
}

const TINY: FakeRepository = fakeRepository("Org/Tiny-GGUF", {
  "sub dir/tiny+x-Q8_0.gguf": readFileSync(PEBBLE),
  LICENSE: "do as you like",
  license: "twice",
  "chat_template.jinja": "{{ messages }}",
  "empty.txt": "",
});

describe("a plan", () => {
  test("of a GGUF repository: pinned to a commit, with digests from the listing", async () => {
    using hub = fakeHuggingFace([fixtureRepository("gguf")]);
    const { commit } = fixtureRepository("gguf");
    const made = await plan(hub, `${GGUF}:Q4_K_M`);
    expect(formatReference(made.reference)).toBe(
      "huggingface.co/example-org/tiny.chat-7b-gguf:Q4_K_M",
    );
    expect(made.layout).toBe("gguf");
    expect(rows(made)).toEqual([
      "weights Tiny.Chat-7B-Q4_K_M.gguf",
      "license LICENSE",
      "mmproj mmproj-F16.gguf",
    ]);
    const [weights, license] = made.files;
    expect(weights?.size).toBe(4_400_000_000);
    expect(weights?.digest).toBe(digestOf(Buffer.from("Tiny.Chat-7B-Q4_K_M.gguf")));
    expect(license).toMatchObject({ size: 11_357, digest: undefined });
    expect(made.created).toBe("2025-03-04T05:06:07Z");
    expect(made.annotations).toEqual({
      "org.opencontainers.image.source": "https://huggingface.co/Example-Org/Tiny.Chat-7B-GGUF",
      "org.opencontainers.image.revision": commit,
      "org.opencontainers.image.licenses": "apache-2.0",
    });
    expect(made.warnings).toHaveLength(1);
    expect(hub.requests.map((request) => request.replace(/\?.*/, ""))).toEqual([
      "GET /api/models/Example-Org/Tiny.Chat-7B-GGUF/revision/main",
      `GET /api/models/Example-Org/Tiny.Chat-7B-GGUF/tree/${commit}`,
    ]);
  });

  test("of a safetensors repository: every file at its path", async () => {
    using hub = fakeHuggingFace([fixtureRepository("safetensors")]);
    const made = await plan(hub, "hf.co/example-org/tiny.chat-7b");
    expect(made.layout).toBe("directory");
    expect(rows(made)).toContain("weights model-00002-of-00003.safetensors");
    expect(rows(made)).toContain("chatTemplate chat_template.jinja");
    expect(rows(made)).toContain("license LICENSE");
    expect(rows(made)).toContain("file tokenizer.json");
    expect(rows(made).filter((row) => row.endsWith(".py"))).toHaveLength(1);
    expect(made.files).toHaveLength(14);
    expect(made.annotations["org.opencontainers.image.licenses"]).toBe("llama3.1");
  });

  test("its files can be fetched, by ranges, and the token stays with the Hub", async () => {
    using hub = fakeHuggingFace([TINY]);
    hub.tokens.add(TOKEN);
    const made = await plan(hub, "hf.co/org/tiny-gguf", { token: TOKEN });
    expect(rows(made)).toEqual([
      "weights tiny+x-Q8_0.gguf",
      "license LICENSE",
      "chatTemplate chat_template.jinja",
    ]);
    const pebble = readFileSync(PEBBLE);
    expect(digestOf(await bytesOf(made.files[0]))).toBe(digestOf(pebble));
    expect(made.files[0]?.digest).toBe(digestOf(pebble));
    expect(await bytesOf(made.files[0], 1000)).toEqual(pebble.subarray(1000));
    expect(Buffer.from(await bytesOf(made.files[1])).toString()).toBe("do as you like");
    expect(hub.leaks).toEqual([]);
    expect(hub.requests.filter((request) => request.startsWith("cdn"))).toHaveLength(2);
    expect(hub.requests).toContain(
      `GET /Org/Tiny-GGUF/resolve/${TINY.commit}/sub%20dir/tiny%2Bx-Q8_0.gguf`,
    );
  });

  test("of shards has them in order", async () => {
    const names = [3, 1, 2].map((number) => [
      `q8/x-0000${number}-of-00003.gguf`,
      readFileSync(FIRST_SHARD.replace("00001-of", `0000${number}-of`)),
    ]);
    using hub = fakeHuggingFace([fakeRepository("o/s", Object.fromEntries(names))]);
    const made = await plan(hub, "hf.co/o/s:x-00002-of-00003.gguf");
    expect(rows(made)).toEqual([1, 2, 3].map((number) => `weights x-0000${number}-of-00003.gguf`));
    expect(made.reference.tag).toBe("x-00002-of-00003.gguf");
  });

  test.each([
    ["hf.co/o/both", "gguf"],
    ["hf.co/o/both:safetensors", "directory"],
    ["hf.co/o/both:model.safetensors", "directory"],
    ["hf.co/o/both:gguf", "gguf"],
  ])("of a repository with both: %s is %s", async (text, layout) => {
    const both = fakeRepository("o/both", { "x.gguf": "1", "model.safetensors": "2" });
    using hub = fakeHuggingFace([both]);
    expect((await plan(hub, text)).layout as string).toBe(layout);
  });

  test("of a directory begins there", async () => {
    const files = { "a/model.safetensors": "1", "a/config.json": "{}", "config.json": "{}" };
    using hub = fakeHuggingFace([fakeRepository("o/dirs", files)]);
    const made = await plan(hub, "https://hf.co/o/dirs/tree/main/a");
    expect(rows(made)).toEqual(["weights model.safetensors", "file config.json"]);
    expect(Buffer.from(await bytesOf(made.files[1])).toString()).toBe("{}");
    const failure = await failureOf(plan(hub, "https://hf.co/o/dirs/tree/main/b"));
    expect(failure.message).toContain("no directory `b`");
  });

  test("of a directory with GGUF files has the projector of the repository", async () => {
    const files = { "q8/x.gguf": "1", "q4/x.gguf": "2", "mmproj.gguf": "3", LICENSE: "free" };
    using hub = fakeHuggingFace([fakeRepository("o/dirs", files)]);
    const made = await plan(hub, "https://hf.co/o/dirs/tree/main/q4");
    expect(rows(made)).toEqual(["weights x.gguf", "license LICENSE", "mmproj mmproj.gguf"]);
    expect(Buffer.from(await bytesOf(made.files[0])).toString()).toBe("2");
    expect(made.warnings).toEqual([]);
  });

  test("of a directory with an index reads that one", async () => {
    const index = '{"weight_map":{"x":"w.safetensors"}}';
    const files = {
      "a/w.safetensors": "1",
      "a/v.safetensors": "2",
      "a/model.safetensors.index.json": index,
    };
    using hub = fakeHuggingFace([fakeRepository("o/dirs", files)]);
    const made = await plan(hub, "https://hf.co/o/dirs/tree/main/a");
    expect(rows(made)[0]).toBe("weights w.safetensors");
  });

  test.each([
    ["safetensors", "model.safetensors", "Pull it as it is with `hf.co/o/plain`"],
    ["pickles", "pytorch_model.bin", "Choose a repository with GGUF files"],
  ])("of a quantization of %s is refused", async (_, file, hint) => {
    using hub = fakeHuggingFace([fakeRepository("o/plain", { [file]: "1" })]);
    const failure = await failureOf(plan(hub, "hf.co/o/plain:Q4_K_M"));
    expect(failure.code).toBe("model_not_found");
    expect(failure.message).toContain("it has no GGUF files");
    expect(failure.hint).toContain(hint);
  });

  test("of pickles alone: a format of its own, with a warning", async () => {
    using hub = fakeHuggingFace([fixtureRepository("pickles")]);
    const made = await plan(hub, "hf.co/example-org/old-1b");
    expect([made.layout, made.weightFormat]).toEqual(["directory", "pytorch"]);
    expect(rows(made)[0]).toBe("weights pytorch_model.bin");
    expect(made.warnings.join()).toContain("its weights are pickles");
    expect(made.warnings.join()).toContain("--allow-pickle");
  });

  test("of pickles that nothing says the model of is refused", async () => {
    using hub = fakeHuggingFace([fakeRepository("o/bare", { "pytorch_model.bin": "1" })]);
    const failure = await failureOf(plan(hub, "hf.co/o/bare"));
    expect(failure.code).toBe("unsupported_model");
    expect(failure.message).toContain("its weights are pickles (`pytorch_model.bin`)");
    const asked = await failureOf(plan(hub, "hf.co/o/bare:pytorch"));
    expect(asked.message).toContain("no PyTorch checkpoint with a `config.json`");
  });

  test("of exports to ONNX: one graph with its weights, and what reads texts", async () => {
    const files = {
      "config.json": "{}",
      "generation_config.json": "{}",
      "tokenizer.json": "{}",
      "onnx/model.onnx": "1",
      "onnx/model_q4.onnx": "2",
      "onnx/model_q4.onnx_data": "3",
      "onnx/model_fp16.onnx": "4",
    };
    using hub = fakeHuggingFace([fakeRepository("onnx-community/tiny", files)]);
    const made = await plan(hub, "hf.co/onnx-community/tiny");
    expect([made.layout, made.weightFormat]).toEqual(["directory", "onnx"]);
    expect(rows(made).slice(0, 2)).toEqual([
      "weights onnx/model_q4.onnx",
      "weights onnx/model_q4.onnx_data",
    ]);
    expect(rows(made)).toHaveLength(5);
    const half = await plan(hub, "hf.co/onnx-community/tiny:fp16");
    expect(rows(half)[0]).toBe("weights onnx/model_fp16.onnx");
    const named = await plan(hub, "hf.co/onnx-community/tiny/blob/main/onnx/model.onnx");
    expect(rows(named)[0]).toBe("weights onnx/model.onnx");
  });

  test("of safetensors and ONNX takes safetensors, unless ONNX is asked for", async () => {
    const files = { "config.json": "{}", "model.safetensors": "1", "onnx/model.onnx": "2" };
    using hub = fakeHuggingFace([fakeRepository("o/both", files)]);
    expect(rows(await plan(hub, "hf.co/o/both"))[0]).toBe("weights model.safetensors");
    expect(rows(await plan(hub, "hf.co/o/both:onnx"))[0]).toBe("weights onnx/model.onnx");
  });

  test("of models for onnxruntime-genai: the directory is the model", async () => {
    const files = {
      "README.md": "x",
      ...genaiFiles("cpu_and_mobile/cpu-int4"),
      ...genaiFiles("cuda/cuda-fp16"),
    };
    using hub = fakeHuggingFace([fakeRepository("o/genai", files)]);
    const made = await plan(hub, "hf.co/o/genai");
    expect(rows(made)).toEqual([
      "weights model.onnx",
      "weights model.onnx.data",
      "file genai_config.json",
      "file tokenizer.json",
    ]);
    const tagged = await plan(hub, "hf.co/o/genai:cuda-fp16");
    expect(rows(tagged)).toEqual(rows(made));
    const address = await plan(hub, "https://hf.co/o/genai/tree/main/cuda/cuda-fp16");
    expect(rows(address)).toEqual(rows(made));
  });

  test("of more files than a manifest can list is refused", async () => {
    const names = Array.from({ length: 4000 }, (_, index) => `${index}.json`);
    const entries = ["model.safetensors", ...names].map((path) => ({
      type: "file",
      path,
      size: 1,
    }));
    using hub = fakeHuggingFace([{ id: "o/many", commit: "a".repeat(40), entries }]);
    hub.pageSize = 5000;
    const failure = await failureOf(plan(hub, "hf.co/o/many"));
    expect(failure.message).toContain("its model has 4001 files");
  });

  test("reads the index of weights where names do not tell", async () => {
    const index = JSON.stringify({ weight_map: { x: "w.0.safetensors", y: "w.1.safetensors" } });
    const files = {
      "w.0.safetensors": "0",
      "w.1.safetensors": "1",
      "old.safetensors": "2",
      "model.safetensors.index.json": index,
    };
    using hub = fakeHuggingFace([fakeRepository("o/indexed", files)]);
    expect(rows(await plan(hub, "hf.co/o/indexed")).slice(0, 3)).toEqual([
      "weights w.0.safetensors",
      "weights w.1.safetensors",
      "file model.safetensors.index.json",
    ]);
    using broken = fakeHuggingFace([
      fakeRepository("o/indexed", {
        ...files,
        "model.safetensors.index.json": '{"weight_map":[1]}',
      }),
    ]);
    expect((await failureOf(plan(broken, "hf.co/o/indexed"))).message).toContain(
      "cannot be understood",
    );
  });

  test("of another revision is that commit, and says so in its tag", async () => {
    const commit = "b".repeat(40);
    using hub = fakeHuggingFace([{ ...TINY, revisions: { "refs/pr/1": commit, v1: commit } }]);
    const made = await plan(hub, "hf.co/org/tiny-gguf@refs/pr/1");
    expect(made.annotations["org.opencontainers.image.revision"]).toBe(commit);
    expect(made.reference.tag).toMatch(/^latest--refs-pr-1-[0-9a-f]{8}$/);
    const name = parseHuggingFaceName("hf.co/org/tiny-gguf@v1");
    if (name === undefined) throw new Error("not understood");
    expect(await huggingFaceRevision(name, optionsFor(hub))).toBe(commit);
    expect(hub.requests).toHaveLength(3);
  });

  test("follows a renaming", async () => {
    using hub = fakeHuggingFace([TINY]);
    const path = `/api/models/${TINY.id}/revision/main?expand=sha&expand=lastModified`;
    hub.next.push(() => new Response(null, { status: 307, headers: { location: path } }));
    const made = await plan(hub, "hf.co/old/name");
    expect(made.annotations["org.opencontainers.image.source"]).toBe(
      "https://huggingface.co/Org/Tiny-GGUF",
    );
    expect(made.reference.repository).toBe("old/name");
  });
});

describe("a listing", () => {
  test("of several pages is read to its end", async () => {
    using hub = fakeHuggingFace([fixtureRepository("gguf")]);
    hub.pageSize = 3;
    expect((await plan(hub, `${GGUF}:UD-Q4_K_XL`)).files).toHaveLength(3);
    expect(hub.requests.filter((request) => request.includes("/tree/"))).toHaveLength(6);
  });

  test.each([
    ["another host", (path: string) => `https://example.com${path}`],
    ["no host", (path: string) => path],
    ["a path before the API", (path: string) => `https://example.com/mirror${path}`],
  ])("stays with the endpoint where `Link` names %s", async (_, linkTo) => {
    using hub = fakeHuggingFace([fixtureRepository("gguf")]);
    hub.tokens.add(TOKEN);
    Object.assign(hub, { pageSize: 5, linkTo });
    expect((await plan(hub, `${GGUF}:Q8_0`, { token: TOKEN })).files).toHaveLength(3);
  });

  test("that turns in a circle ends", async () => {
    using hub = fakeHuggingFace([fixtureRepository("gguf")]);
    hub.pageSize = 5;
    hub.linkTo = (path) => `${hub.endpoint}${path.replace(/cursor=\d+/, "cursor=0")}`;
    const failure = await failureOf(plan(hub, GGUF));
    expect(failure.code).toBe("unsupported_model");
    expect(hub.requests.length).toBeLessThan(210);
  });

  test("of more files than any model has is refused", async () => {
    const entries = Array.from({ length: 20_001 }, (_, index) => ({
      type: "file",
      path: `${index}.json`,
      size: 1,
    }));
    using hub = fakeHuggingFace([{ id: "o/many", commit: "a".repeat(40), entries }]);
    hub.pageSize = 30_000;
    const failure = await failureOf(plan(hub, "hf.co/o/many"));
    expect(failure.message).toContain("more than 20000 files");
  });

  test("paths that lead elsewhere are left out", async () => {
    const names = ["../x-Q8_0.gguf", "/y-Q8_0.gguf", "a\\b-Q8_0.gguf", "nul.gguf", "z-Q8_0.gguf"];
    const entries = names.map((path) => ({ type: "file", path, size: 1 }));
    using hub = fakeHuggingFace([{ id: "o/odd", commit: "a".repeat(40), entries }]);
    expect(rows(await plan(hub, "hf.co/o/odd"))).toEqual(["weights z-Q8_0.gguf"]);
  });

  test.each([
    ["null", null],
    ["no path", { type: "file", size: 1 }],
    ["a negative size", { type: "file", path: "x.gguf", size: -1 }],
    ["half a byte", { type: "file", path: "x.gguf", size: 0.5 }],
    ["more than can be counted", { type: "file", path: "x.gguf", size: 2 ** 60 }],
    ["no SHA-256", { type: "file", path: "x.gguf", size: 1, lfs: { oid: "ab", size: 1 } }],
  ])("with an entry of %s is refused", async (_, entry) => {
    using hub = fakeHuggingFace([{ id: "o/odd", commit: "a".repeat(40), entries: [entry] }]);
    const failure = await failureOf(plan(hub, "hf.co/o/odd"));
    expect(failure.code).toBe("registry_unavailable");
    expect(failure.message).toBe(
      "cannot pull `hf.co/o/odd`: its list of files cannot be understood",
    );
    expect(failure.details).toEqual({ permanent: true });
  });
});

describe("a description", () => {
  const good = { _id: "1", id: "Org/Tiny-GGUF", sha: TINY.commit, lastModified: "2025-01-01" };

  test.each([
    ["HTML", () => new Response("<html>")],
    ["nothing", () => new Response("")],
    ["null", () => Response.json(null)],
    ["no commit", () => Response.json({ ...good, sha: undefined })],
    ["a commit that is a path", () => Response.json({ ...good, sha: "../../x" })],
    ["a name that is a path", () => Response.json({ ...good, id: "../../x" })],
  ])("of %s is refused", async (_, answer) => {
    using hub = fakeHuggingFace([TINY]);
    hub.next.push(answer);
    const failure = await failureOf(plan(hub, "hf.co/org/tiny-gguf"));
    expect(failure.code).toBe("registry_unavailable");
    expect(failure.message).toContain("its description cannot be understood");
  });

  test.each([
    ["apache-2.0", undefined, "apache-2.0"],
    [["mit", "apache-2.0"], undefined, "mit OR apache-2.0"],
    ["other", "my-license", "my-license"],
    ["other", undefined, undefined],
    ["unknown", undefined, undefined],
    ["a\nb", undefined, undefined],
  ])("with the licence %p (%p) says %p", async (license, licenseName, expected) => {
    const named = licenseName === undefined ? {} : { licenseName };
    using hub = fakeHuggingFace([{ ...TINY, license, ...named }]);
    const { annotations } = await plan(hub, "hf.co/org/tiny-gguf");
    expect(annotations["org.opencontainers.image.licenses"]).toBe(expected as string);
  });

  test("without a time has a fixed one", async () => {
    using hub = fakeHuggingFace([{ ...TINY, lastModified: "yesterday" }]);
    expect((await plan(hub, "hf.co/org/tiny-gguf")).created).toBe("1970-01-01T00:00:00Z");
  });

  test("without end is not read to its end", async () => {
    using hub = fakeHuggingFace([TINY]);
    const chunk = new Uint8Array(1024 * 1024);
    const endless = new ReadableStream({ pull: (controller) => controller.enqueue(chunk) });
    hub.next.push(() => new Response(endless));
    expect((await failureOf(plan(hub, "hf.co/org/tiny-gguf"))).code).toBe("request_too_large");
  });
});

function genaiFiles(directory: string): Record<string, string> {
  return {
    [`${directory}/genai_config.json`]: "{}",
    [`${directory}/model.onnx`]: "1",
    [`${directory}/model.onnx.data`]: "2",
    [`${directory}/tokenizer.json`]: "{}",
  };
}
