/**
 * The Ollama library's registry on this machine. Its answers are written by hand from documentation and from what issues
 * of ollama/ollama quote; none was recorded. Blobs are redirected to a second port, as the real ones are to a CDN.
 *
 * End-to-end tests reach it by `TUG_REGISTRY_MIRRORS=registry.ollama.ai=<url>`.
 */
import { readFile } from "node:fs/promises";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import { PEBBLE } from "../helpers/pebble.ts";

const PREFIX = "application/vnd.ollama.image.";

/** By the last word of the media type: `model`, `params`, … */
export type OllamaLayer = readonly [kind: string, content: Uint8Array | string | object];

export interface OllamaModel {
  /** Members that are set besides the usual ones, or null to leave them out. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly layers: readonly OllamaLayer[];
}

export interface OllamaRequest {
  readonly server: "registry" | "cdn";
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly range: string | null;
  readonly authorization: string | null;
}

export interface OllamaRegistry extends AsyncDisposable {
  /** Base URL of the registry. */
  readonly url: string;
  readonly requests: readonly OllamaRequest[];
  /** @param name `library/pebble:latest` @returns the digest of the manifest */
  publish(name: string, model: OllamaModel): Digest;
  /** Instead of the blob's own bytes. */
  corrupt(digest: Digest, bytes: Uint8Array): void;
  /** Answers these statuses, in order, to the next requests for manifests. */
  failNext(...statuses: number[]): void;
}

export const PEBBLE_SYSTEM = "You are Pebble, a very small model.";

/** What `library/pebble:latest` is. */
export async function pebbleModel(): Promise<OllamaModel> {
  return {
    layers: [
      ["model", await readFile(PEBBLE)],
      ["template", "{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}"],
      ["license", "Apache License\nVersion 2.0, January 2004\n"],
      ["params", { num_ctx: 2048, temperature: 0, stop: ["<|im_end|>"], num_keep: 4 }],
      ["system", PEBBLE_SYSTEM],
    ],
  };
}

/** Has `library/pebble` with the tags `latest` and `q8_0` of the same manifest. */
export async function startOllamaRegistry(): Promise<OllamaRegistry> {
  const blobs = new Map<string, Uint8Array>();
  const manifests = new Map<string, Uint8Array>();
  const requests: OllamaRequest[] = [];
  const failures: number[] = [];
  const note = (server: OllamaRequest["server"], request: Request): string => {
    const { headers, method } = request;
    const path = new URL(request.url).pathname;
    const [range, authorization] = [headers.get("range"), headers.get("authorization")];
    requests.push({ server, method, path, range, authorization });
    return path;
  };
  const cdn = serve((request) => {
    const bytes = blobs.get(note("cdn", request).slice(1));
    // Storage with signed addresses refuses a second kind of authorization.
    if (request.headers.has("authorization")) return new Response("", { status: 400 });
    return bytes === undefined ? new Response("", { status: 404 }) : ranged(request, bytes);
  });
  const registry = serve((request) => {
    const path = note("registry", request);
    const [, name, kind, reference = ""] =
      /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(path) ?? [];
    if (name === undefined)
      return new Response(path === "/v2/" ? "{}" : "", { status: path === "/v2/" ? 200 : 404 });
    if (kind === "blobs")
      return redirect(blobs.has(reference) ? `${cdn.url.origin}/${reference}` : undefined);
    const failure = failures.shift();
    if (failure !== undefined) return problem(failure, "UNAVAILABLE");
    const manifest = manifests.get(`${name}:${reference}`);
    return manifest === undefined
      ? problem(404, "MANIFEST_UNKNOWN")
      : manifestResponse(request, manifest);
  });
  const fake: OllamaRegistry = {
    url: registry.url.origin,
    requests,
    publish(name, model) {
      const bytes = encodeManifest(model, blobs);
      manifests.set(name, bytes);
      return digestOf(bytes);
    },
    corrupt: (digest, bytes) => void blobs.set(digest, bytes),
    failNext: (...statuses) => void failures.push(...statuses),
    async [Symbol.asyncDispose]() {
      await Promise.all([registry.stop(true), cdn.stop(true)]);
    },
  };
  const pebble = await pebbleModel();
  fake.publish("library/pebble:latest", pebble);
  fake.publish("library/pebble:q8_0", pebble);
  return fake;
}

// --- internal ---

function serve(answer: (request: Request) => Response): Bun.Server<undefined> {
  return Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: answer });
}

function encodeManifest(
  { config, layers }: OllamaModel,
  blobs: Map<string, Uint8Array>,
): Uint8Array {
  const store = (mediaType: string, content: Uint8Array | string | object) => {
    const bytes = toBytes(content);
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const usual = {
    model_format: "gguf",
    model_family: "llama",
    model_families: ["llama"],
    model_type: "2.7M",
    file_type: "Q8_0",
    architecture: "amd64",
    os: "linux",
    rootfs: { type: "layers", diff_ids: [] },
  };
  return toBytes({
    schemaVersion: 2,
    mediaType: "application/vnd.docker.distribution.manifest.v2+json",
    config: store("application/vnd.docker.container.image.v1+json", { ...usual, ...config }),
    layers: layers.map(([kind, content]) => store(PREFIX + kind, content)),
  });
}

function toBytes(content: Uint8Array | string | object): Uint8Array {
  if (content instanceof Uint8Array) return content;
  return new TextEncoder().encode(typeof content === "string" ? content : JSON.stringify(content));
}

/** Its manifests come as plain text, and without a digest. */
function manifestResponse(request: Request, bytes: Uint8Array): Response {
  const headers = { "content-type": "text/plain; charset=utf-8" };
  return request.method === "HEAD"
    ? new Response(null, { headers: { ...headers, "content-length": String(bytes.length) } })
    : new Response(bytes.slice(), { headers });
}

function redirect(location: string | undefined): Response {
  if (location === undefined) return problem(404, "BLOB_UNKNOWN");
  return new Response(null, { status: 307, headers: { location } });
}

function problem(status: number, code: string): Response {
  return Response.json({ errors: [{ code, message: "made up", detail: null }] }, { status });
}

function ranged(request: Request, bytes: Uint8Array): Response {
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get("range") ?? "");
  if (match === null) return new Response(bytes.slice(), { headers: { "accept-ranges": "bytes" } });
  const start = Number(match[1]);
  const end = Math.min(match[2] === "" ? bytes.length : Number(match[2]) + 1, bytes.length);
  if (start >= bytes.length) return new Response("", { status: 416 });
  return new Response(bytes.slice(start, end), {
    status: 206,
    headers: { "content-range": `bytes ${start}-${end - 1}/${bytes.length}` },
  });
}
