import { describe, expect, test } from "bun:test";
import { join } from "node:path";

import { FLAGS } from "../../../backends/sglang/flag-table.ts";
import { sglang } from "../../../backends/sglang/index.ts";
import type { AppError } from "../../../src/errors.ts";
import type { ArgsInput } from "../../../src/runtime/backend.ts";
import { ArgumentError } from "../../fakes/argparse.ts";
import { requireKnownFlags } from "../../fakes/flag-tables.ts";
import { parseSglang } from "./stand-in.ts";

function input(overrides: Partial<ArgsInput> = {}): ArgsInput {
  return {
    bundle: { directory: "/b", format: "safetensors", model: "/b/m.safetensors", weightBytes: 1 },
    mode: "completion",
    alias: "me/model:v1",
    settings: { runtimeFlags: [] },
    socket: "/run/tug/w1/w.sock",
    cores: 8,
    platform: "linux",
    ...overrides,
  };
}

const LAUNCH = ["--socket", "/run/tug/w1/w.sock", "--ready", "/health", "--"];
const ALWAYS = [
  "-m",
  "sglang.launch_server",
  "--model-path",
  "/b",
  "--host",
  "127.0.0.1",
  "--port",
  "{port}",
  "--served-model-name",
  sglang.servedModel ?? "",
  "--enable-metrics",
  "--log-level-http",
  "warning",
];
const PARSERS = ["--tool-call-parser", "auto", "--reasoning-parser", "auto"];

/** What follows the words that are always there; the stand-in has taken all of them. */
function settled(overrides: Partial<ArgsInput> = {}): readonly string[] {
  const { args } = sglang.args(input(overrides));
  parseSglang(args.slice(LAUNCH.length + 2).map((word) => (word === "{port}" ? "1234" : word)));
  return args.slice(LAUNCH.length + ALWAYS.length);
}

function refusal(run: () => unknown): AppError {
  try {
    run();
  } catch (thrown) {
    return thrown as AppError;
  }
  throw new Error("it was not refused");
}

describe("sglang.args", () => {
  test("args: a plain model is served on a port, behind its socket, by one name", () => {
    const { args, env } = sglang.args(input());

    expect(args).toEqual([...LAUNCH, ...ALWAYS, ...PARSERS]);
    expect(env).toMatchObject({ HF_HUB_OFFLINE: "1" });
    expect(settled({ mode: "embedding" })).toEqual(["--is-embedding"]);
  });

  test.each([
    ["a context", { contextTokens: 8192 }, ["--context-length", "8192"]],
    ["the model's own context", { contextTokens: -1 }, []],
    ["requests at once", { parallel: 4 }, ["--max-running-requests", "4"]],
    ["the usual cache", { cacheTypeK: "f16", cacheTypeV: "f16" }, []],
    ["an fp8 cache", { cacheTypeK: "fp8_e5m2" }, ["--kv-cache-dtype", "fp8_e5m2"]],
    ["one GPU", { devices: ["cuda:1"] }, ["--base-gpu-id", "1"]],
    ["two GPUs", { devices: ["cuda:3", "cuda:2"] }, ["--base-gpu-id", "2", "--tp-size", "2"]],
    [
      "three GPUs, shared as flags say",
      { devices: ["cuda:0", "cuda:1", "cuda:2"], runtimeFlags: ["--pp-size", "3"] },
      ["--base-gpu-id", "0", "--pp-size", "3"],
    ],
    [
      "no thoughts",
      { reasoningBudget: 0 },
      ["--default-chat-template-kwargs", '{"enable_thinking":false}'],
    ],
    [
      "a draft model",
      { draft: { model: "/d/draft.safetensors", maxTokens: 3 } },
      [
        "--speculative-algorithm",
        "STANDALONE",
        "--speculative-draft-model-path",
        "/d",
        "--speculative-num-steps",
        "3",
        "--speculative-eagle-topk",
        "1",
        "--speculative-num-draft-tokens",
        "4",
      ],
    ],
    ["flags last", { runtimeFlags: ["--tp_size=2"] }, ["--tp-size", "2"]],
  ])("args: %s", (_, settings, expected) => {
    const all = { runtimeFlags: [], ...settings };

    expect(settled({ settings: all })).toEqual([...PARSERS, ...expected]);
  });

  test("args: on a GPU its cache has one context and some, unless flags say how much", () => {
    const settings = { contextTokens: 8192, runtimeFlags: [] };
    const context = ["--context-length", "8192"];
    const runtimeFlags = ["--mem-fraction-static", "0.3"];

    expect(settled({ gpuShare: 0.5, settings }).slice(4)).toEqual([
      ...context,
      "--max-total-tokens",
      "8448",
    ]);
    expect(settled({ settings }).slice(4)).toEqual(context);
    expect(settled({ gpuShare: 0.5, settings: { ...settings, runtimeFlags } }).slice(4)).toEqual([
      ...context,
      ...runtimeFlags,
    ]);
  });

  test.each([
    ["lora", { adapters: ["/a"] }, "lora"],
    ["a budget of thoughts", { reasoningBudget: 100 }, "reasoning budget"],
    ["a draft's probability", { draft: { model: "/d/d", minProbability: 0.5 } }, "probability"],
    ["llama.cpp's cache types", { cacheTypeK: "q8_0" }, "`q8_0`"],
  ])("args: %s is refused", (_, settings, expected) => {
    const all = { runtimeFlags: [], ...settings };

    expect(refusal(() => sglang.args(input({ settings: all }))).message).toContain(expected);
  });
});

describe("sglang: flags", () => {
  test("flags: SGLang knows all that are allowed, and their values", async () => {
    const known = await Bun.file(join(import.meta.dir, "options.txt")).text();

    expect(() => requireKnownFlags(FLAGS, known)).not.toThrow();
  });

  test("flags: what a setting says becomes that setting", () => {
    const words = ["--context-length", "4000", "--max-running-requests", "8"];

    expect(sglang.readFlags?.(words, { allowPaths: false })).toMatchObject({
      flags: [],
      settings: { context_size: 4000, parallel: 8 },
      files: [],
      stretchesContext: false,
    });
  });

  test.each([
    ["--trust-remote-code", "forbidden"],
    ["--log-requests", "forbidden"],
    ["--chat-template=/etc/passwd", "forbidden"],
    ["--dist-init-addr=10.0.0.1:5000", "forbidden"],
    ["--port=1", "invalid_request"],
    ["--enable-custom-logit-processor", "invalid_request"],
    ["--tool-call-parser=nobody", "invalid_request"],
  ] as const)("flags: who does not own the runner cannot say %s", (flag, code) => {
    expect(refusal(() => sglang.readFlags?.([flag], { allowPaths: false })).code).toBe(code);
  });
});

describe("sglang: its stand-in", () => {
  test.each([
    [["--nobody-knows"]],
    [["--tool-call-parser", "nobody"]],
    [["--tp-size", "two"]],
    [["--context-length", "8K"]],
    [["--log-requests=yes"]],
    [["surplus"]],
  ])("stand-in: %p is refused", (words) => {
    expect(() => parseSglang(["--model-path", "/b", ...words])).toThrow(ArgumentError);
  });

  test("stand-in: a model must be named", () => {
    expect(() => parseSglang([])).toThrow("--model-path");
  });
});
