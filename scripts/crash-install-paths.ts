/** The ways in which engines come, change and go, as `crash-install.ts` disturbs them. */
import { chmod, cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { scriptedDecoder } from "../backends/onnx/tiny-model.ts";
import type { AvailableEngine } from "../src/api/engines.ts";
import type { Installation } from "../src/runtime/backend.ts";
import { writeFiles } from "../test/helpers/onnx-models.ts";
import { SAFETENSORS } from "../test/helpers/pebble.ts";
import { type CliResult, runCli } from "../test/helpers/run-cli.ts";

export interface CrashPath {
  readonly engine: string;
  /** Of the `tug` that is killed. */
  argv(count: number): readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** An engine must be there whenever it is killed: only which one may change. */
  readonly keepsEngine?: boolean;
  /** Before each kill, and at the end: what the next one is to find. */
  reset?(home: string): Promise<void>;
  /** Leads to an engine that is there, whatever was killed. */
  readonly finish: readonly string[];
}

export const QUESTION = "What is the capital of France?";

const LLAMACPP = "llama.cpp";
const OLD = "0.0.1";
const TIMEOUT_MS = 300_000;

/** Once for each path; `home` is what they are tried in. */
export const PATHS: Readonly<Record<string, (home: string) => Promise<CrashPath>>> = {
  "llama.cpp": () => installing(LLAMACPP),
  mlx: () => installing("mlx"),
  onnx: () => installing("onnx"),
  path: inPlace,
  python: ownPython,
  use: choosing,
  rollback: goingBack,
  uninstall: removing,
};

export function tug(
  args: readonly string[],
  home: string,
  env: Readonly<Record<string, string>> = {},
): Promise<CliResult> {
  return runCli(args, { env: { TUG_HOME: home, TUG_PORT: "0", ...env }, timeoutMs: TIMEOUT_MS });
}

/** @throws Error with what it said */
export async function mustTug(...[args, home, env]: Parameters<typeof tug>): Promise<string> {
  const { exitCode, stdout, stderr } = await tug(args, home, env);
  if (exitCode !== 0) throw new Error(`\`tug ${args.join(" ")}\`: ${stderr}`);
  return stdout;
}

export async function describeEngine(engine: string, home: string): Promise<AvailableEngine> {
  const text = await mustTug(["engines", "--json"], home);
  const found = (JSON.parse(text) as AvailableEngine[]).find(({ name }) => name === engine);
  if (found === undefined) throw new Error(`${engine} is not listed`);
  return found;
}

/** Packages a model for the engine. @returns its name */
export async function modelFor(engine: string, home: string): Promise<string> {
  if (engine === LLAMACPP) return "pebble";
  const name = `crash/${engine}`;
  const directory = join(home, "made");
  if (engine === "onnx") await writeFiles(directory, scriptedDecoder({ pieces: ["Pari", "s"] }));
  const flags = engine === "onnx" ? ["--onnx-dir", directory] : ["--safetensors-dir", SAFETENSORS];
  await mustTug(["package", ...flags, name], home);
  return name;
}

// --- internal ---

async function installing(engine: string): Promise<CrashPath> {
  const argv = ["install-runner", "--backend", engine];
  return { engine, argv: () => argv, finish: argv, reset: (home) => uninstall(engine, home) };
}

/** A program on PATH that starts the engine which is installed elsewhere. */
async function inPlace(home: string): Promise<CrashPath> {
  const elsewhere = await installElsewhere(LLAMACPP, home);
  const bin = join(home, "bin");
  const program = join(bin, "llama-server");
  await mkdir(bin);
  const words = elsewhere.command.map((word) => `'${word}'`).join(" ");
  await writeFile(program, `#!/bin/sh\nexec ${words} "$@"\n`);
  await chmod(program, 0o755);
  const argv = ["install-runner", "--source", "path"];
  return {
    engine: LLAMACPP,
    argv: () => argv,
    finish: argv,
    // It runs what lies elsewhere, which a sandbox does not show.
    env: { PATH: `${bin}:${process.env["PATH"] ?? ""}`, TUG_SANDBOX: "off" },
    reset: (at) => uninstall(LLAMACPP, at),
  };
}

/** The environment of one that is installed elsewhere stands for the user's own. */
async function ownPython(home: string): Promise<CrashPath> {
  const { command } = await installElsewhere("onnx", home);
  const argv = ["install-runner", "--backend", "onnx", "--python", command[0] ?? ""];
  return { engine: "onnx", argv: () => argv, finish: argv, reset: (at) => uninstall("onnx", at) };
}

async function choosing(home: string): Promise<CrashPath> {
  const labels = await installTwo(home);
  return {
    engine: LLAMACPP,
    argv: (count) => ["engines", "use", LLAMACPP, labels[count % labels.length] ?? ""],
    finish: ["engines", "use", LLAMACPP, labels[0] ?? ""],
    keepsEngine: true,
  };
}

async function goingBack(home: string): Promise<CrashPath> {
  await installTwo(home);
  const argv = ["engines", "rollback", LLAMACPP];
  return { engine: LLAMACPP, argv: () => argv, finish: argv, keepsEngine: true };
}

/** What is removed is put back by a copy: to install it takes longer. */
async function removing(home: string): Promise<CrashPath> {
  await mustTug(["install-runner"], home);
  const [kept, backends] = [join(home, "kept"), join(home, "backends")];
  await cp(backends, kept, { recursive: true });
  return {
    engine: LLAMACPP,
    argv: () => ["uninstall-runner"],
    finish: ["install-runner"],
    reset: async (at) => {
      await uninstall(LLAMACPP, at);
      await cp(kept, backends, { recursive: true });
    },
  };
}

async function uninstall(engine: string, home: string): Promise<void> {
  await mustTug(["uninstall-runner", "--backend", engine], home);
}

/** @returns it as its record has it, with its paths */
async function installElsewhere(
  engine: string,
  home: string,
): Promise<Pick<Installation, "directory" | "command">> {
  const elsewhere = join(home, "elsewhere");
  await mkdir(elsewhere);
  await mustTug(["install-runner", "--backend", engine], elsewhere);
  const { installed } = await describeEngine(engine, elsewhere);
  const { directory = "" } = installed[0] ?? {};
  const { command } = await readRecord(directory);
  return { directory, command: command.map((word) => word.replace("{directory}", directory)) };
}

/** The same engine under two versions. @returns their labels */
async function installTwo(home: string): Promise<readonly string[]> {
  await mustTug(["install-runner"], home);
  const [first] = (await describeEngine(LLAMACPP, home)).installed;
  if (first === undefined) throw new Error(`${LLAMACPP} is not installed`);
  const { directory, variant, version } = first;
  const copy = join(home, "backends", LLAMACPP, `${OLD}-${variant}`);
  await cp(directory, copy, { recursive: true });
  const record = await readRecord(copy);
  await writeFile(join(copy, "install.json"), JSON.stringify({ ...record, version: OLD }));
  await mustTug(["engines", "use", LLAMACPP, OLD], home);
  return [`${version}-${variant}`, `${OLD}-${variant}`];
}

async function readRecord(directory: string): Promise<Installation> {
  return JSON.parse(await readFile(join(directory, "install.json"), "utf8")) as Installation;
}
