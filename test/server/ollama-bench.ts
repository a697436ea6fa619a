/** For tests of Ollama's routes for models. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Ollama, type ProgressResponse } from "ollama";
import type { PackageRequest } from "../../src/api/models.ts";
import { ModelProfiles } from "../../src/models/capabilities.ts";
import { inspectModel, listModels } from "../../src/models/inspect.ts";
import { packageModel } from "../../src/models/package.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { WorkerSnapshot } from "../../src/runtime/snapshot.ts";
import { createApp } from "../../src/server/app.ts";
import { Store } from "../../src/store/store.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { fakeDeps, fakeRuntime } from "./fake-deps.ts";
import { type FakeDistribution, fakeDistribution } from "./fake-distribution.ts";

export const signal = new AbortController().signal;
export const WEIGHTS = await readFile(PEBBLE);
export const WEIGHTS_DIGEST = digestOf(WEIGHTS);
/** The digest of nothing that anybody has. */
export const NOBODY = `sha256:${"0".repeat(64)}`;

/** The whole API over a store of its own, behind a real socket, and the official client of it. */
export interface OllamaBench extends AsyncDisposable {
  readonly url: string;
  readonly store: Store;
  readonly client: Ollama;
  readonly distribution: FakeDistribution;
  readonly drains: readonly string[];
  readonly used: Set<string>;
  package(model: string, request?: Partial<PackageRequest>): Promise<string>;
  send(method: string, path: string, body?: unknown): Promise<Response>;
}

export interface OllamaBenchOptions {
  readonly workers?: (ids: readonly string[]) => WorkerSnapshot[];
  readonly distribution?: FakeDistribution;
}

export async function bench(options: OllamaBenchOptions = {}): Promise<OllamaBench> {
  const directory = await tempDir();
  const store = Store.open(join(directory.path, "store"));
  const distribution = options.distribution ?? fakeDistribution();
  const profiles = new ModelProfiles(store);
  const drains: string[] = [];
  const used = new Set<string>();
  const ids: string[] = [];
  const runtime = fakeRuntime({});
  runtime.list = () => options.workers?.(ids) ?? [];
  const app = createApp(
    fakeDeps({
      runtime,
      listModels: () => listModels(store),
      inspectModel: (name) => inspectModel(store, name),
      profileOf: (id) => profiles.of(id),
      modelWork: {
        store,
        distribution,
        remotes: () => Promise.reject(new Error("nothing here is pushed")),
        inUse: (id) => used.has(id),
        drain: (id) => {
          drains.push(id);
          return Promise.resolve({ [Symbol.dispose]: () => undefined });
        },
      },
    }),
  );
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request) => app.fetch(request, { hostname: "127.0.0.1" }),
  });
  const url = server.url.origin;
  return {
    url,
    store,
    distribution,
    drains,
    used,
    client: new Ollama({ host: url }),
    async package(model, request) {
      const { id } = await packageModel(store, { model, gguf: PEBBLE, ...request }, { signal });
      ids.push(id);
      return id;
    },
    send: (method, path, body) =>
      fetch(`${url}${path}`, {
        method,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }),
    async [Symbol.asyncDispose]() {
      await server.stop(true);
      await directory[Symbol.asyncDispose]();
    },
  };
}

/** How a call of the client was refused. */
export async function refusal(
  promise: Promise<unknown>,
): Promise<{ status: number; error: string }> {
  try {
    await promise;
  } catch (error) {
    const { status_code: status, message } = error as { status_code: number; message: string };
    return { status, error: message };
  }
  throw new Error("it was not refused");
}

export async function statuses(
  lines: AsyncIterable<ProgressResponse>,
): Promise<ProgressResponse[]> {
  const seen: ProgressResponse[] = [];
  for await (const line of lines) seen.push(line);
  return seen;
}

/** @returns the status */
export async function upload(it: OllamaBench, bytes: Uint8Array): Promise<number> {
  const body = bytes.slice();
  return (await fetch(`${it.url}/api/blobs/${digestOf(bytes)}`, { method: "POST", body })).status;
}
