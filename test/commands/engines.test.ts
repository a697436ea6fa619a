import { describe, expect, test } from "bun:test";
import { homedir } from "node:os";
import { join } from "node:path";
import type { AvailableEngine } from "../../src/api/engines.ts";
import { toNotes, toRows } from "../../src/commands/engines.ts";
import { toAbsolute } from "../../src/commands/install-runner.ts";

const VERSION = {
  version: "0.7.0",
  variant: "cpu",
  source: "apt",
  directory: "/e",
  active: true,
  pinned: false,
  size_bytes: 46_000_000,
  installed_at: "2026-01-01T00:00:00Z",
};

const ENGINE: AvailableEngine = {
  name: "llama.cpp",
  formats: ["gguf"],
  modes: ["completion", "embedding"],
  state: "installed",
  problem: null,
  hint: null,
  variants: ["cpu"],
  sources: [],
  pinned_version: null,
  previous: null,
  installed: [VERSION],
};

describe("tug engines", () => {
  test("one row a version, the engine's own facts once", () => {
    const older = { ...VERSION, version: "0.6.0", active: false, pinned: true, size_bytes: 0 };
    const rows = toRows({
      ...ENGINE,
      pinned_version: "0.6.0",
      previous: "0.6.0-cpu",
      installed: [older, VERSION],
    });

    expect(rows).toEqual([
      [
        "llama.cpp",
        "gguf",
        "completion,embedding",
        "  0.6.0",
        "cpu",
        "apt",
        "-",
        "installed, pinned, previous",
      ],
      ["", "", "", "* 0.7.0", "cpu", "apt", "46.00MB", "in use"],
    ]);
  });

  test.each([
    ["installable", "not installed"],
    ["unavailable", "not available"],
    ["unsupported", "does not run here"],
  ] as const)("one that is %s has a row that says so", (state, said) => {
    expect(toRows({ ...ENGINE, state, installed: [] })).toEqual([
      ["llama.cpp", "gguf", "completion,embedding", "-", "-", "-", "-", said],
    ]);
  });

  test("what is missing is said with what to do, and nothing where nothing is", () => {
    const missing = { state: "unavailable", problem: "offline mode is on", hint: "Turn it off." };

    expect(toNotes({ ...ENGINE, ...missing } as AvailableEngine)).toEqual([
      "note: llama.cpp: not available: offline mode is on",
      "hint: Turn it off.",
    ]);
    expect(toNotes({ ...ENGINE, problem: "another is in use" })).toEqual([
      "note: llama.cpp: another is in use",
    ]);
    expect(toNotes({ ...ENGINE, state: "installable", hint: "Install it." })).toEqual([]);
  });
});

describe("--python", () => {
  test.each([
    ["/opt/venv/bin/python", "/opt/venv/bin/python"],
    ["venv/bin/python", join(process.cwd(), "venv/bin/python")],
    ["~/venv/bin/python", join(homedir(), "venv/bin/python")],
    ["./~/python", join(process.cwd(), "~/python")],
  ])("%s is %s", (typed, expected) => {
    expect(toAbsolute(typed)).toBe(expected);
  });

  test.each(["", "  "])("%j is a usage error", (typed) => {
    expect(() => toAbsolute(typed)).toThrow("`--python` names no file");
  });
});
