import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type PlaceOptions, cachePlaces } from "../../src/models/adopt-places.ts";
import { digestOfName } from "../../src/models/adopt-scan.ts";

const HOME = join("/", "home", "me");

/** The places of one program, relative to nothing. */
function places(program: string, options: Partial<PlaceOptions> = {}): string[] {
  return cachePlaces({ env: {}, home: HOME, platform: "linux", ...options })
    .filter((place) => place.program === program)
    .map(({ path }) => path);
}

describe("cachePlaces", () => {
  test.each([
    ["linux", [join(HOME, ".ollama/models"), "/usr/share/ollama/.ollama/models"]],
    ["darwin", [join(HOME, ".ollama/models")]],
    ["win32", [join(HOME, ".ollama/models")]],
  ] as const)("Ollama on %s", (platform, expected) => {
    expect(places("ollama", { platform })).toEqual([...expected]);
  });

  test("OLLAMA_MODELS replaces Ollama's places", () => {
    expect(places("ollama", { env: { OLLAMA_MODELS: "/big/ollama" } })).toEqual(["/big/ollama"]);
  });

  test.each([
    [{ HF_HUB_CACHE: "/a", HUGGINGFACE_HUB_CACHE: "/b", HF_HOME: "/c" }, "/a"],
    [{ HUGGINGFACE_HUB_CACHE: "/b", HF_HOME: "/c" }, "/b"],
    [{ HF_HOME: "/c", XDG_CACHE_HOME: "/d" }, join("/c", "hub")],
    [{ HF_HOME: "~/hf" }, join(HOME, "hf", "hub")],
    [{ XDG_CACHE_HOME: "/d" }, join("/d", "huggingface", "hub")],
    [{ HF_HUB_CACHE: " " }, join(HOME, ".cache", "huggingface", "hub")],
    [{}, join(HOME, ".cache", "huggingface", "hub")],
  ])("Hugging Face with %j", (env, expected) => {
    expect(places("huggingface", { env })).toEqual([expected]);
  });

  test("LM Studio, where it is and where it was", () => {
    expect(places("lmstudio")).toEqual([
      join(HOME, ".lmstudio", "models"),
      join(HOME, ".cache", "lm-studio", "models"),
    ]);
  });

  test.each([
    ["linux", {}, join(HOME, ".cache", "llama.cpp")],
    ["linux", { XDG_CACHE_HOME: "/x" }, join("/x", "llama.cpp")],
    ["darwin", { XDG_CACHE_HOME: "/x" }, join(HOME, "Library", "Caches", "llama.cpp")],
    ["win32", { LOCALAPPDATA: "C:\\Local" }, join("C:\\Local", "llama.cpp")],
    ["win32", {}, join(HOME, "AppData", "Local", "llama.cpp")],
    ["linux", { LLAMA_CACHE: "/y", XDG_CACHE_HOME: "/x" }, "/y"],
    ["win32", { LLAMA_CACHE: "D:\\llama" }, "D:\\llama"],
  ] as const)("llama.cpp on %s with %j", (platform, env, expected) => {
    expect(places("llamacpp", { platform, env })).toEqual([expected]);
  });

  test.each([["models"], ["./models"], ["~other/models"]])(
    "a relative path %j names no place",
    (path) => {
      expect(places("ollama", { env: { OLLAMA_MODELS: path } })).toEqual([]);
    },
  );

  test("a directory that two programs share is looked at once", () => {
    const env = { OLLAMA_MODELS: "/shared", LLAMA_CACHE: "/shared" };

    const shared = cachePlaces({ env, home: HOME, platform: "linux" }).filter(
      ({ path }) => path === "/shared",
    );

    expect(shared).toHaveLength(1);
  });
});

describe("digestOfName", () => {
  const hex = "ab".repeat(32);

  test.each([
    [`sha256-${hex}`, "ollama"],
    [`sha256:${hex}`, "ollama"],
    [hex, "huggingface"],
  ] as const)("%s of %s is a digest", (name, layout) => {
    expect(String(digestOfName(name, layout))).toBe(`sha256:${hex}`);
  });

  test.each([
    [`sha256-${hex}-partial`, "ollama"],
    [`sha256-${hex}`, "huggingface"],
    [hex, "ollama"],
    [`${hex}.incomplete`, "huggingface"],
    [`${hex}0`, "huggingface"],
    ["c".repeat(40), "huggingface"],
  ] as const)("%s of %s is none", (name, layout) => {
    expect(digestOfName(name, layout)).toBeUndefined();
  });
});
