/** A directory for inputs beside a store, and packaging from one into the other. */
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { PackageRequest } from "../../src/api/models.ts";
import { type PackageOptions, packageModel } from "../../src/models/package.ts";
import { Store, type StoredModel } from "../../src/store/store.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { encodeSafetensors } from "../store/safetensors-file.ts";

export interface Bench extends AsyncDisposable {
  readonly path: string;
  readonly store: Store;
  /** @returns its absolute path */
  file(name: string, content?: string | Uint8Array): Promise<string>;
  /** A directory with these files. @returns its absolute path */
  directory(name: string, files: Readonly<Record<string, string | Uint8Array>>): Promise<string>;
  /** The built-in model as `me/model:v1`, unless the request says otherwise. @returns the id */
  package(request?: Partial<PackageRequest>, options?: Partial<PackageOptions>): Promise<string>;
  /** Every file below the store, with its size. */
  contents(): Promise<string[]>;
}

export async function bench(): Promise<Bench> {
  const directory = await tempDir();
  const store = Store.open(join(directory.path, "store"));
  const write = async (name: string, content: string | Uint8Array): Promise<string> => {
    const path = join(directory.path, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
    return path;
  };
  return {
    path: directory.path,
    store,
    file: (name, content = "text") => write(name, content),
    directory: async (name, files) => {
      for (const [path, content] of Object.entries(files)) await write(`${name}/${path}`, content);
      return join(directory.path, name);
    },
    package: async (request = {}, options) => {
      const { safetensors_dir: dir, onnx_dir: onnx, pytorch_dir, dduf, from, files } = request;
      const weights = dir ?? onnx ?? pytorch_dir ?? dduf ?? from ?? files;
      const whole = {
        model: "me/model:v1",
        ...(weights === undefined ? { gguf: PEBBLE } : {}),
        ...request,
      };
      const signal = new AbortController().signal;
      const result = await packageModel(store, whole, { signal, sourceDateEpoch: "", ...options });
      return result.id;
    },
    contents: async () => {
      const names = await readdir(store.root, { recursive: true }).catch(() => []);
      const found = names.filter((name) => /^blobs.|^ingest.|^bundles.|^index/.test(name));
      const sizes = found.map(async (name) => {
        const { size } = await stat(join(store.root, name));
        return `${name} ${size}`;
      });
      return (await Promise.all(sizes)).toSorted();
    },
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

/** One shard of a small model: half a thousand parameters each, distinct by `seed`. */
export function shard(seed: number): Uint8Array {
  const bytes = encodeSafetensors([{ name: `layer.${seed}`, dtype: "BF16", shape: [500] }], {
    format: "pt",
  });
  bytes[bytes.length - 1] = seed;
  return bytes;
}

/** A model's directory as transformers writes it, in two shards. */
export function safetensorsFiles(): Record<string, string | Uint8Array> {
  return {
    "config.json": JSON.stringify({ model_type: "llama", max_position_embeddings: 2048 }),
    "tokenizer.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    LICENSE: "a licence",
    "README.md": "# Readme",
    "model-00001-of-00002.safetensors": shard(1),
    "model-00002-of-00002.safetensors": shard(2),
    "model.safetensors.index.json": JSON.stringify({
      weight_map: {
        "layer.1": "model-00001-of-00002.safetensors",
        "layer.2": "model-00002-of-00002.safetensors",
      },
    }),
  };
}

/** The bytes of a ZIP archive without files. */
export const EMPTY_DDUF = Buffer.concat([
  Buffer.from("PK\u0003\u0004"),
  Buffer.alloc(26),
  Buffer.from("PK\u0005\u0006"),
  Buffer.alloc(18),
]);

/** The two documents of a model, as they are on disk. */
export async function documents(store: Store, model: StoredModel) {
  const { manifest, manifestDescriptor } = model;
  const read = async (digest: typeof manifestDescriptor.digest) =>
    JSON.parse(await readFile(store.blobPath(digest), "utf8")) as Document;
  return {
    manifest: await read(manifestDescriptor.digest),
    config: await read(manifest.config.digest),
  };
}

/** JSON that a test looks into. */
// oxlint-disable-next-line typescript/no-explicit-any -- a test says what it expects of it
export type Document = Record<string, any>;
