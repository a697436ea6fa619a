import { describe, expect, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findShortfalls, gatedFiles, parseLcov } from "../../../scripts/verify/coverage.ts";
import { tempDir } from "../../helpers/temp-dir.ts";

const LCOV = `TN:
SF:src/store/full.ts
DA:1,1
LF:10
LH:10
end_of_record
TN:
SF:src/store/edge.ts
LF:10
LH:9
end_of_record
TN:
SF:src/store/short.ts
LF:1000
LH:899
end_of_record
`;

describe("findShortfalls", () => {
  test("90 % is enough, less is not, and a file that no test loads is named", () => {
    const files = ["full", "edge", "short", "absent"].map((name) => `src/store/${name}.ts`);

    const shortfalls = findShortfalls(files, parseLcov(LCOV));

    expect(shortfalls).toEqual([
      { file: "src/store/short.ts", percent: expect.closeTo(89.9) },
      { file: "src/store/absent.ts", percent: null },
    ]);
  });
});

describe("gatedFiles", () => {
  test("holds each module of the store with code, and the pure ones of the runtime even if they are gone", async () => {
    await using directory = await tempDir();
    await mkdir(join(directory.path, "src", "store"), { recursive: true });
    await mkdir(join(directory.path, "src", "runtime"), { recursive: true });
    await writeFile(join(directory.path, "src/store/code.ts"), "export const one: number = 1;\n");
    await writeFile(join(directory.path, "src/store/types.ts"), "export interface X { a: 1 }\n");
    await writeFile(join(directory.path, "src/store/notes.md"), "text\n");
    await writeFile(join(directory.path, "src/runtime/process.ts"), "export const two = 2;\n");

    const files = await gatedFiles(directory.path);

    expect(files).toEqual([
      "src/store/code.ts",
      "src/runtime/scheduler.ts",
      "src/runtime/eviction.ts",
      "src/runtime/lease.ts",
      "src/runtime/memory.ts",
    ]);
  });
});
