import { describe, expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArguments } from "../../src/commands/arguments.ts";
import { command, parseAnnotations, toRequest } from "../../src/commands/package.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const request = (...words: string[]) => toRequest(parseArguments(command.args, words) as never);

describe("tug package", () => {
  test("package command: paths become absolute, flags members", () => {
    const words =
      "--gguf m.gguf -l LICENSE --license NOTICE --mmproj p.gguf --chat-template t.jinja --context-size 4096 --format cncf --created 2026-01-02T03:04:05Z --link me/m";

    expect(request(...words.split(" "))).toEqual({
      model: "me/m",
      gguf: resolve("m.gguf"),
      licenses: [resolve("LICENSE"), resolve("NOTICE")],
      mmproj: resolve("p.gguf"),
      chat_template: resolve("t.jinja"),
      context_size: 4096,
      format: "cncf",
      created: "2026-01-02T03:04:05Z",
      link: true,
    });
  });

  test("package command: each source", () => {
    expect(request("--safetensors-dir", "d", "me/m")).toEqual({
      model: "me/m",
      safetensors_dir: resolve("d"),
    });
    expect(request("--dduf", "d.dduf", "me/m")).toEqual({
      model: "me/m",
      dduf: resolve("d.dduf"),
    });
    expect(request("--file", "a.bin", "--file", "b.bin", "--format-name", "echo", "me/m")).toEqual({
      model: "me/m",
      files: [resolve("a.bin"), resolve("b.bin")],
      format_name: "echo",
    });
    expect(request("a.gguf", "me/m", "--format-name", "echo")).toEqual({
      model: "me/m",
      files: [resolve("a.gguf")],
      format_name: "echo",
    });
    // A name, no path.
    expect(request("--from", "./x", "me/m")).toEqual({ model: "me/m", from: "./x" });
  });

  test("package command: a path before the name is what it is", async () => {
    await using directory = await tempDir();
    const inner = join(directory.path, "d.gguf");
    await mkdir(inner);

    expect(request(inner, "me/m")).toEqual({ model: "me/m", safetensors_dir: inner });
    expect(request("a.gguf", "me/m")).toEqual({ model: "me/m", gguf: resolve("a.gguf") });
    expect(request("a.DDUF", "me/m")).toEqual({ model: "me/m", dduf: resolve("a.DDUF") });
  });

  test("package command: pushing", () => {
    expect(request("--gguf", "m", "--push", "--keep", "--insecure", "h/m")).toMatchObject({
      push: true,
      keep: true,
      insecure: true,
    });
  });

  test.each([
    [["me/m"], /say what to package/],
    [["--gguf", "a", "--from", "b", "me/m"], /`--gguf` and `--from` exclude each other/],
    [["--gguf", "a", "path", "me/m"], /`--gguf` and the path `path` exclude/],
    [["--gguf", "a", "--keep", "me/m"], /`--keep` is for `--push`/],
    [["--gguf", "a", "--context-size", "0", "me/m"], /not a context size/],
    [["--gguf", "a", "--annotation", "key", "me/m"], /not an annotation/],
    [["--gguf", "a"], /MODEL is missing/],
  ])("package command: %j is refused", (words, message) => {
    expect(() => request(...words)).toThrow(message);
  });

  test("package command: annotations and labels are one thing", () => {
    const words = [
      "--gguf",
      "a",
      "--annotation",
      "a=1=2",
      "--label",
      "b=",
      "--label",
      "a=1=2",
      "m",
    ];
    expect(request(...words)).toMatchObject({ annotations: { a: "1=2", b: "" } });
    expect(() => parseAnnotations(["a=1", "a=2"])).toThrow(/given twice/);
    expect(() => parseAnnotations(["=1"])).toThrow(/not an annotation/);
  });
});
