/** An installation in a process of its own, from a place on this machine that stands for a source, to be killed. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { llamacpp } from "../../../backends/llamacpp/index.ts";
import { Installer } from "../../../src/runtime/installer/installer.ts";
import { startFakeRegistry } from "../../fakes/registry.ts";
import { tarGz } from "./archives.ts";
import { addImage, gzip, REPOSITORY, TREE } from "./fake-image.ts";
import { fakeGithub } from "./fake-github.ts";
import { loopbackRemotes } from "./remotes.ts";

export const ENGINE = "llama.cpp";
export const STAND_INS = ["github", "oci"] as const;
export type StandIn = (typeof STAND_INS)[number];

const SCRIPT = join(import.meta.dir, "../../fakes/install-once.ts");
const RELEASE = llamacpp.recipe.github?.version ?? "";
const PROGRAM = "#!/bin/sh\nexit 0\n";
/** Nothing that compresses: it has to be read, checked and written. Bytes. */
const LIBRARY_BYTES = 4 * 1024 * 1024;

export interface Source extends AsyncDisposable {
  /** Installs into `root/backends`; tells its phases on stderr. */
  argv(root: string): readonly string[];
  /** For looking at what was left, and for going on with it. */
  installer(root: string): Installer;
}

/** @param libraries that come with the engine: more of them take longer */
export async function startSource(name: StandIn, libraries = 1): Promise<Source> {
  const content = Buffer.from(crypto.getRandomValues(new Uint8Array(65_536)));
  const big = Buffer.concat(Array.from({ length: LIBRARY_BYTES / 65_536 }, () => content));
  const files = Array.from({ length: libraries }, (_, index) => ({
    name: `libggml-${index}.so`,
    content: big.toString("latin1"),
  }));
  return name === "github" ? github(files) : oci(files);
}

/** What is neither an engine, nor the record of which is used, nor the lock. */
export async function debrisOf(root: string, engine = ENGINE): Promise<string[]> {
  const names = await readdir(join(root, "backends", engine));
  return names.filter((name) => name.startsWith(".") || name.endsWith(".tmp"));
}

// --- internal ---

type Files = readonly { readonly name: string; readonly content: string }[];

function github(files: Files): Source {
  const within = files.map((file) => ({ ...file, name: `llama-b1/${file.name}` }));
  const program = { name: "llama-b1/llama-server", content: PROGRAM, mode: 0o755 };
  const asset = {
    name: `llama-${RELEASE}-bin-ubuntu-x64.tar.gz`,
    content: tarGz([program, ...within]),
  };
  const server = fakeGithub(RELEASE, [asset]);
  return {
    argv: (root) => argvOf(root, [server.url]),
    installer: (root) => installerOf(root, { githubApi: server.url }),
    [Symbol.asyncDispose]: async () => server[Symbol.dispose](),
  };
}

async function oci(files: Files): Promise<Source> {
  const registry = await startFakeRegistry();
  const program = { name: `${TREE}/bin/com.docker.llama-server`, content: PROGRAM, mode: 0o755 };
  const within = files.map((file) => ({ ...file, name: `${TREE}/lib/${file.name}` }));
  await addImage(registry, `${REPOSITORY}:latest-cpu`, {
    layers: [gzip([program]), gzip(within)],
    platforms: ["linux/amd64"],
  });
  const standIns = { "registry-1.docker.io": registry.url };
  return {
    argv: (root) => argvOf(root, ["", registry.url]),
    installer: (root) => installerOf(root, { standIns }),
    [Symbol.asyncDispose]: () => registry[Symbol.asyncDispose](),
  };
}

function argvOf(root: string, places: readonly string[]): readonly string[] {
  return [process.execPath, SCRIPT, join(root, "backends"), join(root, "cache"), ...places];
}

function installerOf(
  root: string,
  { githubApi, standIns }: { githubApi?: string; standIns?: Readonly<Record<string, string>> },
): Installer {
  return new Installer({
    directory: join(root, "backends"),
    cacheDirectory: join(root, "cache"),
    backends: [llamacpp],
    machine: { platform: "linux", arch: "x64" },
    env: { PATH: "", TUG_GPU: "none" },
    offline: false,
    remotes: loopbackRemotes(standIns),
    smokeModel: () => Promise.resolve(""),
    verifyEngine: () => Promise.resolve(),
    githubApi: githubApi ?? "http://127.0.0.1:1",
  });
}
