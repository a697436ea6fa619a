/** Images of containers in a registry that stands for Docker Hub. */
import { OCI_INDEX, OCI_MANIFEST } from "../../../src/oci/media-types.ts";
import type { FakeRegistry } from "../../fakes/registry.ts";
import { tar, type MadeEntry } from "../../helpers/tar.ts";

export const REPOSITORY = "docker/docker-model-backend-llamacpp";
/** Where the build for the processor lies in it. */
export const TREE = "com.docker.llama-server.native.linux.cpu.amd64";
export const LAYER = "application/vnd.oci.image.layer.v1.tar";

export interface Layer {
  readonly mediaType: string;
  readonly bytes: Uint8Array;
}

export const layerOf = (mediaType: string, bytes: Uint8Array): Layer => ({ mediaType, bytes });

export const gzip = (entries: readonly MadeEntry[]): Layer =>
  layerOf(`${LAYER}+gzip`, Bun.gzipSync(tar(entries)));

/** @returns the digest of its manifest, or of its index if `platforms` are named */
export async function addImage(
  registry: FakeRegistry,
  name: string,
  image: { readonly layers: readonly Layer[]; readonly platforms?: readonly string[] },
): Promise<string> {
  const { layers, platforms } = image;
  const blobs = [];
  for (const { mediaType, bytes } of layers) {
    blobs.push({ mediaType, ...(await registry.addBlob(bytes as Uint8Array<ArrayBuffer>)) });
  }
  const config = await registry.addBlob(Buffer.from("{}"));
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
    layers: blobs,
  };
  if (platforms === undefined) return registry.addManifest(name, manifest).digest;
  const repository = name.slice(0, name.lastIndexOf(":"));
  const pushed = registry.addManifest(`${repository}:one`, manifest);
  const manifests = platforms.map((platform) => {
    const [os, architecture] = platform.split("/");
    return { mediaType: OCI_MANIFEST, ...pushed, platform: { os, architecture } };
  });
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
  return registry.addManifest(name, index, OCI_INDEX).digest;
}
