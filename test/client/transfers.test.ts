/** The client's calls, through a real app in this process: what is asked arrives as it was meant, and so does the answer. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Progress, Warning } from "../../src/api/progress.ts";
import { Client } from "../../src/client/client.ts";
import { inProcessTransport, remoteTransport } from "../../src/client/transport.ts";
import { AppError } from "../../src/errors.ts";
import { packageModel } from "../../src/models/package.ts";
import { createApp } from "../../src/server/app.ts";
import type { Distribution } from "../../src/server/deps.ts";
import { modelRoutes } from "../../src/server/routes/models.ts";
import { registryRoutes } from "../../src/server/routes/registries.ts";
import { Store } from "../../src/store/store.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { fakeDeps } from "../server/fake-deps.ts";
import {
  type FakeDistribution,
  PULLED,
  PUSHED,
  fakeDistribution,
} from "../server/fake-distribution.ts";

const signal = new AbortController().signal;
const DIGEST = `sha256:${"c".repeat(64)}`;

const remotes = () => Promise.reject(new Error("nothing here is packaged"));

const packaged = async (store: Store): Promise<string> =>
  (await packageModel(store, { model: "me/m:v1", gguf: PEBBLE }, { signal })).id;

const serve = ({ app }: Bench) =>
  Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (request) => app.fetch(request) });

interface Bench extends AsyncDisposable {
  readonly client: Client;
  readonly calls: FakeDistribution["calls"];
  readonly app: ReturnType<typeof createApp>;
  readonly store: Store;
}

async function bench(overrides: Partial<Distribution> = {}): Promise<Bench> {
  const directory = await tempDir();
  const store = Store.open(join(directory.path, "store"));
  const distribution = fakeDistribution(overrides);
  const app = createApp(
    fakeDeps({
      models: modelRoutes({ store, distribution, remotes }),
      registries: registryRoutes(distribution),
    }),
  );
  const transport = inProcessTransport({
    fetch: (request) => app.fetch(request, { trusted: true }),
  });
  return {
    client: new Client(transport),
    calls: distribution.calls,
    app,
    store,
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

function listener(): { onProgress: (event: Progress | Warning) => void; seen: string[] } {
  const seen: string[] = [];
  return {
    seen,
    onProgress: (event) =>
      void seen.push(
        event.type === "warning" ? event.message : `${event.phase} ${event.done_bytes}`,
      ),
  };
}

describe("transfers through the client", () => {
  test("client: a pull reports and returns", async () => {
    await using it = await bench();
    const { onProgress, seen } = listener();

    const request = { from: "smollm2", "bearer-token": "t" };
    const result = await it.client.pull(request, { signal, onProgress });

    expect(result).toEqual(PULLED);
    expect(seen).toEqual(["downloading 5"]);
    expect(it.calls).toEqual([["pull", request]]);
  });

  test("client: a failing pull throws what it failed with", async () => {
    const failing = new AppError("unauthorized", "cannot read it", { hint: "Log in." });
    await using it = await bench({ pull: () => Promise.reject(failing) });

    const thrown = await it.client
      .pull({ from: "m" }, { signal, ...listener() })
      .catch((error: unknown) => error);

    expect(thrown).toMatchObject({
      code: "unauthorized",
      message: "cannot read it",
      hint: "Log in.",
    });
  });

  test("client: an interrupted pull waits until the work has let go, and is cancelled", async () => {
    let letGo = false;
    await using it = await bench({
      pull: async (_, { signal: work }) => {
        await new Promise((resolve) => work.addEventListener("abort", resolve));
        await Promise.resolve();
        letGo = true;
        throw new AppError("cancelled", "cancelled");
      },
    });
    const interrupting = new AbortController();

    const pulling = it.client
      .pull({ from: "m" }, { signal: interrupting.signal, ...listener() })
      .catch((error: unknown) => error);
    await Bun.sleep(0);
    interrupting.abort();

    expect(await pulling).toMatchObject({ code: "cancelled" });
    expect(letGo).toBe(true);
  });

  test("client: names of models arrive as they were meant", async () => {
    await using it = await bench();
    const options = { signal, ...listener() };

    await it.client.push("localhost:5000/me/m", { to: "me/other" }, options);
    await it.client.push("push", {}, options);
    await it.client.copy({ source: "a/b", target: "c/d" }, options);
    await it.client.search({ text: "a&b=c", source: "docker", limit: 3 }, { signal });
    await it.client.adopt({ dry_run: true }, options);

    expect(it.calls).toEqual([
      ["push", { name: "localhost:5000/me/m:latest", to: "me/other" }],
      ["push", { name: "push:latest" }],
      ["copy", { source: "a/b", target: "c/d" }],
      ["search", { text: "a&b=c", source: "docker", limit: 3 }],
      ["adopt", { dry_run: true }],
    ]);
    expect(await it.client.push("m", {}, options)).toEqual(PUSHED);
  });

  test("client: a model is looked at in its registry if that is wanted", async () => {
    await using it = await bench();

    const remote = await it.client
      .inspect("me/m:v1", { signal, remote: true })
      .catch((error: unknown) => error);
    const local = await it.client.inspect("me/m:v1", { signal }).catch((error: unknown) => error);

    expect(remote).toMatchObject({ code: "not_found" });
    expect(local).toMatchObject({ code: "model_not_found" });
    expect(it.calls).toEqual([["inspect", "me/m:v1"]]);
  });

  test("client: credentials come and go", async () => {
    await using it = await bench();
    const credential = { registry: "ghcr.io", username: "me", password: "p" };

    expect((await it.client.login(credential, { signal })).kept_in).toBe("a file");
    expect((await it.client.logout("ghcr.io", { signal })).removed_from).toBeNull();

    expect(it.calls).toEqual([
      ["login", credential],
      ["logout", "ghcr.io"],
    ]);
  });

  test("client: a process that is no runner has no pulls, and starts none in the background", async () => {
    await using it = await bench();

    expect(await it.client.listPulls({ signal })).toEqual([]);
    const detached = await it.client
      .startPull({ from: "m" }, { signal })
      .catch((error: unknown) => error);
    const cancelled = await it.client
      .cancelPull("a/b", { signal })
      .catch((error: unknown) => error);

    expect(detached).toMatchObject({ code: "not_supported" });
    expect(cancelled).toMatchObject({ code: "not_found" });
  });
});

describe("archives through the client", () => {
  test.each(["in this process", "over TCP"])(
    "client: an archive goes out and in (%s)",
    async (way) => {
      await using it = await bench();
      await using other = await bench();
      const id = await packaged(it.store);
      using from = serve(it);
      using to = serve(other);
      const isRemote = way === "over TCP";
      const source = isRemote ? new Client(remoteTransport(from.url.origin)) : it.client;
      const target = isRemote ? new Client(remoteTransport(to.url.origin)) : other.client;

      const { sizeBytes, chunks } = await source.export({ models: ["me/m:v1"] }, { signal });
      let sent = 0;
      const archive = (chunks as ReadableStream<Uint8Array>).pipeThrough(
        new TransformStream<Uint8Array, Uint8Array>({
          transform: (chunk, controller) => {
            sent += chunk.length;
            controller.enqueue(chunk);
          },
        }),
      );
      const models = await target.import(archive, { signal, ...listener() });

      expect(models).toMatchObject([{ id, tags: ["docker.io/me/m:v1"] }]);
      expect(sent).toBe(sizeBytes);
      expect((await other.store.verify({ signal })).problems).toEqual([]);
    },
  );

  test("client: a search says which source did not answer", async () => {
    await using it = await bench({
      search: (_, { onProgress }) => {
        onProgress({ type: "warning", message: "cannot reach `häb`" });
        return Promise.resolve([]);
      },
    });
    const warnings: string[] = [];
    const query = { text: "x", source: "all", limit: 5 };

    await it.client.search(query, { signal, onWarning: (message) => warnings.push(message) });

    expect(warnings).toEqual(["cannot reach `häb`"]);
  });

  test("client: an archive that is none is said to be none", async () => {
    await using it = await bench();

    const thrown = await it.client
      .import(new Blob(["nothing of the kind".repeat(100)]).stream(), { signal, ...listener() })
      .catch((error: unknown) => error);

    expect(thrown).toMatchObject({ code: "invalid_model_file" });
  });

  test("client: exporting what is not there is an error before any byte", async () => {
    await using it = await bench();

    const thrown = await it.client
      .export({ models: [DIGEST] }, { signal })
      .catch((error: unknown) => error);

    expect(thrown).toMatchObject({ code: "model_not_found" });
  });
});
