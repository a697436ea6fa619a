/** What `Remotes` are made of, from the settings and the environment. */
import { homedir } from "node:os";
import { dirname } from "node:path";
import type { Config } from "../config.ts";
import { AppError } from "../errors.ts";
import { findHuggingFaceEndpoint, findHuggingFaceToken } from "../huggingface/settings.ts";
import { printable } from "../http/host.ts";
import { createCredentials, type CredentialStore } from "../oci/credentials.ts";
import { parseRegistryHost } from "../oci/reference.ts";
import type { Paths } from "../paths.ts";
import type { RemoteSettings } from "./remotes.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** What one request asks for itself; it wins over the settings. */
export interface RemoteOverrides {
  readonly connections?: number | undefined;
  /** Bytes a second; 0: no limit. */
  readonly limitRate?: number | undefined;
  /** Registries named by the request. */
  readonly insecureRegistries?: readonly string[];
  /** Registries have to be named to be insecure, `*` does not count: for what is to be run. */
  readonly isStrict?: boolean;
  /** Of this request: a bearer token for Hugging Face, an identity token for the registry `tokenHost`. */
  readonly token?: string | undefined;
  readonly tokenHost?: string | undefined;
  readonly onWarning?: (message: string) => void;
}

/** @throws usage (a mirror that cannot be understood) */
export function toRemoteSettings(
  { config, paths, env = process.env }: { config: Config; paths: Paths; env?: Env },
  overrides: RemoteOverrides = {},
): RemoteSettings {
  const home = env["HOME"] || env["USERPROFILE"] || homedir();
  const rate = overrides.limitRate ?? config.limitRate.value;
  return {
    offline: config.offline.value,
    caBundle: config.caBundle.value,
    insecureRegistries: [
      ...config.insecureRegistries.value.filter((host) => host !== "*" || !overrides.isStrict),
      ...(overrides.insecureRegistries ?? []),
    ],
    mirrors: parseMirrors(config.registryMirrors.value),
    limits: {
      connections: overrides.connections ?? config.connections.value,
      bytesPerSecond: rate === 0 ? undefined : rate,
    },
    credentials: withToken(
      createCredentials({ env, home, configDirectory: dirname(paths.configFile) }),
      overrides,
    ),
    huggingFace: {
      endpoint: findHuggingFaceEndpoint(env),
      token: () => overrides.token ?? findHuggingFaceToken({ env, home }),
    },
    ...(overrides.onWarning === undefined ? {} : { onWarning: overrides.onWarning }),
  };
}

/**
 * @param entries `URL` or `host[:port][/path]` for Docker Hub, `registry=URL` for any; https unless it says otherwise
 * @throws usage
 */
export function parseMirrors(entries: readonly string[]): Map<string, string[]> {
  const mirrors = new Map<string, string[]>();
  for (const entry of entries) {
    const [, named, base = ""] = /^(?:([^=/?]+)=)?(.*)$/.exec(entry) ?? [];
    const url = URL.parse(/^https?:\/\//i.test(base) ? base : `https://${base}`);
    if (url === null || url.hostname === "" || url.search !== "" || url.hash !== "") {
      const shown = printable(entry.replace(/\/\/[^/]*@/, "//"));
      throw new AppError("usage", `cannot use \`${shown}\` as a registry mirror`, {
        hint: "Write `https://mirror.example.com`, or `registry.example.com=https://mirror.example.com/path`.",
      });
    }
    const registry = named === undefined ? "docker.io" : parseRegistryHost(named);
    const path = url.pathname.replace(/\/+$/, "").replace(/\/v2$/, "");
    mirrors.set(registry, [...(mirrors.get(registry) ?? []), `${url.origin}${path}`]);
  }
  return mirrors;
}

// --- internal ---

/** A token that came with a request goes to the host that the request is about, and nowhere else. */
function withToken(store: CredentialStore, { token, tokenHost }: RemoteOverrides): CredentialStore {
  if (token === undefined || tokenHost === undefined) return store;
  const own = { username: "", password: "", identityToken: token, source: "the request" };
  return {
    find: async (host, options) => (host === tokenHost ? own : store.find(host, options)),
    save: async (host, credential, options) => store.save(host, credential, options),
    remove: async (host, options) => store.remove(host, options),
  };
}
