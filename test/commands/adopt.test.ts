import { describe, expect, test } from "bun:test";
import type { AdoptResult } from "../../src/api/models.ts";
import { summarize, toRows } from "../../src/commands/adopt.ts";

type File = AdoptResult["files"][number];

function file(program: File["program"], size: number, digest: string | null = "sha256:x"): File {
  return { path: `/${program}`, digest, size, program };
}

describe("toRows", () => {
  test("counts what each program has, in a fixed order", () => {
    const files = [file("llamacpp", 1000), file("ollama", 2000), file("llamacpp", 500)];

    expect(toRows(files)).toEqual([
      ["Ollama", "1", "2.00kB"],
      ["llama.cpp", "2", "1.50kB"],
    ]);
  });

  test("has no rows for nothing", () => {
    expect(toRows([])).toEqual([]);
  });
});

describe("summarize", () => {
  test.each([
    [[], 0, false, "Found no models of other programs.\n"],
    [[], 0, true, "Found no models of other programs.\n"],
    [[file("ollama", 1000)], 1000, false, "Pulls can use 1 file, 1.00kB.\n"],
    [
      [file("ollama", 1000), file("huggingface", 1000)],
      1000,
      false,
      "Pulls can use 2 files, 1.00kB.\n",
    ],
    [[file("ollama", 1000)], 1000, true, "Pulls could use 1 file, 1.00kB.\n"],
    [
      [file("ollama", 1000), file("lmstudio", 500, null)],
      1500,
      true,
      "Pulls could use 2 files, 1.50kB, after reading 1 of them once (500B).\n",
    ],
  ])("%j", (files, ...[bytes, isDry, text]) => {
    expect(summarize({ files, bytes }, isDry)).toBe(text);
  });
});
