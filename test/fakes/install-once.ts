/**
 * Ensures one engine and prints how: `bun install-once.ts <directory> <cache> <api> [<registry>]`.
 *
 * The API is GitHub's, the registry stands for Docker Hub; what is empty does not answer. Prints a line of JSON: the phases it went through and the installation.
 */
import { llamacpp } from "../../backends/llamacpp/index.ts";
import { Installer } from "../../src/runtime/installer/installer.ts";
import { loopbackRemotes } from "../runtime/installer/remotes.ts";

const [directory = "", cacheDirectory = "", githubApi = "", registry] = process.argv.slice(2);
const standIns = registry === undefined ? {} : { "registry-1.docker.io": registry };
const installer = new Installer({
  directory,
  cacheDirectory,
  backends: [llamacpp],
  machine: { platform: "linux", arch: "x64" },
  env: { PATH: "" },
  offline: false,
  remotes: loopbackRemotes(standIns),
  smokeModel: () => Promise.resolve(""),
  verifyEngine: () => Promise.resolve(),
  githubApi: githubApi === "" ? "http://127.0.0.1:1" : githubApi,
});
const phases: string[] = [];
const installation = await installer.ensure("llama.cpp", {
  signal: AbortSignal.timeout(20_000),
  onProgress: ({ phase }) => {
    if (phases.at(-1) === phase) return;
    phases.push(phase);
    process.stderr.write(`${phase}\n`);
  },
});
process.stdout.write(`${JSON.stringify({ phases, installation })}\n`);
