import { createHttp } from "../../src/http/http.ts";
import type { Credential } from "../../src/oci/credentials.ts";
import { createRegistry, type Registry } from "../../src/oci/registry.ts";

/** A client of registries that never waits between attempts. */
export function registryClient(
  options: {
    readonly credential?: Credential;
    readonly mirrors?: ReadonlyMap<string, readonly string[]>;
  } = {},
): { readonly registry: Registry } {
  const http = createHttp({ offline: false, caBundle: "", isInsecure: () => false });
  return {
    registry: createRegistry({
      http,
      credentials: {
        find: async () => options.credential,
        save: async () => "nowhere",
        remove: async () => undefined,
      },
      mirrors: options.mirrors ?? new Map(),
      isInsecure: () => false,
      wait: async () => {},
    }),
  };
}
