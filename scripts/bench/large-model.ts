/** A model that is large, and a real registry to move it from and to. */
import { open } from "node:fs/promises";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import {
  DOCKER_CONFIG_V01,
  DOCKER_GGUF,
  FILE_PATH,
  OCI_MANIFEST,
} from "../../src/oci/media-types.ts";
import { encodeGguf } from "../../test/store/gguf-file.ts";

export interface LargeFile {
  readonly path: string;
  readonly digest: string;
  readonly size: number;
}

/** Random bytes, repeated with a counter: no two blocks are equal, and making them costs little. */
const BLOCK_BYTES = 16 * 1024 * 1024;
/** HTTP_PROXY would be asked about this machine. Bun knows `false`, its types do not. */
const LOCAL: object = { proxy: false };

/** Writes a GGUF file of exactly `size` bytes with a valid header. */
export async function writeLargeGguf(path: string, size: number): Promise<LargeFile> {
  const tensorBytes = size - BLOCK_BYTES;
  const header = encodeGguf({
    values: { "general.architecture": { string: "llama" }, "general.name": { string: path } },
    tensors: [{ name: "t", shape: [tensorBytes / 4], dtype: 0, offset: 0 }],
  });
  const block = new Uint8Array(BLOCK_BYTES);
  for (let offset = 0; offset < BLOCK_BYTES; offset += 65_536)
    crypto.getRandomValues(block.subarray(offset, offset + 65_536));
  const hasher = new Bun.CryptoHasher("sha256");
  await using file = await open(path, "w");
  const view = new DataView(block.buffer);
  for (let offset = 0; offset < size; offset += BLOCK_BYTES) {
    view.setBigUint64(BLOCK_BYTES - 8, BigInt(offset));
    const part = block.slice(0, Math.min(BLOCK_BYTES, size - offset));
    if (offset === 0) part.set(header);
    hasher.update(part);
    await file.write(part);
  }
  return { path, size, digest: `sha256:${hasher.digest("hex")}` };
}

/** Pushes it by hand, as a model. @param url base URL of the registry @param repository tagged `1` */
export async function seedModel(url: string, repository: string, file: LargeFile): Promise<void> {
  const config = encodeCanonical({
    config: { format: "gguf" },
    rootfs: { type: "rootfs", diff_ids: [file.digest] },
  });
  const digest = `sha256:${new Bun.CryptoHasher("sha256").update(config).digest("hex")}`;
  await putBlob(url, repository, {
    digest,
    size: config.length,
    body: () => new Blob([new Uint8Array(config)]),
  });
  await putBlob(url, repository, { ...file, body: () => Bun.file(file.path) });
  const manifest = encodeCanonical({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: DOCKER_CONFIG_V01, digest, size: config.length },
    layers: [
      {
        mediaType: DOCKER_GGUF,
        digest: file.digest,
        size: file.size,
        annotations: { [FILE_PATH]: "large.gguf" },
      },
    ],
  });
  await expectStatus(201, `${url}/v2/${repository}/manifests/1`, {
    method: "PUT",
    headers: { "content-type": OCI_MANIFEST },
    body: new Uint8Array(manifest),
  });
}

/** @returns where a blob may be PUT, its digest included */
export async function beginUpload(
  url: string,
  repository: string,
  digest: string,
): Promise<string> {
  const response = await expectStatus(202, `${url}/v2/${repository}/blobs/uploads/`, {
    method: "POST",
  });
  const location = new URL(response.headers.get("location") ?? "", url);
  location.searchParams.set("digest", digest);
  return location.href;
}

// --- internal ---

async function putBlob(
  url: string,
  repository: string,
  { digest, size, body }: { digest: string; size: number; body: () => Blob },
): Promise<void> {
  await expectStatus(201, await beginUpload(url, repository, digest), {
    method: "PUT",
    headers: { "content-type": "application/octet-stream", "content-length": String(size) },
    body: body(),
  });
}

async function expectStatus(status: number, url: string, init: RequestInit): Promise<Response> {
  const insecure: object = { tls: { rejectUnauthorized: false }, ...LOCAL };
  const response = await fetch(url, { ...init, ...insecure });
  if (response.status !== status)
    throw new Error(`${init.method} ${url} answered ${response.status}: ${await response.text()}`);
  return response;
}
