/** Makes archives, honest and malicious. */
import { type MadeEntry, tar } from "../../helpers/tar.ts";

/** A gzipped ustar of the given entries. */
export function tarGz(entries: readonly MadeEntry[]): Uint8Array<ArrayBuffer> {
  return Bun.gzipSync(tar(entries));
}

/** What a release of llama.cpp looks like inside. */
export function engineArchive(engine = "#!/bin/sh\nexit 0\n"): Uint8Array<ArrayBuffer> {
  return tarGz([
    { name: "llama-b1/", type: "5", mode: 0o755 },
    { name: "llama-b1/llama-server", content: engine, mode: 0o755 },
    { name: "llama-b1/libllama.so.0.1", content: "library".repeat(10_000) },
    { name: "llama-b1/libllama.so", type: "2", target: "libllama.so.0.1" },
  ]);
}
