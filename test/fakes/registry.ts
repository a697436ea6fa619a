/**
 * A registry after the OCI distribution specification 1.1, in memory, on 127.0.0.1: pull with ranges, push in one piece or in
 * chunks, mounts, tags, referrers, deletion, Basic and token authentication. It counts every request and byte, and
 * misbehaves on command (`faults.ts`).
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
 */
import { encodeCanonical } from "../../src/oci/manifest.ts";
import {
  DOCKER_CONFIG_V01,
  DOCKER_GGUF,
  FILE_PATH,
  OCI_MANIFEST,
} from "../../src/oci/media-types.ts";
import { type ActiveFault, cutUpload, type Fault, Faults, spoil } from "./faults.ts";
import { type RawAnswer, type RawRequest, type RequestRecord, serveRaw } from "./raw-http.ts";
import { type FakeAuth, type Need, refusal, TokenServer } from "./registry-auth.ts";

export type { RequestRecord } from "./raw-http.ts";

export interface FakeRegistryOptions {
  readonly port?: number;
  /** PEM texts: speaks HTTPS. */
  readonly tls?: { readonly cert: string; readonly key: string };
  readonly auth?: FakeAuth;
  /** Blobs that it shares with another one: a content delivery network of that one. */
  readonly blobs?: Map<string, Blob>;
  /** It knows no referrers: 404, and no `OCI-Subject`. */
  readonly lacksReferrers?: boolean;
  /** It mounts nothing: 202. */
  readonly lacksMounts?: boolean;
  /** It takes no chunks: PATCH is a 405. */
  readonly lacksPatch?: boolean;
  /** `OCI-Chunk-Min-Length`; smaller chunks but the last are refused. */
  readonly minChunkBytes?: number;
  /** Tags on one page of the list. */
  readonly pageSize?: number;
  /** The `Location` of an upload, made of its path; the path itself unless given. */
  readonly location?: (path: string) => string;
}

export interface FakeRegistry extends AsyncDisposable {
  /** `http://127.0.0.1:PORT`. */
  readonly url: string;
  /** `127.0.0.1:PORT`, as in references. */
  readonly host: string;
  readonly port: number;
  readonly requests: RequestRecord[];
  /** By digest. */
  readonly blobs: Map<string, Blob>;
  /** By `repository@digest`. */
  readonly manifests: Map<string, StoredManifest>;
  /** Digests by `repository:tag`. */
  readonly tags: Map<string, string>;
  /** Connections accepted so far. */
  connections(): number;
  /** Uploads that were begun and neither finished nor given up. */
  openUploads(): number;
  /** In every repository. */
  addBlob(bytes: Uint8Array<ArrayBuffer> | Blob): Promise<PushedBlob>;
  /** @param name `repository:tag` @param manifest bytes, or what is encoded */
  addManifest(
    name: string,
    manifest: Uint8Array<ArrayBuffer> | object,
    mediaType?: string,
  ): PushedBlob;
  /** A model as Docker Model Runner packages it. @param name `repository:tag` */
  addModel(name: string, weights: Uint8Array<ArrayBuffer> | Blob): Promise<PushedModel>;
  fault(fault: Fault): ActiveFault;
  clearFaults(): void;
  /** All tokens so far become void. */
  expireTokens(): void;
  /** Requests that match, faulted ones included. */
  count(method: string, path?: string | RegExp): number;
  /** Bytes of blobs sent, the configs' included. */
  blobBytesSent(): number;
  stop(): Promise<void>;
}

export interface PushedBlob {
  readonly digest: string;
  readonly size: number;
}

export interface PushedModel {
  readonly manifest: PushedBlob;
  readonly weights: PushedBlob;
}

export interface StoredManifest {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly mediaType: string;
}

/** What is read of a blob at a time. */
const CHUNK_BYTES = 256 * 1024;
/** Hashed at a time, for blobs that are files. */
const HASH_BYTES = 8 * 1024 * 1024;

export async function startFakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const state = new State(options);
  const server = await serveRaw((request) => respond(state, request), options);
  const { requests, port } = server;
  return {
    url: `${options.tls === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    host: `127.0.0.1:${port}`,
    port,
    requests,
    blobs: state.blobs,
    manifests: state.manifests,
    tags: state.tags,
    connections: server.connections,
    openUploads: () => state.uploads.size,
    addBlob: (bytes) => state.addBlob(bytes),
    addManifest: (name, manifest, mediaType) => state.addManifest(name, manifest, mediaType),
    addModel: (name, weights) => addModel(state, name, weights),
    fault: (fault) => state.faults.add(fault),
    clearFaults: () => state.faults.clear(),
    expireTokens: () => state.tokens?.expireAll(),
    count: (method, path = "") =>
      requests.filter((it) => it.method === method && isPath(it.path, path)).length,
    blobBytesSent: () =>
      requests
        .filter(({ path }) => path.includes("/blobs/sha256:"))
        .reduce((sum, { bytesSent }) => sum + bytesSent, 0),
    stop: () => server.stop(),
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

// --- internal ---

interface Upload {
  readonly repository: string;
  readonly parts: Uint8Array<ArrayBuffer>[];
  size: number;
}

function isPath(path: string, wanted: string | RegExp): boolean {
  return typeof wanted === "string" ? path.includes(wanted) : wanted.test(path);
}

class State {
  readonly faults = new Faults();
  readonly blobs: Map<string, Blob>;
  readonly manifests = new Map<string, StoredManifest>();
  readonly tags = new Map<string, string>();
  readonly uploads = new Map<string, Upload>();
  readonly tokens: TokenServer | undefined;
  readonly options: FakeRegistryOptions;
  /** `repository@digest` of blobs that were pushed; those that were added are in every repository. */
  readonly #pushed = new Map<string, Set<string>>();
  #sessions = 0;

  constructor(options: FakeRegistryOptions) {
    this.options = options;
    this.blobs = options.blobs ?? new Map();
    this.tokens =
      options.auth && new TokenServer(options.auth, { isSecure: options.tls !== undefined });
  }

  async addBlob(bytes: Uint8Array<ArrayBuffer> | Blob, repository?: string): Promise<PushedBlob> {
    const blob = bytes instanceof Blob ? bytes : new Blob([bytes]);
    const digest = await digestOf(blob);
    if (repository !== undefined && (this.#pushed.has(digest) || !this.blobs.has(digest)))
      this.#pushed.set(digest, (this.#pushed.get(digest) ?? new Set()).add(repository));
    this.blobs.set(digest, blob);
    return { digest, size: blob.size };
  }

  find(repository: string, digest: string): Blob | undefined {
    const holders = this.#pushed.get(digest);
    return holders === undefined || holders.has(repository) ? this.blobs.get(digest) : undefined;
  }

  addManifest(
    name: string,
    manifest: Uint8Array<ArrayBuffer> | object,
    mediaType = OCI_MANIFEST,
  ): PushedBlob {
    const bytes =
      manifest instanceof Uint8Array
        ? manifest
        : new Uint8Array(encodeCanonical({ schemaVersion: 2, mediaType, ...manifest }));
    const digest = sha256(bytes);
    const [, repository = "", tag = ""] = /^(.*):([^:]*)$/.exec(name) ?? [];
    this.manifests.set(`${repository}@${digest}`, { bytes, mediaType });
    if (tag !== "") this.tags.set(name, digest);
    return { digest, size: bytes.length };
  }

  beginUpload(repository: string): string {
    this.#sessions += 1;
    this.uploads.set(String(this.#sessions), { repository, parts: [], size: 0 });
    return String(this.#sessions);
  }
}

async function addModel(
  state: State,
  name: string,
  weights: Uint8Array<ArrayBuffer> | Blob,
): Promise<PushedModel> {
  const blob = await state.addBlob(weights);
  const config = await state.addBlob(
    new Uint8Array(
      encodeCanonical({
        config: { format: "gguf" },
        descriptor: { created: "2026-01-02T03:04:05Z" },
        rootfs: { type: "rootfs", diff_ids: [blob.digest] },
      }),
    ),
  );
  const annotations = { [FILE_PATH]: "model.gguf" };
  const manifest = state.addManifest(name, {
    config: { mediaType: DOCKER_CONFIG_V01, ...config },
    layers: [{ mediaType: DOCKER_GGUF, ...blob, annotations }],
  });
  return { manifest, weights: blob };
}

async function respond(state: State, request: RawRequest): Promise<RawAnswer> {
  const { record } = request;
  const faults = state.faults.take(record);
  for (const fault of faults) {
    const answer = await instead(state, record, fault);
    if (answer !== undefined) return answer;
  }
  const isRangeKept = faults.every(({ kind }) => kind !== "no_range");
  const shift = faults.find((fault) => fault.kind === "wrong_range")?.shift ?? 0;
  const cut = faults.find((fault) => fault.kind === "cut_upload");
  const body = cut === undefined ? request.body : cutUpload(request.body, cut.after);
  const range = isRangeKept ? parseRange(record.headers["range"], shift) : undefined;
  return spoil(await route(state, { ...request, body }, range), faults, request);
}

/** What comes instead of the right answer. */
async function instead(
  state: State,
  record: RequestRecord,
  fault: Fault,
): Promise<RawAnswer | undefined> {
  if (fault.kind === "wait") await fault.until;
  if (fault.kind === "status") {
    return {
      status: fault.status,
      headers: { "content-type": "application/json", ...fault.headers },
      body: new TextEncoder().encode(fault.body ?? ""),
    };
  }
  if (fault.kind === "redirect") {
    const query = record.query.size === 0 ? "" : `?${record.query.toString()}`;
    const location =
      typeof fault.to === "string" ? `${fault.to}${record.path}${query}` : fault.to(record);
    return { status: 307, headers: { location }, body: new Uint8Array() };
  }
  if (fault.kind !== "expire") return undefined;
  state.tokens?.expireAll();
  return state.tokens?.challenge(record, needsOf(record)) ?? refusal(401, "UNAUTHORIZED");
}

interface Range {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

function parseRange(header: string | undefined, shift: number): Range | undefined {
  const [, start, last] = /^bytes=(\d+)-(\d*)$/.exec(header ?? "") ?? [];
  if (start === undefined) return undefined;
  return {
    start: Number(start) + shift,
    end: last === "" ? Number.POSITIVE_INFINITY : Number(last) + 1,
  };
}

async function route(
  state: State,
  request: RawRequest,
  range: Range | undefined,
): Promise<RawAnswer> {
  const { record } = request;
  if (record.path === "/token" && state.tokens !== undefined) return state.tokens.answer(request);
  const refused = state.tokens?.refuse(record, needsOf(record));
  if (refused !== undefined) return refused;
  if (/^\/v2\/?$/.test(record.path)) return { status: 200, body: new TextEncoder().encode("{}") };
  const [, repository = "", kind, rest = ""] =
    /^\/v2\/(.+?)\/(manifests|blobs|tags|referrers)\/(.*)$/.exec(record.path) ?? [];
  if (kind === "manifests") return manifestRoute(state, request, { repository, rest });
  if (kind === "blobs" && rest.startsWith("uploads/"))
    return uploadRoute(state, request, { repository, rest });
  if (kind === "blobs") return blobRoute(state, record, { repository, digest: rest, range });
  if (kind === "tags") return tagsRoute(state, record, repository);
  if (kind === "referrers") return referrersRoute(state, record, { repository, digest: rest });
  return refusal(404, "NAME_UNKNOWN");
}

function needsOf({ method, path, query }: RequestRecord): Need[] {
  const repository = /^\/v2\/(.+?)\/(?:manifests|blobs|tags|referrers)\//.exec(path)?.[1];
  if (repository === undefined) return [];
  const from = query.get("from");
  const isRead = method === "GET" || method === "HEAD";
  const isUpload = path.includes("/uploads/");
  let action: Need["action"] = isRead && !isUpload ? "pull" : "push";
  if (method === "DELETE" && !isUpload) action = "delete";
  return [
    { repository, action },
    ...(from === null ? [] : [{ repository: from, action: "pull" } as const]),
  ];
}

async function manifestRoute(
  state: State,
  { record, body }: RawRequest,
  { repository, rest }: { repository: string; rest: string },
): Promise<RawAnswer> {
  if (record.method === "PUT") {
    return putManifest(state, {
      repository,
      ref: rest,
      bytes: await collect(body),
      mediaType: record.headers["content-type"] ?? OCI_MANIFEST,
    });
  }
  const digest = rest.includes(":") ? rest : state.tags.get(`${repository}:${rest}`);
  const manifest = digest && state.manifests.get(`${repository}@${digest}`);
  if (!digest || !manifest) return refusal(404, "MANIFEST_UNKNOWN");
  if (record.method === "DELETE") {
    // By tag only the tag goes, by digest the manifest with all its tags.
    if (rest === digest) state.manifests.delete(`${repository}@${digest}`);
    for (const [name, tagged] of state.tags) {
      const isMeant = rest === digest ? tagged === digest : name === `${repository}:${rest}`;
      if (isMeant && name.startsWith(`${repository}:`)) state.tags.delete(name);
    }
    return { status: 202 };
  }
  const headers = {
    "content-type": manifest.mediaType,
    "docker-content-digest": digest,
    "content-length": String(manifest.bytes.length),
  };
  return { status: 200, headers, body: manifest.bytes };
}

function putManifest(
  state: State,
  put: { repository: string; ref: string; mediaType: string; bytes: Uint8Array<ArrayBuffer> },
): RawAnswer {
  const { repository, ref, bytes, mediaType } = put;
  const value = JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>;
  const blobs = [value["config"], ...((value["layers"] as unknown[] | undefined) ?? [])];
  for (const blob of blobs as ({ digest: string } | undefined)[]) {
    if (blob !== undefined && state.find(repository, blob.digest) === undefined)
      return refusal(400, "MANIFEST_BLOB_UNKNOWN");
  }
  const isDigest = ref.includes(":");
  if (isDigest && ref !== sha256(bytes)) return refusal(400, "DIGEST_INVALID");
  const { digest } = state.addManifest(`${repository}:${isDigest ? "" : ref}`, bytes, mediaType);
  const subject = (value["subject"] as { digest?: string } | undefined)?.digest;
  const knows = subject !== undefined && state.options.lacksReferrers !== true;
  return {
    status: 201,
    headers: {
      location: `/v2/${repository}/manifests/${digest}`,
      "docker-content-digest": digest,
      ...(knows ? { "oci-subject": subject } : {}),
    },
  };
}

function blobRoute(
  state: State,
  { method }: RequestRecord,
  { repository, digest, range }: { repository: string; digest: string; range: Range | undefined },
): RawAnswer {
  const blob = state.find(repository, digest);
  if (blob === undefined) return refusal(404, "BLOB_UNKNOWN");
  if (method === "DELETE") {
    state.blobs.delete(digest);
    return { status: 202 };
  }
  const start = range?.start ?? 0;
  const end = Math.min(range?.end ?? blob.size, blob.size);
  if (range !== undefined && start >= end)
    return { status: 416, headers: { "content-range": `bytes */${blob.size}` } };
  return {
    status: range === undefined ? 200 : 206,
    headers: {
      "content-type": "application/octet-stream",
      "content-length": String(end - start),
      "docker-content-digest": digest,
      "accept-ranges": "bytes",
      ...(range === undefined ? {} : { "content-range": `bytes ${start}-${end - 1}/${blob.size}` }),
    },
    body: partsOf(blob, start, end),
  };
}

async function uploadRoute(
  state: State,
  request: RawRequest,
  { repository, rest }: { repository: string; rest: string },
): Promise<RawAnswer> {
  const { record } = request;
  const id = rest.slice("uploads/".length);
  if (id === "") {
    if (record.method !== "POST") return refusal(405, "UNSUPPORTED");
    return beginUpload(state, request, repository);
  }
  const upload = state.uploads.get(id);
  if (upload?.repository !== repository) return refusal(404, "BLOB_UPLOAD_UNKNOWN");
  const place = { repository, id, upload };
  switch (record.method) {
    case "GET":
      return { status: 204, headers: uploadHeaders(state, place) };
    case "DELETE":
      state.uploads.delete(id);
      return { status: 204 };
    case "PATCH":
      return patchUpload(state, request, place);
    case "PUT":
      await append(upload, request.body);
      return finishUpload(state, record, place);
    default:
      return refusal(405, "UNSUPPORTED");
  }
}

interface UploadPlace {
  readonly repository: string;
  readonly id: string;
  readonly upload: Upload;
}

async function beginUpload(
  state: State,
  { record, body }: RawRequest,
  repository: string,
): Promise<RawAnswer> {
  const [mount, from] = [record.query.get("mount"), record.query.get("from")];
  const mounted = mount !== null && from !== null ? state.find(from, mount) : undefined;
  if (mount !== null && mounted !== undefined && state.options.lacksMounts !== true) {
    await state.addBlob(mounted, repository);
    return created(repository, mount);
  }
  const id = state.beginUpload(repository);
  const upload = state.uploads.get(id) as Upload;
  if (record.query.has("digest")) {
    await append(upload, body);
    return finishUpload(state, record, { repository, id, upload });
  }
  return { status: 202, headers: uploadHeaders(state, { repository, id, upload }) };
}

function uploadHeaders(
  { options }: State,
  { repository, id, upload }: UploadPlace,
): Record<string, string> {
  // The state parameter must come back, as with registries that sign it.
  const path = `/v2/${repository}/blobs/uploads/${id}?state=at-${upload.size}`;
  return {
    location: options.location?.(path) ?? path,
    range: `0-${Math.max(upload.size - 1, 0)}`,
    "docker-upload-uuid": id,
    ...(options.minChunkBytes === undefined
      ? {}
      : { "oci-chunk-min-length": String(options.minChunkBytes) }),
  };
}

async function patchUpload(
  state: State,
  request: RawRequest,
  place: UploadPlace,
): Promise<RawAnswer> {
  const { record, body } = request;
  const { upload } = place;
  if (state.options.lacksPatch === true) return refusal(405, "UNSUPPORTED");
  if (isStale(record, upload))
    return refusal(416, "BLOB_UPLOAD_INVALID", uploadHeaders(state, place));
  const [, start] = /^(\d+)-(\d+)$/.exec(record.headers["content-range"] ?? "") ?? [];
  if (start !== undefined && Number(start) !== upload.size)
    return { status: 416, headers: uploadHeaders(state, place) };
  await append(upload, body);
  return { status: 202, headers: uploadHeaders(state, place) };
}

/** Whether the client goes by an older `Location` than the last one. */
function isStale({ query }: RequestRecord, upload: Upload): boolean {
  return query.get("state") !== `at-${upload.size}`;
}

async function finishUpload(
  state: State,
  record: RequestRecord,
  { repository, id, upload }: UploadPlace,
): Promise<RawAnswer> {
  const blob = new Blob(upload.parts);
  const digest = record.query.get("digest");
  state.uploads.delete(id);
  if (digest === null || (await digestOf(blob)) !== digest) return refusal(400, "DIGEST_INVALID");
  await state.addBlob(blob, repository);
  return created(repository, digest);
}

function created(repository: string, digest: string): RawAnswer {
  return {
    status: 201,
    headers: { location: `/v2/${repository}/blobs/${digest}`, "docker-content-digest": digest },
  };
}

function tagsRoute(state: State, { query }: RequestRecord, repository: string): RawAnswer {
  const all = [...state.tags.keys()]
    .filter((name) => name.startsWith(`${repository}:`))
    .map((name) => name.slice(repository.length + 1))
    .toSorted();
  if (all.length === 0) return refusal(404, "NAME_UNKNOWN");
  const last = query.get("last") ?? "";
  const size = Number(query.get("n") ?? state.options.pageSize ?? 1000);
  const limit = Math.min(size, state.options.pageSize ?? size);
  const rest = all.filter((tag) => tag > last);
  const tags = rest.slice(0, limit);
  const link = `</v2/${repository}/tags/list?last=${tags.at(-1) ?? ""}&n=${limit}>; rel="next"`;
  return {
    status: 200,
    headers: { "content-type": "application/json", ...(rest.length > limit ? { link } : {}) },
    body: new TextEncoder().encode(JSON.stringify({ name: repository, tags })),
  };
}

function referrersRoute(
  state: State,
  { query }: RequestRecord,
  { repository, digest }: { repository: string; digest: string },
): RawAnswer {
  if (state.options.lacksReferrers === true) return refusal(404, "NAME_UNKNOWN");
  const wanted = query.get("artifactType");
  const manifests = [];
  for (const [name, { bytes, mediaType }] of state.manifests) {
    const value = JSON.parse(Buffer.from(bytes).toString()) as {
      subject?: { digest?: string };
      artifactType?: string;
      annotations?: object;
    };
    if (!name.startsWith(`${repository}@`) || value.subject?.digest !== digest) continue;
    if (wanted !== null && value.artifactType !== wanted) continue;
    const { artifactType, annotations } = value;
    manifests.push({
      mediaType,
      digest: name.slice(repository.length + 1),
      size: bytes.length,
      artifactType,
      annotations,
    });
  }
  const mediaType = "application/vnd.oci.image.index.v1+json";
  return {
    status: 200,
    headers: {
      "content-type": mediaType,
      ...(wanted === null ? {} : { "oci-filters-applied": "artifactType" }),
    },
    body: new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, mediaType, manifests })),
  };
}

/** Keeps what came before the connection ended. */
async function append(upload: Upload, body: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const part of body) {
    upload.parts.push(part.slice());
    upload.size += part.length;
  }
}

async function collect(body: AsyncIterable<Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  for await (const part of body) parts.push(part.slice());
  return new Uint8Array(Buffer.concat(parts));
}

async function* partsOf(blob: Blob, start: number, end: number): AsyncGenerator<Uint8Array> {
  for (let offset = start; offset < end; offset += CHUNK_BYTES) {
    yield await blob.slice(offset, Math.min(offset + CHUNK_BYTES, end)).bytes();
  }
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
}

async function digestOf(blob: Blob): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for (let offset = 0; offset < blob.size; offset += HASH_BYTES) {
    hasher.update(await blob.slice(offset, offset + HASH_BYTES).bytes());
  }
  return `sha256:${hasher.digest("hex")}`;
}
