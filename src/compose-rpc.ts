/** Composition of `tug rpc serve`: the engine, its confinement, and the server that comes with it. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInstaller } from "./compose-app.ts";
import type { RpcServerOptions } from "./daemon.ts";
import { AppError } from "./errors.ts";
import { BACKENDS } from "./runtime/backends.ts";
import { serveRemotely } from "./runtime/remote-server.ts";
import { chooseSandbox } from "./runtime/sandbox/index.ts";

/** Where it keeps large tensors, in the directory of caches. */
const CACHE = "rpc";

/** @throws what `Installer.ensure`, `chooseSandbox` and `serveRemotely` throw */
export async function composeRpcServer(options: RpcServerOptions): Promise<void> {
  const { config, paths, signal, onProgress, onWarning } = options;
  const backend = BACKENDS.find(({ rpc }) => rpc !== undefined);
  if (backend === undefined) throw new AppError("internal", "cannot find an engine with a server");
  const installer = await createInstaller({ config, paths });
  const installation = await installer.ensure(backend.name, { signal, onProgress, onWarning });
  const { env, platform } = process;
  const sandbox = await chooseSandbox({ mode: config.sandbox.value, platform, env, signal });
  const directory = await mkdtemp(join(tmpdir(), "tug-rpc-"));
  try {
    const cacheDirectory = options.keepsTensors ? join(paths.cache, CACHE) : undefined;
    if (cacheDirectory !== undefined) await mkdir(cacheDirectory, { recursive: true, mode: 0o700 });
    await serveRemotely({ ...options, backend, installation, sandbox, cacheDirectory, directory });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
