import { describe, expect, test } from "bun:test";
import { join } from "node:path";

import { llamacpp } from "../../../backends/llamacpp/index.ts";
import { smokeTest } from "../../../src/runtime/installer/smoke.ts";
import type { Installation } from "../../../src/runtime/backend.ts";

import { failureOf } from "./failure-of.ts";
const model = join(import.meta.dir, "../../../src/models/pebble.gguf");
const { platform } = process;

function fakeInstallation(behaviour: string): Installation {
  return {
    backend: "llama.cpp",
    version: "1",
    variant: "cpu",
    source: "path",
    directory: import.meta.dir,
    command: [process.execPath, join(import.meta.dir, "../../fakes/smoke-engine.ts"), behaviour],
    installedAt: "2026-01-01T00:00:00Z",
  };
}

function smoke(behaviour: string, signal = AbortSignal.timeout(20_000)): Promise<void> {
  return smokeTest(fakeInstallation(behaviour), llamacpp, { model, platform, signal });
}

describe("smokeTest", () => {
  test("smoke: an engine has as long as it says that it may need", async () => {
    const patient = { ...llamacpp, smokeBoundMs: 300 };
    const options = { model, platform, signal: AbortSignal.timeout(20_000) };

    expect(await failureOf(smokeTest(fakeInstallation("mute"), patient, options))).toHaveProperty(
      "message",
      "it was not ready within 0.3 s",
    );
  });

  test("smoke: an engine that knows the answer passes", async () => {
    expect(await smoke("paris")).toBeUndefined();
  });

  test.each([
    ["berlin", "it answered `Berlin.` instead of `Paris`"],
    ["silent", "it gave an empty answer"],
    ["crash", "the fake is broken"],
    ["die", "the engine was ended by SIGKILL"],
  ])(
    "smoke: an engine that behaves like `%s` fails with its reason",
    async (behaviour, message) => {
      expect(await failureOf(smoke(behaviour))).toHaveProperty(
        "message",
        expect.stringMatching(message),
      );
    },
  );

  test("smoke: a program that cannot be started is named", async () => {
    const installation = { ...fakeInstallation(""), command: ["/nonexistent/llama-server"] };
    const signal = AbortSignal.timeout(20_000);

    expect(
      await failureOf(smokeTest(installation, llamacpp, { model, platform, signal })),
    ).toHaveProperty("message", expect.stringContaining("/nonexistent/llama-server"));
  });

  test("smoke: an abort is passed on", async () => {
    expect(await failureOf(smoke("paris", AbortSignal.abort()))).toMatchObject({
      name: "AbortError",
    });
  });
});
