import { describe, expect, test } from "bun:test";

import { llamacpp } from "../../../backends/llamacpp/index.ts";
import type { ArgsInput } from "../../../src/runtime/backend.ts";

function input(overrides: Partial<ArgsInput> = {}): ArgsInput {
  return {
    bundle: { directory: "/b", format: "gguf", model: "/b/model.gguf", weightBytes: 1 },
    mode: "completion",
    alias: "me/model",
    settings: { runtimeFlags: [] },
    socket: "/run/tug/worker-1.sock",
    cores: 8,
    platform: "linux",
    ...overrides,
  };
}

function flagsOf(runtimeFlags: readonly string[]): readonly string[] {
  return llamacpp.args(input({ settings: { runtimeFlags } })).args.slice(10);
}

describe("llamacpp.args", () => {
  test.each([
    [["/b/one.gguf"], "/b/one.gguf"],
    [["/b/one.gguf", "/b/two.gguf"], "/b/one.gguf,/b/two.gguf"],
    [["/b,c/one.gguf", "/b/two.gguf"], '"/b,c/one.gguf",/b/two.gguf'],
  ])("args: adapters %p are one list", (adapters, expected) => {
    const { args } = llamacpp.args(input({ bundle: { ...input().bundle, adapters } }));

    expect(args.slice(10)).toEqual(["--lora", expected]);
    expect(llamacpp.args(input({ bundle: { ...input().bundle, adapters: [] } })).args).toHaveLength(
      10,
    );
  });

  test("args: a plain model is served on its socket with one processor left free", () => {
    const { args, env } = llamacpp.args(input());

    expect(args).toEqual([
      "--metrics",
      "--threads",
      "7",
      "--model",
      "/b/model.gguf",
      "--host",
      "/run/tug/worker-1.sock",
      "--alias",
      "me/model",
      "--jinja",
    ]);
    expect(env).toEqual({ LLAMA_ARG_OFFLINE: "1" });
  });

  test.each([
    [1, "1"],
    [2, "1"],
    [16, "15"],
  ])("args: of %d processors it uses %s", (cores, threads) => {
    const { args } = llamacpp.args(input({ cores }));

    expect(args.slice(1, 3)).toEqual(["--threads", threads]);
  });

  test("args: everything a bundle and the settings carry is passed on in order", () => {
    const bundle = { ...input().bundle, mmproj: "/b/mm.gguf", chatTemplate: "/b/t.jinja" };
    const draft = { model: "/d/draft.gguf", maxTokens: 8, minProbability: 0.5 };
    const settings = {
      contextTokens: 8192,
      reasoningBudget: 0,
      runtimeFlags: ["--top-k", "40"],
      draft,
    };

    const { args } = llamacpp.args(input({ bundle, settings }));

    expect(args.slice(9)).toEqual([
      "--jinja",
      "--chat-template-file",
      "/b/t.jinja",
      "--reasoning-budget",
      "0",
      "--ctx-size",
      "8192",
      "--top-k",
      "40",
      "--mmproj",
      "/b/mm.gguf",
      "--model-draft",
      "/d/draft.gguf",
      "--spec-draft-n-max",
      "8",
      "--spec-draft-p-min",
      "0.50",
    ]);
  });

  test.each([
    ["embedding" as const, ["--embeddings"]],
    ["reranking" as const, ["--embeddings", "--reranking"]],
  ])("args: %s mode takes whole inputs in one batch and no chat parts", (mode, expected) => {
    const bundle = { ...input().bundle, mmproj: "/b/mm.gguf", chatTemplate: "/b/t.jinja" };

    const { args } = llamacpp.args(input({ mode, bundle }));

    expect(args.slice(9)).toEqual([...expected, "--batch-size", "2048", "--ubatch-size", "2048"]);
  });

  test.each([
    ["settings win over the bundle", 4096, 2048, "4096"],
    ["the bundle's own size is used", undefined, 2048, "2048"],
    ["the model's maximum is zero to the engine", -1, 2048, "0"],
  ])("args: context size: %s", (_name, ...[setting, packaged, expected]) => {
    const bundle = { ...input().bundle, contextTokens: packaged };
    const settings = { contextTokens: setting, runtimeFlags: [] };

    const { args } = llamacpp.args(input({ bundle, settings }));

    expect(args.slice(-2)).toEqual(["--ctx-size", expected]);
  });

  test("args: everything that decides how much memory it takes is said, and slots share one cache", () => {
    const settings = {
      contextTokens: 8192,
      parallel: 4,
      gpuLayers: -1,
      cacheTypeK: "q8_0",
      cacheTypeV: "f16",
      promptCacheMiB: 0,
      contextCheckpoints: 2,
      adapters: ["/a/lora.gguf"],
      runtimeFlags: ["--no-warmup"],
    };

    expect(llamacpp.args(input({ settings })).args.slice(10)).toEqual(
      `--ctx-size 8192 --parallel 4 --kv-unified --threads-http 12 --n-gpu-layers 999 --cache-type-k q8_0 --cache-type-v f16
       --cache-ram 0 --ctx-checkpoints 2 --no-warmup --lora /a/lora.gguf`.split(/\s+/),
    );
  });

  test("args: a template and a projector that the flags name stand instead of the packaged ones", () => {
    const bundle = { ...input().bundle, mmproj: "/b/mm.gguf", chatTemplate: "/b/t.jinja" };
    const runtimeFlags = ["--chat-template-file", "/mine.jinja", "--mmproj", "/mine.gguf"];

    const { args } = llamacpp.args(input({ bundle, settings: { runtimeFlags } }));

    expect(args.slice(10)).toEqual(runtimeFlags);
  });

  test.each([
    ["slots", { parallel: 0 }, /^cannot use slots 0/],
    ["slots", { parallel: 257 }, /^cannot use slots 257/],
    ["layers", { gpuLayers: -2 }, /^cannot use GPU layers -2/],
    ["cache types", { cacheTypeK: "q9" }, /^cannot use the cache type `q9`/],
    ["cache types", { cacheTypeV: "--host" }, /^cannot use the cache type `--host`/],
    ["prompt caches", { promptCacheMiB: -1 }, /^cannot use prompt cache -1/],
  ])("args: impossible %s are refused (%o)", (_name, ...[wrong, message]) => {
    const settings = { runtimeFlags: [], ...wrong };

    expect(() => llamacpp.args(input({ settings }))).toThrow(message);
  });

  test.each([0, -2, 1.5, Number.NaN])("args: a context of %d tokens is refused", (tokens) => {
    const settings = { contextTokens: tokens, runtimeFlags: [] };

    expect(() => llamacpp.args(input({ settings }))).toThrow(/^cannot use context size/);
  });

  test("args: on macOS the weights are not mapped, by variables that older builds ignore", () => {
    const { args, env } = llamacpp.args(input({ platform: "darwin" }));

    expect(env).toMatchObject({ LLAMA_ARG_LOAD_MODE: "none", LLAMA_ARG_MMAP: "0" });
    expect(args).not.toContain("--no-mmap");
  });

  test.each(["/run/a,b/worker.sock", "/run/worker"])("args: the socket %s is refused", (socket) => {
    expect(() => llamacpp.args(input({ socket }))).toThrow(/llama-server needs a name in \.sock/);
  });

  test("args: a draft probability outside 0 to 1 is refused", () => {
    const settings = { runtimeFlags: [], draft: { model: "/d.gguf", minProbability: 1.2 } };

    expect(() => llamacpp.args(input({ settings }))).toThrow(/^cannot use draft probability 1.2/);
  });
});

describe("runtime flags", () => {
  test.each([
    ["a switch", ["--no-warmup"], ["--no-warmup"]],
    ["a negative value of its own word", ["--seed", "-1"], ["--seed", "-1"]],
    ["a value after an equals sign", ["--seed=-1"], ["--seed", "-1"]],
    ["an empty value", ["--reasoning-budget-message="], ["--reasoning-budget-message", ""]],
    ["text with slashes", ["--grammar", 'root ::= "/"'], ["--grammar", 'root ::= "/"']],
    ["a value with an equals sign", ["-ot", "exps=CPU"], ["-ot", "exps=CPU"]],
  ])("flags: %s is accepted", (_name, flags, expected) => {
    expect(flagsOf(flags)).toEqual(expected);
  });

  test.each([
    ["the socket", ["--host", "0.0.0.0"], /`--host`: Tug sets it itself/],
    ["another name", ["--alias", "x"], /`--alias`: Tug sets it itself/],
    ["a file to write", ["--log-file=/tmp/x"], /`--log-file`: it is not among those/],
    ["tools", ["--tools", "all"], /`--tools`: it is not among those/],
    ["a prototype name", ["--constructor"], /`--constructor`: it is not among those/],
    ["a stray word", ["40"], /`40` as a runtime flag: no flag precedes it/],
    ["a missing value", ["--top-k"], /`--top-k`: it needs a value/],
    ["a flag for a value", ["--top-k", "--seed"], /`--top-k`: it needs a value/],
    ["a value for a switch", ["--no-warmup=1"], /`--no-warmup=1`: it takes no value/],
  ])("flags: %s is refused", (_name, flags, message) => {
    expect(() => flagsOf(flags)).toThrow(
      expect.objectContaining({
        code: "invalid_request",
        message: expect.stringMatching(message),
        hint: expect.any(String),
      }),
    );
  });
});
