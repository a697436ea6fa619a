/** What reaches beyond this machine, made of the settings once: HTTP, registries, credentials, transfers. */
import { createHttp, type Http } from "../http/http.ts";
import type { CredentialStore } from "../oci/credentials.ts";
import { createRegistry, type Registry } from "../oci/registry.ts";
import { createTransfers, type TransferLimits, type Transfers } from "../transfer/transfers.ts";

export interface RemoteSettings {
  readonly offline: boolean;
  /** Path of a PEM file; empty: none. */
  readonly caBundle: string;
  /** `host[:port]`, or `*`. */
  readonly insecureRegistries: readonly string[];
  readonly mirrors: ReadonlyMap<string, readonly string[]>;
  readonly limits: TransferLimits;
  readonly credentials: CredentialStore;
  readonly huggingFace: {
    /** Base URL. */
    readonly endpoint: string;
    /** Looked for when it is needed. */
    readonly token: () => string | undefined;
  };
  readonly onWarning?: (message: string) => void;
}

export interface Remotes {
  readonly offline: boolean;
  /** Whether this host may be spoken to without a valid certificate, or without TLS. */
  readonly isInsecure: (host: string) => boolean;
  /** For everything but registries: hosts are insecure if they are named, `*` does not count. */
  readonly http: Http;
  readonly registry: Registry;
  readonly credentials: CredentialStore;
  readonly transfers: Transfers;
  readonly huggingFace: RemoteSettings["huggingFace"];
}

export function createRemotes(settings: RemoteSettings): Remotes {
  const { offline, caBundle, insecureRegistries, mirrors, credentials, huggingFace } = settings;
  const isNamed = (host: string): boolean => insecureRegistries.includes(host);
  const isInsecure = (host: string): boolean => insecureRegistries.includes("*") || isNamed(host);
  return {
    offline,
    isInsecure,
    // `*` means all registries: tokens for Hugging Face and engines to run still come from whom they should.
    http: createHttp({ offline, caBundle, isInsecure: isNamed }),
    registry: createRegistry({
      http: createHttp({ offline, caBundle, isInsecure }),
      credentials,
      mirrors,
      isInsecure,
      ...(settings.onWarning === undefined ? {} : { onWarning: settings.onWarning }),
    }),
    credentials,
    transfers: createTransfers(settings.limits),
    huggingFace,
  };
}
