import { describe, expect, test } from "bun:test";

import { holds } from "../../../scripts/lock/markers.ts";
import { trim } from "../../../scripts/lock/trim.ts";

const LINUX = {
  sys_platform: "linux",
  platform_machine: "x86_64",
  python_full_version: "3.12.5",
  python_version: "3.12",
};

describe("holds", () => {
  test.each([
    ["sys_platform == 'linux'", true],
    ['sys_platform != "linux"', false],
    ["python_full_version >= '3.11' and python_full_version < '3.13'", true],
    ["python_version < '3.9'", false],
    ["python_full_version == '3.12.*'", true],
    ["python_full_version != '3.1.*'", true],
    ["sys_platform == 'win32' or (platform_machine == 'x86_64' and python_version > '3.2')", true],
    ["sys_platform == 'linux' or sys_platform == 'x' and sys_platform == 'y'", true],
    ["platform_machine in 'x86_64 AMD64'", true],
    ["platform_machine not in 'x86_64'", false],
  ])("markers: %s is %p", (marker, expected) => {
    expect(holds(marker, LINUX)).toBe(expected);
  });

  test.each([
    "sys_platform",
    "nobody == 'x'",
    "(sys_platform == 'x'",
    "a ? b",
    "'a' ~= 'b'",
    "' '>",
  ])("markers: %p is refused", (marker) => {
    expect(() => holds(marker, LINUX)).toThrow();
  });
});

function wheel(file: string, sha256: string): string {
  const url = `https://files.example/${encodeURIComponent(file)}`;
  return `{ url = "${url}", upload-time = 2026-09-02T14:19:50Z, hashes = { sha256 = "${sha256}" } }`;
}

function lock(name: string, wheels: readonly string[], marker?: string): string {
  const said = marker === undefined ? "" : `marker = "${marker}"\n`;
  return `[[packages]]\nname = "${name}"\nversion = "1.2"\n${said}wheels = [${wheels.join(", ")}]\n`;
}

const TARGETS = { pythons: [11, 12], glibc: 35 };

describe("trim", () => {
  test("trim: only wheels for Linux and the Pythons asked for are kept, by their hashes", () => {
    const wheels = [
      wheel("a-1.2-cp311-cp311-manylinux_2_28_x86_64.whl", "d1"),
      wheel("a-1.2-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", "c2"),
      wheel("a-1.2-cp310-abi3-manylinux_2_28_x86_64.manylinux1_x86_64.whl", "b3"),
      wheel("a-1.2-cp312-cp312-manylinux_2_28_aarch64.whl", "a4"),
      wheel("a-1.2-cp312-cp312-manylinux_2_39_x86_64.whl", "too-new"),
      wheel("a-1.2-cp313-cp313-manylinux_2_28_x86_64.whl", "other-python"),
      wheel("a-1.2-cp312-cp312t-manylinux_2_28_x86_64.whl", "without-gil"),
      wheel("a-1.2-cp312-cp312-win_amd64.whl", "windows"),
      wheel("a-1.2-cp312-cp312-musllinux_1_2_x86_64.whl", "musl"),
      wheel("a-1.2-cp312-cp312-macosx_11_0_arm64.whl", "mac"),
      wheel("a-1.2-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", "pypy"),
    ];

    const { requirements, missing } = trim(lock("a", wheels), TARGETS);

    const hashes = ["a4", "b3", "c2", "d1"].map((hash) => ` \\\n    --hash=sha256:${hash}`);
    expect(requirements).toBe(`a==1.2${hashes.join("")}\n`);
    expect(missing).toEqual([]);
  });

  test("trim: a marker stays where it says anything here, and what is for others only goes", () => {
    const any = [wheel("a-1.2-py3-none-any.whl", "aa")];
    const text = [
      lock("here", any, "sys_platform == 'linux'"),
      lock("newer", any, "python_full_version >= '3.12'"),
      lock("elsewhere", any, "sys_platform == 'win32'"),
    ].join("\n");

    const { requirements } = trim(text, TARGETS);

    expect(requirements.match(/^\S.*$/gm)).toEqual([
      "here==1.2 \\",
      "newer==1.2 ; python_full_version >= '3.12' \\",
    ]);
  });

  test("trim: what has no wheel for a target is named", () => {
    const wheels = [wheel("a-1.2-cp311-abi3-manylinux_2_28_x86_64.whl", "aa")];

    expect(trim(lock("a", wheels), TARGETS).missing).toEqual(["a 1.2: aarch64 3.11, aarch64 3.12"]);
  });
});
