import { describe, expect, test } from "bun:test";
import { onnxArgs } from "../../../backends/onnx/args.ts";
import { onnx } from "../../../backends/onnx/index.ts";
import { recipe } from "../../../backends/onnx/install.ts";
import { machineProblem } from "../../../backends/python/machine.ts";
import { onnxReport } from "../../../backends/onnx/report.ts";
import type { ArgsInput, WorkerSettings } from "../../../src/runtime/backend.ts";

const MACHINES = [
  { platform: "linux", arch: "x64" },
  { platform: "linux", arch: "arm64" },
  { platform: "darwin", arch: "arm64" },
] as const;

async function told(health: unknown) {
  return onnxReport(() => Promise.resolve(health));
}

function input(
  settings: Partial<WorkerSettings> = {},
  bundle: Partial<ArgsInput["bundle"]> = {},
): ArgsInput {
  return {
    bundle: {
      directory: "/b",
      format: "onnx",
      model: "/b/model.onnx",
      weightBytes: 1,
      ...bundle,
    },
    mode: "completion",
    settings: { runtimeFlags: [], ...settings },
    alias: "-me/model",
    socket: "/run/w/worker.sock",
    cores: 2,
    platform: "linux",
  };
}

describe("onnxArgs", () => {
  test("args: says what it serves, where, and by what name", () => {
    const { args, env } = onnxArgs(input());

    expect(args.join(" ")).toBe(
      "--socket /run/w/worker.sock --model /b --mode completion --name=-me/model --threads 2",
    );
    expect(env).toMatchObject({ ORT_DISABLE_TELEMETRY: "1", HF_HUB_OFFLINE: "1" });
  });

  test("args: the context, the requests at once and the template are passed on", () => {
    const { args } = onnxArgs(
      input({ contextTokens: 512, parallel: 3 }, { chatTemplate: "/b/chat_template.jinja" }),
    );

    expect(args.slice(-6)).toEqual([
      "--context",
      "512",
      "--parallel",
      "3",
      "--chat-template",
      "/b/chat_template.jinja",
    ]);
  });

  test("args: the packaged context counts where nothing else is set; -1 is the model's own", () => {
    expect(onnxArgs(input({}, { contextTokens: 99 })).args).toContain("99");
    expect(onnxArgs(input({ contextTokens: -1 }, { contextTokens: 99 })).args).not.toContain(
      "--context",
    );
  });

  test.each<[string, Partial<WorkerSettings>]>([
    ["lora", { adapters: ["/a"] }],
    ["runtime flags", { runtimeFlags: ["--x"] }],
    ["a draft model", { draft: { model: "/d" } }],
  ])("args: %s is refused by name", (what, settings) => {
    expect(() => onnxArgs(input(settings))).toThrow(`cannot start onnx with ${what}`);
  });
});

describe("recipe", () => {
  test.each(MACHINES)("recipe: has locked packages for %p", (machine) => {
    expect(machineProblem(machine)).toBeUndefined();
    const lock = recipe.pypi?.requirements(machine, "none") ?? "";
    // Every package with its hashes.
    const packages = lock.split("\n").filter((line) => /^[a-z]/.test(line));
    expect(packages.length).toBeGreaterThan(5);
    expect(packages.every((line) => line.endsWith("\\"))).toBe(true);
    expect(lock).not.toContain("huggingface-hub==");
    expect(recipe.pypi?.version).toMatch(/^\d+\.\d+\.\d+$/);
  });

  test("recipe: none for GPUs, nor for machines that it does not run on", () => {
    expect(recipe.pypi?.requirements({ platform: "linux", arch: "x64" }, "cuda")).toBeUndefined();
    const windows = { platform: "win32", arch: "x64" } as const;
    expect(machineProblem(windows)).toContain("it needs");
    expect(recipe.pypi?.requirements(windows, "none")).toBeUndefined();
  });

  test("recipe: the parts of the server are one program", () => {
    const launcher = recipe.pypi?.launcher ?? "";
    for (const name of ["Refused", "Model", "Embedder", "Writer", "Template", "Server"])
      expect(launcher.split("\n").filter((line) => line.startsWith(`class ${name}`))).toHaveLength(
        1,
      );
    expect(launcher.trimEnd().endsWith("asyncio.run(main())")).toBe(true);
    // It must be set before the libraries are loaded.
    expect(launcher.indexOf("ORT_DISABLE_TELEMETRY")).toBeLessThan(
      launcher.indexOf("import onnxruntime"),
    );
  });
});

describe("onnx", () => {
  test("report: only what is a number is told", async () => {
    expect(await onnxReport(() => Promise.resolve({ status: "ok", parallel: 4 }))).toEqual({
      parallel: 4,
    });
    expect(await told({ parallel: 4, context: 512, asked_context: 512 })).toEqual({
      context_size: 512,
      parallel: 4,
    });
    expect(await told({ context: 2048, asked_context: -1 })).toEqual({ context_size: 2048 });
    // The model's own limit is below.
    expect(await told({ context: 512, asked_context: 514 })).toEqual({ model_context: 512 });
    for (const odd of [null, [], "x", { parallel: "4" }, { parallel: 1.5 }, { context: "1" }])
      expect(await onnxReport(() => Promise.resolve(odd))).toEqual({});
  });

  test("exit: what the server says last is the reason", () => {
    const stderrTail = "the model has no `model.onnx`\n";
    const { reason } = onnx.explainExit({ exitCode: 1, signal: null, stderrTail });

    expect(reason).toBe("the model has no `model.onnx`");
  });

  test("smoke: its files are small, and complete", () => {
    const files = onnx.smokeFiles?.() ?? {};

    expect(Object.keys(files).toSorted()).toEqual([
      "genai_config.json",
      "model.onnx",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    for (const content of Object.values(files)) expect(content.length).toBeLessThan(100_000);
  });
});
