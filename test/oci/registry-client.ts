import { createHttp, type Http } from "../../src/http/http.ts";
import type { Credential, CredentialStore } from "../../src/oci/credentials.ts";
import { createRegistry, type Registry, type RegistryOptions } from "../../src/oci/registry.ts";

/** What is asked of the credential store, and what it answers. */
export interface FakeCredentials extends CredentialStore {
  readonly asked: string[];
}

export const noSignal = new AbortController().signal;

export function credentialsOf(byHost: Readonly<Record<string, Credential>> = {}): FakeCredentials {
  const asked: string[] = [];
  return {
    asked,
    async find(host) {
      asked.push(host);
      return byHost[host];
    },
    save: async () => "nowhere",
    remove: async () => undefined,
  };
}

export function ann(more: Partial<Credential> = {}): Credential {
  return { username: "ann", password: "pässword:1", source: "the tests", ...more };
}

/** A registry client that waits for nothing. */
export function client(
  options: Partial<RegistryOptions> & { readonly caBundle?: string } = {},
): Registry & { readonly waits: number[]; readonly http: Http } {
  const waits: number[] = [];
  const isInsecure = options.isInsecure ?? (() => false);
  const http = createHttp({ offline: false, caBundle: options.caBundle ?? "", isInsecure });
  const registry = createRegistry({
    http,
    credentials: credentialsOf(),
    mirrors: new Map(),
    isInsecure,
    wait: async (ms) => void waits.push(ms),
    ...options,
  });
  return { ...registry, waits, http };
}
