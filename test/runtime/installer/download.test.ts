import { describe, expect, test } from "bun:test";
import { join } from "node:path";

import { download } from "../../../src/runtime/installer/download.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";

describe("download", () => {
  test("download: what the disk has no room for is not begun", async () => {
    await using directory = await tempDir();
    let asked = 0;
    const source = {
      host: "engines.example.com",
      open: () => {
        asked += 1;
        return Promise.reject(new Error("nobody was to be asked"));
      },
    };

    const attempt = download({
      name: "layer",
      sources: [source],
      path: join(directory.path, "layer"),
      bytes: 2 ** 52,
      sha256: "0".repeat(64),
      signal: new AbortController().signal,
      onBytes: () => undefined,
    });

    expect(await failureOf(attempt)).toMatchObject({ code: "insufficient_storage" });
    expect(asked).toBe(0);
  });
});
