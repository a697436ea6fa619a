/**
 * Checks what a compilation produced. The exit code of `bun build` proves nothing: it is 0 for a binary without
 * bytecode that dies at its first line. So the format is read from the file, and what this machine can run is run.
 */
import { existsSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Target } from "./targets.ts";

export interface ExecutableFacts {
  readonly platform: "linux" | "darwin" | "win32";
  readonly arch: "x64" | "arm64" | "unknown";
  /** ELF: the program interpreter, such as `/lib64/ld-linux-x86-64.so.2`; null if there is none. */
  readonly interpreter: string | null;
}

export interface RunResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** All headers that are read lie within this much of the start. */
const HEADER_BYTES = 64 * 1024;
/** Starting takes milliseconds; this is for a machine that is busy. */
const RUN_TIMEOUT_MS = 30_000;
const PT_INTERP = 3;
/** What the loaders of glibc and musl leave with, and say. */
const NOT_LOADED = 127;
const LOADER_COMPLAINT = /error (while )?loading shared librar/i;

/**
 * Format and architecture by the magic numbers: ELF64 little-endian, Mach-O 64 and PE32+; undefined for anything else.
 *
 * @param header the first bytes of the file
 * @see https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
 */
export function identifyExecutable(header: Uint8Array): ExecutableFacts | undefined {
  if (header.byteLength < 64) return undefined;
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  if (view.getUint32(0) === 0x7f454c46 && header[4] === 2 && header[5] === 1) return readElf(view);
  if (view.getUint32(0, true) === 0xfeedfacf) {
    const arch = name(view.getUint32(4, true), { 0x01000007: "x64", 0x0100000c: "arm64" });
    return { platform: "darwin", arch, interpreter: null };
  }
  if (view.getUint16(0) === 0x4d5a) return readPe(view);
  return undefined;
}

/** @throws Error that says what is wrong with the file */
export async function verifyFormat(path: string, target: Target): Promise<ExecutableFacts> {
  const facts = identifyExecutable(await readHeader(path));
  if (facts === undefined) throw new Error(`${path} is not an executable of a known format`);
  if (facts.platform !== target.platform || facts.arch !== target.arch) {
    throw new Error(`${path} is for ${facts.platform}-${facts.arch}, not for ${target.name}`);
  }
  if (target.libc !== null && facts.interpreter?.includes("musl") !== (target.libc === "musl")) {
    throw new Error(`${path} wants ${facts.interpreter ?? "no loader"}, not one of ${target.libc}`);
  }
  return facts;
}

/** Whether this machine can run it: same platform and architecture, and the loader it names is here. */
export function canRunHere(facts: ExecutableFacts): boolean {
  if (facts.platform !== process.platform || facts.arch !== process.arch) return false;
  return facts.interpreter === null || existsSync(facts.interpreter);
}

/**
 * Runs the binary on a fresh `TUG_HOME`: `--version` must say `version`, and an empty store must list as `[]`.
 *
 * @returns false if the system could not load it: the loader is here, libraries it needs are not
 * @throws Error that holds what the binary printed
 */
export async function verifyRun(path: string, version: string): Promise<boolean> {
  const home = await mkdtemp(join(tmpdir(), "tug-compile-"));
  try {
    const shown = await runBinary([path, "--version"], home);
    if (shown.exitCode === NOT_LOADED && LOADER_COMPLAINT.test(shown.stderr)) return false;
    if (shown.exitCode !== 0 || shown.stdout.trim() !== `tug ${version}`) {
      throw new Error(describe("--version", shown));
    }
    const listed = await runBinary([path, "list", "--json"], home);
    if (listed.exitCode !== 0 || !isEmptyList(listed.stdout)) {
      throw new Error(describe("list --json", listed));
    }
    return true;
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

// --- internal ---

async function readHeader(path: string): Promise<Uint8Array> {
  await using file = await open(path, "r");
  const { bytesRead, buffer } = await file.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0);
  return buffer.subarray(0, bytesRead);
}

function readElf(view: DataView): ExecutableFacts {
  const arch = name(view.getUint16(18, true), { 0x3e: "x64", 0xb7: "arm64" });
  const start = Number(view.getBigUint64(32, true));
  const size = view.getUint16(54, true);
  const count = view.getUint16(56, true);
  for (let index = 0; index < count; index += 1) {
    const at = start + index * size;
    if (at + 40 > view.byteLength) break;
    if (view.getUint32(at, true) !== PT_INTERP) continue;
    const offset = Number(view.getBigUint64(at + 8, true));
    const length = Number(view.getBigUint64(at + 32, true));
    if (offset + length > view.byteLength) break;
    const bytes = new Uint8Array(view.buffer, view.byteOffset + offset, length);
    const interpreter = new TextDecoder().decode(bytes).replace(/\0.*$/s, "");
    return { platform: "linux", arch, interpreter };
  }
  return { platform: "linux", arch, interpreter: null };
}

function readPe(view: DataView): ExecutableFacts | undefined {
  const at = view.getUint32(0x3c, true);
  if (at + 6 > view.byteLength || view.getUint32(at) !== 0x50450000) return undefined;
  const arch = name(view.getUint16(at + 4, true), { 0x8664: "x64", 0xaa64: "arm64" });
  return { platform: "win32", arch, interpreter: null };
}

function name(
  machine: number,
  known: Readonly<Record<number, "x64" | "arm64">>,
): ExecutableFacts["arch"] {
  return known[machine] ?? "unknown";
}

async function runBinary(command: readonly string[], home: string): Promise<RunResult> {
  const child = Bun.spawn([...command], {
    // Nothing of the caller's settings may decide the outcome; Windows needs its own root to start anything.
    env: { PATH: process.env["PATH"], SystemRoot: process.env["SystemRoot"], TUG_HOME: home },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: RUN_TIMEOUT_MS,
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { exitCode: await child.exited, stdout, stderr };
}

function isEmptyList(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) && value.length === 0;
  } catch {
    return false;
  }
}

function describe(what: string, { exitCode, stdout, stderr }: RunResult): string {
  return `\`tug ${what}\` left with ${exitCode}\nstdout: ${stdout}\nstderr: ${stderr}`;
}
