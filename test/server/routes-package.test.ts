import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { Hono } from "hono";
import type { PackageResult } from "../../src/api/models.ts";
import { toAppError } from "../../src/errors.ts";
import { createHttp } from "../../src/http/http.ts";
import { inspectModel } from "../../src/models/inspect.ts";
import type { RemoteOverrides } from "../../src/models/remote-settings.ts";
import type { Remotes } from "../../src/models/remotes.ts";
import { createRegistry } from "../../src/oci/registry.ts";
import type { AppEnv } from "../../src/server/deps.ts";
import { toErrorResponse } from "../../src/server/error-response.ts";
import { modelRoutes } from "../../src/server/routes/models.ts";
import { startFakeRegistry } from "../fakes/registry.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { bench, type Bench, safetensorsFiles } from "../models/package-bench.ts";
import { fakeDistribution } from "./fake-distribution.ts";

type Last =
  | { readonly type: "success"; readonly result: PackageResult }
  | { readonly type: "error"; readonly error: { readonly code: string } };

const isInsecure = (): boolean => true;

/** The routes over a store; `asked` is what registries were asked for with. */
function serve({ store }: Bench) {
  const asked: RemoteOverrides[] = [];
  const remotes = (overrides: RemoteOverrides): Remotes => {
    asked.push(overrides);
    const http = createHttp({ offline: false, caBundle: "", isInsecure });
    const credentials = {
      find: async () => undefined,
      save: async () => "",
      remove: async () => undefined,
    };
    const registry = createRegistry({ http, credentials, mirrors: new Map(), isInsecure });
    return { registry } as unknown as Remotes;
  };
  const distribution = fakeDistribution();
  const app = new Hono<AppEnv>().route("/models", modelRoutes({ store, distribution, remotes }));
  app.onError((error) => toErrorResponse(toAppError(error)));
  const post = async (body: unknown, trusted = true): Promise<Response> =>
    app.request(
      "/models/package",
      { method: "POST", body: JSON.stringify(body) },
      {
        trusted,
      },
    );
  const work = async (body: unknown): Promise<Last> => {
    const response = await post(body);
    expect(response.status).toBe(200);
    const lines = (await response.text()).trimEnd().split("\n");
    return JSON.parse(lines.at(-1) ?? "") as Last;
  };
  return { asked, post, work };
}

describe("POST /models/package", () => {
  test("package route: a directory, with annotations", async () => {
    await using it = await bench();
    const directory = await it.directory("m", safetensorsFiles());

    const last = await serve(it).work({
      model: "me/m",
      safetensors_dir: directory,
      annotations: { "org.example.a": "b" },
    });

    expect(last).toMatchObject({ type: "success", result: { reference: "docker.io/me/m:latest" } });
    const { annotations } = await inspectModel(it.store, "me/m");
    expect(annotations["org.example.a"]).toBe("b");
  });

  test("package route: a variant of the built-in model, which need not be here", async () => {
    await using it = await bench();

    const last = await serve(it).work({ model: "me/small", from: "pebble", context_size: 64 });

    expect(last.type).toBe("success");
    const { config } = await inspectModel(it.store, "me/small");
    expect(config.context_size).toBe(64);
  });

  test("package route: a push asks for registries once, insecure ones only when told to", async () => {
    await using registry = await startFakeRegistry();
    await using it = await bench();
    const { asked, work } = serve(it);
    const request = { model: `${registry.host}/me/m:1`, gguf: PEBBLE, push: true };

    const plain = await work(request);
    const insecure = await work({ ...request, insecure: true });

    expect([plain.type, insecure.type]).toEqual(["success", "success"]);
    expect(asked.map(({ insecureRegistries }) => insecureRegistries)).toEqual([
      [],
      [registry.host],
    ]);
    expect(registry.tags.get("me/m:1")).toBe(plain.type === "success" ? plain.result.id : "");
    expect(await it.contents()).toEqual([]);
  });

  test.each([
    [{ model: "me/m" }],
    [{ model: "me/m", gguf: PEBBLE, from: "me/x" }],
    [{ model: "me/m", gguf: "relative.gguf" }],
    [{ model: "me/m", gguf: PEBBLE, annotations: { "": "x" } }],
  ])("package route: %j is a wrong request", async (request) => {
    await using it = await bench();

    expect(await serve(it).work(request)).toMatchObject({
      type: "error",
      error: { code: "usage" },
    });
  });

  test.each([
    [{ model: "me/m", guf: PEBBLE }],
    [{ model: "me/m", annotations: { a: 1 } }],
    ["text"],
  ])("package route: %j is refused", async (body) => {
    await using it = await bench();

    expect((await serve(it).post(body)).status).toBe(400);
  });

  test("package route: whoever may not name files may not package", async () => {
    await using it = await bench();

    const response = await serve(it).post({ model: "me/m", dduf: join(it.path, "x.dduf") }, false);

    expect(response.status).toBe(403);
  });
});
