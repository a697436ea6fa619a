import { describe, expect, test } from "bun:test";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findTarget } from "../../../scripts/compile/targets.ts";
import {
  canRunHere,
  identifyExecutable,
  verifyFormat,
  verifyRun,
} from "../../../scripts/compile/verify.ts";
import { tempDir } from "../../helpers/temp-dir.ts";

const isPosix = process.platform !== "win32";

describe("identifyExecutable", () => {
  test("reads the loader of an ELF file", () => {
    const musl = elf({ machine: 0xb7, interpreter: "/lib/ld-musl-aarch64.so.1" });

    expect(identifyExecutable(musl)).toEqual({
      platform: "linux",
      arch: "arm64",
      interpreter: "/lib/ld-musl-aarch64.so.1",
    });
  });

  test.each([
    ["a Mach-O file for arm64", machO(0x0100000c), { platform: "darwin", arch: "arm64" }],
    ["a Mach-O file for x64", machO(0x01000007), { platform: "darwin", arch: "x64" }],
    ["a PE file for x64", pe(0x8664), { platform: "win32", arch: "x64" }],
    ["a machine it does not know", machO(0x7), { platform: "darwin", arch: "unknown" }],
  ] as const)("%s", (_, bytes, facts) => {
    expect(identifyExecutable(bytes)).toEqual({ ...facts, interpreter: null });
  });

  test.each([
    ["a text", new TextEncoder().encode("#!/bin/sh\n".repeat(20))],
    ["an empty file", new Uint8Array()],
    ["a DOS program without a PE header", pe(0x8664).fill(0, 0x80)],
    ["an ELF file of 32 bits", elf({ machine: 3, interpreter: "/x" }).fill(1, 4, 5)],
  ])("%s is none", (_, bytes) => {
    expect(identifyExecutable(bytes)).toBeUndefined();
  });

  test("cut at any byte it neither throws nor invents a loader", () => {
    const whole = elf({ machine: 0x3e, interpreter: "/lib64/ld.so" });

    const loaders = Array.from(
      whole,
      (_, end) => identifyExecutable(whole.subarray(0, end))?.interpreter ?? null,
    );

    expect(new Set(loaders)).toEqual(new Set([null]));
  });
});

describe("verifyFormat", () => {
  test("a file for another C library is refused", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug");
    await writeFile(path, elf({ machine: 0x3e, interpreter: "/lib/ld-musl-x86_64.so.1" }));

    const refused = verifyFormat(path, target("linux-x64"));

    expect(await refused.catch(String)).toContain("not one of glibc");
    expect((await verifyFormat(path, target("linux-x64-musl"))).arch).toBe("x64");
  });

  test("a file for another machine is refused", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug");
    await writeFile(path, machO(0x01000007));

    const refused = verifyFormat(path, target("darwin-arm64"));

    expect(await refused.catch(String)).toContain("is for darwin-x64, not for darwin-arm64");
  });
});

describe("canRunHere", () => {
  test("not without the loader that it names", () => {
    const { arch } = process;
    const facts = { platform: process.platform as "linux", arch: arch as "x64" };

    expect(canRunHere({ ...facts, interpreter: null })).toBe(true);
    expect(canRunHere({ ...facts, interpreter: "/nowhere/ld.so" })).toBe(false);
  });
});

describe.if(isPosix)("verifyRun", () => {
  test("libraries that are not here are no fault of the binary", async () => {
    await using directory = await tempDir();
    const path = await script(
      directory.path,
      "echo 'Error loading shared library libstdc++.so.6: No such file' >&2; exit 127",
    );

    expect(await verifyRun(path, "1.2.3")).toBe(false);
  });

  test.each([
    [
      "the version and an empty list pass",
      `[ "$1" = list ] && echo '[]' || echo tug 1.2.3`,
      "true",
    ],
    ["another version does not", "echo tug 9.9.9", "`tug --version` left with 0"],
    ["a crash does not", "echo boom >&2; exit 1", "stderr: boom"],
    ["a list that is none does not", "echo tug 1.2.3", "`tug list --json` left with 0"],
  ])("%s", async (_, body, message) => {
    await using directory = await tempDir();
    const path = await script(directory.path, body);

    const outcome = await verifyRun(path, "1.2.3").catch(String);

    expect(String(outcome)).toContain(message);
  });
});

async function script(directory: string, body: string): Promise<string> {
  const path = join(directory, "tug");
  await writeFile(path, `#!/bin/sh\n${body}\n`);
  await chmod(path, 0o755);
  return path;
}

function target(name: string): NonNullable<ReturnType<typeof findTarget>> {
  const found = findTarget(name);
  if (found === undefined) throw new Error(`no target ${name}`);
  return found;
}

/** An ELF64 header, one program header of type PT_INTERP, and the path it names as the last bytes. */
function elf({ machine, interpreter }: { machine: number; interpreter: string }): Uint8Array {
  const path = new TextEncoder().encode(`${interpreter}\0`);
  const bytes = new Uint8Array(64 + 56 + path.byteLength);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x7f454c46);
  bytes[4] = 2;
  bytes[5] = 1;
  view.setUint16(18, machine, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 3, true);
  view.setBigUint64(72, 120n, true);
  view.setBigUint64(96, BigInt(path.byteLength), true);
  bytes.set(path, 120);
  return bytes;
}

function machO(cpu: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(64));
  view.setUint32(0, 0xfeedfacf, true);
  view.setUint32(4, cpu, true);
  return new Uint8Array(view.buffer);
}

function pe(machine: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(256));
  view.setUint16(0, 0x4d5a);
  view.setUint32(0x3c, 0x80, true);
  view.setUint32(0x80, 0x50450000);
  view.setUint16(0x84, machine, true);
  return new Uint8Array(view.buffer);
}
