import { describe, expect, test } from "bun:test";
import { appendFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { followFile } from "../../src/server/follow-file.ts";
import { tempDir } from "../helpers/temp-dir.ts";

describe("followFile", () => {
  test("gives the whole file and ends", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "a.log");
    const text = "line\n".repeat(50_000);
    await writeFile(file, text);

    const stream = followFile(file, { follow: false, signal: new AbortController().signal });

    expect(await new Response(stream).text()).toBe(text);
  });

  test("takes a missing file for an empty one", async () => {
    const stream = followFile("/nonexistent/log", {
      follow: false,
      signal: new AbortController().signal,
    });

    expect(await new Response(stream).text()).toBe("");
  });

  test("goes on with what is added, and ends with its signal", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "a.log");
    await writeFile(file, "one\n");
    const stop = new AbortController();
    const reader = followFile(file, { follow: true, signal: stop.signal }).getReader();
    const next = async (): Promise<string> => new TextDecoder().decode((await reader.read()).value);

    const first = await next();
    await appendFile(file, "two\n");
    const second = await next();
    const end = reader.read();
    stop.abort();

    expect([first, second, (await end).done]).toEqual(["one\n", "two\n", true]);
  });
});
