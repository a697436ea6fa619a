import { describe, expect, test } from "bun:test";

import { compiledDirectory } from "../../src/runtime/compiled-cache.ts";
import { fakePlan } from "../fakes/plan.ts";

const AT = { directory: "/engines/vllm/1" };

function directoryOf(model: string, draft?: string): string {
  const { model: drafting } = fakePlan({ model: draft ?? "none" });
  const plan = fakePlan({ model });
  return compiledDirectory(AT, draft === undefined ? plan : { ...plan, draft: drafting });
}

describe("compiledDirectory", () => {
  test("compiled: the same for the same model, another for each other and for each draft model", () => {
    const all = [directoryOf("a"), directoryOf("b"), directoryOf("a", "b"), directoryOf("a", "c")];

    expect(directoryOf("a")).toBe(all[0] ?? "");
    expect(new Set(all).size).toBe(4);
  });

  test("compiled: beside the engine, by a name that is safe in a list of paths", () => {
    const id = `sha256:${"../".repeat(40)}`;
    const plan = fakePlan({ model: "a" });

    const directory = compiledDirectory(AT, { ...plan, model: { ...plan.model, id } });
    expect(directory).toMatch(/^\/engines\/vllm\/1\/compiled\/[0-9a-f]{32}$/);
  });
});
