import { describe, expect, test } from "bun:test";
import { ANSWERS } from "../../../backends/transformers/answers.ts";
import { SERVED_MODEL, transformersArgs } from "../../../backends/transformers/args.ts";
import { transformers } from "../../../backends/transformers/index.ts";
import type { ArgsInput, WorkerSettings } from "../../../src/runtime/backend.ts";

const BUNDLE = {
  directory: "/store/bundles/m",
  format: "safetensors",
  model: "/store/bundles/m/model.safetensors",
  weightBytes: 1000,
} as const;

function argsOf(
  settings: Partial<WorkerSettings> = {},
  bundle: Partial<ArgsInput["bundle"]> = {},
): { readonly launcher: readonly string[]; readonly engine: readonly string[] } {
  const { args } = transformersArgs({
    bundle: { ...BUNDLE, ...bundle },
    mode: "completion",
    settings: { runtimeFlags: [], ...settings },
    alias: "me/m",
    socket: "/run/w1/e.sock",
    cores: 4,
    platform: "linux",
  });
  const end = args.indexOf("--");
  return { launcher: args.slice(0, end), engine: args.slice(end + 1) };
}

function valueOf(args: readonly string[], flag: string): string | undefined {
  return args[args.indexOf(flag) + 1];
}

describe("transformersArgs", () => {
  test("transformers: it serves a link beside its socket, on a private port", () => {
    const { launcher, engine } = argsOf();

    expect(engine.join(" ")).toBe(
      "-m transformers.cli.transformers serve served --host 127.0.0.1 --port {port}",
    );
    expect(launcher.slice(launcher.indexOf("--link"), launcher.indexOf("--link") + 3)).toEqual([
      "--link",
      SERVED_MODEL,
      BUNDLE.directory,
    ]);
    expect(JSON.parse(valueOf(launcher, "--answers") ?? "")).toEqual(ANSWERS);
  });

  test("transformers: code of a model runs only where it is trusted, and is found then", () => {
    const plain = argsOf();
    const trusting = argsOf({ trustsCode: true });

    expect([...plain.launcher, ...plain.engine].join(" ")).not.toMatch(/trust|--config/);
    expect(trusting.engine).toContain("--trust-remote-code");
    expect(JSON.parse(valueOf(trusting.launcher, "--config") ?? "")).toEqual({
      architectures: ["AutoModelForCausalLM"],
    });
  });

  test("transformers: a packaged template of another name counts", () => {
    const chatTemplate = `${BUNDLE.directory}/template.jinja`;

    expect(valueOf(argsOf({}, { chatTemplate }).launcher, "--template")).toBe(chatTemplate);
    expect(argsOf().launcher).not.toContain("--template");
  });

  test.each<[string, Partial<WorkerSettings>]>([
    ["lora", { adapters: ["/a"] }],
    ["runtime flags", { runtimeFlags: ["--trust-remote-code"] }],
    ["a draft model", { draft: { model: "/d" } }],
  ])("transformers: %s is refused by name", (what, settings) => {
    expect(() => argsOf(settings)).toThrow(`cannot start transformers with ${what}`);
  });

  test("transformers: it reads checkpoints, and says what it ignores", () => {
    expect(transformers.formats).toEqual(["safetensors", "pytorch"]);
    expect(Object.keys(transformers.ignores ?? {})).toContain("context_size");
  });
});
