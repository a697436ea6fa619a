import { expect } from "bun:test";
import { join } from "node:path";
import { loadConfig } from "../../src/config.ts";
import type { AppError } from "../../src/errors.ts";
import { ModelDistribution } from "../../src/models/distribution.ts";
import { packageModel } from "../../src/models/package.ts";
import { resolvePaths } from "../../src/paths.ts";
import { Store } from "../../src/store/store.ts";
import { startFakeRegistry } from "../fakes/registry.ts";
import { certificates, openssl } from "../helpers/certificates.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { testIf } from "../helpers/test-if.ts";

const work = { signal: new AbortController().signal, onProgress: () => undefined };

testIf(openssl !== null, "there is no openssl here")(
  "distribution: what is asked for a push is about the registry that a short name finds",
  async () => {
    await using home = await tempDir();
    await using registry = await startFakeRegistry({ tls: await certificates() });
    const paths = resolvePaths({ TUG_HOME: home.path });
    const config = loadConfig(join(home.path, "config.toml"), {});
    const store = Store.open(paths.models);
    const distribution = new ModelDistribution({ config, paths, store });
    await packageModel(store, { model: `${registry.host}/me/m:v1`, gguf: PEBBLE }, work);

    const refused = await distribution
      .push({ name: "m:v1" }, work)
      .catch((error: unknown) => error);
    const pushed = await distribution.push({ name: "m:v1", insecure: true }, work);

    expect((refused as AppError).message).toContain("certificate");
    expect(pushed.reference).toBe(`${registry.host}/me/m:v1`);
    expect(registry.tags.get("me/m:v1")).toBe(pushed.digest);
  },
);
