import { expect } from "bun:test";
import { createRemotes } from "../../src/models/remotes.ts";
import { reasonOf } from "../../src/http/connection-error.ts";
import { startFakeRegistry } from "../fakes/registry.ts";
import { certificates, openssl } from "../helpers/certificates.ts";
import { testIf } from "../helpers/test-if.ts";
import { failureOf } from "../http/failure-of.ts";
import { credentialsOf, noSignal as signal } from "../oci/registry-client.ts";

const withOpenssl = testIf(openssl !== null, "openssl is not installed");

function remotes(insecureRegistries: readonly string[]) {
  return createRemotes({
    offline: false,
    caBundle: "",
    insecureRegistries,
    mirrors: new Map(),
    limits: { connections: 1, bytesPerSecond: undefined },
    credentials: credentialsOf(),
    huggingFace: { endpoint: "https://hub.example", token: () => undefined },
  });
}

withOpenssl("`*` is about registries: everybody else still needs a certificate", async () => {
  await using fake = await startFakeRegistry({ tls: await certificates() });
  const { http, registry } = remotes(["*"]);

  await registry.check(fake.host, undefined, { signal });
  const error = await failureOf(http.send(`${fake.url}/v2/`, { signal }));

  expect(reasonOf(error)).toBe("certificate");
});

withOpenssl("a host that is named needs none, whatever it is", async () => {
  await using fake = await startFakeRegistry({ tls: await certificates() });
  const { http } = remotes([fake.host]);

  expect((await http.send(`${fake.url}/v2/`, { signal })).status).toBe(200);
});
