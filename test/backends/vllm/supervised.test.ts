/** vLLM's stand-in under the real supervisor: what a worker of it does from start to end. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";

import { vllm } from "../../../backends/vllm/index.ts";
import type { Installation } from "../../../src/runtime/backend.ts";
import { failureOf, setUp, socketOf, type Supervised } from "../../fakes/supervised.ts";
import { tinyModel } from "../../fakes/tiny-safetensors.ts";
import { tempDir } from "../../helpers/temp-dir.ts";

const installation: Installation = {
  backend: "vllm",
  version: "0.32.0",
  variant: "cuda",
  source: "pypi",
  directory: import.meta.dir,
  command: [process.execPath, join(import.meta.dir, "stand-in.ts")],
  installedAt: "2026-01-01T00:00:00Z",
};

function installed(): Promise<Installation> {
  return Promise.resolve(installation);
}

function setUpVllm(): Promise<Supervised> {
  return setUp({}, { backends: [vllm], installer: { ensure: installed, active: installed } });
}

const plan = {
  backend: "vllm",
  settings: {
    contextTokens: 64,
    parallel: 2,
    cacheTypeK: "f16",
    cacheTypeV: "f16",
    runtimeFlags: [],
  },
};

describe("Supervisor with vLLM's stand-in", () => {
  test("vllm: it is ready, reports its context, and answers to the name that it is asked by", async () => {
    await using directory = await tempDir();
    await using at = await setUpVllm();
    using lease = await at.acquire(await tinyModel(directory.path), plan);

    const response = await fetch("http://engine/v1/chat/completions", {
      method: "POST",
      unix: socketOf(lease),
      keepalive: false,
      body: JSON.stringify({ model: vllm.servedModel, stream: true, messages: [] }),
    });

    expect(await response.text()).toContain("Paris");
    expect(lease.report).toEqual({ context_size: 64 });
    expect(at.supervisor.list()).toMatchObject([{ mismatches: [] }]);
  });

  test("vllm: a context beyond the model's own is told by its cause", async () => {
    await using directory = await tempDir();
    await using at = await setUpVllm();
    const model = await tinyModel(directory.path, { max_position_embeddings: 32 });

    const failure = await failureOf(at.acquire(model, plan));

    expect(failure.code).toBe("worker_failed");
    expect(failure.message).toBe(
      "cannot load `me/tiny`: a context of 64 tokens is more than the model's own, which is 32",
    );
  });

  test("vllm: an architecture that it does not know is named", async () => {
    await using directory = await tempDir();
    await using at = await setUpVllm();
    const model = await tinyModel(directory.path, { architectures: ["NobodyKnowsForCausalLM"] });

    expect((await failureOf(at.acquire(model, plan))).message).toContain(
      "it does not know the architecture 'NobodyKnowsForCausalLM'",
    );
  });
});
