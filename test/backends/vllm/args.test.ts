import { describe, expect, test } from "bun:test";
import { join } from "node:path";

import { FLAGS } from "../../../backends/vllm/flag-table.ts";
import { vllm } from "../../../backends/vllm/index.ts";
import { allParsers, parsersFor } from "../../../backends/vllm/parsers.ts";
import { AppError } from "../../../src/errors.ts";
import type { ArgsInput } from "../../../src/runtime/backend.ts";
import { ArgumentError } from "../../fakes/argparse.ts";
import { requireKnownFlags } from "../../fakes/flag-tables.ts";
import { parseVllm } from "./stand-in.ts";

const OPTIONS = join(import.meta.dir, "options.txt");
const TEMPLATE = import.meta.path;

function input(overrides: Partial<ArgsInput> = {}): ArgsInput {
  return {
    bundle: { directory: "/b", format: "safetensors", model: "/b/m.safetensors", weightBytes: 1 },
    mode: "completion",
    alias: "me/model",
    settings: { runtimeFlags: [] },
    socket: "/run/tug/w1/w.sock",
    cores: 8,
    platform: "linux",
    ...overrides,
  };
}

/** What follows the words that are always there; the stand-in has taken all of them. */
function settled(overrides: Partial<ArgsInput> = {}): readonly string[] {
  const { args } = vllm.args(input(overrides));
  parseVllm(args);
  return args.slice(8);
}

function withSettings(settings: Partial<ArgsInput["settings"]>): readonly string[] {
  return settled({ settings: { runtimeFlags: [], ...settings } });
}

function halfWith(...runtimeFlags: string[]): Partial<ArgsInput> {
  return { gpuShare: 0.5, settings: { runtimeFlags } };
}

function refusal(run: () => unknown): AppError {
  try {
    run();
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("it was not refused");
}

describe("vllm.args", () => {
  test("args: a plain model is served on its socket, by its name and the one it is asked by", () => {
    const { args, env } = vllm.args(input());

    parseVllm(args);
    expect(args).toEqual([
      "serve",
      "/b",
      "--uds",
      "/run/tug/w1/w.sock",
      "--served-model-name",
      "me/model",
      vllm.servedModel ?? "",
      "--disable-uvicorn-access-log",
      "--runner",
      "generate",
    ]);
    expect(env).toMatchObject({ HF_HUB_OFFLINE: "1", VLLM_HOST_IP: "127.0.0.1" });
    const places = Object.values(env).filter((value) => value.startsWith("/"));
    expect(places.every((place) => place.startsWith("/run/tug/w1"))).toBe(true);
  });

  test.each([
    ["embedding" as const, ["--runner", "pooling"]],
    ["reranking" as const, ["--runner", "pooling"]],
  ])("args: for %s it pools", (mode, expected) => {
    expect(settled({ mode, architecture: "qwen3" })).toEqual(expected);
  });

  test.each([
    ["a context", { contextTokens: 8192 }, ["--max-model-len", "8192"]],
    ["the model's own context", { contextTokens: -1 }, []],
    ["requests at once", { parallel: 4 }, ["--max-num-seqs", "4"]],
    ["the usual cache", { cacheTypeK: "f16", cacheTypeV: "f16" }, []],
    ["an fp8 cache", { cacheTypeK: "fp8", cacheTypeV: "fp8" }, ["--kv-cache-dtype", "fp8"]],
    ["one cache type said", { cacheTypeK: "fp8", cacheTypeV: "f16" }, ["--kv-cache-dtype", "fp8"]],
    ["no GPU named", { devices: ["ram"] }, []],
    ["one GPU", { devices: ["ram", "cuda:1"] }, ["--device-ids", "1"]],
    [
      "two GPUs",
      { devices: ["cuda:0", "cuda:1"] },
      ["--device-ids", "0,1", "--tensor-parallel-size", "2"],
    ],
    [
      "three GPUs, shared as flags say",
      { devices: ["cuda:0", "cuda:1", "cuda:2"], runtimeFlags: ["-pp", "3"] },
      ["--device-ids", "0,1,2", "-pp", "3"],
    ],
    [
      "no thoughts",
      { reasoningBudget: 0 },
      ["--default-chat-template-kwargs", '{"enable_thinking":false}'],
    ],
    ["any thoughts", { reasoningBudget: -1 }, []],
    [
      "a draft model",
      { draft: { model: "/d/draft.safetensors", maxTokens: 3 } },
      ["--speculative-config", '{"method":"draft_model","model":"/d","num_speculative_tokens":3}'],
    ],
    [
      "a draft model of any length",
      { draft: { model: "/d/draft.safetensors" } },
      ["--speculative-config", '{"method":"draft_model","model":"/d","num_speculative_tokens":5}'],
    ],
    [
      "flags last",
      { parallel: 2, runtimeFlags: ["--enforce-eager"] },
      ["--max-num-seqs", "2", "--enforce-eager"],
    ],
  ])("args: %s", (_, settings, expected) => {
    expect(withSettings(settings).slice(2)).toEqual(expected);
  });

  test("args: a packaged template is used, its own context too", () => {
    const bundle = { ...input().bundle, chatTemplate: TEMPLATE, contextTokens: 1024 };

    expect(settled({ bundle }).slice(2)).toEqual([
      "--chat-template",
      TEMPLATE,
      "--max-model-len",
      "1024",
    ]);
  });

  test("args: what it compiles outlives it where there is a place for that", () => {
    const { env } = vllm.args(input({ cacheDirectory: "/engines/vllm/1/compiled" }));

    for (const name of ["VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"])
      expect(env[name]).toStartWith("/engines/vllm/1/compiled/");
    expect(env["HOME"]).toBe("/run/tug/w1");
  });

  test("args: one that will sleep has the requests for that, others have not", () => {
    const { args, env } = vllm.args(input({ sleeps: true }));

    parseVllm(args);
    expect(args).toContain("--enable-sleep-mode");
    expect(env["VLLM_SERVER_DEV_MODE"]).toBe("1");
    expect(vllm.args(input()).env["VLLM_SERVER_DEV_MODE"]).toBeUndefined();
  });

  test("args: with a cluster Ray chooses the GPUs, and flags how many", () => {
    const settings = { devices: ["cuda:0"], runtimeFlags: ["-tp", "16"] };
    const { args, env } = vllm.args(input({ cluster: "head:6379", settings }));

    parseVllm(args);
    expect(args.slice(-4)).toEqual(["--distributed-executor-backend", "ray", "-tp", "16"]);
    expect(env).toMatchObject({ RAY_ADDRESS: "head:6379" });
    expect(env["VLLM_HOST_IP"]).toBeUndefined();
  });

  test.each([
    [["-tp", "2", "--pipeline-parallel-size=3"], { count: 6, parts: 6 }],
    [["-dp", "2", "--tensor_parallel_size", "4"], { count: 8, parts: 4 }],
    [["-tp", "2", "--tensor-parallel-size", "4"], { count: 4, parts: 4 }],
    [["--enforce-eager"], undefined],
  ])("flags: %j shares it out", (flags, gpus) => {
    expect(vllm.readFlags?.(flags, { allowPaths: false }).memory?.gpus).toEqual(gpus);
  });

  test("args: of a GPU it takes its share, unless flags say how much", () => {
    expect(settled(halfWith()).slice(2)).toEqual(["--gpu-memory-utilization", "0.500"]);
    expect(settled({ gpuShare: 3 }).slice(2)).toEqual(["--gpu-memory-utilization", "0.950"]);
    expect(settled(halfWith("--gpu-memory-utilization", "0.3")).slice(2)).toEqual([
      "--gpu-memory-utilization",
      "0.3",
    ]);
    expect(settled(halfWith("--kv-cache-memory-bytes", "2G")).slice(2)).toEqual([
      "--kv-cache-memory-bytes",
      "2G",
    ]);
  });

  test("args: on a processor it takes its cache, unless flags say how much", () => {
    const runtimeFlags = ["--gpu-memory-utilization", "0.3"];

    expect(settled({ cacheBytes: 5_000_000 }).slice(2)).toEqual([
      "--kv-cache-memory-bytes",
      "5000000",
    ]);
    expect(settled({ cacheBytes: 5, settings: { runtimeFlags } }).slice(2)).toEqual(runtimeFlags);
  });

  test("args: a cluster finds its own addresses", () => {
    const runtimeFlags = ["--distributed-executor-backend", "ray", "-tp", "8"];
    const { env } = vllm.args(input({ settings: { runtimeFlags } }));

    expect(withSettings({ runtimeFlags }).slice(2)).toEqual(runtimeFlags);
    expect(env).not.toHaveProperty("VLLM_HOST_IP");
  });

  test.each([
    ["lora", { adapters: ["/a"] }, "lora"],
    ["a budget of thoughts", { reasoningBudget: 100 }, "reasoning budget"],
    ["a draft's probability", { draft: { model: "/d/d", minProbability: 0.5 } }, "probability"],
    ["llama.cpp's cache types", { cacheTypeK: "q8_0" }, "`q8_0`"],
    ["two cache types", { cacheTypeK: "fp8", cacheTypeV: "bfloat16" }, "`fp8` and `bfloat16`"],
    ["half a token", { contextTokens: 0.5 }, "context size 0.5"],
    ["no request at once", { parallel: 0 }, "parallel 0"],
    ["a flag that is not allowed", { runtimeFlags: ["--middleware", "os.system"] }, "--middleware"],
  ])("args: %s is refused", (_, settings, expected) => {
    const all = { runtimeFlags: [], ...settings };

    expect(refusal(() => vllm.args(input({ settings: all }))).message).toContain(expected);
  });
});

describe("vllm: parsers", () => {
  test.each([
    ["qwen2", ["--tool-call-parser", "hermes", "--enable-auto-tool-choice"]],
    [
      "gpt_oss",
      [
        "--tool-call-parser",
        "openai",
        "--enable-auto-tool-choice",
        "--reasoning-parser",
        "openai_gptoss",
      ],
    ],
    // Not all models of this kind have the words that a parser would look for.
    ["llama", []],
    ["nobody-knows", []],
    ["constructor", []],
  ])("parsers: of %s", (architecture, expected) => {
    expect(settled({ architecture }).slice(2)).toEqual(expected);
  });

  test("parsers: flags say it otherwise", () => {
    const runtimeFlags = ["--tool-call-parser", "qwen3_coder"];

    expect(settled({ architecture: "qwen2", settings: { runtimeFlags } }).slice(2)).toEqual([
      "--enable-auto-tool-choice",
      ...runtimeFlags,
    ]);
  });

  test("parsers: vLLM has all that may be chosen", () => {
    for (const { tools, reasoning } of allParsers()) {
      const words = [
        ...(tools === undefined ? [] : ["--tool-call-parser", tools]),
        ...(reasoning === undefined ? [] : ["--reasoning-parser", reasoning]),
      ];
      expect(() => parseVllm(["serve", "/b", ...words])).not.toThrow();
    }
    expect(parsersFor("qwen3")).toEqual({ tools: "hermes", reasoning: "qwen3" });
  });
});

describe("vllm: flags", () => {
  test("flags: vLLM knows all that are allowed, and their values", async () => {
    const known = await Bun.file(OPTIONS).text();

    expect(() => requireKnownFlags(FLAGS, known)).not.toThrow();
  });

  test("flags: what a setting says becomes that setting", () => {
    const words = ["--max_model_len=8K", "--max-num-seqs", "16", "--kv-cache-dtype", "fp8"];

    expect(vllm.readFlags?.([...words, "--enforce-eager"], { allowPaths: false })).toMatchObject({
      flags: ["--enforce-eager"],
      settings: { context_size: 8192, parallel: 16, cache_type_k: "fp8", cache_type_v: "fp8" },
      files: [],
      stretchesContext: false,
    });
  });

  test("flags: a template is a file that must be readable", () => {
    const read = vllm.readFlags?.(["--chat-template", "/t/x.jinja"], { allowPaths: true });

    expect(read?.files).toEqual(["/t/x.jinja"]);
  });

  test.each([
    "--trust-remote-code",
    "--enable-log-requests",
    "--chat-template=/etc/passwd",
    '--speculative-config={"model":"/x"}',
    "--hf-overrides={}",
    "--distributed-executor-backend=ray",
    "--master-addr=10.0.0.1",
  ])("flags: only the owner may say %s", (flag) => {
    expect(refusal(() => vllm.readFlags?.([flag], { allowPaths: false })).code).toBe("forbidden");
    expect(vllm.readFlags?.([flag], { allowPaths: true })).toBeDefined();
  });

  test.each([
    ["--uds=/tmp/x", "Tug decides it itself"],
    ["--host=0.0.0.0", "Tug decides it itself"],
    ["--api-key=x", "Tug decides it itself"],
    ["--trust-remote", "not allowed"],
    ["--tool-parser-plugin=/x.py", "not allowed"],
    ["--logits-processors=os", "not allowed"],
    ["--allowed-local-media-path=/", "not allowed"],
    ["--worker-cls=os", "not allowed"],
    ["--config=/x.yaml", "Tug decides it itself"],
    ["--dtype=int3", "not a value"],
    ["--seed=-1", "not a value"],
    ["--max-model-len=1.5K", "not a value"],
    ["--max-model-len=long", "not a value"],
    ["--dtype", "needs a value"],
    ["--enforce-eager=yes", "takes no value"],
    ["eager", "belongs to no flag"],
    ["--hf-overrides=[1]", "not a value"],
    ["--attention-backend=", "not a value"],
    ["--chat-template={{ x }}", "not a value"],
    [`--${"x".repeat(10_000)}`, "not allowed"],
  ])("flags: %s is refused", (flag, expected) => {
    const { code, message } = refusal(() => vllm.readFlags?.([flag], { allowPaths: true }));

    expect(code).toBe("invalid_request");
    expect(message).toContain(expected);
    expect(message.length).toBeLessThan(400);
  });

  test("flags: two that contradict are refused, and too many", () => {
    const two = ["--max-model-len", "1k", "--max-model-len", "2k"];
    const many = Array.from({ length: 1000 }, () => "--enforce-eager");

    expect(refusal(() => vllm.readFlags?.(two, { allowPaths: true })).message).toContain(
      "differently",
    );
    expect(refusal(() => vllm.readFlags?.(many, { allowPaths: true })).message).toContain(
      "more than",
    );
  });
});

describe("vllm: its stand-in", () => {
  test.each([
    [["--nobody-knows"]],
    [["--max-num-seqs", "many"]],
    [["--max-model-len", "1.5K"]],
    [["--dtype", "int3"]],
    [["--max-num-seqs"]],
    [["--speculative-tokens", "3"]],
    [["surplus"]],
    [["--max-n", "3"]],
  ])("stand-in: %p is refused as by the parser", (words) => {
    expect(() => parseVllm(["serve", "/b", ...words])).toThrow(ArgumentError);
  });

  test.each([
    [["--enable-auto-tool-choice"], "requires --tool-call-parser"],
    [["--tool-call-parser", "nobody"], "not been registered"],
    [["--chat-template", "/not/there"], "doesn't exist"],
  ])("stand-in: %p is refused after the parser", (words, expected) => {
    expect(() => parseVllm(["serve", "/b", ...words])).toThrow(expected);
  });
});
