import { describe, expect, test } from "bun:test";

import { mlxArgs, SERVED_MODEL } from "../../../backends/mlx/args.ts";
import type { ArgsInput, WorkerSettings } from "../../../src/runtime/backend.ts";

const BUNDLE = {
  directory: "/store/bundles/pebble",
  format: "safetensors",
  model: "/store/bundles/pebble/model.safetensors",
  weightBytes: 1000,
} as const;

function argsOf(
  settings: Partial<WorkerSettings> = {},
  bundle: Partial<ArgsInput["bundle"]> = {},
): { readonly launcher: readonly string[]; readonly engine: readonly string[] } {
  const { args } = mlxArgs(inputOf(settings, bundle));
  const end = args.indexOf("--");
  return { launcher: args.slice(0, end), engine: args.slice(end + 1) };
}

function inputOf(
  settings: Partial<WorkerSettings>,
  bundle: Partial<ArgsInput["bundle"]> = {},
): ArgsInput {
  return {
    bundle: { ...BUNDLE, ...bundle },
    mode: "completion",
    settings: { runtimeFlags: [], ...settings },
    alias: "me/pebble",
    socket: "/run/w1/e.sock",
    cores: 4,
    platform: "linux",
  };
}

function valueOf(args: readonly string[], flag: string): string | undefined {
  return args[args.indexOf(flag) + 1];
}

/** Options of `mlx_lm server` 0.32 that take a value, as its `--help` lists them. */
const KNOWN: ReadonlySet<string> = new Set(
  `--model --adapter-path --host --port --allowed-origins --draft-model --num-draft-tokens --log-level --chat-template
  --temp --top-p --top-k --min-p --max-tokens --chat-template-args --decode-concurrency --prompt-concurrency
  --prefill-step-size --prompt-cache-size --prompt-cache-bytes --kv-bits --kv-group-size --quantized-kv-start`.split(
    /\s+/,
  ),
);

describe("mlxArgs", () => {
  test("mlx: the launcher learns the socket, the path of health, and a first request", () => {
    const { launcher } = argsOf();

    expect(launcher.slice(0, 6)).toEqual([
      "--socket",
      "/run/w1/e.sock",
      "--ready",
      "/health",
      "--warm-up",
      "/v1/completions",
    ]);
    expect(JSON.parse(launcher[6] ?? "")).toEqual({
      model: SERVED_MODEL,
      prompt: "a",
      max_tokens: 1,
    });
    expect(launcher).toHaveLength(7);
  });

  test("mlx: the engine learns its model and a private port", () => {
    expect(argsOf().engine).toEqual([
      ..."-m mlx_lm server --model /store/bundles/pebble".split(" "),
      ..."--host 127.0.0.1 --port {port} --max-tokens 4096".split(" "),
    ]);
  });

  test("mlx: a path with blanks stays one word", () => {
    const { engine } = argsOf({}, { directory: "/a b/{port}" });

    expect(valueOf(engine, "--model")).toBe("/a b/{port}");
  });

  test.each([
    ["nothing is said", {}, {}, "4096"],
    ["the package says it", {}, { contextTokens: 2048 }, "2048"],
    ["a setting says it", { contextTokens: 512 }, { contextTokens: 2048 }, "512"],
    ["it is the model's own", { contextTokens: -1 }, {}, "4096"],
  ] as const)(
    "mlx: an answer ends with the context, where %s",
    (...[, settings, bundle, tokens]) => {
      expect(valueOf(argsOf(settings, bundle).engine, "--max-tokens")).toBe(tokens);
    },
  );

  test("mlx: requests served at once are as many prompts, answers and kept caches", () => {
    const { engine } = argsOf({ parallel: 3 });

    expect(engine.slice(-6).join(" ")).toBe(
      "--decode-concurrency 3 --prompt-concurrency 3 --prompt-cache-size 3",
    );
  });

  test("mlx: a draft model is named by its directory", () => {
    const { engine } = argsOf({ draft: { model: "/store/draft/model.safetensors", maxTokens: 5 } });

    expect(engine.slice(-4).join(" ")).toBe("--draft-model /store/draft --num-draft-tokens 5");
  });

  test("mlx: a packaged template of another name is laid over the model's directory", () => {
    const chatTemplate = `${BUNDLE.directory}/template.jinja`;
    const { launcher, engine } = argsOf({}, { chatTemplate });

    expect(valueOf(engine, "--model")).toBe("model");
    expect(valueOf(launcher, "--link")).toBe("model");
    expect(launcher[launcher.indexOf("--link") + 2]).toBe(BUNDLE.directory);
    expect(valueOf(launcher, "--template")).toBe(chatTemplate);
    const usual = argsOf({}, { chatTemplate: `${BUNDLE.directory}/chat_template.jinja` });
    expect(valueOf(usual.engine, "--model")).toBe(BUNDLE.directory);
    expect(usual.launcher).not.toContain("--link");
  });

  test("mlx: code of a model runs only where it is trusted", () => {
    expect(argsOf().engine).not.toContain("--trust-remote-code");
    expect(argsOf({ trustsCode: true }).engine).toContain("--trust-remote-code");
  });

  test("mlx: every option is one that its server has", () => {
    const draft = { model: "/d/model.safetensors", maxTokens: 5, minProbability: 0.5 };
    const { engine } = argsOf({ contextTokens: 512, parallel: 2, draft });

    const options = engine.slice(3).filter((word) => word.startsWith("--"));
    expect(options.filter((option) => !KNOWN.has(option))).toEqual([]);
    expect(new Set(options).size).toBe(options.length);
  });

  test.each([
    ["adapters", { adapters: ["/a.safetensors"] }, {}, "lora"],
    ["adapters of the package", {}, { adapters: ["/a.safetensors"] }, "lora"],
    ["flags", { runtimeFlags: ["--trust-remote-code"] }, {}, "runtime flags"],
  ] as const)("mlx: %s are refused", (...[, settings, bundle, what]) => {
    expect(() => argsOf(settings, bundle)).toThrow(
      expect.objectContaining({
        code: "invalid_request",
        message: `cannot start mlx with ${what}: it has nothing for it`,
      }),
    );
  });

  test("mlx: it fetches nothing, and writes beside its socket only", () => {
    const { env } = mlxArgs(inputOf({}));

    expect(env).toMatchObject({ HF_HUB_OFFLINE: "1", TRANSFORMERS_OFFLINE: "1" });
    expect([env["HF_HOME"], env["XDG_CACHE_HOME"]]).toEqual([
      "/run/w1/huggingface",
      "/run/w1/cache",
    ]);
  });
});
