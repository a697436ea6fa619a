import { AppError } from "../../../src/errors.ts";
import { isLoopback } from "../../../src/http/host.ts";
import { createHttp, type Http } from "../../../src/http/http.ts";
import { createRegistry } from "../../../src/oci/registry.ts";
import type { InstallRemotes } from "../../../src/runtime/installer/source.ts";

/** Ways to this machine alone: for tests, the rest of the world does not answer. */
export function loopbackRemotes(
  /** Base URLs on this machine that stand for hosts of the world. */
  standIns: Readonly<Record<string, string>> = {},
): () => Promise<InstallRemotes> {
  const real = createHttp({ offline: false, caBundle: "", isInsecure: () => false });
  const http: Http = {
    send: async (url, request) => {
      const { host, pathname, search } = new URL(url);
      const standIn = standIns[host];
      if (standIn !== undefined) return real.send(standIn + pathname + search, request);
      if (isLoopback(host)) return real.send(url, request);
      throw new AppError("registry_unavailable", `cannot reach \`${host}\``);
    },
  };
  const registry = createRegistry({
    http,
    credentials: {
      find: () => Promise.resolve(undefined),
      store: () => Promise.reject(new Error("a test stores no credentials")),
      erase: () => Promise.resolve(false),
    } as never,
    mirrors: new Map(),
    isInsecure: () => false,
    wait: () => Promise.resolve(),
  });
  return () => Promise.resolve({ http, registry });
}
