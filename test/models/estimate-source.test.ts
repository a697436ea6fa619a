import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { open, truncate } from "node:fs/promises";
import { join } from "node:path";
import { type EstimateDeps, estimateSource } from "../../src/models/estimate-source.ts";
import { createRemotes } from "../../src/models/remotes.ts";
import { readGgufShape } from "../../src/store/gguf.ts";
import { Store } from "../../src/store/store.ts";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { credentialsOf } from "../oci/registry-client.ts";
import { failureOf } from "../store/failure-of.ts";
import { encodeGguf, type GgufValue } from "../store/gguf-file.ts";

const signal = AbortSignal.timeout(30_000);
const MIB = 1024 * 1024;
const SHAPE = { architecture: "llama", weightBytes: 2_934_528, contextTokens: 2048 };

let registry: FakeRegistry;
beforeAll(async () => {
  registry = await startFakeRegistry();
});
afterAll(async () => registry.stop());

async function machine(options: { readonly offline?: boolean } & Partial<EstimateDeps> = {}) {
  const home = await tempDir();
  const { offline = false, ...rest } = options;
  const deps: EstimateDeps = {
    store: Store.open(join(home.path, "models")),
    remotes: createRemotes({
      offline,
      caBundle: "",
      insecureRegistries: [],
      mirrors: new Map(),
      limits: { connections: 1, bytesPerSecond: undefined },
      credentials: credentialsOf(),
      huggingFace: { endpoint: "https://hub.invalid", token: () => undefined },
    }),
    paths: [],
    signal,
    ...rest,
  };
  return {
    home: home.path,
    ask: (name: string) => estimateSource(name, deps),
    [Symbol.asyncDispose]: () => home[Symbol.asyncDispose](),
  };
}

/** A file with a large vocabulary and one tensor of many bytes, which take no room on the disk. */
async function largeModel(directory: string, weightBytes: number): Promise<string> {
  const path = join(directory, "large.gguf");
  const numbers: Record<string, GgufValue> = {
    "general.architecture": { string: "llama" },
    "llama.block_count": { uint32: 4 },
    "llama.embedding_length": { uint32: 1024 },
    "llama.attention.head_count": { uint32: 8 },
    "llama.context_length": { uint32: 4096 },
    "tokenizer.ggml.tokens": {
      array: Array.from({ length: 150_000 }, (_, id) => ({ string: `token ${id}` })),
    },
  };
  const tensors = [
    { name: "token_embd.weight", shape: [1024, weightBytes / 4096], dtype: 0, offset: 0 },
  ];
  const header = encodeGguf({ values: numbers, tensors });
  await using file = await open(path, "w");
  await file.write(header);
  await truncate(path, header.length + weightBytes);
  return path;
}

interface Site extends AsyncDisposable {
  readonly url: string;
  readonly ranges: (string | null)[];
}

function serve(answer: (request: Request) => Response): Site {
  const ranges: (string | null)[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      if (request.method === "GET") ranges.push(request.headers.get("range"));
      return answer(request);
    },
  });
  return { url: server.url.origin, ranges, [Symbol.asyncDispose]: () => server.stop(true) };
}

/** What a request asks for of a file. */
function part(path: string, request: Request): Response {
  const file = Bun.file(path);
  const [start = 0, end = file.size - 1] = (request.headers.get("range")?.match(/\d+/g) ?? []).map(
    Number,
  );
  const last = Math.min(end, file.size - 1);
  return new Response(request.method === "HEAD" ? null : file.slice(start, last + 1), {
    status: request.headers.has("range") ? 206 : 200,
    headers: { "content-range": `bytes ${start}-${last}/${file.size}` },
  });
}

describe("estimateSource", () => {
  test("estimate: the built-in model is here", async () => {
    await using it = await machine();

    const found = await it.ask("pebble");

    expect(found).toMatchObject({ isLocal: true, projectorBytes: 0, shape: SHAPE });
    expect(found.modelId).toStartWith("sha256:");
  });

  test("estimate: a file that may be named, with its shards", async () => {
    await using it = await machine({ paths: "allow" });

    expect(await it.ask(FIRST_SHARD)).toMatchObject({ isLocal: true, shape: SHAPE });
  });

  test("estimate: a file that may not be named is forbidden, and looked for nowhere else", async () => {
    await using it = await machine();

    expect(await failureOf(it.ask(PEBBLE))).toMatchObject({ code: "forbidden" });
  });

  test("estimate: a model in a registry is read by its header alone", async () => {
    await using it = await machine();
    const path = await largeModel(it.home, 64 * MIB);
    const { manifest } = await registry.addModel("me/large:v1", Bun.file(path));
    const before = registry.blobBytesSent();

    const found = await it.ask(`${registry.host}/me/large:v1`);

    expect(found).toMatchObject({
      modelId: manifest.digest,
      name: `${registry.host}/me/large:v1`,
      isLocal: false,
      shape: { weightBytes: 64 * MIB, contextTokens: 4096 },
    });
    expect(found.shape.layers).toHaveLength(4);
    expect(registry.blobBytesSent() - before).toBeLessThan(12 * MIB);
  });

  test("estimate: a model at an address is read by ranges", async () => {
    await using it = await machine();
    const path = await largeModel(it.home, 2 ** 31);
    await using site = serve((request) => part(path, request));

    const found = await it.ask(`${site.url}/large.gguf`);

    expect(found).toMatchObject({ isLocal: false, shape: { weightBytes: 2 ** 31 } });
    expect(site.ranges.every((range) => range !== null)).toBe(true);
    expect(site.ranges.length).toBeLessThan(8);
  });

  test("estimate: the shape is the same from afar", async () => {
    await using it = await machine();
    await using site = serve((request) => part(PEBBLE, request));

    const { shape } = await it.ask(`${site.url}/pebble.gguf`);

    expect(shape).toEqual(await readGgufShape([{ location: PEBBLE, name: "pebble" }], { signal }));
  });

  test("estimate: a server without ranges is read from the beginning", async () => {
    await using it = await machine();
    await using site = serve(() => new Response(Bun.file(PEBBLE)));

    expect(await it.ask(`${site.url}/pebble.gguf`)).toMatchObject({ shape: SHAPE });
  });

  test("estimate: what is no GGUF file is named as such", async () => {
    await using it = await machine();
    await using site = serve(() => new Response(new Uint8Array(5000)));

    expect(await failureOf(it.ask(`${site.url}/zeros.gguf`))).toMatchObject({
      code: "invalid_model_file",
    });
  });

  test("estimate: a file that was cut is invalid, here as there", async () => {
    await using it = await machine();
    const bytes = new Uint8Array(await Bun.file(PEBBLE).arrayBuffer()).slice(0, 10_000);
    await using site = serve(() => new Response(bytes));

    expect(await failureOf(it.ask(`${site.url}/cut.gguf`))).toMatchObject({
      code: "invalid_model_file",
    });
  });

  test("estimate: a header without end is given up", async () => {
    await using it = await machine();
    const start = encodeGguf({ values: { a: { array: [{ string: "" }] } } }).subarray(0, 49);
    // As many texts as the parser takes, of which the first is empty and all others have a thousand bytes.
    new DataView(start.buffer, start.byteOffset).setBigUint64(41, 1_000_000n, true);
    const text = Buffer.alloc(1008);
    text.writeBigUInt64LE(1000n);
    const texts = Buffer.alloc(8 * MIB, text);
    await using site = serve((request) => {
      const [from = 0, to = 0] = (request.headers.get("range")?.match(/\d+/g) ?? []).map(Number);
      const phase = Math.max(0, from - 57) % text.length;
      const body = new Uint8Array(texts.subarray(phase, phase + Math.min(to - from + 1, 4 * MIB)));
      if (from === 0 && body.length > 57) {
        body.set(texts.subarray(0, body.length - 57), 57);
        body.fill(0, 0, 57);
        body.set(start);
      }
      return new Response(request.method === "HEAD" ? null : body, {
        status: 206,
        headers: { "content-range": `bytes ${from}-${from + body.length - 1}/${2 ** 40}` },
      });
    });

    expect(await failureOf(it.ask(`${site.url}/endless.gguf`))).toMatchObject({
      code: "invalid_model_file",
      message: expect.stringContaining("larger than any known one"),
    });
    expect(site.ranges.length).toBeLessThan(60);
  }, 20_000);

  test("estimate: a model that is nowhere is not found", async () => {
    await using it = await machine();

    expect(await failureOf(it.ask(`${registry.host}/me/nothing:v1`))).toMatchObject({
      code: "not_found",
    });
    expect(await failureOf(it.ask("Not A Name"))).toMatchObject({ code: "invalid_reference" });
  });

  test("estimate: weights without a GGUF header cannot be estimated", async () => {
    await using it = await machine();
    const config = await registry.addBlob(new TextEncoder().encode("{}"));
    const weights = await registry.addBlob(new Uint8Array(10));
    registry.addManifest("me/tensors:v1", {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: { mediaType: "application/vnd.docker.ai.model.config.v0.1+json", ...config },
      layers: [{ mediaType: "application/vnd.docker.ai.safetensors", ...weights }],
    });

    expect(await failureOf(it.ask(`${registry.host}/me/tensors:v1`))).toMatchObject({
      code: "unsupported_model",
    });
  });

  test("estimate: offline only what is here is asked", async () => {
    await using it = await machine({ offline: true });
    const before = registry.requests.length;

    expect(await it.ask("pebble")).toMatchObject({ isLocal: true });
    expect(await failureOf(it.ask(`${registry.host}/me/large:v1`))).toMatchObject({
      code: "model_not_found",
    });
    expect(registry.requests.length).toBe(before);
  });

  test("estimate: whoever leaves ends it", async () => {
    const controller = new AbortController();
    await using site = serve(() => {
      controller.abort(new Error("enough"));
      return new Response(new Uint8Array(100));
    });
    await using it = await machine({ signal: controller.signal });

    const left = await it.ask(`${site.url}/slow.gguf`).catch((error: unknown) => error);
    expect(left).toBeInstanceOf(Error);
  });
});
