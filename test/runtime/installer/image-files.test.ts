import { describe, expect, test } from "bun:test";
import fc from "fast-check";

import { findEngine } from "../../../src/runtime/installer/engine-tree.ts";
import { ImageFiles, linkTarget, pathInImage } from "../../../src/runtime/installer/image-files.ts";
import type { LayerEntry } from "../../../src/runtime/installer/image-files.ts";
import { failureOf } from "./failure-of.ts";

const file = (name: string, size = 1): LayerEntry => ({
  name,
  kind: "file",
  size,
  target: "",
  isHardLink: false,
});
const directory = (name: string): LayerEntry => ({ ...file(name, 0), kind: "directory" });
const link = (name: string, target: string): LayerEntry => ({
  ...file(name, 0),
  kind: "link",
  target,
});
const hardLink = (name: string, target: string): LayerEntry => ({
  ...link(name, target),
  isHardLink: true,
});

async function imageOf(...layers: readonly (readonly LayerEntry[])[]): Promise<ImageFiles> {
  const image = new ImageFiles();
  for (const layer of layers) await image.addLayer(chunks(layer));
  return image;
}

async function* chunks(layer: readonly LayerEntry[]): AsyncGenerator<LayerEntry> {
  yield* layer;
}

async function* endless(): AsyncGenerator<LayerEntry> {
  for (let number = 0; ; number += 1) yield file(`f${number}`);
}

const namesOf = ({ files }: ImageFiles): string[] => [...files.keys()].toSorted();

describe("ImageFiles", () => {
  test("image files: a path longer than a system allows is refused", async () => {
    expect(await failureOf(imageOf([file("a/".repeat(2049))]))).toHaveProperty(
      "message",
      expect.stringContaining("too long"),
    );
  });

  test("image files: later layers add, replace and take away", async () => {
    const image = await imageOf(
      [directory("a/"), file("./a/one"), file("a/two"), file("/b"), file("c/d/e"), file("ab")],
      [file("a/two", 2), file("a/.wh.one"), file(".wh.c"), file("a/three")],
    );

    expect(namesOf(image)).toEqual(["a/three", "a/two", "ab", "b"]);
    expect(image.files.get("a/two")).toMatchObject({ layer: 1, size: 2 });
    expect(image.files.get("b")).toMatchObject({ layer: 0 });
  });

  test("image files: an opaque directory hides what is below it in other layers, not in its own", async () => {
    const image = await imageOf(
      [file("a/one"), file("a/b/two"), file("c")],
      [file("a/three"), file("a/.wh..wh..opq"), file("a/.wh..wh.plnk")],
    );

    expect(namesOf(image)).toEqual(["a/three", "c"]);
    expect(namesOf(await imageOf([file("a"), file("b/c")], [file(".wh..wh..opq")]))).toEqual([]);
  });

  test("image files: a file in the place of a directory, and the other way round", async () => {
    expect(namesOf(await imageOf([file("a/b/c")], [file("a")]))).toEqual(["a"]);
    expect(namesOf(await imageOf([file("a")], [directory("a"), file("a/b")]))).toEqual(["a/b"]);
    expect(namesOf(await imageOf([file("a"), directory("a"), file("a/b")]))).toEqual(["a/b"]);
  });

  test("image files: a hard link has the bytes of its target, whatever becomes of that", async () => {
    const image = await imageOf(
      [file("a", 5), hardLink("b", "./a")],
      [file("a", 6), hardLink("c", "b"), hardLink("d", "nothing")],
    );

    expect(image.files.get("b")).toMatchObject({ layer: 0, source: "a", size: 5 });
    expect(image.files.get("c")).toMatchObject({ layer: 0, source: "a", size: 5 });
    expect(image.files.has("d")).toBe(false);
  });

  test.each(["../a", "a/../../b", "a\0b"])("image files: %p is refused", async (name) => {
    expect(await failureOf(imageOf([file(name)]))).toHaveProperty("code", "install_failed");
    expect(await failureOf(imageOf([hardLink("x", name)]))).toHaveProperty(
      "code",
      "install_failed",
    );
  });

  test("image files: a layer without an end is refused", async () => {
    const image = new ImageFiles();

    expect(await failureOf(image.addLayer(endless()))).toHaveProperty(
      "message",
      expect.stringContaining("too many files"),
    );
  });

  test("image files: devices are left out", async () => {
    expect(namesOf(await imageOf([{ ...file("dev/tty"), kind: "other" }]))).toEqual([]);
  });

  test("image files: no name and no link leads out, whatever it is", () => {
    const part = fc.constantFrom("a", "..", ".", "", "b c", "\0");
    const path = fc.array(part).map((parts) => parts.join("/"));
    fc.assert(
      fc.property(path, path, (name, target) => {
        const end = linkTarget("a/b", target);
        expect(end?.split("/").includes("..") ?? false).toBe(false);
        try {
          const inside = pathInImage(name);
          return !inside.startsWith("/") && !inside.split("/").includes("..");
        } catch {
          return true;
        }
      }),
    );
  });
});

describe("findEngine", () => {
  const TREE = "com.docker.llama-server.native.linux.cpu.amd64";
  const request = { tree: TREE, executables: ["com.docker.llama-server", "llama-server"] };

  test("engine tree: Docker's directory, wherever it is, with `bin` and `lib` alone", async () => {
    const { files } = await imageOf([
      file(`deep/${TREE}/bin/com.docker.llama-server`),
      file(`deep/${TREE}/bin/tool`),
      file(`deep/${TREE}/lib/libllama.so.0`),
      link(`deep/${TREE}/lib/libllama.so`, "libllama.so.0"),
      link(`deep/${TREE}/lib/absolute.so`, `/deep/${TREE}/lib/libllama.so.0`),
      link(`deep/${TREE}/lib/passwd`, "/etc/passwd"),
      link(`deep/${TREE}/lib/up`, "../../../etc/passwd"),
      file(`deep/${TREE}/README.md`),
      file("deep/com.docker.llama-server.native.linux.cuda.amd64/bin/com.docker.llama-server"),
      file("usr/bin/llama-server"),
    ]);

    const engine = findEngine(files, { ...request, isAnyImage: false });

    expect(engine?.executable).toBe("bin/com.docker.llama-server");
    expect([...(engine?.files.keys() ?? [])]).toEqual([
      "bin/com.docker.llama-server",
      "bin/tool",
      "lib/libllama.so.0",
    ]);
    expect(engine?.links).toEqual(
      new Map([
        ["lib/libllama.so", "libllama.so.0"],
        ["lib/absolute.so", "libllama.so.0"],
      ]),
    );
    expect(engine?.isNamed).toBe(true);
  });

  test("engine tree: another variant is not taken for the one that was asked for", async () => {
    const { files } = await imageOf([
      file("com.docker.llama-server.native.linux.cuda.amd64/bin/com.docker.llama-server"),
    ]);

    expect(findEngine(files, { ...request, isAnyImage: false })).toBeUndefined();
  });

  test.each([
    ["its own directory", ["app/llama-server", "app/libllama.so", "etc/x"], "llama-server", 2],
    ["bin and lib", ["e/bin/llama-server", "e/lib/l.so", "e/share/x"], "bin/llama-server", 2],
    ["a system's bin", ["usr/bin/llama-server", "usr/lib/libc.so"], "bin/llama-server", 1],
    ["the root", ["llama-server", "libllama.so", "etc/x"], "llama-server", 2],
    ["Windows", ["app/llama-server.exe", "app/llama.dll"], "llama-server.exe", 2],
  ])("engine tree: in any image, a program in %s", async (...args) => {
    const [_name, names, executable, count] = args;
    const { files } = await imageOf(names.map((name) => file(name)));

    const engine = findEngine(files, { ...request, isAnyImage: true });

    expect(engine?.executable).toBe(executable);
    expect(engine?.files.size).toBe(count);
  });
});
