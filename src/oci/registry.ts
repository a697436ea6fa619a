/** The client of the OCI distribution specification: what can be done with a repository of a registry. */
import type { BlobSource } from "../http/blob-source.ts";
import { discard } from "../http/body.ts";
import type { Http } from "../http/http.ts";
import type { RetryOptions } from "../http/retry.ts";
import { Authorizer } from "./authorizer.ts";
import type { Credential, CredentialStore } from "./credentials.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { createExchange, type Exchange, type ExchangeOptions } from "./exchange.ts";
import { createHosts, type Hosts } from "./hosts.ts";
import { pushManifest } from "./push-manifest.ts";
import { referrers } from "./referrers.ts";
import { createReads } from "./repository.ts";
import { listTags } from "./tags.ts";
import { upload } from "./upload.ts";
import { warnOnce } from "./warnings.ts";

export interface RegistryOptions {
  readonly http: Http;
  readonly credentials: CredentialStore;
  /** For each registry the base URLs (scheme, host, optional path) that are asked first, in order. Reads only. */
  readonly mirrors: ReadonlyMap<string, readonly string[]>;
  /** Whether this registry is spoken to over plain http, or without checking its certificate. */
  readonly isInsecure: (host: string) => boolean;
  /** `Warning` headers, each text once. */
  readonly onWarning?: (message: string) => void;
  /** Waits between attempts; for tests. */
  readonly wait?: RetryOptions["wait"];
}

export interface FetchedManifest {
  readonly descriptor: Descriptor;
  /** Exactly as they came; their digest is verified. */
  readonly bytes: Uint8Array;
}

/** What is uploaded: can be read from anywhere, because uploads resume. */
export interface UploadSource {
  /** Bytes. */
  readonly size: number;
  /** The bytes from `start` to before `end`. */
  open(start: number, end: number): ReadableStream<Uint8Array>;
}

export interface UploadOptions {
  readonly signal: AbortSignal;
  /** Bytes the registry has. It can go back where an upload had to be repeated. */
  readonly onBytes?: (done: number) => void;
  /** Repositories on the same registry that may have the blob. */
  readonly mountFrom?: readonly string[];
}

export interface CallOptions {
  readonly signal: AbortSignal;
}

export interface Repository {
  readonly registry: string;
  readonly name: string;
  /** HEAD; a GET where the registry's answer lacks the digest. @param ref a tag or a digest @throws not_found, … */
  resolve(ref: string, options: CallOptions): Promise<Descriptor>;
  /** At most 4 MiB; digest verified against what was asked for and against the header. */
  fetchManifest(ref: string, options: CallOptions): Promise<FetchedManifest>;
  /** A small blob, verified. @param options.maxBytes 16 MiB unless given @throws request_too_large, digest_mismatch */
  fetchBlob(
    blob: { readonly digest: Digest; readonly size: number },
    options: CallOptions & { readonly maxBytes?: number },
  ): Promise<Uint8Array>;
  /** One exchange, no retries: the transfer engine has its own. Mirrors come before the registry, as sources. */
  blobSources(digest: Digest): readonly BlobSource[];
  hasBlob(digest: Digest, options: CallOptions): Promise<boolean>;
  upload(
    blob: { readonly digest: Digest; readonly size: number },
    source: UploadSource,
    options: UploadOptions,
  ): Promise<"present" | "mounted" | "uploaded">;
  /** @param ref a tag, or the digest @returns its digest */
  pushManifest(
    manifest: { readonly bytes: Uint8Array; readonly mediaType: string },
    ref: string,
    options: CallOptions,
  ): Promise<Digest>;
  tags(options: CallOptions): AsyncIterable<string>;
  referrers(
    digest: Digest,
    options: CallOptions & { readonly artifactType?: string },
  ): Promise<Descriptor[]>;
  deleteManifest(ref: string, options: CallOptions): Promise<void>;
  deleteBlob(digest: Digest, options: CallOptions): Promise<void>;
}

export interface Registry {
  repository(ref: { readonly registry: string; readonly repository: string }): Repository;
  /** `GET /v2/`, for `login`. @throws unauthorized, … */
  check(
    host: string,
    credential: { readonly username: string; readonly password: string } | undefined,
    options: CallOptions,
  ): Promise<void>;
}

export function createRegistry(options: RegistryOptions): Registry {
  const { http, credentials, isInsecure } = options;
  const context: Context = {
    options,
    hosts: createHosts({ http, isInsecure }),
    authorizers: new Map(),
    onWarning: warnOnce(options.onWarning),
  };
  return {
    repository: (ref) => createRepository(context, ref),
    async check(host, credential, { signal }) {
      const given = { ...credentials, find: async () => withSource(credential) };
      const authorizer = new Authorizer({
        http,
        credentials: credential === undefined ? credentials : given,
        host,
      });
      const exchange = createExchange({
        ...baseOf(context, { registry: host, repository: "" }),
        authorizer,
      });
      await discard(await exchange.send("/v2/", { method: "GET", access: "pull", signal }));
    },
  };
}

// --- internal ---

interface Context {
  readonly options: RegistryOptions;
  readonly hosts: Hosts;
  /** By the host whose credentials they use. */
  readonly authorizers: Map<string, Authorizer>;
  readonly onWarning: (header: string | null) => void;
}

interface Name {
  readonly registry: string;
  readonly repository: string;
}

function createRepository(context: Context, name: Name): Repository {
  const { registry, repository } = name;
  const { mirrors, wait } = context.options;
  const exchange = createExchange({
    ...baseOf(context, name),
    authorizer: authorizerOf(context, registry),
  });
  return {
    registry,
    name: repository,
    ...createReads({
      registry: exchange,
      host: registry,
      mirrors: (mirrors.get(registry) ?? []).map((url) => createMirror(context, name, url)),
      wait,
    }),
    tags: (call) => listTags(exchange, call),
    upload: (blob, source, call) =>
      upload(exchange, blob, { ...call, source, ...(wait === undefined ? {} : { wait }) }),
    pushManifest: (manifest, ref, { signal }) => pushManifest(exchange, manifest, { ref, signal }),
    referrers: (digest, call) => referrers(exchange, digest, call),
  };
}

/** @see https://github.com/containerd/containerd/blob/v2.0.0/docs/hosts.md: `ns` says whose repository is meant. */
function createMirror(
  context: Context,
  { registry, repository }: Name,
  url: string,
): { exchange: Exchange; host: string } {
  const { host } = new URL(url);
  const exchange = createExchange({
    ...baseOf(context, { registry, repository }),
    authorizer: authorizerOf(context, host),
    isTlsAfterAll: undefined,
    onUnreachable: undefined,
    baseUrl: async () => url.replace(/\/+$/, "").replace(/\/v2$/, ""),
    query: { ns: registry },
  });
  return { exchange, host };
}

function baseOf(
  { options, hosts, onWarning }: Context,
  { registry, repository }: Name,
): Omit<ExchangeOptions, "authorizer"> {
  return {
    http: options.http,
    registry,
    repository,
    baseUrl: (call) => hosts.baseUrl(registry, call),
    isTlsAfterAll: (call) => hosts.isTlsAfterAll(registry, call),
    onUnreachable: () => hosts.forget(registry),
    onWarning,
    wait: options.wait,
  };
}

function authorizerOf({ options, authorizers }: Context, host: string): Authorizer {
  const { http, credentials } = options;
  const authorizer = authorizers.get(host) ?? new Authorizer({ http, credentials, host });
  authorizers.set(host, authorizer);
  return authorizer;
}

function withSource(
  credential: { readonly username: string; readonly password: string } | undefined,
): Credential | undefined {
  return credential === undefined ? undefined : { ...credential, source: "the command line" };
}
