import { describe, expect, test } from "bun:test";
import { mlx } from "../../backends/mlx/index.ts";
import { transformers } from "../../backends/transformers/index.ts";
import { vllm } from "../../backends/vllm/index.ts";
import { llamacpp } from "../../backends/llamacpp/index.ts";
import { AppError } from "../../src/errors.ts";
import type { Backend, ModelTraits } from "../../src/runtime/backend.ts";
import { requireTrust } from "../../src/runtime/trust.ts";

interface Case {
  readonly format?: string;
  readonly traits?: Partial<ModelTraits>;
  readonly backend?: Backend;
  readonly trust?: boolean;
  readonly pickle?: boolean;
  readonly flags?: readonly string[];
}

const said = (value: boolean) => ({ value, source: "stored" });

function failureOf(one: Case): AppError | undefined {
  const { format = "safetensors", traits, backend = transformers, trust, pickle, flags = [] } = one;
  try {
    requireTrust({
      model: { name: "me/m", format },
      traits: traits && { hasAutoMap: false, hasModelFile: false, ...traits },
      backend,
      resolved: {
        flags,
        effective: {
          ...(trust === undefined ? {} : { trust_remote_code: said(trust) }),
          ...(pickle === undefined ? {} : { allow_pickle: said(pickle) }),
        },
      },
    });
    return undefined;
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
}

const UNKNOWN = { hasAutoMap: true, architecture: "nobody_knows_it" };

describe("requireTrust", () => {
  test.each([transformers, vllm])("trust: code of a model is refused unless allowed", (backend) => {
    const failure = failureOf({ traits: UNKNOWN, backend });

    expect(failure).toMatchObject({ code: "forbidden", details: { setting: "trust_remote_code" } });
    expect(failure?.message).toContain("it comes with Python code of its own");
    expect(failure?.hint).toContain("`tug configure me/m --trust-remote-code`");
    expect(failureOf({ traits: UNKNOWN, backend, trust: true })).toBeUndefined();
    expect(failureOf({ traits: UNKNOWN, backend, trust: false })?.code).toBe("forbidden");
    expect(failureOf({ traits: UNKNOWN, backend, flags: ["--trust-remote-code"] })).toBeUndefined();
    // Trust in one thing is none in the other.
    expect(failureOf({ traits: UNKNOWN, backend, pickle: true })?.code).toBe("forbidden");
  });

  test("trust: a model that transformers knows by now needs none of its code", () => {
    expect(failureOf({ traits: { hasAutoMap: true, architecture: "phi3" } })).toBeUndefined();
    expect(failureOf({ traits: { hasAutoMap: true } })?.code).toBe("forbidden");
    expect(failureOf({ traits: { hasAutoMap: true, architecture: "constructor" } })?.code).toBe(
      "forbidden",
    );
  });

  test("trust: MLX takes code by another name, llama.cpp none", () => {
    const traits = { hasModelFile: false, ...UNKNOWN };
    expect(mlx.unreadable?.(traits)).toContain("PyTorch code of their own");
    expect(mlx.unreadable?.({ ...traits, architecture: "phi3" })).toBeUndefined();
    expect(mlx.unreadable?.({ ...traits, hasAutoMap: false })).toBeUndefined();
    expect(failureOf({ backend: mlx, traits: { hasModelFile: true } })?.code).toBe("forbidden");
    expect(failureOf({ backend: llamacpp, traits: UNKNOWN })).toBeUndefined();
  });

  test("trust: pickles are refused unless allowed, whatever engine would open them", () => {
    for (const backend of [transformers, llamacpp]) {
      const failure = failureOf({ format: "pytorch", backend });
      expect(failure).toMatchObject({ code: "forbidden", details: { setting: "allow_pickle" } });
      expect(failure?.hint).toContain("`tug configure me/m --allow-pickle`");
    }
    expect(failureOf({ format: "pytorch", pickle: true })).toBeUndefined();
    expect(failureOf({ format: "pytorch", pickle: false })?.code).toBe("forbidden");
    expect(failureOf({ format: "pytorch", trust: true })?.code).toBe("forbidden");
  });
});
